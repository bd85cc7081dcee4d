"""What this package uses of CPython that other Pythons, or later versions, may not have.

Checked with CPython 3.11.7 and 3.13.0.

==================  ===========================================================================
internal            use; fallback; what a free-threaded build would break
==================  ===========================================================================
reference counts    `privacy`, `name_watch` and the worker's loop ask whether anybody else
                    refers to an object. The numbers are measured when this module is imported.
                    Fallback: `getrefcount` claims a new reference at each call. All values are
                    then pickled at once, and all cells are watched: slower, same results.
                    Free-threaded: a count may miss a reference that another thread is taking,
                    and some objects have no exact count. So the fallback is used there.
referents of an     `gc.get_referents` gives the attributes of an instance, or its dictionary.
instance            Which of these is measured (`HIDES_DICT`).
                    Fallback: none needed; what is not recognized counts as shared.
                    Free-threaded: see reference counts.
object layout       ``__basicsize__``, ``__dictoffset__`` and the flag ``Py_TPFLAGS_HEAPTYPE``
                    show whether a class written in C adds memory that Python does not see.
                    Fallback: without them no instance may wait (`has_python_layout` is False).
                    Free-threaded: nothing; object headers grow alike in all classes.
code of named       All named tuples share the code of ``__getnewargs__``.
tuples              Fallback: named tuples are pickled at once. Free-threaded: nothing.
instruction         The soft timeout compares ``frame.f_lasti`` with the offsets of two calls.
offsets             Fallback: `call_spans` finds none, and no soft timeout is raised; the hard
                    one still is. Free-threaded: nothing; the frame is the main thread's own.
==================  ===========================================================================

Not an internal, but an assumption about the interpreter lock: the status words
(`protocol.status_words`) and `NameWatch` rely on the order in which one thread writes. The lock,
and x86, keep it. A free-threaded build on ARM needs explicit barriers for the status words.
"""

from __future__ import annotations

import itertools
import sys
from collections import namedtuple
from collections.abc import Callable, Iterable
from gc import get_referents
from types import CodeType
from typing import Any, Final, NamedTuple

# --- reference counts ---


class _ReferenceCounts(NamedTuple):
    """What `getrefcount` gives for an object that nobody else refers to.

    Attributes:
        getrefcount: That of `sys`, or a stand-in.
        unshared: For what one local variable refers to.
        in_container: For an item of a container, which a loop over that visits.
        of_instance: For an attribute, which a loop over an instance's referents visits.
        in_tuple: For an item of a tuple, counted by `counts_of`.
    """

    getrefcount: Callable[[object], int]
    unshared: int = 0
    in_container: int = 0
    of_instance: int = 0
    in_tuple: int = 0


class _Box:
    """Has one thing."""

    def __init__(self, item: object) -> None:
        self.item = item


def _are_counts_exact() -> bool:
    is_gil_enabled: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    return hasattr(sys, "getrefcount") and is_gil_enabled()


def measure_reference_counts() -> _ReferenceCounts:
    """Measure the counts of what nobody else has; without exact counts, all is shared."""
    if not _are_counts_exact():
        return _ReferenceCounts(_always_more)
    getrefcount = sys.getrefcount
    item: object = {}
    unshared = getrefcount(item)
    items: list[object] = [{}, {}]
    in_container = max([getrefcount(each) for each in items])
    box: object = _Box({})
    found: list[object] = get_referents(box)
    of_instance = max([getrefcount(each) for each in found if type(each) is dict])
    (in_tuple,) = _counts_by(getrefcount, ({},))
    return _ReferenceCounts(getrefcount, unshared, in_container, of_instance, in_tuple)


_CLAIMED: Final = itertools.count(1 << 32, 1 << 16)


def _always_more(_: object) -> int:
    """Stand in for `getrefcount`: somebody has taken references since the last call."""
    return next(_CLAIMED)


def _counts_by(getrefcount: Callable[[object], int], items: tuple[Any, ...]) -> list[int]:
    return [getrefcount(item) for item in items]


def counts_of(items: tuple[Any, ...]) -> list[int]:
    """Return the reference counts of the items of a tuple; see `IN_TUPLE`."""
    return _counts_by(getrefcount, items)


_COUNTS: Final = measure_reference_counts()
getrefcount: Final = _COUNTS.getrefcount
#: With more references than these, somebody else has the object, too.
UNSHARED: Final = _COUNTS.unshared
IN_CONTAINER: Final = _COUNTS.in_container
OF_INSTANCE: Final = _COUNTS.of_instance
IN_TUPLE: Final = _COUNTS.in_tuple


# --- instances and classes ---


def _hides_dict() -> bool:
    box = _Box(0)
    names = vars(box)
    return not any(each is names for each in get_referents(box))


#: Whether the referents of an instance are its attributes, also where somebody has asked for its
#: dictionary and keeps it: from Python 3.13 on.
HIDES_DICT: Final = _hides_dict()

# `Py_TPFLAGS_HEAPTYPE`: a class that was made while the program runs.
_HEAP_TYPE: Final = 1 << 9

# A class written in Python adds to its instances, at the most, a dictionary and a list of weak
# references, and its slots. One that adds more is written in C.
_POINTER_BYTES: Final = 8
_POINTERS: Final = 2


def has_python_layout(kind: type, built_in: Iterable[type]) -> bool:
    """Whether Python can list everything that an instance of a class holds.

    Args:
        kind: The class.
        built_in: The classes written in C from which it may be derived.
    """
    size_bytes, pointers = 0, _POINTERS
    for base in kind.__mro__:
        if base in built_in:
            size_bytes = max(size_bytes, getattr(base, "__basicsize__", 0))
            continue
        slots = vars(base).get("__slots__")
        is_made_here = getattr(base, "__flags__", 0) & _HEAP_TYPE
        if not is_made_here or (slots is None and not getattr(base, "__dictoffset__", 0)):
            return False
        pointers += 1 if isinstance(slots, str) else len(tuple(slots or ()))
    return bool(kind.__basicsize__ <= size_bytes + pointers * _POINTER_BYTES)


_Named = namedtuple("_Named", ())  # noqa: PYI024 - it is not for its fields
_NEW_ARGUMENTS: Final = getattr(vars(_Named).get("__getnewargs__"), "__code__", None)


def is_of_named_tuple(new_arguments: object) -> bool:
    """Whether a ``__getnewargs__`` is that of all named tuples."""
    code = getattr(new_arguments, "__code__", None)
    return code is not None and code == _NEW_ARGUMENTS


# --- instructions ---


def call_spans(code: CodeType, name: str) -> tuple[range, ...]:
    """Find where a function calls something that it loads by a name.

    Works without the source, and without line numbers.

    Args:
        code: The function's. The arguments of the call must contain no call.
        name: A global, an attribute or a method.

    Returns:
        For each such call the offsets from the load to the end of the call; `frame.f_lasti` is
        one of these while the call is running. Empty if there is none.
    """
    import dis  # takes a while to import, and few workers need it

    spans = []
    began: int | None = None
    is_called = False
    for each in dis.get_instructions(code):
        if is_called and began is not None:
            spans.append(range(began, each.offset))
            began, is_called = None, False
        if each.argval == name and each.opname in _LOADS:
            began = each.offset
        elif began is not None:
            is_called = each.opname in _CALLS
    return tuple(spans)


_LOADS: Final = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_ATTR", "LOAD_METHOD")
# Python 3.11 has a PRECALL before its CALL; CALL_KW is new in 3.13
_CALLS: Final = ("CALL", "CALL_KW", "CALL_FUNCTION_EX")
