"""Whether a value can be pickled later: whether nobody else can change it until then.

The values of a batch are pickled in one pass when it is over, which takes a fraction of the
time of a pickle for each. Until then other events run. So a value may wait only if nobody else
has it, nor anything in it that can be changed: the reference counts say so. Others are pickled
at once.

It looks at objects whose contents Python knows: the built-in containers, and instances of
classes that are written in Python. Other objects may share memory in a way that nobody sees
(an array and a view of it), so they do not wait.

Reference counts are those of CPython, with its interpreter lock. Where they are not exact, they
are larger, and the value is pickled at once. One thing is not seen: from Python 3.13 on, who
keeps the dictionary that `vars` gave of an instance.
"""

from __future__ import annotations

import sys
from gc import get_referents
from sys import getrefcount
from typing import Any, Final

from evproc_pool.packing import ATOMS


class _Box:
    """Has one thing."""

    def __init__(self, item: object) -> None:
        self.item = item


def _usual_references() -> tuple[int, int, int]:
    """What `getrefcount` says of what nobody else has.

    Returns:
        Of what one variable refers to; of an item of a container, by the loop over it; of an
        attribute, by the loop over an instance's referents.
    """
    item: object = {}
    alone = getrefcount(item)
    items: list[object] = [{}, {}]
    in_container = max([getrefcount(each) for each in items])
    box: object = _Box({})
    found: list[object] = get_referents(box)
    of_instance = max([getrefcount(each) for each in found if type(each) is dict])
    return alone, in_container, of_instance


#: Nobody else has what one variable refers to, if it has no more references than that.
ALONE: Final = _usual_references()[0]
_IN_CONTAINER: Final = _usual_references()[1]
_OF_INSTANCE: Final = _usual_references()[2]

#: Made of atoms and built-in containers, but for the keys of dicts.
BUILT_IN: Final = 1
#: Made of others, too.
OTHERS: Final = 2

_CONTAINERS: Final = frozenset({list, tuple, set, frozenset})

# In containers with more items it pays to ask for the types of all of them at once.
_MANY: Final = 6

# What is nested deeper does not wait.
_MOST_LEVELS: Final = 16

# Classes of the standard library whose instances stay as they are: by name, since asking is
# no reason to import them.
_LASTING: Final = frozenset(
    {
        ("datetime", "date"),
        ("datetime", "datetime"),
        ("datetime", "time"),
        ("datetime", "timedelta"),
        ("decimal", "Decimal"),
        ("fractions", "Fraction"),
        ("uuid", "UUID"),
        ("builtins", "range"),
        ("builtins", "type"),
    }
)

# Likewise of modules that are imported already, with their subclasses.
_LASTING_BASES: Final = (
    ("enum", "Enum"),
    ("pathlib", "PurePath"),
    ("numpy", "number"),
    ("numpy", "bool_"),
    ("numpy", "datetime64"),
    ("numpy", "timedelta64"),
)

# From which classes written in Python may be derived.
_BUILT_IN: Final = frozenset({object, tuple, list, dict, set, frozenset, *ATOMS})

# `Py_TPFLAGS_HEAPTYPE`: a class that was made while the program runs.
_HEAP_TYPE: Final = 1 << 9

# A class written in Python adds to its instances, at the most, a dictionary and a list of weak
# references, and its slots. One that adds more is written in C.
_POINTER_BYTES: Final = 8
_POINTERS: Final = 2

_IS_CLOSED: Final = 0
_IS_OPEN: Final = 1
_LASTS: Final = 2

# How instances of each class are to be looked at. As many as an application has.
_kinds: dict[type, int] = {}
_MOST_KINDS: Final = 4096


def is_private(  # noqa: C901 - a call for each kind would take as long as all of it
    value: Any, levels: int = _MOST_LEVELS
) -> int:
    """Whether nobody else has anything in a value that can be changed.

    Whether anybody else has the value itself is for the caller to see. Keys are hashed, so they
    do not change.

    Args:
        value: Not an atom.
        levels: How deep it may be nested.

    Returns:
        0: somebody has. Or else `BUILT_IN` or `OTHERS`, by what it is made of.
    """
    kind, atoms = type(value), ATOMS
    found, most = BUILT_IN, _IN_CONTAINER
    items: Any
    if kind is dict:
        items = value.values()
    elif kind in _CONTAINERS:
        items = value
    else:
        how = _kinds.get(kind)
        if how is None:
            how = _learn(kind)
        if how != _IS_OPEN:
            return OTHERS if how == _LASTS else 0
        items, found, most = get_referents(value), OTHERS, _OF_INSTANCE
    if not levels:
        return 0
    if len(items) > _MANY and atoms.issuperset(map(type, items)):
        return found
    for item in items:  # a plain loop: for a few items it takes half the time of `issuperset`
        if type(item) in atoms or item is kind:
            continue
        inner = is_constant(item) if getrefcount(item) > most else is_private(item, levels - 1)
        if not inner:
            return 0
        if inner > found:  # noqa: PLR1730 - a call of `max` takes longer
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
    return OTHERS if (_learn(kind) if how is None else how) == _LASTS else 0


def _learn(kind: type) -> int:
    """See how instances of a class are to be looked at."""
    if len(_kinds) >= _MOST_KINDS:
        _kinds.clear()
    how = _LASTS if _lasts(kind) else _IS_OPEN if _is_open(kind) else _IS_CLOSED
    _kinds[kind] = how
    return how


def _lasts(kind: type) -> bool:
    if (kind.__module__, kind.__qualname__) in _LASTING or issubclass(kind, type):
        return True
    for module, name in _LASTING_BASES:
        base = getattr(sys.modules.get(module), name, None)
        if base is not None and issubclass(kind, base):
            return True
    return False


def _is_open(kind: type) -> bool:
    """Whether Python knows all that an instance has."""
    size_bytes, pointers = 0, _POINTERS
    for base in kind.__mro__:
        if base in _BUILT_IN:
            size_bytes = max(size_bytes, base.__basicsize__)
            continue
        slots = vars(base).get("__slots__")
        if not base.__flags__ & _HEAP_TYPE or (slots is None and not base.__dictoffset__):
            return False
        pointers += 1 if isinstance(slots, str) else len(tuple(slots or ()))
    return kind.__basicsize__ <= size_bytes + pointers * _POINTER_BYTES
