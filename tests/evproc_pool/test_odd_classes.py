"""Classes whose metaclass raises for their names never take a worker down."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from evproc import Event, HandlerReturnException, StopProcessing, want
from evproc_pool import PoolProcessor, RemoteError, SerializationError

_NAMES = ("__module__", "__mro__", "__name__", "__qualname__")


class _Raises(type):
    def __getattribute__(cls, name: str) -> Any:
        if name in _NAMES:
            raise RuntimeError(f"nobody knows its {name}")
        return super().__getattribute__(name)


class _Exits(type):
    def __getattribute__(cls, name: str) -> Any:
        if name in (*_NAMES, "__reduce__"):
            raise SystemExit(3)
        return super().__getattribute__(name)


class _GivesNumbers(type):
    def __getattribute__(cls, name: str) -> Any:
        return 5 if name in ("__qualname__", "__name__") else super().__getattribute__(name)


_KINDS = [_Raises, _Exits, _GivesNumbers]
_ERRORS: Any = [kind("OddError", (Exception,), {}) for kind in _KINDS]
_WARNINGS: Any = [kind("OddWarning", (UserWarning,), {}) for kind in _KINDS]
_VALUES: Any = [kind("OddValue", (), {}) for kind in _KINDS]


class Odd(Event):
    name = "odd"

    def __init__(self, what: str = "nothing", kind: int = 0) -> None:
        super().__init__()
        self.what = what
        self.kind = kind


@want("odd")
def act(proc: Any, ev: Odd) -> Any:
    return _ACTS[ev.what](ev)


def _raise(error: BaseException) -> NoReturn:
    raise error


def _give(ev: Odd) -> list[Odd]:
    given = Odd()
    given.ctxt = _VALUES[ev.kind]()
    return [given]


def _warn(ev: Odd) -> None:
    warnings.warn(_WARNINGS[ev.kind]("odd"), stacklevel=1)


_ACTS: dict[str, Callable[[Odd], Any]] = {
    "nothing": lambda ev: None,
    "pid": lambda ev: _raise(StopProcessing(os.getpid())),
    "raise": lambda ev: _raise(_ERRORS[ev.kind]("text")),
    "group": lambda ev: _raise(ExceptionGroup("text", [_ERRORS[ev.kind]("text")])),
    "stop": lambda ev: _raise(StopProcessing(_VALUES[ev.kind]())),
    "class": lambda ev: _raise(StopProcessing(_VALUES[ev.kind])),
    "emit": lambda ev: ev.emit(_VALUES[ev.kind]()),
    "return": lambda ev: _VALUES[ev.kind](),
    "follow up": _give,
    "warn": _warn,
    "log": lambda ev: logging.getLogger("odd").error(_VALUES[ev.kind]()),
}

#: What becomes of it, if the names cannot be had.
_ENDS: dict[str, type[Exception]] = {
    "raise": RemoteError,
    "group": RemoteError,
    "stop": SerializationError,
    "class": SerializationError,
    "emit": SerializationError,
    "return": HandlerReturnException,
    "follow up": SerializationError,
}


@pytest.fixture(scope="module")
def odd_pool() -> Any:
    with PoolProcessor(workers=1) as pool:
        pool.register(act)
        pool.process(Odd())
        yield pool


@pytest.mark.filterwarnings("ignore:odd")
@pytest.mark.parametrize("kind", range(len(_KINDS)), ids=[kind.__name__ for kind in _KINDS])
@pytest.mark.parametrize("what", list(_ACTS))
def test_the_worker_outlives_it(what: str, kind: int, odd_pool: PoolProcessor) -> None:
    before = odd_pool.process(Odd("pid"))
    first, among, last = odd_pool.stream([Odd(), Odd(what, kind), Odd()])
    assert first.error is last.error is None
    (alone,) = odd_pool.stream([Odd(what, kind)])
    for error in (among.error, alone.error):
        if what not in _ENDS:
            assert error is None or isinstance(error, (RuntimeError, SystemExit))
        elif _KINDS[kind] is not _GivesNumbers:
            assert type(error) is _ENDS[what]
    assert odd_pool.process(Odd("pid")) == before
