"""Ctrl-C and SIGTERM while an event loop runs."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, cast

from evproc_pool.cli.output import say
from evproc_pool.cli.problems import Stopped

_COROUTINE: Final = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR

# What may run above the loop's code: the handler of the first signal, the loop's wait, and the
# callbacks of weak references, where an error would be lost.
_ON_TOP: Final = frozenset({__name__, say.__module__, "selectors", "_weakrefset", "weakref"})


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
    interruption = Interruption(stop, tell)

    async def interruptible() -> None:
        with interruption.caught():
            await main()

    try:
        asyncio.run(interruptible())
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

    def __init__(self, stop: Callable[[], object], tell: Callable[[str], None]) -> None:
        self._stop = stop
        self._tell = tell
        self._pid = os.getpid()
        self.received: int | None = None
        self.ended_by: int | None = None

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Handle signals meanwhile; call it in the task that the second one ends."""
        self._loop = asyncio.get_running_loop()
        self._task = cast("asyncio.Task[Any]", asyncio.current_task())
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
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
        self._loop.call_soon_threadsafe(self._task.cancel)
        if not _is_of_the_loop(frame):
            raise Stopped(number)  # from code that may wait for long


def _is_of_the_loop(frame: FrameType | None) -> bool:
    """Whether a frame is the event loop's code, or a coroutine's: the next callback is soon.

    An error there could lose a callback that the loop has taken: its task would never end.
    """
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if module not in _ON_TOP:
            return module.startswith("asyncio.") or bool(frame.f_code.co_flags & _COROUTINE)
        frame = frame.f_back
    return False
