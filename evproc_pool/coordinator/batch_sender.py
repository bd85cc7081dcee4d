"""Sends batches of the scheduler to workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError

from evproc_pool.coordinator.cancellation import Cancellations
from evproc_pool.coordinator.codec import Codec
from evproc_pool.coordinator.run_handle import RunHandle
from evproc_pool.coordinator.single_events import SentSingle
from evproc_pool.coordinator.worker_record import Sent, WorkerRecord
from evproc_pool.core.batches import Batch
from evproc_pool.core.inputs_and_effects import Weighed
from evproc_pool.core.supervisor import Supervisor
from evproc_pool.core.supervisor_inputs import Input
from evproc_pool.errors import InternalError
from evproc_pool.protocol.backend import Backend


class BatchSender:
    """Encodes and sends batches, without the events that callers have cancelled.

    Attributes:
        single: An event that was sent already; the scheduler is about to send it. Or None.
    """

    def __init__(
        self,
        codec: Codec,
        backend: Backend,
        supervisor: Supervisor,
        *,
        workers: Mapping[int, WorkerRecord],
        runs: Mapping[int, RunHandle],
        cancelled: Cancellations,
        clock: Callable[[], float],
        step: Callable[[Input], bool],
    ) -> None:
        self._codec = codec
        self._backend = backend
        self._supervisor = supervisor
        self._workers = workers
        self._runs = runs
        self._cancelled = cancelled
        self._clock = clock
        self._step = step
        self.single: SentSingle | None = None

    def send(self, worker: int, batch: Batch) -> None:
        """Send a batch to a worker, and tell the supervisor its size."""
        state = self._workers[worker]
        single, self.single = self.single, None
        if single is not None:
            if single.worker != worker or batch.size != 1:
                raise InternalError(f"worker {single.worker} has the event, and not {worker}")
            state.sent.append(Sent(batch, single.number))
            return
        state.batches += 1
        sent = Sent(batch, state.batches)
        self._supervisor.sent(worker, self._clock(), is_first=not state.sent)
        state.sent.append(sent)
        run = self._runs[batch.run_id]
        if run.can_cancel:
            roots = batch.roots
            refused = run.sink.refused(roots)
            if refused:
                positions = dict(zip(roots, batch.root_positions, strict=True))
                sent.failures.update({positions[root]: CancelledError() for root in refused})
        if self._cancelled:
            self._cancelled.keep_from(sent)
        frame, class_bytes = self._codec.encode(sent, state.plans)
        # a root belongs to the caller, who may change it
        if frame.buffers and not batch.root_positions:
            sent.large = frame.buffers
        self._backend.send(worker, *frame, may_refer=bool(sent.large))
        size_bytes = frame.size_bytes
        self._step(Weighed(worker, batch, size_bytes, size_bytes - class_bytes))
