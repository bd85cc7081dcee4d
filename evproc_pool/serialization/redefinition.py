"""Redefined handlers of the main script: the new function replaces the old one.

In a notebook or a script a handler is defined, registered and later redefined under the same name.
`RedefinedHandlers` keeps the registered functions that have their own name in the main module, and
finds those whose name now has another value.

Nothing changes if the name is deleted, or gets a value that is no new definition: a number, or a
function of another name. The latter is logged once, as a warning. A function that is registered
itself, under another handler's name, is that handler and replaces none.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from evproc.decorator import default_name, describe_callable
from evproc.mistakes import describe_value
from evproc.registry import validated_name
from evproc_pool.serialization.basics import lives_in_main
from evproc_pool.serialization.code_snapshot import Missing, NameWatch

if TYPE_CHECKING:
    from evproc.annotations import HandlerFunc
    from evproc.registry import Registry


class _Place(NamedTuple):
    """The place of a handler in the main script.

    Attributes:
        space: The namespace of the main module.
        key: The handler's name there.
        func: The registered function.
    """

    space: dict[str, Any]
    key: str
    func: HandlerFunc


class RedefinedHandlers:
    """Finds redefined handlers; see the module.

    Args:
        registry: The registry with the handlers.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        # by the handlers' names
        self._places: dict[str, _Place] = {}
        # the handlers' names, by the functions' names
        self._by_key: dict[str, list[str]] = {}
        self._were_in_place: set[str] = set()
        self._warned: dict[str, int] = {}  # what a warning was logged for: ids, by handler
        self._names: NameWatch | None = NameWatch()

    @property
    def is_up_to_date(self) -> bool:
        """Whether no handler was redefined. Checked at every call; see `NameWatch`.

        False may be wrong: then `find` finds nothing.
        """
        return self._names is not None and self._names.are_unchanged

    def note(self, func: HandlerFunc, name: str | None) -> None:
        """Note a registered handler, whose name may have been taken."""
        handler = name or default_name(func) or ""
        self.forget(handler)
        if not isinstance(func, types.FunctionType) or not _has_name_in_main(func):
            return
        place = _Place(vars(sys.modules[func.__module__]), func.__qualname__, func)
        rivals = self._by_key.setdefault(place.key, [])
        for other in rivals:
            if other in self._places and self._places[other].func is not func:
                self.forget(other)
        rivals[:] = [other for other in rivals if other in self._places]
        rivals.append(handler)
        self._places[handler] = place
        if place.space.get(place.key) is func:
            self._were_in_place.add(handler)
        self._names = None  # registered by a decorator, it gets its name later

    def forget(self, name: str) -> None:
        """Do not follow a handler any more."""
        self._places.pop(name, None)
        self._were_in_place.discard(name)

    def find(self) -> dict[str, Any]:
        """Return the redefined handlers: new values by the handlers' names."""
        found = {}
        names = NameWatch()
        for name, (space, key, func) in self._places.items():
            standing = space.get(key, Missing)
            if standing is func:
                self._were_in_place.add(name)
            if name in self._were_in_place:
                standing = names.read(space, key)  # another thread may have changed it just now
                if standing is func or standing is Missing:
                    continue
                if _is_redefinition(standing, key):
                    found[name] = standing
                else:
                    self._warn_that_it_stays(name, key, standing)
        self._names = None if found else names
        return found

    def _warn_that_it_stays(self, name: str, key: str, standing: object) -> None:
        if self._warned.get(name) != id(standing):
            self._warned[name] = id(standing)
            from evproc_pool.log import LOG

            LOG.warning(
                "handler %r stays what was registered: %r stands for %s now, which is no new"
                " definition of it; see register(replace=True) and unregister",
                name,
                key,
                describe_value(standing),
            )

    def replace(self) -> Mapping[str, HandlerFunc]:
        """Replace redefined handlers in the registry.

        Returns:
            The new handlers, by their names.

        Raises:
            TypeError: A handler's name now has a value that is no handler. Nothing has changed.
        """
        found = self.find()
        for name, new in found.items():
            try:
                validated_name(new, name)
            except TypeError as error:
                raise _cannot_replace(name, self._places[name], new, error) from error
        if not found:
            return found
        for name, new in found.items():
            self._registry.add(new, name, replace=True)
            self._places[name] = self._places[name]._replace(func=new)
        self.find()
        return found


def _is_redefinition(new: object, key: str) -> bool:
    """Whether the value of a handler's name is a new definition of the handler.

    Not if the value has a name of its own: a loop variable may have a handler's name.
    """
    name = getattr(new, "__qualname__", None)
    has_other_name = isinstance(name, str) and name.isidentifier() and name != key
    return callable(new) and not has_other_name


def _has_name_in_main(function: types.FunctionType) -> bool:
    """Whether the main script itself defines a function, not something inside of it."""
    return lives_in_main(function) and function.__qualname__.isidentifier()


def _cannot_replace(name: str, place: _Place, new: object, error: TypeError) -> TypeError:
    return TypeError(
        f"handler {name!r} was registered as {describe_callable(place.func)}, and {place.key!r}"
        f" stands for {describe_value(new)} now, which is no handler: {error}; define the handler"
        " anew, or give the other one another name"
    )
