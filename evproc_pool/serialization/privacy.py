"""Whether a value can be pickled later: whether nobody else can change it until then.

The values of a batch are pickled in one pass when it is over, which takes a fraction of the
time of a pickle for each. Until then other events run. So a value may wait only if nobody else
has it, nor anything in it that can be changed: the reference counts say so. Others are pickled
at once.

It looks at objects whose contents Python knows: the built-in containers, and instances of
classes that are written in Python and pickled in the default way. Others may share memory in a
way that nobody sees (an array and a view of it), or have code of the user's in their pickling.

Without exact reference counts every value is pickled at once; see `internals.cpython`.
"""

from __future__ import annotations

import copyreg
import sys
from gc import get_referents
from typing import Any, Final
from weakref import getweakrefcount

from evproc_pool.internals.cpython import (
    ALONE,
    HIDES_DICT,
    IN_CONTAINER,
    OF_INSTANCE,
    getrefcount,
    has_python_layout,
    is_of_named_tuple,
)
from evproc_pool.serialization.packing import ATOMS

#: Made of atoms and built-in containers: it can be rebuilt anywhere.
BUILT_IN: Final = 1
#: Made of others, which may fail where they are rebuilt.
OTHERS: Final = 2

_CONTAINERS: Final = frozenset({list, tuple, set, frozenset})
_NOT_INSTANCES: Final = _CONTAINERS | {dict}

# In containers with more items it pays to ask for the types of all of them at once; and if
# they are instances, to pickle them at once.
_MANY: Final = 6

# What is nested deeper does not wait.
_MOST_LEVELS: Final = 16

# Classes of the standard library whose instances stay as they are: by name, since asking is
# no reason to import them.
_LASTING: Final = frozenset(
    {
        ("datetime", "date"),
        ("datetime", "timedelta"),
        ("decimal", "Decimal"),
        ("fractions", "Fraction"),
        ("uuid", "UUID"),
        ("builtins", "range"),
    }
)

# Likewise if their time zone does.
_ZONED: Final = frozenset({("datetime", "datetime"), ("datetime", "time")})
_LASTING_ZONES: Final = frozenset({("datetime", "timezone"), ("zoneinfo", "ZoneInfo")})

# From which classes written in Python may be derived.
_BUILT_IN: Final = frozenset({object, tuple, list, dict, set, frozenset})

# How instances of a class are to be looked at.
_IS_CLOSED: Final = 0
_IS_OPEN: Final = 1
_LASTS: Final = 2
_LASTS_WITH_ITS_ZONE: Final = 3

# Of so many classes that is remembered; not of those that a function makes, which may be many.
_MOST_KINDS: Final = 256
_kinds: dict[type, int] = {}


def is_private(  # noqa: C901, PLR0911, PLR0912 - calls would take as long as all of it
    value: Any, levels: int = _MOST_LEVELS
) -> int:
    """Whether nobody else has anything in a value that can be changed.

    Whether anybody else has the value itself is for the caller to see.

    Args:
        value: Not an atom.
        levels: How deep it may be nested.

    Returns:
        0: somebody has, or it is not known. Or else `BUILT_IN` or `OTHERS`, by what it is
        made of.
    """
    kind, atoms = type(value), ATOMS
    found, most = BUILT_IN, IN_CONTAINER
    items: Any
    if kind is dict:
        items = value.values()
        if not atoms.issuperset(map(type, value)):
            for key in value:
                if type(key) not in atoms:
                    lasts = is_constant(key)
                    if not lasts:
                        return 0
                    if lasts > found:  # noqa: PLR1730 - a call of `max` takes longer
                        found = lasts
    elif kind in _CONTAINERS:
        items = value
        if getweakrefcount(value):
            return 0
    else:
        how = _kinds.get(kind)
        if how is None:
            how = _learn(kind)
        if how != _IS_OPEN:
            return is_constant(value)
        if getweakrefcount(value) or (HIDES_DICT and _has_kept_names(value)):
            return 0
        items, found, most = get_referents(value), OTHERS, OF_INSTANCE
    if not levels:
        return 0
    has_many = len(items) > _MANY
    if has_many and atoms.issuperset(map(type, items)):
        return found
    for item in items:  # a plain loop: for a few items it takes half the time of `issuperset`
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
    """Whether it stays as it is, so that it does not matter who has it.

    A tuple of atoms is that: a constant, mostly. Or a class, a date, a member of an enumeration.

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
    how = _kinds.get(kind)
    if how is None:
        how = _learn(kind)
    if how == _LASTS_WITH_ITS_ZONE:
        zone = value.tzinfo
        return OTHERS if zone is None or _name_of(type(zone)) in _LASTING_ZONES else 0
    return OTHERS if how == _LASTS else 0


def _has_kept_names(value: object) -> bool:
    """Whether somebody has the dictionary of an instance."""
    return type(value).__dictoffset__ != 0 and getrefcount(vars(value)) > ALONE


def _learn(kind: type) -> int:
    """See how instances of a class are to be looked at."""
    try:
        how = _look_at(kind)
        is_remembered = "<locals>" not in kind.__qualname__
    except Exception:  # a class can be anything
        return _IS_CLOSED
    if is_remembered:
        if len(_kinds) >= _MOST_KINDS:
            _kinds.clear()
        _kinds[kind] = how
    return how


def _look_at(kind: type) -> int:
    name = _name_of(kind)
    if name in _ZONED:
        return _LASTS_WITH_ITS_ZONE
    if name in _LASTING or kind.__mro__[-2:] == (type, object) or _is_member(kind):
        return _LASTS
    if name[0] == "numpy" and _is_numpy_scalar(kind):
        return _LASTS
    if name[0] in {"pathlib", "pathlib._local"} and "__reduce__" not in vars(kind):
        return _LASTS
    return _IS_OPEN if _is_open(kind) else _IS_CLOSED


def _name_of(kind: type) -> tuple[str, str]:
    return kind.__module__, kind.__qualname__


def _known(module: str, name: str) -> Any:
    """What a module has, if it has been imported; without asking it, which may be code."""
    found = sys.modules.get(module)
    return None if found is None else vars(found).get(name)


def _is_member(kind: type) -> bool:
    """Whether instances are members of an enumeration, which are pickled by their names."""
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


def _is_open(kind: type) -> bool:
    """Whether Python knows all that an instance has, and pickling runs no code of the user's."""
    if kind in copyreg.dispatch_table or hasattr(kind, "__getnewargs_ex__"):
        return False
    new_arguments = getattr(kind, "__getnewargs__", None)
    if new_arguments is not None and not is_of_named_tuple(new_arguments):
        return False
    default = ("__reduce_ex__", "__reduce__", "__getstate__")
    if any(getattr(kind, name, None) is not getattr(object, name, None) for name in default):
        return False
    return has_python_layout(kind, _BUILT_IN)
