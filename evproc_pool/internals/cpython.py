"""What this package uses of CPython that other Pythons, or later versions, may not have.

Checked with CPython 3.11, 3.13 and 3.15. A free-threaded build breaks the reference counts only.

- Reference counts: `privacy`, `code_snapshot` and the worker's loop ask whether anybody else refers
  to an object. The counts of objects that nobody else has are measured here. Without the
  interpreter lock a count may miss a reference that another thread is taking, and some objects have
  no exact count. Fallback, also there: `getrefcount` claims a new reference at each call. All
  values are then pickled at once, and all cells are watched: slower, same results.
- `gc.get_referents` gives the attributes of an instance, or its dictionary. Which of these is
  measured (`HIDES_DICT`). No fallback needed; what is not recognized counts as shared.
- Object layout: ``__basicsize__``, ``__dictoffset__`` and the flag ``Py_TPFLAGS_HEAPTYPE`` show
  whether a class written in C adds memory that Python does not see. Fallback: without them
  `privacy` catches an error, and no instance may wait.
- All named tuples share the code of ``__getnewargs__``. Fallback: they are pickled at once.
- Instruction offsets: the soft timeout compares ``frame.f_lasti`` with the offsets of two calls.
  Fallback: `call_spans` finds none, and no soft timeout is raised; the hard one still is.
- The pickler writes large strings and bytes by calls of their own, each behind the opcode that
  gives the length, so `pickling` need not search them for references into ``__main__``. Fallback:
  contents that are not recognized are searched, which takes longer. A mention of ``__main__`` in
  them costs a pickle by value, with the same result.
- ``threading._shutdown``, ``atexit._run_exitfuncs`` and ``_clear``: a worker ends as an interpreter
  does, and a process that it forks does not call the functions of its parent. From Python 3.14 on
  `multiprocessing` does the same. Fallback: functions of `atexit` are not called in workers.
- ``sys._current_frames`` gives the frames of a thread: which event a handler logs for, and whether
  the soft timeout has come while a record was written. Fallback: `frame_of` finds none. Records
  name no event, and such a timeout is not raised.

Not an internal, but an assumption about the interpreter lock: the status words
(`protocol.status_words`) and `NameWatch` rely on the order in which one thread writes. The lock,
and x86, keep it. A free-threaded build on ARM needs explicit barriers for the status words.
"""

from __future__ import annotations

import atexit
import itertools
import pickle
import sys
import threading
from collections import namedtuple
from collections.abc import Callable, Iterable
from gc import get_referents
from types import CodeType, FrameType
from typing import Any, Final

# --- frames ---


def frame_of(thread: int) -> FrameType | None:
    """The innermost frame of a thread, which may be this function's; None: unknown."""
    frames: dict[int, FrameType] = getattr(sys, "_current_frames", dict)()
    return frames.get(thread)


# --- reference counts ---


def choose_getrefcount() -> Callable[[object], int]:
    """`sys.getrefcount`; if that is not exact, a stand-in that claims new references each time."""
    is_gil_enabled: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    if hasattr(sys, "getrefcount") and is_gil_enabled():
        return sys.getrefcount
    claimed = itertools.count(1 << 32, 1 << 16)
    return lambda _: next(claimed)


getrefcount: Final = choose_getrefcount()


def counts_of(items: tuple[Any, ...]) -> list[int]:
    """Return the reference counts of the items of a tuple; see `IN_TUPLE`."""
    return [getrefcount(item) for item in items]


class _Box:
    """Has one thing."""

    def __init__(self, item: object) -> None:
        self.item = item


def _measure() -> tuple[int, int, int, int]:
    item: object = {}
    unshared = getrefcount(item)
    items: list[object] = [{}, {}]
    in_container = max([getrefcount(each) for each in items])
    box: object = _Box({})
    found: list[object] = get_referents(box)
    of_instance = max([getrefcount(each) for each in found if type(each) is dict])
    (in_tuple,) = counts_of(({},))
    return unshared, in_container, of_instance, in_tuple


#: The counts of what one local variable refers to; of an item of a container, which a loop over
#: that visits; of an attribute, which a loop over an instance's referents visits; and of an item of
#: a tuple, by `counts_of`. With more references somebody else has the object, too.
UNSHARED, IN_CONTAINER, OF_INSTANCE, IN_TUPLE = _measure()


# --- instances and classes ---

_box: Final = _Box(0)
_dict_of_box: Final = vars(_box)

#: Whether the referents of an instance are its attributes, also where somebody has asked for its
#: dictionary and keeps it: so on Python 3.13, and neither before nor after.
HIDES_DICT: Final = not any(each is _dict_of_box for each in get_referents(_box))

# `Py_TPFLAGS_HEAPTYPE`: a class that was made while the program runs.
_HEAP_TYPE: Final = 1 << 9

# A class written in Python adds to its instances, at the most, a dictionary and a list of weak
# references, and its slots. One that adds more is written in C.
_POINTER_BYTES: Final = 8
_POINTERS: Final = 2


def has_python_layout(kind: type, built_in: Iterable[type]) -> bool:
    """Whether Python can list everything that an instance of a class holds.

    `built_in` are the classes written in C from which it may be derived.
    """
    size_bytes, pointers = 0, _POINTERS
    for base in kind.__mro__:
        if base in built_in:
            size_bytes = max(size_bytes, base.__basicsize__)
            continue
        slots = vars(base).get("__slots__")
        is_made_here = base.__flags__ & _HEAP_TYPE
        if not is_made_here or (slots is None and not base.__dictoffset__):
            return False
        pointers += 1 if isinstance(slots, str) else len(tuple(slots or ()))
    return kind.__basicsize__ <= size_bytes + pointers * _POINTER_BYTES


_Named = namedtuple("_Named", ())  # noqa: PYI024 - it is not for its fields
_NEW_ARGUMENTS: Final = getattr(vars(_Named).get("__getnewargs__"), "__code__", None)


def is_of_named_tuple(new_arguments: object) -> bool:
    """Whether a ``__getnewargs__`` is that of all named tuples."""
    return _NEW_ARGUMENTS is not None and getattr(new_arguments, "__code__", 0) == _NEW_ARGUMENTS


# --- pickles ---

#: Only contents that are larger are chunks by themselves, beginning with twice as much.
LARGE_CONTENT: Final = 1 << 15


def announcements(size_bytes: int) -> tuple[bytes, ...]:
    """The opcodes that announce so much content: as bytes, as a string, or a bytearray."""
    long = size_bytes.to_bytes(8, "little")
    return (
        pickle.BINBYTES8 + long,
        pickle.BINUNICODE8 + long,
        pickle.BYTEARRAY8 + long,
        pickle.BINBYTES + long[:4],
        pickle.BINUNICODE + long[:4],
    )


# --- instructions ---


def call_spans(code: CodeType, name: str) -> tuple[range, ...]:
    """Find where a function calls a global, an attribute or a method with a name.

    Works without the source, and without line numbers. The arguments of the call must contain no
    call. Returns for each call the offsets from the load of the name to the end of the call;
    `frame.f_lasti` is one of these while the call is running.
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


# --- the end of a process ---


def run_exit_functions() -> None:
    """Wait for threads and call the functions of `atexit`. To do it again has no effect."""
    for module, name in ((threading, "_shutdown"), (atexit, "_run_exitfuncs")):
        getattr(module, name, lambda: None)()


def forget_exit_functions() -> None:
    """Forget the functions of `atexit`: they belong to the process that forked this one."""
    getattr(atexit, "_clear", lambda: None)()
