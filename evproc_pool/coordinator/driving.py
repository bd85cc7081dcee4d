"""The driver: one thread at a time does the work of the engine.

`Driving.drive` makes a thread the driver under a lock, and lets it work without the lock. Other
threads wait for the end of its turn. If the engine is closed meanwhile, the driver ends it after
its turn. An interrupt, or an error that no run gets, in the middle of the work breaks the engine,
since its state is unknown then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import inf
from typing import TypeVar

from evproc_pool.errors import (
    PoolBrokenError,
    PoolClosedError,
    PoolError,
    PoolInterruptedError,
    again,
)

_T = TypeVar("_T")


class Driving:
    """Who drives, and how the engine ends: the base of `engine.Engine`.

    The last driver calls `end` once, with the reason and how many seconds to wait for the workers.
    `wake` wakes a driver that waits.

    Attributes:
        lock: Guards the attributes. Reentrant, since a garbage collection that ends the pool may
            strike anywhere.
        thread: The driver's.
        turns: Grows with every turn; for `Engine.wait_turn`.
        closed: Why the engine takes nothing more, or None.
        is_replaceable: Whether another engine may take its place once it is closed.
    """

    def __init__(self, end: Callable[[PoolError, float], None], wake: Callable[[], None]) -> None:
        self._end = end
        self._wake = wake
        self.lock = threading.RLock()
        self._turn_over = threading.Condition(self.lock)
        self._waiting = 0  # number of waiting threads; may overcount
        self.thread: int | None = None
        self.turns = 0
        self.closed: PoolError | None = None
        self._most_seconds = inf  # to wait for workers at the end
        self._is_ended = False
        self.is_replaceable = False

    def drive(
        self,
        may: Callable[[], bool],
        act: Callable[[], _T],
        wait: Callable[[], object] | None = None,
    ) -> _T | None:
        """Drive, if `may` allows it: the one way in which a thread becomes the driver.

        `may` is called with the lock. An interrupt in `wait`, before the work, changes nothing.
        What `act` raises breaks the engine; a `PoolError` goes to the open runs only.

        Returns:
            What `act` returned; None if it may not.
        """
        drives, waits = False, wait is not None
        done: _T | None = None
        try:
            with self.lock:
                if not may():
                    return None
                drives = True
                self.thread = threading.get_ident()
            if wait is not None:
                wait()
                waits = False
            done = act()  # no return here: an interrupt that strikes behind the call is caught
        except BaseException as error:
            if drives and waits:
                raise
            self._broken_by(error, drives=drives)
        finally:
            if drives:
                # Here and not in a function: an interrupt may strike in the call itself. As long as
                # this thread is taken for the driver, all others wait.
                try:
                    self._leave()
                except BaseException:
                    self._leave()
                    raise
        return done

    def check_may_wait(self) -> None:
        """Raise `RuntimeError` in a thread that would wait for itself: from within a turn.

        Filters, pickling methods, progress functions and callbacks of futures may hand in events,
        but not wait.
        """
        if self.thread == threading.get_ident():
            raise RuntimeError(
                "this thread is handling events for the pool already: a filter, a pickling"
                " method, a progress function or a future's callback must not wait for the same"
                " pool"
            )

    def wait(self) -> None:
        """Wait for the end of a turn; with the lock."""
        self._waiting += 1
        try:
            self._turn_over.wait()
        finally:
            self._waiting -= 1

    def _broken_by(self, error: BaseException, *, drives: bool) -> None:
        """Close the engine for an error. Raise it, unless it is one that the runs get."""
        if isinstance(error, PoolError):
            if isinstance(error, PoolBrokenError) and error.hung_workers:
                self.is_replaceable = True
            self.closed, self._most_seconds = again(error), 0.0  # the runs get it
            return
        if drives:
            # in the middle of a turn: the state is unknown
            self.give_way(error)
        try:
            raise error
        finally:
            del error  # its traceback refers to this frame

    def give_way(self, error: BaseException) -> None:
        """Close the engine for an error that struck a thread; another one takes its place."""
        self._most_seconds = 0.0
        if self.closed is None:
            self.closed = PoolInterruptedError(
                f"{type(error).__name__} struck a thread that waited for the pool: everything that"
                " was in flight was dropped and its workers were killed, so it may have had"
                " effects; the pool can be used again"
            )
            self.is_replaceable = True

    def stop(self, *, most_seconds: float) -> None:
        """End the workers, which are killed after that many seconds. Idempotent.

        Open runs end with `PoolClosedError`.
        """
        me = threading.get_ident()
        with self.lock:
            if self.closed is None:
                self.closed = PoolClosedError(
                    "the pool was ended before this was finished (by terminate or close, or"
                    " because nothing referred to the PoolProcessor any more), and what was"
                    " running may have had effects: make a new PoolProcessor, and keep it"
                )
            self._most_seconds = min(self._most_seconds, most_seconds)
            if self.thread == me:
                # from a callback or a signal handler: the end of this turn ends everything
                self._wake()
                return
            while self.thread is not None:
                self._wake()
                self.wait()
            self.thread = me
        try:
            self._leave()
        except BaseException:
            self._leave()  # as above
            raise

    def _leave(self) -> None:
        """End the driver's part; if the engine was closed meanwhile, end everything."""
        try:
            if self.closed is not None and not self._is_ended:
                self._end(self.closed, self._most_seconds)
                self._is_ended = True
        finally:
            with self.lock:
                self.thread = None
                self.turns += 1
                if self._waiting:
                    self._turn_over.notify_all()
