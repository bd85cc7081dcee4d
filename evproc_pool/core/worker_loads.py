"""Which worker holds which batches, and which has room for more. Pure.

A change of what one worker holds, and which worker is next, cost O(1). What all of
them hold together (`overloaded`, `lopsided`, `ahead`) costs O(workers), and is asked
once a turn at the most.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Iterator
from typing import Final

from evproc_pool.core.batches import Batch
from evproc_pool.core.estimates import TARGET_SECONDS
from evproc_pool.core.run_state import Run
from evproc_pool.errors import InternalError

#: Batches that a worker may hold at the most: the one it runs, and the next ones.
PREFETCH: Final = 6

#: Work that a worker gets besides the batch it runs, in seconds; one more batch in
#: any case.
AHEAD_SECONDS: Final = 4 * TARGET_SECONDS

#: The same near the end of a closed run that is alone. Cascades are near their end all
#: the time, for all that is known: the less of them is in flight, the larger is what waits,
#: and so are the batches.
LATE_SECONDS: Final = TARGET_SECONDS / 4

# Among so many workers the one is looked for that has the least to do.
_MOST_LOOKED_AT: Final = 8

#: A worker that holds so many bytes gets no further batch.
WINDOW_BYTES: Final = 32 << 20

# It takes two for one to have more than another.
_FEWEST_TO_EVEN_OUT: Final = 2


class _Load:
    """What one worker holds.

    Attributes:
        held: Its batches, in order.
        seconds: What they are expected to take.
        size_bytes: What they have.
        ahead: The seconds that those behind the first are expected to take.
        pace: What part of that it takes, going by what was reported last; at most 1.
        is_retired: Whether it is sent nothing more.
        is_slow: Whether events were taken back from it and it has not reported since.
        shelf: The one of `WorkerLoads._roomy` or `WorkerLoads._well_ahead` that it stands on,
            if it has room.
    """

    __slots__ = (
        "ahead",
        "held",
        "is_retired",
        "is_slow",
        "pace",
        "seconds",
        "shelf",
        "size_bytes",
    )

    def __init__(self) -> None:
        self.held: deque[Batch] = deque()
        self.seconds = 0.0
        self.size_bytes = 0
        self.ahead = 0.0
        self.pace = 1.0
        self.is_retired = False
        self.is_slow = False
        self.shelf: dict[int, None] | None = None


class WorkerLoads:
    """The workers that are ready.

    Attributes:
        free: How many batches more they could hold.
        staying: Those that are not retired.
    """

    def __init__(self) -> None:
        self._loads: dict[int, _Load] = {}
        # workers with room, by how many batches they hold; dicts keep their order
        self._roomy: tuple[dict[int, None], ...] = tuple({} for _ in range(PREFETCH))
        # the same of those that have no room at the end of a run
        self._well_ahead: tuple[dict[int, None], ...] = tuple({} for _ in range(PREFETCH))
        self._is_draining = False  # whether those that hold something get nothing more
        self.free = 0
        self.staying: set[int] = set()

    def __len__(self) -> int:
        return len(self._loads)

    # --- questions ---

    @property
    def idle(self) -> Collection[int]:
        """The workers that hold nothing."""
        return self._roomy[0].keys()

    @property
    def overloaded(self) -> list[int]:
        """Those that hold more than the event they are at."""
        return [
            worker
            for worker, load in self._loads.items()
            if len(load.held) > 1 or (load.held and load.held[0].size - load.held[0].done > 1)
        ]

    @property
    def at_several(self) -> Iterator[tuple[int, Batch]]:
        """Those at a batch of which more than one event is not told, with that batch."""
        for worker, load in self._loads.items():
            if load.held and load.held[0].size - load.held[0].done > 1:
                yield worker, load.held[0]

    @property
    def lopsided(self) -> list[int]:
        """Those that hold two batches more than one that is at its last, or idle.

        If that one would get what they give back: otherwise they would get it again.
        """
        staying = [worker for worker, load in self._loads.items() if not load.is_retired]
        if len(staying) < _FEWEST_TO_EVEN_OUT:
            return []
        roomy = [len(load.held) for load in self._loads.values() if load.shelf is not None]
        least = min(roomy, default=PREFETCH)
        if least > 1:
            return []
        return [worker for worker in staying if len(self._loads[worker].held) > least + 1]

    @property
    def ahead(self) -> float:
        """The seconds for which every worker has something to do behind its first batch.

        But for those that are sent nothing more in any case. Where events turned out to
        take less time than they were sent for, it counts for as much less.
        """
        if self._roomy[0]:
            return 0.0
        staying = [load.ahead * load.pace for load in self._loads.values() if not load.is_retired]
        return min(staying, default=0.0)

    def held(self, worker: int) -> deque[Batch]:
        """A worker's batches; not to be changed but by the methods below.

        Raises:
            InternalError: There is no such worker.
        """
        return self._load(worker).held

    def of(self, run: Run) -> list[Batch]:
        """The batches of a run that workers hold."""
        held = itertools.chain.from_iterable(load.held for load in self._loads.values())
        return [batch for batch in held if batch.run is run]

    def roomiest(self, *, idle: bool) -> int | None:
        """The worker with room that has the least to do, or None.

        Of those with room some are compared, those that hold the fewest batches.

        Args:
            idle: Whether only one will do that holds nothing.
        """
        if idle:
            return next(iter(self._roomy[0]), None)
        shelves = itertools.chain(*zip(self._roomy, self._well_ahead, strict=True))
        some = itertools.islice(itertools.chain(*shelves), _MOST_LOOKED_AT)
        return min(some, key=lambda worker: self._loads[worker].seconds, default=None)

    def has_room(self, worker: int, *, is_late: bool) -> bool:
        """Whether a worker could get a batch.

        Args:
            worker: Any.
            is_late: Whether it must not have `LATE_SECONDS` to do; see `earliest`.
        """
        load = self._loads.get(worker)
        if load is None or load.shelf is None:
            return False
        return not is_late or load.shelf is self._roomy[len(load.held)]

    def earliest(self) -> int | None:
        """The worker with room that has the least to do behind its first batch, or None.

        For the end of a run: what is sent as late as it can be goes where it is begun
        soonest. So those that have `LATE_SECONDS` to do have no room here. Of the others
        a few are compared, those that hold the fewest batches.
        """
        some = itertools.islice(itertools.chain(*self._roomy), _MOST_LOOKED_AT)
        return min(some, key=lambda worker: self._loads[worker].ahead, default=None)

    # --- changes ---

    def reserve(self) -> int | None:
        """A worker that holds nothing, for a batch that has to be alone; or None.

        In that case none gets anything more until one is idle, which so is the first
        that can be, and no worker runs dry before.
        """
        for worker in self._roomy[0]:
            return worker
        self._drain(is_draining=True)
        return None

    def release(self) -> None:
        """No batch has to be alone any more."""
        self._drain(is_draining=False)

    def _drain(self, *, is_draining: bool) -> None:
        if self._is_draining != is_draining:
            self._is_draining = is_draining
            for worker, load in self._loads.items():
                self._place(worker, load)

    def add(self, worker: int) -> None:
        """A worker is ready.

        Raises:
            InternalError: It was before.
        """
        if worker in self._loads:
            raise InternalError(f"worker {worker} is ready already")
        load = self._loads[worker] = _Load()
        self.free += PREFETCH
        self.staying.add(worker)
        self._place(worker, load)

    def remove(self, worker: int) -> None:
        """A worker is gone."""
        load = self._loads.pop(worker)
        self.staying.discard(worker)
        self.free -= PREFETCH - len(load.held)
        if load.shelf is not None:
            del load.shelf[worker]

    def push(self, worker: int, batch: Batch) -> None:
        """A worker gets a batch."""
        load = self._loads[worker]
        load.held.append(batch)
        load.seconds += batch.seconds
        load.size_bytes += batch.size_bytes
        self.free -= 1
        self._place(worker, load)

    def pop_first(self, worker: int) -> None:
        """A worker is done with its first batch."""
        load = self._loads[worker]
        self._take_off(load, load.held.popleft())
        self._place(worker, load)

    def pop_last(self, worker: int) -> Batch:
        """A worker's last batch is taken from it."""
        load = self._loads[worker]
        batch = load.held.pop()
        self._take_off(load, batch)
        self._place(worker, load)
        return batch

    def _take_off(self, load: _Load, batch: Batch) -> None:
        self.free += 1
        if load.held:
            load.seconds -= batch.seconds
            load.size_bytes -= batch.size_bytes
        else:
            load.seconds, load.size_bytes = 0.0, 0  # and no rounding errors

    def retire(self, worker: int) -> None:
        """A worker gets nothing more.

        Raises:
            InternalError: There is no such worker.
        """
        load = self._load(worker)
        load.is_retired = True
        self.staying.discard(worker)
        self._place(worker, load)

    def set_slow(self, worker: int, *, is_slow: bool) -> None:
        """A slow worker gets nothing more while it holds something."""
        load = self._loads[worker]
        if load.is_slow != is_slow:
            load.is_slow = is_slow
            self._place(worker, load)

    def learn_pace(self, worker: int, events: int, seconds: float) -> None:
        """Correct `ahead` by what events of a worker's first batch took.

        Until the worker's next report, whatever it has been sent meanwhile: at worst
        `ahead` is too short, and somebody looks again too early. Who has room does not
        depend on it.
        """
        load = self._loads[worker]
        batch = load.held[0]
        load.pace = min(1.0, seconds * batch.size / (batch.seconds * events))

    def cut(self, worker: int, kept: int) -> None:
        """Of a worker's first batch it runs only so many events."""
        load = self._loads[worker]
        batch = load.held[0]
        seconds = batch.seconds * kept / batch.size
        load.seconds += seconds - batch.seconds
        batch.size, batch.seconds = kept, seconds

    def weigh(self, worker: int, batch: Batch, size_bytes: int) -> None:
        """The bytes of one of a worker's batches are known, which were an estimate."""
        load = self._loads[worker]
        was_full = load.size_bytes >= WINDOW_BYTES
        load.size_bytes += size_bytes - batch.size_bytes
        batch.size_bytes = size_bytes
        if was_full != (load.size_bytes >= WINDOW_BYTES):
            self._place(worker, load)

    def _load(self, worker: int) -> _Load:
        try:
            return self._loads[worker]
        except KeyError:
            raise InternalError(f"there is no worker {worker}") from None

    def _place(self, worker: int, load: _Load) -> None:
        """Put a worker on the shelf where it belongs now, behind the others there."""
        held = load.held
        load.ahead = max(0.0, load.seconds - held[0].seconds) if len(held) > 1 else 0.0
        if load.shelf is not None:
            del load.shelf[worker]
            load.shelf = None
        has_room = not load.is_retired and (
            not held
            or (
                len(held) < PREFETCH
                and not (load.is_slow or held[0].is_alone or self._is_draining)
                and load.size_bytes < WINDOW_BYTES
                and (len(held) == 1 or load.ahead < AHEAD_SECONDS)
            )
        )
        if has_room:
            shelves = self._roomy if load.ahead < LATE_SECONDS else self._well_ahead
            load.shelf = shelves[len(held)]
            load.shelf[worker] = None
