"""Hands notifications to listeners: one at a time, in order.

Any thread may `notify`. A notification waits in a queue, and one thread at a time empties it: the
first that finds nobody at it. Others only append, so nobody waits for a slow listener. No lock is
held while a listener runs, so it may ask the pool for its statistics.

An interrupt that strikes in a listener goes to the caller of `notify`, as from anything else that
the pool does. The rest of the queue is handed on with the next notification.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable

from evproc_pool.log import LOG
from evproc_pool.observe.notifications import Listener, Notification


class Notifier:
    """Has the listeners of a pool.

    Attributes:
        clock: Returns monotonic seconds; for `at` of notifications.
    """

    def __init__(self, listeners: Iterable[Listener], clock: Callable[[], float]) -> None:
        self.clock = clock
        self._listeners = list(listeners)
        self._queue: deque[Notification] = deque()
        self._lock = threading.RLock()  # of the next
        self._thread: int | None = None  # which hands on

    def adopt(self) -> None:
        """Begin anew in a process that was forked: other threads are gone."""
        self._lock = threading.RLock()
        self._thread = None

    def notify(self, *items: Notification) -> None:
        """Hand these on, or leave them to the thread that is at it."""
        self._queue.extend(items)
        me = threading.get_ident()
        # the second time: after this thread has looked, another one may have appended and left
        while self._queue and self._thread != me:
            try:
                if not self._begin(me):
                    return
                while self._queue:
                    self._hand_on(self._queue.popleft())
            finally:
                if self._thread == me:
                    self._thread = None

    def _begin(self, me: int) -> bool:
        with self._lock:
            if self._thread is None:
                self._thread = me
            return self._thread == me

    def _hand_on(self, item: Notification) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(item)
            except KeyboardInterrupt:
                raise
            except BaseException:
                self._listeners = [each for each in self._listeners if each is not listener]
                name = getattr(listener, "__qualname__", type(listener).__qualname__)
                what = type(item).__name__
                LOG.exception(
                    "listener %s raised an error for %s: it gets nothing more", name, what
                )
