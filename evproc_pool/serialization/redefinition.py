"""Redefined handlers of the main script: the new function replaces the old one.

In a notebook or a script a handler is defined, registered and later redefined under the same name.
Nothing changes if the name is deleted, or gets a value that is no new definition: a number, or a
function of another name. The latter is logged once, as a warning. A function that is registered
itself, under another handler's name, is that handler and replaces none.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evproc.decorator import describe_callable
from evproc.mistakes import describe_value
from evproc.registry import validated_name
from evproc_pool.serialization.basics import lives_in_main
from evproc_pool.serialization.code_snapshot import Missing, NameWatch

if TYPE_CHECKING:
    from evproc.annotations import HandlerFunc
    from evproc.registry import Registry


class _Place:
    """The place of a handler in the main script.

    Attributes:
        func: The registered function.
        space: The namespace of the main module.
        key: The handler's name there.
        was_in_place: Whether the name has stood for the function.
        warned: The id of the value that a warning was logged for.
    """

    def __init__(self, func: types.FunctionType) -> None:
        self.func: HandlerFunc = func
        self.space = vars(sys.modules[func.__module__])
        self.key = func.__qualname__
        self.was_in_place = self.space.get(self.key) is func
        self.warned = 0


class RedefinedHandlers:
    """Finds registered functions whose own name in the main module now has another value."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        # by the handlers' names
        self._places: dict[str, _Place] = {}
        # the handlers' names, by the functions' names
        self._by_key: dict[str, set[str]] = {}
        self._names: NameWatch | None = NameWatch()

    @property
    def is_up_to_date(self) -> bool:
        """Whether no handler was redefined. Checked at every call; see `NameWatch`.

        False may be wrong: then `find` finds nothing.
        """
        return self._names is not None and self._names.are_unchanged

    def note(self, func: HandlerFunc, name: str) -> None:
        """Note a registered handler, whose name may have been taken."""
        self.forget(name)
        if not isinstance(func, types.FunctionType) or not lives_in_main(func):
            return
        if not func.__qualname__.isidentifier() or func.__module__ not in sys.modules:
            return  # the main script does not define it itself, but something inside of it
        place = _Place(func)
        rivals = self._by_key.setdefault(place.key, set())
        for other in [*rivals]:
            if self._places[other].func is not func:
                self.forget(other)
        rivals.add(name)
        self._places[name] = place
        self._names = None  # registered by a decorator, it gets its name later

    def forget(self, name: str) -> None:
        """Do not follow a handler any more."""
        place = self._places.pop(name, None)
        if place is not None:
            self._by_key[place.key].remove(name)

    def replace(self) -> Mapping[str, HandlerFunc]:
        """Replace redefined handlers in the registry. Return the new ones, by their names.

        Raises:
            TypeError: A handler's name now has a value that is no handler. Nothing has changed.
        """
        found = self.find()
        for name, new in found.items():
            try:
                validated_name(new, name)
            except TypeError as error:
                place = self._places[name]
                raise TypeError(
                    f"handler {name!r} was registered as {describe_callable(place.func)}, and"
                    f" {place.key!r} stands for {describe_value(new)} now, which is no handler:"
                    f" {error}; define the handler anew, or give the other one another name"
                ) from error
        for name, new in found.items():
            self._registry.add(new, name, replace=True)
            self._places[name].func = new
        if found:
            self.find()
        return found

    def find(self) -> dict[str, Any]:
        """Return the redefined handlers: new values by the handlers' names."""
        found = {}
        names = NameWatch()
        for name, place in self._places.items():
            standing = names.read(place.space, place.key)
            place.was_in_place |= standing is place.func
            if standing is place.func or standing is Missing or not place.was_in_place:
                continue
            if _is_redefinition(standing, place.key):
                found[name] = standing
            elif place.warned != id(standing):
                place.warned = id(standing)
                from evproc_pool.log import LOG

                LOG.warning(
                    "handler %r stays what was registered: %r stands for %s now, which is no new"
                    " definition of it; see register(replace=True) and unregister",
                    name,
                    place.key,
                    describe_value(standing),
                )
        self._names = None if found else names
        return found


def _is_redefinition(new: object, key: str) -> bool:
    """Whether the value of a handler's name is a new definition of the handler."""
    # if it has a name of its own it may be the value of a loop variable
    name = getattr(new, "__qualname__", None)
    has_other_name = isinstance(name, str) and name.isidentifier() and name != key
    return callable(new) and not has_other_name
