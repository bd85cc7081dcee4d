"""The futures of `submit`, and the thread that drives the engine for them.

::

    submit --> waiting --hand_in--> Engine --> workers
       |                              |
       +--> PoolFuture <---settle-----+

While other events wait in a queue, `submit` only puts its event there. The thread that drives
the engine takes the whole queue at the beginning of its turn, as one `Accepted`. So a future
costs no step of the scheduler, no lock and no system call of its own.

Cost: O(1) for each future; one wake-up of the driver for each turn.

Rejected: a step for each event (35 us a call); driving in `submit` until results arrive
(a future's callbacks would run in `submit`).
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Final

from evproc import Event
from evproc.handler import Plan
from evproc.registry import Registry
from evproc_pool.coordinator.cancellation import Withdrawn
from evproc_pool.coordinator.codec import Answer
from evproc_pool.coordinator.engine import Engine
from evproc_pool.coordinator.pool_future import PoolFuture, begin_all, settle, settle_all
from evproc_pool.coordinator.reclaiming import reclaim
from evproc_pool.coordinator.run_handle import OutcomeSink
from evproc_pool.core.cascade_limits import PLAIN_ENDING, CascadeEnding
from evproc_pool.core.inputs_and_effects import Accepted, Ending, Settled
from evproc_pool.core.root_events import Key, key_of, plan_root
from evproc_pool.errors import PoolError, again
from evproc_pool.serialization.basics import detached

if TYPE_CHECKING:
    from concurrent.futures import Future


# Seconds for which the thread of the futures stays for the next one, and for which it leaves an
# event to the thread that waits for it.
_LINGER_SECONDS: Final = 0.5
_HELP_SECONDS: Final = 0.001

# How often the thread polls for the next future before it waits for a notification.
_MOMENTS: Final = 20

# When this many events wait and no thread drives, `submit` sends them: a thread that is woken
# for it gets the GIL milliseconds later. The number doubles each time, up to a limit.
_FEWEST_PUSHED: Final = 16
_MOST_PUSHED: Final = 512


#: An event that was submitted and is not handed in, with its plan and its key.
_Waiting = tuple[PoolFuture, Event, Plan, Hashable]


class Futures(OutcomeSink):
    """The run of all submitted events, and the thread that drives for them.

    The thread exists while futures are outstanding, and a little longer, for the next one. If an
    event was sent at once, and nothing else is outstanding, the thread leaves it for a moment to
    the thread that waits for the future.

    Outstanding futures keep the pool: submitted work is finished even if nothing else refers to
    the pool any more.
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
        self.engine = engine
        self._lock = threading.RLock()  # of the states of all futures
        self._registry = registry
        self._key = key
        self._waiting: deque[_Waiting] = deque()  # any thread appends, the driver takes
        self._is_notified = False  # whether the driver knows that events wait
        self._push_at = _FEWEST_PUSHED
        self._futures: dict[int, PoolFuture] = {}  # by root, those that were handed in
        self._is_handing_in = False
        self._next_root = 0
        self._listeners: set[Callable[[], bool]] = set()
        self._keeps: object | None = None
        self._given_up: PoolError | None = None  # the reason, once `give_up` was called
        # `with` takes this: an interrupt in a condition's `__enter__` leaves it locked for ever
        self._changing = threading.RLock()
        self._changed = threading.Condition(self._changing)
        self._thread: threading.Thread | None = None
        self._may_linger = False  # whether a thread probably waits for the only future
        self._looks_soon = False  # whether the driving thread wakes up soon in any case
        self._is_retired = False
        # last: from now on the driver may call this object, also if an interrupt strikes here
        self._run = engine.open(
            self,
            unordered=unordered,
            ending=ending,
            can_cancel=True,
            shares_keys=key is not None,
        )
        engine.feed_from(self)

    @property
    def outstanding(self) -> int:
        """How many futures are not done."""
        # in the order in which a future passes them
        return len(self._waiting) + self._is_handing_in + len(self._futures)

    @property
    def waiting(self) -> int:
        """How many of these are not handed in."""
        return len(self._waiting)

    @property
    def _is_busy(self) -> bool:
        return bool(self.outstanding or self._listeners)

    def retire(self) -> bool:
        """Accept nothing more, if no future is outstanding; return whether that holds."""
        self._is_retired = True  # first: `submit` reads it after it has appended
        self._is_notified = False
        if self._is_busy:
            self._is_retired = False
        return self._is_retired

    def unretire(self) -> None:
        """Undo `retire`."""
        self._is_retired = False

    def submit(self, ev: Event, pool: object) -> Future[Any] | None:
        """See `PoolProcessor.submit`; keep `pool` until then. None: retired, nothing happened."""
        if self._is_retired:
            return None
        future = PoolFuture(self, self._lock)
        try:
            plan = plan_root(self._registry, ev)
            key = None if self._key is None else key_of(self._key, ev)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._tell(ev, error)
            settle(self._lock, [future], error=detached(error))
            return future
        if not plan.indices:
            self._tell(ev)
            settle(self._lock, [future])
            return future
        self._keeps = pool
        if not self._waiting and self._key is None and not self._futures:
            return self._submit_alone(future, ev, plan)
        waiting = (future, ev, plan, key)
        try:
            self._waiting.append(waiting)
            if not self._is_notified:
                if not self._may_take(waiting):
                    return None
            elif len(self._waiting) >= self._push_at and self.engine.is_free:
                self._push_at = min(2 * self._push_at, _MOST_PUSHED)
                self.engine.push()
        except BaseException:
            # An interrupt: the caller does not get the future, and nothing may wait for it.
            self._withdraw(waiting)
            raise
        return future

    def _tell(self, ev: Event, error: BaseException | None = None) -> None:
        """Tell listeners of an event that needs no worker."""
        notices = self.engine.notices
        if notices is not None and error is None:
            notices.unwanted(self._run.id, 0, 1)
        elif notices is not None and error is not None:
            notices.unplanned(self._run.id, 0, ev, error)

    def _submit_alone(self, future: PoolFuture, ev: Event, plan: Plan) -> Future[Any] | None:
        """Submit an event while no other one is outstanding."""
        try:
            with self._changing:
                if self._is_retired:
                    return None
                root = future.root = self._next_root
                self._next_root += 1
                self._futures[root] = future
            accepted = Accepted(self._run.id, root, [ev], [plan])
            is_sent = self.engine.send_now(accepted, self)
            if not is_sent:
                self.engine.accept(accepted)
            with self._changing:
                self._may_linger = is_sent
                if not (is_sent and self._looks_soon):
                    self._changed.notify_all()
                self._start_thread()
        except BaseException:
            # An interrupt: the caller does not get the future, and nothing may wait for it.
            self._futures.pop(future.root, None)
            raise
        closed = self.engine.closed
        if closed is not None:
            if self.engine.is_replaceable and self._futures.pop(root, None) is not None:
                return None
            # the engine ended meanwhile, maybe before it knew of this future
            self.broken(closed)
        return future

    def _may_take(self, waiting: _Waiting) -> bool:
        """Notify the driver of a waiting event. False: retired, and the event was taken back."""
        closed = self.engine.closed
        is_replaced = self._is_retired or (closed is not None and self.engine.is_replaceable)
        if is_replaced and self._withdraw(waiting):
            return False
        if closed is not None:
            self.broken(closed)
            return True
        try:
            self._is_notified = True
            self.hurry(starts=True)
            self.engine.wake()
        except BaseException:
            self._is_notified = False
            raise
        if self._is_retired or self.engine.closed is not None:
            # meanwhile; the notification may have come too late
            self._is_notified = False
            return self._may_take(waiting)
        return True

    def _withdraw(self, waiting: _Waiting) -> bool:
        """Take a future back. Return False if it was handed in already; then it is forgotten."""
        try:
            self._waiting.remove(waiting)
        except ValueError:
            self._futures.pop(waiting[0].root, None)
            return False
        return True

    def hand_in(self) -> None:
        """Hand in all waiting events. Called by the driver, at the beginning of a turn."""
        self._is_notified = False  # first: a later event notifies again
        if not self._waiting:
            return
        self._is_handing_in = True
        try:
            taken = self._take_waiting()
            if not taken:
                return
            futures, events, plans, keys = map(list, zip(*taken, strict=True))
            with self._changing:
                first = self._next_root
                self._next_root += len(taken)
            for root, future in enumerate(futures, first):
                future.root = root
                self._futures[root] = future
        finally:
            self._is_handing_in = False
        self.engine.accept(
            Accepted(self._run.id, first, events, plans, None if self._key is None else keys)
        )

    def _take_waiting(self) -> list[_Waiting]:
        """Take the events that wait now, and none that come meanwhile."""
        taken: list[_Waiting] = []
        with contextlib.suppress(IndexError):  # another thread has given up the rest
            taken.extend(self._waiting.popleft() for _ in range(len(self._waiting)))
        return taken

    def help(self, root: int, seconds: float) -> None:
        """See `pool_future.Driver`. Raises `RuntimeError` in a callback that it would wait for."""
        if seconds:
            self.engine.check_may_wait()

        def deliver(answer: Answer) -> None:
            # in this order: if an interrupt strikes in between, the future is done, or gets
            # the reason from `broken`
            settle(self._lock, [self._futures[root]], answer.value)
            self._futures.pop(root, None)

        if not self.engine.collect(self._run.id, root, seconds, deliver):
            self.hurry()

    def interrupt(self, error: BaseException) -> None:
        """See `pool_future.Driver`."""
        self.engine.interrupt(error)

    def hurry(self, *, starts: bool = False) -> None:
        """Have the thread drive; if it `starts`, also if it does not run."""
        with self._changing:
            self._may_linger = False
            self._changed.notify_all()
            if starts:
                self._start_thread()

    def _start_thread(self) -> None:
        """Start the thread that drives, if it does not run; with the lock."""
        if self._thread is None:
            name = "evproc_pool futures"
            thread = self._thread = threading.Thread(target=self._drive, name=name, daemon=True)
            try:
                thread.start()
            except BaseException:
                if thread.ident is None:
                    self._thread = None  # the next event tries again
                raise

    def _drive(self) -> None:
        self._thread = threading.current_thread()  # where its start was taken for failed
        try:
            while True:
                turns = self.engine.turns
                if not self._is_busy:
                    self._push_at = _FEWEST_PUSHED
                    self._release_pool()
                with self._changing:
                    if not self._is_busy:
                        self._changed.notify_all()
                        if self.engine.closed is None:
                            self._linger()
                        if not self._is_busy:
                            self._thread = None
                            self._changed.notify_all()
                            return
                    if self._may_linger:
                        self._may_linger = False
                        self._wait_a_moment()
                        continue
                self.engine.wait_turn(turns)
                self._notify_listeners()
        except BaseException:
            # the error has ended the engine, and so the futures: no thread may wait for more
            self._notify_listeners()
            with self._changing:
                self._thread = None
                self._changed.notify_all()
            raise

    def _linger(self) -> None:
        """Wait for the next future, with the lock.

        At first by polling. If each future is waited for before the next one is submitted, a
        notification would wake this thread each time without need.
        """
        for _ in range(_MOMENTS):
            if self._wait_a_moment() or self._is_busy:
                return
        self._changed.wait(_LINGER_SECONDS)

    def _wait_a_moment(self) -> bool:
        """Leave an event to the thread that waits for it; return whether a notification came."""
        self._looks_soon = True
        try:
            return self._changed.wait(_HELP_SECONDS)
        finally:
            self._looks_soon = False

    def _release_pool(self) -> None:
        """Release the pool, if no future is outstanding.

        Not with the lock: this may be the last reference to the pool, and end it.
        """
        pool, self._keeps = self._keeps, None
        if self._is_busy:  # one came meanwhile
            self._keeps = pool
        del pool

    def drain(self) -> None:
        """Wait until no future is outstanding; not in a future's callback."""
        self.engine.check_may_wait()
        self.hurry()
        with self._changing:
            self._changed.wait_for(lambda: not self.outstanding or self._thread is None)

    def give_up(self, reason: PoolError) -> None:
        """Drop the events that no worker has begun; running ones are finished."""
        self._given_up = reason
        unsent = [future for future, *_ in self._take_waiting()]
        unsent += [future for future in list(self._futures.values()) if not future.running()]
        settle(self._lock, [future for future in unsent if not future.cancelled()], error=reason)
        self.engine.recall()
        self.hurry()

    def cancel(self, roots: Sequence[int], *, kill: bool) -> str:
        """See `pool_future.Driver`: nothing more of the roots' cascades is sent."""
        if self.engine.is_foreign:
            return ""
        where = self.engine.where(self._run, roots)
        self.engine.cancel(self._run, roots, kill=kill)
        self.hurry()
        return where

    def reclaim(self, future: PoolFuture) -> bool:
        """See `pool_future.Driver`."""
        return reclaim(self.engine, self._run, future, self.hurry)

    # --- for runs that no thread waits for ---

    def listen(self, turn_over: Callable[[], bool]) -> None:
        """Drive for a run, and call `turn_over` after each turn until it says that the run ends."""
        self._listeners.add(turn_over)
        self.hurry(starts=True)
        self.engine.wake()

    def _notify_listeners(self) -> None:
        for turn_over in list(self._listeners):
            if turn_over():
                self._listeners.discard(turn_over)

    # --- as a sink ---

    def begins(self, root: int) -> bool:
        """See `OutcomeSink`."""
        future = self._futures.get(root)
        if future is None:
            return False
        if self._given_up is not None:
            settle(self._lock, [future], error=self._given_up)
        return future.begin()

    def refused(self, roots: Sequence[int]) -> list[int]:
        """See `OutcomeSink`."""
        found = [future for future in map(self._futures.get, roots) if future is not None]
        is_complete = len(found) == len(roots) and self._given_up is None
        if is_complete and begin_all(self._lock, found):
            return []
        return [root for root in roots if not self.begins(root)]

    def returned(self, roots: Sequence[int], *, may_have_run: bool) -> None:
        """See `OutcomeSink`: what nobody has begun can be cancelled again."""
        for future in [self._futures[root] for root in roots if root in self._futures]:
            if may_have_run:
                future.may_have_run = True
            elif future.is_unwanted:
                future.withdraw()
            elif not future.may_have_run:
                future.put_back()

    def ended(self, root: int, ending: Ending) -> None:
        """See `OutcomeSink`."""
        future = self._futures.get(root)
        if future is not None:
            if isinstance(ending.error, Withdrawn):
                future.withdraw()
            settle(self._lock, [future], ending.value, ending.error)
            self._futures.pop(root, None)

    def settled(self, item: Settled) -> None:
        """See `OutcomeSink`."""
        roots = range(item.first, item.first + len(item.times))
        values = itertools.repeat(None) if item.values is None else item.values.items
        found: list[PoolFuture] = []
        their: list[Any] = []
        for root, value in zip(roots, values, strict=False):
            if (future := self._futures.get(root)) is not None:
                found.append(future)
                their.append(value)
        # first, so that an interrupt in between loses none
        settle_all(self._lock, found, their)
        for root in roots:
            self._futures.pop(root, None)

    def broken(self, error: PoolError) -> None:
        """See `OutcomeSink`."""
        self._is_notified = False  # first: a later event sees that the engine is closed
        left = [future for future, *_ in self._take_waiting()]
        while self._futures:
            left.append(self._futures.popitem()[1])
        for future in left:
            if future.begin():
                settle(self._lock, [future], error=again(error))
        self.hurry()
