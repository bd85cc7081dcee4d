"""Ctrl-C and SIGTERM in the event loop of `evproc run`."""

from __future__ import annotations

import _thread
import asyncio
import operator
import os
import selectors
import signal
import sys
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from evproc_pool import PoolProcessor
from evproc_pool.cli import interruption
from evproc_pool.cli.json_event import default_decode
from evproc_pool.cli.line_input import EventSource, Portions
from evproc_pool.cli.problems import Stopped
from evproc_pool.cli.run_loop import LineWriter, Recorder, stream_lines


def test_the_first_signal_ends_the_input() -> None:
    async def strike() -> None:
        signal.raise_signal(signal.SIGTERM)
        await stopped.wait()

    stopped = asyncio.Event()
    told: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    assert interruption.run(strike, stopped.set, told.append) == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    assert told == ["finishing what has begun; the same signal again stops it"]


def test_the_second_signal_ends_a_task_that_waits() -> None:
    async def wait() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(signal.raise_signal, signal.SIGINT)
        loop.call_soon(signal.raise_signal, signal.SIGTERM)
        await loop.create_future()

    with pytest.raises(Stopped) as caught:
        interruption.run(wait, lambda: None, lambda _: None)
    assert caught.value.number == signal.SIGTERM


def test_the_second_signal_ends_a_function_that_does_not_return() -> None:
    def hang() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        while True:
            time.sleep(0.01)

    async def wait() -> None:
        hang()

    with pytest.raises(Stopped):
        interruption.run(wait, lambda: None, lambda _: None)


def test_what_cancels_the_task_otherwise_is_no_signal() -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        interruption.run(cancelled, lambda: None, lambda _: None)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    async def strike() -> None:
        signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert interruption.run(strike, lambda: None, lambda _: None) is None
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.skipif(sys.platform != "linux", reason="its loops wait in another way")
def test_a_signal_ends_the_wait_that_begins_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    strikes: list[signal.Signals] = []

    class Struck(selectors.EpollSelector):
        """Waits in the very moment of a signal, before its handler in Python can run."""

        def select(self, timeout: float | None = None) -> Any:
            if strikes:
                strike = partial(_thread.interrupt_main, strikes.pop())
                wait: Any = partial(self._selector.poll, -1)  # type: ignore[attr-defined]
                list(map(operator.call, [strike, wait]))  # no instruction of Python between
                timeout = 0
            return super().select(timeout)

    async def wait() -> None:
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(0)
        strikes.append(signal.SIGTERM)
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(selectors, "DefaultSelector", Struck)
    with pytest.raises(Stopped) as caught:
        interruption.run(wait, lambda: None, lambda _: None)
    assert caught.value.number == signal.SIGTERM


# --- a second signal at every place ---


class Striker:
    """Calls the handler of a signal before the n-th call of a Python function that follows."""

    def __init__(self, number: int) -> None:
        self._left = number

    @property
    def has_struck(self) -> bool:
        return self._left == 0

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            self._left -= 1
            if self.has_struck:
                sys.setprofile(None)
                handler = signal.getsignal(signal.SIGINT)
                assert callable(handler)
                handler(signal.SIGINT, frame)


@contextmanager
def waiting_input(bad: list[Any]) -> Iterator[EventSource]:
    """An input from which nothing comes."""
    reading, writing = os.pipe()
    try:
        yield EventSource(
            Portions(reading), default_decode, lambda *given: bad.append(given), keep=False
        )
    finally:
        os.close(reading)
        os.close(writing)


def test_the_second_signal_may_come_at_any_time(
    shared_pool: PoolProcessor, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def begin(source: EventSource, striker: Striker) -> Coroutine[Any, Any, None]:
        def strike() -> None:
            signal.raise_signal(signal.SIGINT)
            sys.setprofile(striker)

        async def main() -> None:
            asyncio.get_running_loop().call_later(0.001, strike)
            try:
                await stream_lines(
                    shared_pool, source, recorder, ordered=True, buffersize=None, every_event=False
                )
            finally:
                sys.setprofile(None)

        return main()

    before = signal.getsignal(signal.SIGINT)
    with (tmp_path / "output").open("wb", buffering=0) as output:
        recorder = Recorder(LineWriter(output), None)
        stopped = number = 0
        while True:
            number += 1
            striker, bad = Striker(number), list[Any]()
            with waiting_input(bad) as source:
                try:
                    # each one ends; an error at the wrong place would make the loop hang
                    main = partial(begin, source, striker)
                    interruption.run(main, source.stop, lambda _: None)
                except Stopped:
                    stopped += 1
            assert bad == []
            if not striker.has_struck:
                break  # the run was over
    assert stopped > 10
    assert signal.getsignal(signal.SIGINT) is before
    assert capfd.readouterr().err == ""  # no task complains
