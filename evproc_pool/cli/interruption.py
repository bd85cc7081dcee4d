"""Ctrl-C and SIGTERM while an event loop runs."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from evproc_pool.cli.output import say
from evproc_pool.cli.problems import Stopped

_COROUTINE: Final = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR

# What may run above the loop's code: the handler of the first signal, and the loop's wait.
_ON_TOP: Final = frozenset({__name__, say.__module__, "selectors"})

# Where callbacks of weak references are: Python drops their errors.
_DROPS_ERRORS: Final = frozenset({"_weakrefset", "weakref"})


def run(
    main: Callable[[], Coroutine[Any, Any, object]],
    stop: Callable[[], object],
    tell: Callable[[str], None] = say,
) -> int | None:
    """Run a coroutine in an event loop, until it ends or a second signal comes.

    Args:
        main: Makes the coroutine, in the loop.
        stop: Ends the input; called in the loop at the first signal.
        tell: Prints a sentence.

    Returns:
        The number of the first signal, or None.

    Raises:
        Stopped: A second signal came.
    """
    with asyncio.Runner() as runner:
        interruption = Interruption(runner.get_loop(), stop, tell)
        # not within the coroutine: the runner sets a handler, too, unless there is one
        with interruption.caught():
            try:
                runner.run(interruption.task(main))
            except BaseException:
                if interruption.ended_by is None:
                    raise
                raise Stopped(interruption.ended_by) from None
    return interruption.received


class Interruption:
    """The first signal ends the input, the second one ends the run.

    Attributes:
        received: The number of the first signal, or None.
        ended_by: The number of the second one, or None.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stop: Callable[[], object],
        tell: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._stop = stop
        self._tell = tell
        self._task: asyncio.Task[Any] | None = None
        self._pid = os.getpid()
        self.received: int | None = None
        self.ended_by: int | None = None

    async def task(self, main: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Run a coroutine in the task that the second signal ends."""
        self._task = asyncio.current_task()
        await main()

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Handle signals meanwhile."""
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        with _woken(self._loop):
            for number, handler in before.items():
                if handler is not signal.SIG_IGN:  # as `nohup` wants it
                    signal.signal(number, self)
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

    def __call__(self, number: int, frame: FrameType | None = None) -> None:
        """Handle a signal, in the main thread, between any two instructions.

        Raises:
            Stopped: It is the second one, and code other than the loop's runs, which may wait.
        """
        if os.getpid() != self._pid:
            return  # an executor has forked it: this process decides what becomes of its work
        if self.received is None:
            self.received = number
            self._loop.call_soon_threadsafe(self._stop)
            again = "Ctrl-C" if number == signal.SIGINT else "the same signal"
            self._tell(f"finishing what has begun; {again} again stops it")
            return
        self.ended_by = number
        if self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)
        if self._task is None or not _is_of_the_loop(frame):
            raise Stopped(number)  # from code that may wait for long


@contextmanager
def _woken(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Have signals end the loop's wait: one may come just before that begins."""
    reading, writing = socket.socketpair()
    with reading, writing:
        reading.setblocking(False)
        writing.setblocking(False)
        try:
            loop.add_reader(reading, reading.recv, 4096)
        except NotImplementedError:  # Windows, where the loop does this itself
            yield
            return
        before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            loop.remove_reader(reading)


def _is_of_the_loop(frame: FrameType | None) -> bool:
    """Whether a frame is the event loop's code, or a coroutine's: the next callback is soon.

    An error there could lose a callback that the loop has taken: its task would never end. Or it
    would be lost itself.
    """
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if module not in _ON_TOP:
            is_coroutine = bool(frame.f_code.co_flags & _COROUTINE)
            return is_coroutine or module.startswith("asyncio.") or module in _DROPS_ERRORS
        frame = frame.f_back
    return False
