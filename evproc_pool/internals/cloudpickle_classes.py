"""What `by_value` uses of how cloudpickle makes and fills classes.

Checked with cloudpickle 3.1.3, on CPython 3.11, 3.13 and 3.15. cloudpickle pickles a class as a call
that makes an empty one, and a call that fills it. It gives each class a number, by which both sides
find the class again.

- ``_make_skeleton_class``, ``_make_skeleton_enum``: the calls that make an empty class, by their
  names in pickles. The number of the class is the last argument but one.
- ``_class_setstate``: the call that fills a class, by its name in pickles. Free-threaded: classes
  are filled one attribute at a time, as others may see.
- ``_DYNAMIC_CLASS_TRACKER_LOCK``, ``_DYNAMIC_CLASS_TRACKER_BY_ID`` find a class by its number.
  Fallback for all of these: cloudpickle's own behaviour (not `IS_KNOWN`). A class that comes again
  is made again and thrown away, which a metaclass may notice; the caller's own classes are filled
  from copies that come back.
- Reduction of enumerations: ``_make_skeleton_enum, (bases, name, qualname, members, ...),
  (attributes, slots), None, None, _class_setstate``. Fallback: what does not look so stays as it
  is. Members then lose what ``__init__`` gave them, and an enumeration that has aliases cannot be
  unpickled.
- The entry for code objects in ``Pickler.dispatch_table`` gives the reduction of a code object.
  Fallback: cloudpickle reduces it; tracebacks name no file.

A free-threaded build breaks nothing else.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, Final

import cloudpickle.cloudpickle as _inner

_MAKE_ENUM: Final = "_make_skeleton_enum"
_MAKE_EMPTY: Final = ("_make_skeleton_class", _MAKE_ENUM)
_SET_STATE: Final = "_class_setstate"
_TRACKER: Final = ("_DYNAMIC_CLASS_TRACKER_LOCK", "_DYNAMIC_CLASS_TRACKER_BY_ID")


def is_known(library: object) -> bool:
    """Whether cloudpickle has everything that finds classes which were here before."""
    return all(hasattr(library, name) for name in (_SET_STATE, *_MAKE_EMPTY, *_TRACKER))


#: Whether the installed cloudpickle is as expected here.
IS_KNOWN: Final = is_known(_inner)


def makes_class(name: str) -> bool:
    """Whether a function of this name makes an empty class; for `find_class` of an unpickler."""
    return name in _MAKE_EMPTY


def fills_class(name: str) -> bool:
    """Whether a function of this name fills a class: that of cloudpickle, or the one here."""
    return name.endswith(_SET_STATE)


def find_class(args: tuple[Any, ...]) -> type | None:
    """Find the class that a call with these arguments would make, if it was here before."""
    with _inner._DYNAMIC_CLASS_TRACKER_LOCK:  # noqa: SLF001 - no public way
        kind: type | None = _inner._DYNAMIC_CLASS_TRACKER_BY_ID.get(args[-2])  # noqa: SLF001
    return kind


def reduce_code(table: Mapping[Any, Any], code: types.CodeType) -> tuple[Any, Any] | None:
    """Return the call that makes a code object; None if cloudpickle does not say."""
    reduce = table.get(types.CodeType)
    reduced = None if reduce is None else reduce(code)
    return reduced if isinstance(reduced, tuple) and len(reduced) == 2 else None


# --- enumerations ---

# what `EnumMeta` gives to every member
_OF_EVERY_MEMBER: Final = ("_value_", "_name_", "__objclass__", "_sort_order_")


def with_members(kind: Any, reduced: Any) -> Any:
    """Put all names into a reduction of an enumeration, and what its members hold.

    What does not look like such a reduction stays as it is.
    """
    match reduced:
        case (make, (tuple(), str(), str(), dict(), *_), (dict(), dict()), None, None, fill):
            names = getattr(make, "__name__", None), getattr(fill, "__name__", None)
            if names != (_MAKE_ENUM, _SET_STATE):
                return reduced
        case _:
            return reduced
    _, (bases, name, qualname, _, *rest), (attributes, slots), *_ = reduced
    members: dict[str, Any] = dict(kind.__members__)
    values = {each: member.value for each, member in members.items()}
    own = {
        each: {key: held for key, held in vars(member).items() if key not in _OF_EVERY_MEMBER}
        for each, member in members.items()
    }
    attributes = {key: held for key, held in attributes.items() if key not in members}
    args = bases, name, qualname, values, *rest
    return make, args, ((attributes, slots), own), None, None, enum_class_setstate


def enum_class_setstate(kind: Any, state: tuple[Any, dict[str, dict[str, Any]]]) -> Any:
    """Fill an enumeration; pickles refer to this by its name, see `fills_class`."""
    inner, own = state
    _inner._class_setstate(kind, inner)  # noqa: SLF001 - as cloudpickle does itself
    for name, attributes in own.items():
        vars(kind[name]).update(attributes)
    return kind
