"""The futures of `submit`, and who does their work."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from math import inf
from typing import Any, Final

from evproc import Event
from evproc.registry import Plan, Registry
from evproc_pool.cascade_limits import PLAIN_ENDING, CascadeEnding
from evproc_pool.codec import Answer
from evproc_pool.engine import Engine
from evproc_pool.errors import PoolError
from evproc_pool.log import LOG
from evproc_pool.roots import Key, key_of, plan_root
from evproc_pool.runs import Sink
from evproc_pool.schedule import Accepted, Ending, Settled

# So long the thread of the futures stays for the next one, and so long it leaves an event
# to whoever waits for it, in seconds.
_LINGER_SECONDS: Final = 0.5
_HELP_SECONDS: Final = 0.001

# So often the thread looks for the next future by itself before it waits to be told.
_MOMENTS: Final = 20


def _settle(future: Future[Any], value: object, error: BaseException | None) -> None:
    """Let a future be done, whatever its callbacks raise."""
    try:
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)
    except KeyboardInterrupt:
        raise
    except BaseException:
        # not an `Exception`: those are logged by the future itself
        LOG.exception("a callback of a future raised")


class _Future(Future[Any]):
    """Whoever waits for it does the work meanwhile, if nobody else does."""

    def __init__(self, futures: Futures) -> None:
        super().__init__()
        self._futures: Futures | None = futures
        self.root = -1

    def result(self, timeout: float | None = None) -> Any:
        """See `concurrent.futures.Future`."""
        self._help(timeout)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """See `concurrent.futures.Future`."""
        self._help(timeout)
        return super().exception(timeout)

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        """See `concurrent.futures.Future`."""
        super().add_done_callback(fn)
        if self._futures is not None and not self.done():
            self._futures.hurry()

    def _help(self, timeout: float | None) -> None:
        if self._futures is not None and not self.done():
            self._futures.help(self.root, inf if timeout is None else max(0.0, timeout))
        self._futures = None


class Futures(Sink):
    """The run of all submitted events, and the thread that drives for them.

    The thread is there while futures are outstanding, and a little longer, for the next
    one; it holds on to the engine and not to the pool, which can be collected in the
    meantime. Where an event could be sent at once, and nothing else is outstanding, it
    leaves it to whoever waits for the future, for a moment.
    """

    def __init__(
        self,
        engine: Engine,
        registry: Registry,
        key: Key | None,
        *,
        unordered: bool,
        ending: CascadeEnding = PLAIN_ENDING,
    ):
        self._engine = engine
        self._registry = registry
        self._key = key
        self._futures: dict[int, Future[Any]] = {}
        self._begun: set[int] = set()
        self._indices = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._may_linger = False  # whether somebody is likely to wait for the only future
        self._looks_soon = False  # whether the thread does in any case
        self._is_retired = False
        # last: from now on it may be told things, also if an interrupt strikes here
        self._run = engine.open(
            self,
            unordered=unordered,
            ending=ending,
            can_cancel=True,
            shares_keys=key is not None,
        )

    @property
    def outstanding(self) -> int:
        """How many futures are not done."""
        return len(self._futures)

    def retire(self) -> bool:
        """Take nothing more, if no future is outstanding; say whether that is so."""
        with self._changed:
            self._is_retired = not self._futures
        return self._is_retired

    def unretire(self) -> None:
        """Go on."""
        self._is_retired = False

    def submit(self, ev: Event) -> Future[Any] | None:
        """See `PoolProcessor.submit`. None: it takes nothing more; nothing has happened."""
        if self._is_retired:
            return None
        future = _Future(self)
        try:
            plan = plan_root(self._registry, ev)
            keys = None if self._key is None else [key_of(self._key, ev)]
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            future.set_running_or_notify_cancel()
            future.set_exception(error)
            return future
        if not plan.indices:
            future.set_running_or_notify_cancel()
            future.set_result(None)
            return future
        try:
            if not self._hand_in(future, ev, plan, keys):
                return None
        except BaseException:
            # An interrupt: nobody gets the future, and nobody is to wait for it.
            self._take(future.root)
            raise
        if self._engine.closed is not None:
            # it ended meanwhile, maybe before it knew of this future
            self.broken(self._engine.closed)
        return future

    def _hand_in(
        self, future: _Future, ev: Event, plan: Plan, keys: Sequence[Hashable] | None
    ) -> bool:
        """See `submit`; say whether more are taken."""
        with self._changed:
            if self._is_retired:
                return False
            is_only = not self._futures
            index = future.root = next(self._indices)
            self._futures[index] = future
        root = Accepted(self._run.id, index, [ev], [plan], keys)
        is_sent = is_only and keys is None and self._engine.send_now(root, self)
        if not is_sent:
            self._engine.accept(root)
        with self._changed:
            self._may_linger = is_sent
            if not (is_sent and self._looks_soon):
                self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._drive, name="evproc_pool futures", daemon=True
                )
                self._thread.start()
        return True

    def help(self, root: int, seconds: float) -> None:
        """Wait a moment, and no longer than that, for the answer to an event sent at once."""

        def deliver(answer: Answer) -> None:
            # in this order: whatever strikes in between, the future is done, or is told why
            _settle(self._futures[root], answer.value, None)
            self._take(root)

        if not self._engine.collect(self._run.id, root, seconds, deliver):
            self.hurry()

    def hurry(self) -> None:
        """Have the thread drive."""
        with self._changed:
            self._may_linger = False
            self._changed.notify_all()

    def _drive(self) -> None:
        try:
            while True:
                turns = self._engine.turns
                with self._changed:
                    if not self._futures:
                        self._changed.notify_all()
                        if self._engine.closed is None:
                            self._linger()
                        if not self._futures:
                            self._thread = None
                            self._changed.notify_all()
                            return
                    if self._may_linger:
                        self._may_linger = False
                        self._wait_a_moment()
                        continue
                self._engine.wait_turn(turns)
        except BaseException:
            # it has ended the engine, and so the futures; nobody must wait for more
            with self._changed:
                self._thread = None
                self._changed.notify_all()
            raise

    def _linger(self) -> None:
        """Wait for the next future, with the lock.

        Shortly after the last one without being told: where one follows another and each is
        waited for, this thread would be woken up each time to find that there is no need.
        """
        for _ in range(_MOMENTS):
            if self._wait_a_moment() or self._futures:
                return
        self._changed.wait(_LINGER_SECONDS)

    def _wait_a_moment(self) -> bool:
        """Wait for so long as an event may be left to whoever waits for it; say whether told."""
        self._looks_soon = True
        try:
            return self._changed.wait(_HELP_SECONDS)
        finally:
            self._looks_soon = False

    def drain(self) -> None:
        """Wait until no future is outstanding.

        Raises:
            RuntimeError: Called from a future's callback.
        """
        self._engine.check_may_wait()
        with self._changed:
            self._changed.wait_for(lambda: not self._futures or self._thread is None)

    # --- as a sink ---

    def begins(self, root: int) -> bool:
        """See `engine.Sink`."""
        future = self._futures.get(root)
        return future is not None and self._begin(root, future)

    def _begin(self, root: int, future: Future[Any]) -> bool:
        """Set a future running, or tell those who wait for it that it was cancelled.

        May be called again, when a batch comes back; a future may not.
        """
        if root not in self._begun:
            self._begun.add(root)
            future.set_running_or_notify_cancel()
        return not future.cancelled()

    def ended(self, root: int, ending: Ending) -> None:
        """See `engine.Sink`."""
        future = self._take(root)
        if future is None or future.cancelled():
            return
        _settle(future, ending.value, ending.error)

    def settled(self, item: Settled) -> None:
        """See `engine.Sink`."""
        values = itertools.repeat(None) if item.values is None else item.values.items
        roots = range(item.first, item.first + len(item.times))
        for root, value in zip(roots, values, strict=False):
            self.ended(root, Ending(value))

    def broken(self, error: PoolError) -> None:
        """See `engine.Sink`."""
        with self._changed:
            futures = dict(self._futures)
            self._futures.clear()
            self._changed.notify_all()
        for root, future in futures.items():
            if not future.done() and self._begin(root, future):
                _settle(future, None, error)
        self._begun.clear()

    def _take(self, root: int) -> Future[Any] | None:
        """Take a future that is about to be done; None if `broken` was quicker."""
        with self._changed:
            self._begun.discard(root)
            future = self._futures.pop(root, None)
        return future  # noqa: RET504 - the lock is let go of before, whatever interrupts this
