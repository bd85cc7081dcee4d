"""Handlers of the main script that are defined anew: the new one takes the old one's place.

In a notebook or a script a handler is defined, registered and then defined again under the
same name. `Redefined` keeps the registered functions that stand under their own name in the main
module, and finds those in whose place something else stands now.

A name that is deleted changes nothing, nor does one that stands for something else now, a number
or another function: that the handler stays is said once, as a warning. A function that is
registered itself, under another handler's name, is that handler and replaces none.
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
from evproc_pool.serialization.name_watch import Missing, NameWatch

if TYPE_CHECKING:
    from evproc.annotations import HandlerFunc
    from evproc.registry import Registry


class _Place(NamedTuple):
    """Where a handler of the main script stands.

    Attributes:
        space: The names of the main module.
        key: One of these.
        func: What was registered.
    """

    space: dict[str, Any]
    key: str
    func: HandlerFunc


class Redefined:
    """See the module.

    Args:
        registry: Has the handlers.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        # by the handlers' names
        self._places: dict[str, _Place] = {}
        # their names, by what the functions are called
        self._by_key: dict[str, list[str]] = {}
        self._has_stood: set[str] = set()
        self._said: dict[str, int] = {}  # of which other things that was said, by their ids
        self._names: NameWatch | None = NameWatch()

    @property
    def is_up_to_date(self) -> bool:
        """Whether all stand where they stood; asked at every call, see `Names`.

        False may be wrong: `find` knows.
        """
        return self._names is not None and self._names.are_unchanged

    def note(self, func: HandlerFunc, name: str | None) -> None:
        """Take in a handler that was registered, under a new name or one that was taken."""
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
            self._has_stood.add(handler)
        self._names = None  # where a decorator has registered it, it has its name later

    def forget(self, name: str) -> None:
        """Do not follow this handler any more."""
        self._places.pop(name, None)
        self._has_stood.discard(name)

    def find(self) -> dict[str, Any]:
        """Return what stands in the place of handlers now, by the handlers' names."""
        found = {}
        names = NameWatch()
        for name, (space, key, func) in self._places.items():
            standing = space.get(key, Missing)
            if standing is func:
                self._has_stood.add(name)
            if name in self._has_stood:
                standing = names.read(space, key)  # another thread may just have changed it
                if standing is func or standing is Missing:
                    continue
                if _is_defined_anew(standing, key):
                    found[name] = standing
                else:
                    self._say_it_stays(name, key, standing)
        self._names = None if found else names
        return found

    def _say_it_stays(self, name: str, key: str, standing: object) -> None:
        if self._said.get(name) != id(standing):
            self._said[name] = id(standing)
            from evproc_pool.log import LOG

            LOG.warning(
                "handler %r stays what was registered: %r stands for %s now, which is no new"
                " definition of it; see register(replace=True) and unregister",
                name,
                key,
                describe_value(standing),
            )

    def replace(self) -> Mapping[str, HandlerFunc]:
        """Have what was defined anew take the place of what it was in the registry.

        Returns:
            The new handlers, by their names.

        Raises:
            TypeError: What stands under a handler's name is no handler. Nothing has changed.
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


def _is_defined_anew(new: object, key: str) -> bool:
    """Whether what stands under a handler's name is a new definition of it.

    Not what has another name of its own: a loop variable may have that of a handler.
    """
    name = getattr(new, "__qualname__", None)
    has_other_name = isinstance(name, str) and name.isidentifier() and name != key
    return callable(new) and not has_other_name


def _has_name_in_main(function: types.FunctionType) -> bool:
    """Whether a function was defined in the main script itself, and not in something there."""
    return lives_in_main(function) and function.__qualname__.isidentifier()


def _cannot_replace(name: str, place: _Place, new: object, error: TypeError) -> TypeError:
    return TypeError(
        f"handler {name!r} was registered as {describe_callable(place.func)}, and {place.key!r}"
        f" stands for {describe_value(new)} now, which is no handler: {error}; define the handler"
        " anew, or give the other one another name"
    )
