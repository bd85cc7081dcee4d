"""Golden traces: what the core decides in some situations, in words.

Each situation is a script of inputs for the supervisor. Its trace has the inputs, with their
times, and below each what the core wants done. The traces stand in
``tests/evproc_pool/core/traces`` and a test compares them.

Make them anew with::

    python -m tests.support.traces
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from evproc_pool.core.batches import Batch
from evproc_pool.core.event_limits import EventLimits
from evproc_pool.core.inputs_and_effects import (
    Accepted,
    Closed,
    Dropped,
    Ended,
    Finished,
    Opened,
    Over,
    Progress,
    Result,
    Send,
    Settled,
    TakenBack,
    WorkerGone,
    WorkerReady,
)
from evproc_pool.core.retry_policy import RetryPolicy
from evproc_pool.core.supervisor import Supervisor
from evproc_pool.core.supervisor_inputs import (
    AskBack,
    AskReport,
    Effect,
    FewerWorkers,
    GiveUp,
    Input,
    Kill,
    LookAgain,
    QuotaNearlyUsed,
    QuotaUsed,
    RaiseSoftTimeout,
    Seen,
    Start,
    StartFailed,
    StartLost,
    Stop,
    TakeBack,
)
from tests.support.model import FakePlan, column
from tests.support.world import as_singles

#: Where the traces are.
FOLDER: Final = Path(__file__).parents[1] / "evproc_pool" / "core" / "traces"

_PLAN: Final = FakePlan((0,))
_MOST_NAMES: Final = 6


class _Trace:
    """A supervisor, the time, and the lines that were written.

    Args:
        workers: The size of the pool.
        limits: Of each event.
        policy: Which events are run again.
        **opened: How the run is opened, see `Opened`.
    """

    def __init__(
        self,
        workers: int = 2,
        limits: EventLimits = EventLimits(),  # noqa: B008 - it cannot be changed
        policy: RetryPolicy = RetryPolicy(),  # noqa: B008 - likewise
        **opened: bool,
    ) -> None:
        self.lines: list[str] = []
        self.now = 0.0
        self._roots = 0
        self._supervisor = Supervisor(policy, workers, limits, lambda: 0.5)
        options = "".join(f", {name}" for name in opened)
        self._step(f"run 1 opens{options}", Opened(1, **opened))

    # --- inputs ---

    def roots(self, names: str | Iterable[str], keys: Sequence[str] | None = None) -> None:
        """Hand in root events."""
        events = names.split() if isinstance(names, str) else list(names)
        text = f"roots {_listed(events)}" + (f" with keys {_listed(keys)}" if keys else "")
        self._step(text, Accepted(1, self._roots, events, [_PLAN] * len(events), keys))
        self._roots += len(events)
        self._write("a turn begins", self._supervisor.begin_turn(self.now))

    def turn(self) -> None:
        """Begin another turn."""
        self._write("a turn begins", self._supervisor.begin_turn(self.now))

    def close(self, *, drop: bool = False) -> None:
        """End the input of the run."""
        self._step("the input ends" + (", the rest is dropped" if drop else ""), Closed(1, drop))

    def ready(self, *workers: int) -> None:
        """Let workers be ready."""
        for worker in workers:
            self._step(f"worker {worker} is ready", WorkerReady(worker))

    def lost_in_start(self, worker: int, *, by_group_signal: bool = False) -> None:
        """Let a worker die before it is ready."""
        how = ", by a signal to all" if by_group_signal else ""
        item = StartLost(worker, by_group_signal)
        self._step(f"worker {worker} dies before it is ready{how}", item)

    def refused(self, worker: int) -> None:
        """Let the system refuse to start a worker."""
        self._step(f"worker {worker} cannot be started", StartFailed(worker))

    def done(
        self,
        worker: int,
        count: int | None = None,
        *,
        each: float = 0.0001,
        follow_ups: Mapping[int, str] | None = None,
        values: Mapping[int, Any] | None = None,
        errors: Mapping[int, str] | None = None,
        gave_back: bool = False,
    ) -> None:
        """Let a worker report events of its first batch as over.

        Args:
            worker: The worker.
            count: How many; None: all that are left.
            each: Their seconds.
            follow_ups: By position.
            values: Likewise, given to `StopProcessing`.
            errors: Likewise, the messages.
            gave_back: Whether the worker leaves the rest unrun.
        """
        batch = self._held(worker)
        begin = batch.done
        end = batch.size if count is None else begin + count
        names = [batch.at(position)[0] for position in range(begin, end)]
        follow_ups, values, errors = follow_ups or {}, values or {}, errors or {}
        left = [f"{batch.at(at)[0]} returns {more}" for at, more in follow_ups.items()]
        left += [f"{batch.at(at)[0]} stops with {value!r}" for at, value in values.items()]
        left += [f"{batch.at(at)[0]} raises {error}" for at, error in errors.items()]
        text = f"worker {worker} is done with {_listed(names) or 'no more'}"
        text += "".join(f"; {each}" for each in left)
        text += "; it gives back the rest" if gave_back else ""
        planned = {at: [(name, _PLAN) for name in more.split()] for at, more in follow_ups.items()}
        results = {at: Result(error=ValueError(e), handler="h") for at, e in errors.items()}
        times = [each] * (end - begin)
        timings = [((0,), len(times), sum(times))] if times else []
        self._step(
            text,
            Progress(
                worker,
                end,
                times,
                as_singles(planned),
                results,
                timings=timings,
                gave_back=gave_back,
                values=column(dict(values)),
                cut=(*results, *values),
            ),
        )

    def dies(self, worker: int, running: int | None, error: str = "killed") -> None:
        """Let a worker die, while it runs an event of its first batch, or while it is idle."""
        text = f"worker {worker} dies"
        if running is not None:
            text += f" while it runs {self._held(worker).at(running)[0]}"
        failed = None if running is None else RuntimeError(error)
        self._step(text, WorkerGone(worker, running, failed, "h"))
        self.turn()

    def at(self, seconds: float, memory: int = 0, **positions: int | None) -> None:
        """Let time pass, and look where workers are: ``w1=0`` is at its first event."""
        self.now += seconds
        seen: dict[int, Seen | None] = {}
        for name, position in positions.items():
            worker = int(name.removeprefix("w"))
            batch = self._held(worker)
            seen[worker] = Seen(position, (id(batch), position), handler=0)
        where = ", ".join(
            f"worker {worker} at {self._held(worker).at(each.position)[0]}"
            for worker, each in seen.items()
            if each is not None and each.position is not None
        )
        memory_bytes = dict.fromkeys(seen, memory)
        where = where or "no worker is busy"
        self._write(f"a look: {where}", self._supervisor.look(self.now, seen, memory_bytes))

    def nearly_used_up(self, worker: int) -> None:
        """Let a worker say that its quota is nearly used."""
        self._step(f"the quota of worker {worker} is nearly used", QuotaNearlyUsed(worker))
        self.turn()

    def used_up(self, worker: int) -> None:
        """Let a worker say that its quota is used."""
        self._step(f"the quota of worker {worker} is used", QuotaUsed(worker))

    def drain(self, *workers: int, each: float = 0.0001) -> None:
        """Let workers take turns in being done with their first batch, until none holds any."""
        batches_of = self._supervisor.scheduler.batches_of
        while any(map(batches_of, workers)):
            for worker in workers:
                if batches_of(worker):
                    self.wait(each)
                    self.done(worker, each=each)

    def takes_back(self, worker: int, kept: int) -> None:
        """Confirm that a worker runs only so many events of its first batch."""
        self._step(f"worker {worker} keeps {kept} of its batch", TakenBack(worker, kept))

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    # --- how it is written ---

    def _held(self, worker: int) -> Batch:
        batch = self._supervisor.scheduler.held_by(worker)
        assert batch is not None, f"worker {worker} holds nothing"
        return batch

    def _step(self, text: str, item: Input) -> None:
        self._write(text, self._supervisor.step(item, self.now))

    def _write(self, text: str, effects: Iterable[Effect]) -> None:
        lines = [line for effect in effects for line in _words(effect)]
        if text == "a turn begins" and not lines:
            return
        self.lines.append(f"{self.now:7.4f}  {text}")
        self.lines += [f"             -> {line}" for line in lines]
        for effect in effects:
            if isinstance(effect, Send):
                self._supervisor.sent(effect.worker, self.now, is_first=False)


def _words(effect: Effect) -> list[str]:  # noqa: C901 - a case each
    match effect:
        case Send(worker, batch):
            events = [batch.at(position)[0] for position in range(batch.size)]
            return [f"send worker {worker}: {_listed(events)}"]
        case Settled(_, first, times):
            return [f"{_roots(first, len(times))} over"]
        case Over(_, roots, events):
            cascades = zip(roots, events, strict=True)
            return [
                f"the cascade of root {root} is over; events: {count}" for root, count in cascades
            ]
        case Ended(_, root, ending):
            how = f"fails: {ending.error}" if ending.error else f"ends with {ending.value!r}"
            return [f"the cascade of root {root} {how}"]
        case Dropped(_, first, roots):
            return [f"{_roots(first, roots)} dropped"]
        case Finished(run):
            return [f"run {run} is finished"]
        case Start(worker):
            return [f"start worker {worker}"]
        case Stop(worker):
            return [f"stop worker {worker}"]
        case AskBack(worker):
            return [f"ask worker {worker} for what it has not begun"]
        case TakeBack(worker, position):
            return [f"take back what worker {worker} has behind event {position} of its batch"]
        case AskReport(worker):
            return [f"ask worker {worker} to report what is over"]
        case RaiseSoftTimeout(worker, is_again):
            return [f"raise the soft timeout in worker {worker}" + " again" * is_again]
        case Kill(worker, memory_bytes):
            size = f", it has {memory_bytes:,} bytes" if memory_bytes else ""
            return [f"kill worker {worker}{size}"]
        case GiveUp(failed_starts):
            return [f"give up: {failed_starts} workers died before they were ready"]
        case FewerWorkers(workers):
            return [f"say that there are only {workers} workers"]
        case LookAgain(seconds):
            return [] if seconds is None else [f"look again after {seconds:.4f} s"]
    return [type(effect).__name__]


def _roots(first: int, count: int) -> str:
    return f"root {first} is" if count == 1 else f"roots {first} to {first + count - 1} are"


def _listed(names: Sequence[object]) -> str:
    if len(names) <= _MOST_NAMES:
        return " ".join(map(str, names))
    return f"{names[0]} {names[1]} ... {names[-1]} ({len(names)})"


# --- the situations ---


def _plain_run() -> _Trace:
    trace = _Trace(until_error=True, is_bulk=True)
    trace.roots("a b c d")
    trace.ready(1)
    trace.close()
    trace.ready(2)
    trace.wait(0.001)
    trace.done(1, values={0: 42})
    trace.drain(1, 2)
    return trace


def _tail() -> _Trace:
    trace = _Trace(is_bulk=True)
    trace.roots(f"e{number}" for number in range(150))
    trace.ready(1, 2)
    trace.close()
    trace.drain(1, 2, each=0.001)
    return trace


def _death_with_work_waiting() -> _Trace:
    trace = _Trace(workers=1)
    trace.roots("a b c d e")
    trace.ready(1)
    trace.done(1)
    trace.dies(1, running=0)
    trace.ready(2)
    trace.close()
    trace.drain(2)
    return trace


def _too_few_workers() -> _Trace:
    trace = _Trace(workers=4)
    trace.roots("a b c d e f")
    trace.refused(3)
    trace.ready(1, 2)
    trace.turn()
    trace.at(0.3, w1=0, w2=0)  # not yet
    trace.turn()
    trace.wait(0.2)
    trace.turn()
    trace.refused(5)
    trace.turn()
    trace.at(0.9, w1=0, w2=0)
    trace.turn()
    trace.wait(0.1)
    trace.turn()
    trace.ready(6)
    trace.turn()  # all of them again
    trace.ready(7)
    trace.close()
    trace.drain(1, 2, 6, 7)
    return trace


def _refused_replacement() -> _Trace:
    trace = _Trace()
    trace.roots("a b c d e f")
    trace.ready(1, 2)
    trace.nearly_used_up(1)
    trace.refused(3)
    trace.turn()
    trace.used_up(1)
    trace.done(1)
    trace.turn()  # it is there
    trace.dies(1, running=None)
    trace.ready(4)
    trace.close()
    trace.drain(2, 4)
    return trace


def _no_worker_at_all() -> _Trace:
    trace = _Trace()
    trace.roots("a b")
    trace.refused(1)
    return trace


def _timeout() -> _Trace:
    trace = _Trace(limits=EventLimits(event_timeout=1.0, event_soft_timeout=0.5))
    trace.roots("a b c")
    trace.ready(1, 2)
    trace.close()
    trace.at(0.0, w1=0, w2=0)
    trace.done(2)
    trace.at(0.4, w1=0)
    trace.at(0.15, w1=0)
    trace.at(0.5, w1=0)
    trace.dies(1, running=0, error="took longer than event_timeout")
    trace.drain(2)
    return trace


def _retry_in_a_cascade() -> _Trace:
    trace = _Trace(policy=RetryPolicy(max_retries=2, backoff=0.1))
    trace.roots("a")
    trace.ready(1)
    trace.done(1, follow_ups={0: "a.1 a.2"})
    trace.done(1, errors={0: "no route"})
    trace.at(0.0)
    trace.wait(0.05)
    trace.turn()
    trace.wait(0.05)
    trace.turn()
    trace.close()
    trace.drain(1)
    return trace


def _key() -> _Trace:
    trace = _Trace()
    trace.roots("a1 b1 a2 b2 a3", keys=["a", "b", "a", "b", "a"])
    trace.ready(1, 2)
    trace.done(1, 1, follow_ups={0: "a1.1"}, gave_back=True)
    trace.close()
    trace.drain(1, 2)
    return trace


def _unordered_fan_out() -> _Trace:
    trace = _Trace(unordered=True)
    trace.roots("a b")
    trace.ready(1, 2)
    trace.done(1, each=0.01, follow_ups={0: "f1 f2 f3 f4 f5 f6 f7 f8"})
    trace.done(2, each=0.01)
    trace.wait(0.01)
    trace.done(1, each=0.01, values={0: "found"})
    trace.close()
    trace.drain(1, 2)
    return trace


def _taking_back() -> _Trace:
    trace = _Trace()
    trace.roots("a b")
    trace.ready(1, 2)
    trace.drain(1, 2)
    trace.roots("slow c d e f g h i")
    trace.at(0.0, w1=0)
    trace.at(0.006, w1=0)
    trace.takes_back(1, 1)
    trace.close()
    trace.drain(2)
    trace.wait(60.0)
    trace.done(1, each=60.0)
    return trace


def _closing_pool() -> _Trace:
    trace = _Trace()
    trace.roots(f"e{number}" for number in range(40))
    trace.ready(1, 2)
    trace.close(drop=True)
    trace.drain(1, 2)
    return trace


def _worker_that_never_gets_ready() -> _Trace:
    trace = _Trace(workers=1)
    trace.roots("a")
    for worker in (1, 2):
        trace.lost_in_start(worker)
        trace.turn()
    trace.lost_in_start(3)
    return trace


def _signals_to_workers_that_start() -> _Trace:
    trace = _Trace(workers=3)
    trace.roots("a b c d")
    for worker in (1, 2, 3):
        trace.lost_in_start(worker, by_group_signal=True)
    trace.turn()
    trace.lost_in_start(5, by_group_signal=True)
    trace.turn()
    trace.lost_in_start(4, by_group_signal=True)
    trace.lost_in_start(7, by_group_signal=True)
    return trace


def _used_quota() -> _Trace:
    trace = _Trace(workers=1)
    trace.roots("a b c d e f")
    trace.ready(1)
    trace.nearly_used_up(1)
    trace.done(1)
    trace.ready(2)
    trace.done(1, 0, gave_back=True)
    trace.close()
    trace.drain(1, 2)
    return trace


SITUATIONS: Final[dict[str, Callable[[], _Trace]]] = {
    "a plain run": _plain_run,
    "the tail of a run": _tail,
    "a death with work waiting": _death_with_work_waiting,
    "too few workers": _too_few_workers,
    "a refused replacement": _refused_replacement,
    "no worker at all": _no_worker_at_all,
    "a timeout": _timeout,
    "a retry in a cascade": _retry_in_a_cascade,
    "a key": _key,
    "an unordered fan-out": _unordered_fan_out,
    "taking back from a slow worker": _taking_back,
    "a closing pool": _closing_pool,
    "a worker that never gets ready": _worker_that_never_gets_ready,
    "signals to workers that start": _signals_to_workers_that_start,
    "a quota that is used": _used_quota,
}


def path_of(situation: str) -> Path:
    """Where the trace of a situation stands."""
    return FOLDER / f"{situation.replace(' ', '_')}.txt"


def text_of(situation: str) -> str:
    """The trace of a situation, as it is now."""
    return "\n".join([f"# {situation}", "", *SITUATIONS[situation]().lines, ""])


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in SITUATIONS:
        path_of(name).write_text(text_of(name), "utf-8")
