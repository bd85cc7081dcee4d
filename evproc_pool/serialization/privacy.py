"""Whether a value can be pickled later: whether nobody else can change it until then.

To pickle the values of a batch in one pass when it is over takes a fraction of the time of a pickle
for each. Until then other events run. So a value may wait only if nobody else refers to it, or to
anything mutable in it: the reference counts show this. Other values are pickled at once.

Objects whose contents Python does not know never wait. They may share memory in a way that it
cannot see (an array and its view), or run user code in their pickling. Without exact reference
counts no value waits; see `internals.cpython`.
"""

from __future__ import annotations

import copyreg
from enum import Enum
from gc import get_referents
from typing import Any, Final
from weakref import getweakrefcount

from evproc_pool.internals.cpython import (
    HIDES_DICT,
    IN_CONTAINER,
    OF_INSTANCE,
    UNSHARED,
    getrefcount,
    has_python_layout,
    is_of_named_tuple,
)
from evproc_pool.serialization.packing import ATOMS

#: Made of atoms and built-in containers: it can be unpickled anywhere.
BUILT_IN: Final = 1
#: Made of other objects, too, which may fail to unpickle.
CUSTOM: Final = 2

_CONTAINERS: Final = frozenset({list, tuple, set, frozenset})
_NOT_INSTANCES: Final = _CONTAINERS | {dict}

# For a larger container one check of all item types pays off. If it holds instances, pickling them
# at once is faster.
_MANY: Final = 6

# A value with more containers than this in one of its containers is pickled at once: to look into
# each takes longer than what its own pickle costs (a list of 100 tuples of 9: 81 us, and 7 us).
_MOST_CONTAINERS: Final = 6

# A value that is nested deeper is pickled at once.
_MOST_LEVELS: Final = 16

# Classes whose instances never change. By name: this must not import them.
_IMMUTABLE: Final = frozenset(
    {"builtins.range", "datetime.date", "datetime.timedelta", "uuid.UUID"}
    | {"decimal.Decimal", "fractions.Fraction"}
)

# Likewise, those of derived classes included.
_NUMPY_SCALARS: Final = frozenset(
    f"numpy.{name}" for name in ("number", "bool", "bool_", "datetime64", "timedelta64")
)

# Likewise if their time zone never changes; and time zones that never do.
_ZONED: Final = frozenset({"datetime.datetime", "datetime.time"})
_IMMUTABLE_ZONES: Final = frozenset({"datetime.timezone", "zoneinfo.ZoneInfo"})

# Built-in base classes of classes written in Python.
_BUILT_IN: Final = frozenset({object, tuple, list, dict, set, frozenset})

_REDUCERS: Final = ("__reduce_ex__", "__reduce__", "__getstate__")

# How to treat the instances of a class.
_IS_OPAQUE: Final = 0
_IS_TRANSPARENT: Final = 1
_IS_IMMUTABLE: Final = 2
_IS_IMMUTABLE_WITH_ITS_ZONE: Final = 3

# The most classes to remember.
_MOST_KINDS: Final = 256


def is_private(  # noqa: C901, PLR0911, PLR0912 - calls would double its time
    value: Any, levels: int = _MOST_LEVELS
) -> int:
    """Whether nobody else refers to anything mutable in a value, which is no atom.

    Does not check whether somebody else refers to the value itself; the caller does that.

    Returns:
        0: somebody may. Otherwise `BUILT_IN` or `CUSTOM`, by what it is made of.
    """
    kind, atoms = type(value), ATOMS
    found, most = BUILT_IN, IN_CONTAINER
    items: Any
    if kind is dict:
        items = value.values()
        for key, item in value.items():  # the usual case, in three fifths of the time
            if not ((type(key) is str or type(key) in atoms) and type(item) in atoms):
                break
        else:
            return BUILT_IN
        if not atoms.issuperset(map(type, value)):
            for key in value:
                if type(key) not in atoms:
                    constant = is_constant(key)
                    if not constant:
                        return 0
                    if constant > found:  # noqa: PLR1730 - a call of `max` is slower
                        found = constant
    elif kind in _CONTAINERS:
        items = value
        if getweakrefcount(value):
            return 0
    else:
        if _kinds[kind] != _IS_TRANSPARENT:
            return is_constant(value)
        if getweakrefcount(value):
            return 0
        # somebody else may refer to the instance's dictionary
        if HIDES_DICT and kind.__dictoffset__ and getrefcount(vars(value)) > UNSHARED:
            return 0
        items, found, most = get_referents(value), CUSTOM, OF_INSTANCE
    if not levels:
        return 0
    has_many = len(items) > _MANY
    if has_many and atoms.issuperset(map(type, items)):
        return found
    left = _MOST_CONTAINERS
    for item in items:  # a plain loop: half the time of `issuperset` for a few items
        if type(item) in atoms or item is kind:
            continue
        if not left:
            return 0
        left -= 1
        if getrefcount(item) > most:
            inner = is_constant(item)
        elif has_many and type(item) not in _NOT_INSTANCES:
            return 0
        else:
            inner = is_private(item, levels - 1)
        if not inner:
            return 0
        if inner > found:  # noqa: PLR1730 - as above
            found = inner
    return found


def is_constant(value: Any) -> int:
    """Whether a value never changes, so that others may refer to it; returns as `is_private`.

    True for a tuple of atoms, a class, a date, a member of an enumeration and others.
    """
    kind = type(value)
    if kind is tuple:
        atoms = ATOMS
        if len(value) > _MANY:
            return BUILT_IN if atoms.issuperset(map(type, value)) else 0
        for item in value:
            if type(item) not in atoms:
                return 0
        return BUILT_IN
    treatment = _kinds[kind]
    if treatment == _IS_IMMUTABLE_WITH_ITS_ZONE:
        zone = value.tzinfo
        return CUSTOM if zone is None or _name_of(type(zone)) in _IMMUTABLE_ZONES else 0
    return CUSTOM if treatment == _IS_IMMUTABLE else 0


class _Kinds(dict[type, int]):
    """How to treat the instances of classes.

    Classes that a function makes are not remembered: they may be many.
    """

    def __missing__(self, kind: type) -> int:
        try:
            treatment = _inspect(kind)
            is_remembered = "<locals>" not in kind.__qualname__
        except (Exception, SystemExit):  # a metaclass may run any code
            return _IS_OPAQUE
        if is_remembered:
            if len(self) >= _MOST_KINDS:
                self.clear()
            self[kind] = treatment
        return treatment


_kinds: Final = _Kinds()


def _inspect(kind: type) -> int:
    name, module = _name_of(kind), kind.__module__
    if name in _ZONED:
        return _IS_IMMUTABLE_WITH_ITS_ZONE
    if (
        name in _IMMUTABLE
        or kind.__mro__[-2:] == (type, object)
        or _is_member(kind)
        or (module == "numpy" and not _NUMPY_SCALARS.isdisjoint(map(_name_of, kind.__mro__)))
        or (module in ("pathlib", "pathlib._local") and "__reduce__" not in vars(kind))
    ):
        return _IS_IMMUTABLE
    return _IS_TRANSPARENT if _is_transparent(kind) else _IS_OPAQUE


def _name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _is_member(kind: type) -> bool:
    """Whether instances are members of an enumeration, which pickle by their names."""
    given = [each for each in kind.__mro__ if each not in _BUILT_IN and each not in ATOMS]
    return Enum in given and not any(
        hook in vars(each) for each in given for hook in _REDUCERS if each.__module__ != "enum"
    )


def _is_transparent(kind: type) -> bool:
    """Whether Python knows all parts of an instance, and pickling runs no user code."""
    if kind in copyreg.dispatch_table or hasattr(kind, "__getnewargs_ex__"):
        return False
    new_arguments = getattr(kind, "__getnewargs__", None)
    if new_arguments is not None and not is_of_named_tuple(new_arguments):
        return False
    if any(getattr(kind, name, None) is not getattr(object, name, None) for name in _REDUCERS):
        return False
    return has_python_layout(kind, _BUILT_IN)
