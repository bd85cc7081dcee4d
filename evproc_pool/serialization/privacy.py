"""Whether a value can be pickled later: whether nobody else can change it until then.

The values of a batch are pickled in one pass when it is over, which takes a fraction of the time of
a pickle for each. Until then other events run. So a value may wait only if nobody else refers to
it, or to anything mutable in it: the reference counts show this. Other values are pickled at once.

This inspects objects whose contents Python knows: built-in containers, and instances of classes
that are written in Python and pickle in the default way. Other objects may share memory in a way
that Python cannot see (an array and its view), or run user code in their pickling.

Without exact reference counts every value is pickled at once; see `internals.cpython`.
"""

from __future__ import annotations

import copyreg
import sys
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

# A value that is nested deeper is pickled at once.
_MOST_LEVELS: Final = 16

# Classes of the standard library whose instances never change. By name: this must not import them.
_IMMUTABLE: Final = frozenset(
    {
        ("datetime", "date"),
        ("datetime", "timedelta"),
        ("decimal", "Decimal"),
        ("fractions", "Fraction"),
        ("uuid", "UUID"),
        ("builtins", "range"),
    }
)

# Likewise if their time zone never changes.
_ZONED: Final = frozenset({("datetime", "datetime"), ("datetime", "time")})
_IMMUTABLE_ZONES: Final = frozenset({("datetime", "timezone"), ("zoneinfo", "ZoneInfo")})

# Built-in base classes of classes written in Python.
_BUILT_IN: Final = frozenset({object, tuple, list, dict, set, frozenset})

# How to treat the instances of a class.
_IS_OPAQUE: Final = 0
_IS_TRANSPARENT: Final = 1
_IS_IMMUTABLE: Final = 2
_IS_IMMUTABLE_WITH_ITS_ZONE: Final = 3

# The most classes to remember. Classes that a function makes are not remembered: they may be many.
_MOST_KINDS: Final = 256
_kinds: dict[type, int] = {}


def is_private(  # noqa: C901, PLR0911, PLR0912 - calls would double its time
    value: Any, levels: int = _MOST_LEVELS
) -> int:
    """Whether nobody else refers to anything mutable in a value.

    Does not check whether somebody else refers to the value itself; the caller does that.

    Args:
        value: Not an atom.
        levels: How deep it may be nested.

    Returns:
        0: somebody may. Otherwise `BUILT_IN` or `CUSTOM`, by what it is made of.
    """
    kind, atoms = type(value), ATOMS
    found, most = BUILT_IN, IN_CONTAINER
    items: Any
    if kind is dict:
        items = value.values()
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
        treatment = _kinds.get(kind)
        if treatment is None:
            treatment = _treatment_of(kind)
        if treatment != _IS_TRANSPARENT:
            return is_constant(value)
        if getweakrefcount(value) or (HIDES_DICT and _has_shared_dict(value)):
            return 0
        items, found, most = get_referents(value), CUSTOM, OF_INSTANCE
    if not levels:
        return 0
    has_many = len(items) > _MANY
    if has_many and atoms.issuperset(map(type, items)):
        return found
    for item in items:  # a plain loop: half the time of `issuperset` for a few items
        if type(item) in atoms or item is kind:
            continue
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
    """Whether a value never changes, so that others may refer to it.

    True for a tuple of atoms, a class, a date, a member of an enumeration and others.

    Returns:
        See `is_private`.
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
    treatment = _kinds.get(kind)
    if treatment is None:
        treatment = _treatment_of(kind)
    if treatment == _IS_IMMUTABLE_WITH_ITS_ZONE:
        zone = value.tzinfo
        return CUSTOM if zone is None or _name_of(type(zone)) in _IMMUTABLE_ZONES else 0
    return CUSTOM if treatment == _IS_IMMUTABLE else 0


def _has_shared_dict(value: object) -> bool:
    """Whether somebody else refers to the dictionary of an instance."""
    return type(value).__dictoffset__ != 0 and getrefcount(vars(value)) > UNSHARED


def _treatment_of(kind: type) -> int:
    """Find out how to treat the instances of a class."""
    try:
        treatment = _inspect(kind)
        is_remembered = "<locals>" not in kind.__qualname__
    except Exception:  # a class may run any code
        return _IS_OPAQUE
    if is_remembered:
        if len(_kinds) >= _MOST_KINDS:
            _kinds.clear()
        _kinds[kind] = treatment
    return treatment


def _inspect(kind: type) -> int:
    name = _name_of(kind)
    if name in _ZONED:
        return _IS_IMMUTABLE_WITH_ITS_ZONE
    if name in _IMMUTABLE or kind.__mro__[-2:] == (type, object) or _is_member(kind):
        return _IS_IMMUTABLE
    if name[0] == "numpy" and _is_numpy_scalar(kind):
        return _IS_IMMUTABLE
    if name[0] in {"pathlib", "pathlib._local"} and "__reduce__" not in vars(kind):
        return _IS_IMMUTABLE
    return _IS_TRANSPARENT if _is_transparent(kind) else _IS_OPAQUE


def _name_of(kind: type) -> tuple[str, str]:
    return kind.__module__, kind.__qualname__


def _known(module: str, name: str) -> Any:
    """An attribute of a module that was imported; without `getattr`, which may run code."""
    found = sys.modules.get(module)
    return None if found is None else vars(found).get(name)


def _is_member(kind: type) -> bool:
    """Whether instances are members of an enumeration, which pickle by their names."""
    base = _known("enum", "Enum")
    if base is None or base not in kind.__mro__:
        return False
    hooks = ("__reduce_ex__", "__reduce__", "__getstate__")
    given = [each for each in kind.__mro__ if each not in _BUILT_IN and each not in ATOMS]
    return not any(hook in vars(each) for each in given for hook in hooks if _is_users(each))


def _is_users(kind: type) -> bool:
    return kind.__module__ != "enum"


def _is_numpy_scalar(kind: type) -> bool:
    names = ("number", "bool_", "datetime64", "timedelta64")
    bases = [base for base in (_known("numpy", name) for name in names) if base is not None]
    return any(base in kind.__mro__ for base in bases)


def _is_transparent(kind: type) -> bool:
    """Whether Python knows all parts of an instance, and pickling runs no user code."""
    if kind in copyreg.dispatch_table or hasattr(kind, "__getnewargs_ex__"):
        return False
    new_arguments = getattr(kind, "__getnewargs__", None)
    if new_arguments is not None and not is_of_named_tuple(new_arguments):
        return False
    default = ("__reduce_ex__", "__reduce__", "__getstate__")
    if any(getattr(kind, name, None) is not getattr(object, name, None) for name in default):
        return False
    return has_python_layout(kind, _BUILT_IN)
