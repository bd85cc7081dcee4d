"""Counts one call, and shows how far it is: `progress=` of the pool's calls.

::

    notifications --CallProgress--> ProgressCounter --counts--> a view (`progress_views`)
                                                    `---------> or a function of the application

Views ask for the counts, in a thread of their own, so that time goes on while nothing happens. The
threads that drive the pool only count. A function is called by these threads.

It is no listener of a `Notifier`: it gets the notifications of its call straight from the place
where they are made. So the counts are right when the call is over, whatever other listeners are
at, and the numbers of calls are those of one engine.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Final

from evproc_pool.log import LOG
from evproc_pool.observe.notifications import Notification
from evproc_pool.observe.progress import ProgressCounter, ProgressCounts

if TYPE_CHECKING:
    from evproc_pool.observe.progress_views import View

#: A function of the application that gets the counts.
Function = Callable[[ProgressCounts], object]

# The least time between two calls of a function, in seconds.
_PAUSE_SECONDS: Final = 0.1


class CallProgress:
    """The progress of a call; nothing happens before `begin`.

    Args:
        roots: How many roots are expected; None: not known.
        function: Gets the counts; None: they are shown to a person.
    """

    def __init__(self, roots: int | None, function: Function | None = None) -> None:
        self._roots = roots
        self._function = function
        # Of changes of the counter. Who draws does not take it: that thread holds locks of the
        # display, which a finalizer that prints may want in the middle of a change.
        self._lock = threading.RLock()
        self._telling = threading.RLock()  # held while the function runs
        self._told_at = -inf
        self._view: View | None = None

    def begin(self, clock: Callable[[], float]) -> None:
        """Begin to count, and to show it; `clock` is the pool's."""
        self._pid = os.getpid()
        self._clock = clock
        self._counter = ProgressCounter(clock(), self._roots)
        if self._function is None:
            from evproc_pool.observe.progress_views import begin_view

            try:
                self._view = begin_view(self.counts)
            except Exception:  # libraries of terminals and notebooks fail in their own ways
                LOG.warning("progress cannot be shown", exc_info=True)

    def __call__(self, item: Notification) -> None:
        """Take in a notification of the call; from any thread."""
        with self._lock:
            has_changed = self._counter.take(item)
        is_early = item.at - self._told_at < _PAUSE_SECONDS
        if self._function is None or not has_changed or is_early:
            return
        # another thread that is in the function has told what is almost as new
        if self._telling.acquire(blocking=False):
            try:
                self._told_at = item.at
                self._tell()
            finally:
                self._telling.release()

    def counts(self) -> ProgressCounts:
        """Return the counts of now; from any thread."""
        return self._counter.counts(self._clock())

    def end(self, *, is_complete: bool) -> None:
        """Show how it ended; `is_complete`: all of the input was processed."""
        if os.getpid() != self._pid:
            return  # a handler has forked, and this is the child
        with self._lock:
            self._counter.end(self._clock(), is_complete=is_complete)
        view, self._view = self._view, None
        if view is not None:
            view.end()
        with self._telling:
            self._tell()
            self._function = None

    def _tell(self) -> None:
        function = self._function
        if function is None:
            return
        try:
            function(self.counts())
        except KeyboardInterrupt:
            raise
        except BaseException:
            self._function = None
            name = getattr(function, "__qualname__", type(function).__qualname__)
            LOG.exception("progress function %s raised an error: it gets nothing more", name)
