"""Roots that callers cancel while workers have them.

An event of a cancelled root is not sent any more: it fails with `Withdrawn`, which ends its
cascade. Batches that are sent and not begun are asked back. An event that runs goes on, or its
worker is killed: other events of that worker are handed on at no charge, as after a timeout.

Cost: nothing while nothing is cancelled; then O(events) for each batch that is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from typing import Final, NamedTuple

from evproc.event import describe_event
from evproc.registry import Registry
from evproc_pool.coordinator.run_handle import RunHandle
from evproc_pool.coordinator.worker_record import Sent, WorkerRecord
from evproc_pool.core.batches import Batch
from evproc_pool.core.inputs_and_effects import Effect, Ended, Finished, Over, Settled
from evproc_pool.core.retry_policy import Tried
from evproc_pool.protocol.backend import Backend
from evproc_pool.protocol.status_words import WorkerStatus

#: The answer if no worker runs any of the events.
NOT_BEGUN: Final = "no worker was running it"


class Withdrawn(CancelledError):
    """Fails the events of a cancelled root that do not run; its future is cancelled then."""


class Cancel(NamedTuple):
    """A caller gives up roots.

    Attributes:
        run: The run.
        roots: Its roots; None: all.
        kill: Whether to kill the workers that run events of them.
    """

    run: int
    roots: Sequence[int] | None
    kill: bool


class Reclaim(NamedTuple):
    """A caller wants a root back if no worker has begun it, or not any more.

    Attributes:
        run: The run.
        root: Its root.
        is_wanted: Whether it still is.
    """

    run: int
    root: int
    is_wanted: bool


class Recall(NamedTuple):
    """From now on workers give back all that they have not begun."""


class Cancellations:
    """The cancelled roots that have not ended."""

    def __init__(self) -> None:
        # whether to kill, by root; None stands for all roots of the run
        self._roots: dict[int, dict[int | None, bool]] = {}
        self._reclaimed: set[tuple[int, int]] = set()  # run and root; these are not cancelled

    def __bool__(self) -> bool:
        return bool(self._roots or self._reclaimed)

    def add(self, item: Cancel | Reclaim) -> None:
        """Remember roots."""
        if isinstance(item, Reclaim):
            change = self._reclaimed.add if item.is_wanted else self._reclaimed.discard
            change((item.run, item.root))
            return
        roots = self._roots.setdefault(item.run, {})
        for root in (None,) if item.roots is None else item.roots:
            roots[root] = roots.get(root, False) or item.kill

    def _kills(self, run: int, root: int) -> bool | None:
        """Whether to kill for a root; None: it was not cancelled."""
        roots = self._roots.get(run, {})
        return roots.get(root, roots.get(None))

    def keep_from(self, sent: Sent) -> None:
        """Keep events of cancelled roots out of a batch."""
        batch = sent.batch
        if batch.run_id in self._roots:
            for position in range(batch.size):
                if self._kills(batch.run_id, batch.root_at(position)) is not None:
                    sent.failures[position] = Withdrawn()

    def holders(self, workers: Mapping[int, WorkerRecord]) -> Iterator[int]:
        """The workers that hold events of cancelled or reclaimed roots."""
        for worker, state in workers.items():
            for sent in state.sent:
                batch = sent.batch
                if any(
                    self._is_given_up(batch.run_id, batch.root_at(position))
                    for position in range(batch.done, batch.size)
                ):
                    yield worker
                    break

    def _is_given_up(self, run: int, root: int) -> bool:
        return (run, root) in self._reclaimed or self._kills(run, root) is not None

    @property
    def kills(self) -> bool:
        """Whether any worker that runs an event of these is to be killed."""
        return any(any(roots.values()) for roots in self._roots.values())

    def kills_at(self, at: WorkerStatus, sent: Sent) -> bool:
        """Whether a worker is to be killed for the event of its first batch that it runs."""
        batch, position = sent.batch, position_in(at, sent)
        return position is not None and bool(self._kills(batch.run_id, batch.root_at(position)))

    def hear(self, effect: Effect) -> None:
        """Forget roots that have ended."""
        match effect:
            case Finished(run):
                self._roots.pop(run, None)
            case Ended(run, root) if run in self._roots:
                self._forget_roots(run, (root,))
            case Over(run, roots) if run in self._roots:
                self._forget_roots(run, roots)
            case Settled(run, first, times) if run in self._roots:
                self._forget_roots(run, range(first, first + len(times)))

    def _forget_roots(self, run: int, ended: Sequence[int]) -> None:
        roots = self._roots[run]
        for root in ended:
            roots.pop(root, None)
        if not roots:
            del self._roots[run]


def position_in(at: WorkerStatus, sent: Sent) -> int | None:
    """The event of a batch that a worker runs, or whose output or results it sends; or None."""
    if at.batch != sent.number or not at.runs_code:
        return None
    position = at.packed if at.is_over and at.packing == 1 else at.position
    return position if 0 <= position < sent.batch.size else None


def hand_back(run: RunHandle | None, batch: Batch, begin: int, *, may_have_run: bool) -> None:
    """Tell the sink of a run which roots a worker gives back, from a position on.

    Before the scheduler knows it, which may send them at once. Not those that ran before.
    """
    if run is None or not run.can_cancel:
        return
    roots = [
        part.root(place)
        for part in batch.parts
        for place in part.root_places
        if part.start + place >= begin and not isinstance(part.plans[place], Tried)
    ]
    if roots:
        run.sink.returned(roots, may_have_run=may_have_run)


def place_before(
    run: int, root: int, workers: Mapping[int, WorkerRecord], backend: Backend
) -> tuple[int, int] | None:
    """Where a worker is that holds a root, and has not begun it; None: there is none.

    That may change at any moment.
    """
    for worker, state in list(workers.items()):
        for sent in list(state.sent):
            batch = sent.batch
            if batch.run_id != run or root not in (roots := batch.roots):
                continue
            position = batch.root_positions[roots.index(root)]
            at = backend.look_at(worker)
            if at is not None and (at.batch, at.position) < (sent.number, position):
                return at.batch, at.position
    return None


def say_where(
    run: int,
    roots: Sequence[int] | None,
    workers: Mapping[int, WorkerRecord],
    backend: Backend,
    registry: Registry,
) -> str:
    """Say which of these roots run now. That may change at any moment."""
    found = []
    for worker, state in list(workers.items()):
        at = backend.look_at(worker) if state.sent else None
        position = None if at is None else position_in(at, state.sent[0])
        if at is None or position is None:
            continue
        batch = state.sent[0].batch
        if batch.run_id != run or (roots is not None and batch.root_at(position) not in roots):
            continue
        where = "between handlers"
        if at.handler is not None:
            where = f"in handler {registry.handlers[at.handler].name!r}"
        if at.is_over:
            where = "over, and its output is being flushed"
            if at.packing:
                where = "over, and its results are being pickled"
        event = describe_event(batch.at(position)[0])
        found.append(
            f"event {event} is {where}, in worker {worker} (process {backend.pid(worker)})"
        )
    return "; ".join(found) or NOT_BEGUN
