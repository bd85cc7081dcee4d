"""Which worker holds which batches, and which has room for more. Pure.

To change the load of a worker, or to choose the next worker, costs O(1). Questions about all
loads (`overloaded`, `lopsided`, `ahead`) cost O(workers); they come once a turn at most.
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

#: The most batches that a worker may hold, unless it can hold fewer: its current one and the next.
PREFETCH: Final = 6

#: Work that a worker gets besides its current batch, in seconds; at least one more batch.
AHEAD_SECONDS: Final = 4 * TARGET_SECONDS

#: The same near the end of a closed run that is alone. Cascades may always be near their end:
#: with less of them in flight more of them waits, which makes larger batches.
LATE_SECONDS: Final = TARGET_SECONDS / 4

# How many workers are compared to find the one with the least work.
_MOST_COMPARED: Final = 8

#: A worker that holds this many bytes gets no further batch.
WINDOW_BYTES: Final = 32 << 20

# One worker alone cannot have more than another.
_FEWEST_TO_EVEN_OUT: Final = 2


class _Load:
    """The batches of one worker, and its room for more."""

    def __init__(self) -> None:
        self.held: deque[Batch] = deque()  # its batches, in order
        self.seconds = 0.0  # their expected time
        self.size_bytes = 0  # their bytes
        self.ahead = 0.0  # the expected seconds of the batches behind the first
        self.pace = 1.0  # the part of `ahead` that they take, by the last report; at most 1
        self.is_retired = False  # whether it gets nothing more
        self.is_slow = False  # whether events were taken back from it and it has not reported since
        # its place in `WorkerLoads._roomy` or `WorkerLoads._well_ahead`, if it has room
        self.shelf: dict[int, None] | None = None


class WorkerLoads:
    """The workers that are ready; each holds `prefetch` batches at most."""

    def __init__(self, prefetch: int = PREFETCH) -> None:
        self._prefetch = prefetch
        self._loads: dict[int, _Load] = {}
        # workers with room, by the number of their batches; dicts keep their order
        self._roomy: tuple[dict[int, None], ...] = tuple({} for _ in range(prefetch))
        # the same for workers that have no room near the end of a run
        self._well_ahead: tuple[dict[int, None], ...] = tuple({} for _ in range(prefetch))
        self._is_draining = False  # whether busy workers get nothing more
        self.free = 0  # how many more batches they could hold

    def __len__(self) -> int:
        return len(self._loads)

    # --- questions ---

    @property
    def idle(self) -> Collection[int]:
        """Workers that hold nothing."""
        return self._roomy[0].keys()

    @property
    def overloaded(self) -> list[int]:
        """Workers that hold more than their current event."""
        return [
            worker
            for worker, load in self._loads.items()
            if len(load.held) > 1 or (load.held and load.held[0].size - load.held[0].done > 1)
        ]

    @property
    def at_several(self) -> Iterator[tuple[int, Batch]]:
        """Workers with more than one unreported event in their first batch, and that batch."""
        for worker, load in self._loads.items():
            if load.held and load.held[0].size - load.held[0].done > 1:
                yield worker, load.held[0]

    @property
    def lopsided(self) -> list[int]:
        """Workers that hold two batches more than one that is idle or at its last batch.

        Empty if that one has no room: then they would get back the batches that they give back.
        """
        staying = [worker for worker, load in self._loads.items() if not load.is_retired]
        if len(staying) < _FEWEST_TO_EVEN_OUT:
            return []
        roomy = [len(load.held) for load in self._loads.values() if load.shelf is not None]
        least = min(roomy, default=self._prefetch)
        if least > 1:
            return []
        return [worker for worker in staying if len(self._loads[worker].held) > least + 1]

    @property
    def ahead(self) -> float:
        """The seconds for which every worker has work behind its first batch.

        Retired workers do not count. It is less if events took less time than expected.
        """
        if self._roomy[0]:
            return 0.0
        staying = [load.ahead * load.pace for load in self._loads.values() if not load.is_retired]
        return min(staying, default=0.0)

    def held(self, worker: int) -> deque[Batch]:
        """A worker's batches. Only the methods below change them."""
        return self._load(worker).held

    def of(self, run: Run) -> list[Batch]:
        """The batches of a run that workers hold."""
        held = itertools.chain.from_iterable(load.held for load in self._loads.values())
        return [batch for batch in held if batch.run is run]

    def roomiest(self, *, idle: bool) -> int | None:
        """The worker with room and the least work, of some with the fewest batches; or None.

        `idle`: the worker must be idle.
        """
        if idle:
            return next(iter(self._roomy[0]), None)
        shelves = itertools.chain(*zip(self._roomy, self._well_ahead, strict=True))
        some = itertools.islice(itertools.chain(*shelves), _MOST_COMPARED)
        return min(some, key=lambda worker: self._loads[worker].seconds, default=None)

    def earliest(self) -> int | None:
        """The worker with room and the least work behind its first batch, or None.

        For the end of a run: a batch goes as late as it can to the worker that begins it
        soonest. So a worker with `LATE_SECONDS` of work has no room here. Some of the others
        are compared, those with the fewest batches.
        """
        some = itertools.islice(itertools.chain(*self._roomy), _MOST_COMPARED)
        return min(some, key=lambda worker: self._loads[worker].ahead, default=None)

    def has_room(self, worker: int, instead_of: int) -> bool:
        """Whether a worker has room, and is idle if another one is."""
        load = self._loads.get(worker)
        may_wait = bool(self._loads[instead_of].held)
        return load is not None and load.shelf is not None and (may_wait or not load.held)

    # --- changes ---

    def reserve(self) -> int | None:
        """An idle worker for a batch that has to be alone, or None.

        If None, no worker gets anything more until the first one is idle; none is idle before.
        """
        for worker in self._roomy[0]:
            return worker
        self._drain(is_draining=True)
        return None

    def release(self) -> None:
        """Take in that no batch has to be alone any more."""
        self._drain(is_draining=False)

    def _drain(self, *, is_draining: bool) -> None:
        if self._is_draining != is_draining:
            self._is_draining = is_draining
            for worker, load in self._loads.items():
                self._place(worker, load)

    def add(self, worker: int) -> None:
        """Add a worker that is ready."""
        if worker in self._loads:
            raise InternalError(f"worker {worker} is ready already")
        load = self._loads[worker] = _Load()
        self.free += self._prefetch
        self._place(worker, load)

    def remove(self, worker: int) -> None:
        """Remove a worker that is gone."""
        load = self._loads.pop(worker)
        self.free -= self._prefetch - len(load.held)
        if load.shelf is not None:
            del load.shelf[worker]

    def push(self, worker: int, batch: Batch) -> None:
        """Give a worker a batch."""
        load = self._loads[worker]
        load.held.append(batch)
        load.seconds += batch.seconds
        load.size_bytes += batch.size_bytes
        self.free -= 1
        self._place(worker, load)

    def pop_first(self, worker: int) -> None:
        """Take the first batch from a worker, which is done with it."""
        load = self._loads[worker]
        self._take_off(load, load.held.popleft())
        self._place(worker, load)

    def pop_last(self, worker: int) -> Batch:
        """Take the last batch from a worker."""
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
            load.seconds, load.size_bytes = 0.0, 0  # without rounding errors

    def retire(self, worker: int) -> None:
        """Give a worker nothing more."""
        load = self._load(worker)
        load.is_retired = True
        self._place(worker, load)

    def set_slow(self, worker: int, *, is_slow: bool) -> None:
        """Say whether a worker is slow: then it gets nothing more while it holds something."""
        load = self._loads[worker]
        if load.is_slow != is_slow:
            load.is_slow = is_slow
            self._place(worker, load)

    def learn_pace(self, worker: int, events: int, seconds: float) -> None:
        """Correct `ahead` by the time that events of a worker's first batch took.

        This holds until the worker's next report, whatever it is sent meanwhile. At worst
        `ahead` is too short and the coordinator looks again too early. Room does not depend
        on it.
        """
        load = self._loads[worker]
        batch = load.held[0]
        load.pace = min(1.0, seconds * batch.size / (batch.seconds * events))

    def cut(self, worker: int, kept: int) -> None:
        """Shorten a worker's first batch to the events that it keeps."""
        load = self._loads[worker]
        batch = load.held[0]
        seconds = batch.seconds * kept / batch.size
        load.seconds += seconds - batch.seconds
        batch.size, batch.seconds = kept, seconds

    def weigh(self, worker: int, batch: Batch, size_bytes: int) -> None:
        """Replace the estimated bytes of one of a worker's batches."""
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
        """Put a worker behind the others on the shelf where it belongs now."""
        held = load.held
        load.ahead = max(0.0, load.seconds - held[0].seconds) if len(held) > 1 else 0.0
        if load.shelf is not None:
            del load.shelf[worker]
            load.shelf = None
        has_room = not load.is_retired and (
            not held
            or (
                len(held) < self._prefetch
                and not (load.is_slow or held[0].is_alone or self._is_draining)
                and load.size_bytes < WINDOW_BYTES
                and (len(held) == 1 or load.ahead < AHEAD_SECONDS)
            )
        )
        if has_room:
            shelves = self._roomy if load.ahead < LATE_SECONDS else self._well_ahead
            load.shelf = shelves[len(held)]
            load.shelf[worker] = None
