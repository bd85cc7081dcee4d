"""The advice on objects that cannot be pickled, and the objects that are refused."""

from __future__ import annotations

import concurrent.futures
import functools
import multiprocessing
import re
import socket
import sqlite3
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from evproc_pool import PoolProcessor, SerializationError
from evproc_pool.serialization import diagnosis, pickling
from evproc_pool.serialization.diagnosis import advice_on
from tests.support import actions
from tests.support.actions import Do
from tests.support.helpers import run_script

_OPENS: dict[str, Callable[[Path], Any]] = {
    "text": lambda path: path.open(),
    "text to read and write": lambda path: path.open("r+"),
    "text to write": lambda path: path.open("w"),
    "binary": lambda path: path.open("rb"),
    "unbuffered": lambda path: path.open("rb", buffering=0),
}


@pytest.mark.parametrize("way", _OPENS)
def test_an_open_file_in_an_event_is_an_error_that_names_it(
    way: str, tmp_path: Path, shared_pool: PoolProcessor
) -> None:
    path = tmp_path / "file"
    path.write_text("one\ntwo\n")
    with _OPENS[way](path) as file:
        position = file.tell()
        ev = Do("nothing")
        ev.args = ({"file": file},)
        with pytest.raises(SerializationError) as caught:
            shared_pool.process(ev)
        assert f".args[0]['file'] ({type(file).__name__})" in str(caught.value)
        assert "TypeError: cannot pickle '" in str(caught.value)
        assert str(caught.value).endswith("; hand over the path, and open it where it is used")
        assert file.tell() == position
    assert shared_pool.process(Do("stop", 1)) == 1


@pytest.mark.parametrize("what", ["stop_with", "follow_with"])
def test_an_open_file_in_a_result_is_an_error_that_names_it(
    what: str, shared_pool: PoolProcessor
) -> None:
    with pytest.raises(SerializationError, match="hand over the path"):
        shared_pool.process(Do(what, "file"))


def test_an_open_file_in_arguments_of_the_initializer_is_an_error_that_names_it() -> None:
    with (
        Path(__file__).open() as file,
        PoolProcessor(1, initializer=len, initargs=([file],)) as pool,
    ):
        pool.register(actions.act)
        with pytest.raises(SerializationError) as caught:
            pool.process(Do("nothing"))
    assert "an argument of the initializer cannot be pickled at [0][0]" in str(caught.value)
    assert "hand over the path" in str(caught.value)


@pytest.mark.parametrize("data", [b"abcdefgh", bytearray(b"abcdefgh")])
@pytest.mark.parametrize("kind", ["B", "H", "c"])
def test_a_memoryview_stays_a_memoryview(data: Any, kind: Any) -> None:
    view = memoryview(data).cast(kind)
    there = pickling.loads(pickling.dumps([view]))[0]
    assert there == view
    assert (there.format, there.readonly) == (kind, view.readonly)


def _generator() -> Any:
    yield 1


_KINDS: dict[str, tuple[Callable[[ExitStack], Any], str]] = {
    "lock": (lambda stack: threading.Lock(), "make one where"),
    "reentrant lock": (lambda stack: threading.RLock(), "make one where"),
    "event": (lambda stack: threading.Event(), "make one where"),
    "socket": (lambda stack: stack.enter_context(socket.socket()), "connect where"),
    "database": (
        lambda stack: stack.enter_context(_closing(sqlite3.connect(":memory:"))),
        "connect where",
    ),
    "generator": (lambda stack: _generator(), "a list of its items"),
    "thread": (lambda stack: threading.Thread(), "start it"),
    "process": (lambda stack: multiprocessing.Process(), "start it"),
    "future": (lambda stack: concurrent.futures.Future(), "its result"),
    "executor": (
        lambda stack: stack.enter_context(concurrent.futures.ThreadPoolExecutor()),
        "start it",
    ),
    "lock of multiprocessing": (lambda stack: multiprocessing.Lock(), "Manager"),
    "weak reference": (lambda stack: weakref.ref(_generator), "themselves"),
    "match": (lambda stack: re.match("a", "a"), "groups"),
    "frame": (lambda stack: sys._getframe(), "its text"),
    "local": (lambda stack: threading.local(), "its value"),
}


class _closing:  # noqa: N801 - as in contextlib
    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def __enter__(self) -> Any:
        return self._thing

    def __exit__(self, *args: object) -> None:
        self._thing.close()


@pytest.mark.parametrize("kind", _KINDS)
def test_each_kind_has_its_advice_and_the_error_names_it(kind: str) -> None:
    make, advice = _KINDS[kind]
    with ExitStack() as stack:
        part = make(stack)
        value = [1, {"part": part}]
        with pytest.raises(Exception) as raised:  # noqa: PT011 - of whatever type
            pickling.dumps(value)
        text = str(diagnosis.cannot_pickle("the value", value, raised.value))
        assert f"at [1]['part'] ({type(part).__qualname__})" in text
        assert advice in text.rpartition(";")[2]


def test_other_kinds_get_the_general_advice() -> None:
    assert advice_on(object()) is None
    assert advice_on(type("Connection", (), {})()) is not None  # of whatever database
    error = diagnosis.cannot_pickle("value", actions.BadText(), TypeError("cause"))
    assert str(error).endswith("or give its class a __reduce__")


def _with_default(first: int, lock: Any = threading.Lock(), *, also: int = 1) -> None: ...  # noqa: B008


def test_the_path_leads_into_functions_and_classes() -> None:
    lock = threading.Lock()

    class Local:
        def use(self) -> Any:
            return lock

    def in_main(function: Any) -> Any:
        function.__module__ = "__main__"
        function.__qualname__ = f"<locals>.{function.__name__}"
        return function

    def keyword(*, lock: Any = lock) -> None: ...

    cases = {
        "default 'lock'": in_main(_with_default),
        "[0] default 'lock'": [keyword],
        "class": [Local()],
        "variable 'lock'": functools.partial(Local().use),
    }
    for path, value in cases.items():
        text = str(diagnosis.cannot_pickle("it", value, TypeError("cause")))
        assert "(lock)" in text, text
        assert path in text, text


_SCRIPT = """
import sys, threading
from evproc import Event, StopProcessing
from evproc_pool import PoolProcessor

class Print(Event):
    name = "print"

def prints(proc, ev, file=sys.stdout):
    raise StopProcessing(file is sys.stdout)

with PoolProcessor(1) as pool:
    pool.register(prints)
    print(pool.process(Print()))

LOCK, FILE = threading.Lock(), open(__file__)

class Ask(Event):
    name = "ask"

    def use(self):
        return LOCK

def uses_lock(proc, ev):
    return LOCK

def uses_file(proc, ev):
    return FILE

def uses_nothing(proc, ev): ...

for handler in (uses_lock, uses_file, uses_nothing):
    with PoolProcessor(1) as pool:
        pool.register(handler)
        try:
            pool.process(Ask())
        except TypeError as error:
            print(error)
"""


def test_the_error_names_a_global_of_a_script_and_says_what_to_do(tmp_path: Path) -> None:
    standard, lock, file, event = run_script(
        _SCRIPT, tmp_path, python=["-W", "ignore"]
    ).splitlines()
    assert standard == "True"  # the worker's own stream
    move = ", or move the function into a module that workers import"
    assert "handler 'uses_lock' (__main__.uses_lock) cannot be pickled at variable 'LOCK'" in lock
    assert lock.endswith(f"once in each worker with initializer={move}")
    assert "variable 'FILE' (TextIOWrapper)" in file
    assert file.endswith(f"hand over the path, and open it where it is used{move}")
    assert "event 'ask' (__main__.Ask) cannot be pickled at class Ask.use variable 'LOCK'" in event
