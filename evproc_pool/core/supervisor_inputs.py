"""Inputs and effects of the supervisor, besides those of the scheduler. Plain data."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from evproc_pool.core.inputs_and_effects import Effect as SchedulerEffect
from evproc_pool.core.inputs_and_effects import Input as SchedulerInput


class Seen(NamedTuple):
    """Where a worker is, as the shell has seen it."""

    # the event of its first batch that it is at, or None: it is at none of these
    position: int | None
    activity: Hashable  # what it is at. Changes as soon as it goes on.
    is_over: bool = False  # whether the event is over
    # whether code of the user may be running (a handler, a pickling method), or output is flushed
    runs_code: bool = True
    handler: int | None = None  # the index of the handler that runs, or None
    packing: int = 0  # of how many events the results are being pickled
    is_cancelled: bool = False  # whether the event was cancelled together with its worker
    is_between: bool = False  # whether it is between two batches


# --- inputs ---


class StartFailed(NamedTuple):
    """A worker could not be started; neither are those that were to be started after it."""

    worker: int


class StartLost(NamedTuple):
    """A worker died before it was ready."""

    worker: int
    by_group_signal: bool = False  # whether of a signal that may have reached others, too


class QuotaNearlyUsed(NamedTuple):
    """A worker has used most of what it may use."""

    worker: int


class QuotaUsed(NamedTuple):
    """A worker has used all that it may use, and runs nothing more."""

    worker: int


class KillMissed(NamedTuple):
    """A worker that was to be killed had gone on meanwhile, and lives."""

    worker: int


Input = SchedulerInput | StartFailed | StartLost | QuotaNearlyUsed | QuotaUsed | KillMissed


# --- effects ---


class Start(NamedTuple):
    """Start a worker with this number."""

    worker: int


class Stop(NamedTuple):
    """Tell a worker to end; it holds nothing."""

    worker: int


class AskBack(NamedTuple):
    """Ask a worker to give back the batches that it has not begun."""

    worker: int


class TakeBack(NamedTuple):
    """Take back what a worker holds behind the event that it is at."""

    worker: int
    position: int  # that event, in its first batch


class AskReport(NamedTuple):
    """Ask a worker to report what is over while its event runs."""

    worker: int


class RaiseSoftTimeout(NamedTuple):
    """Raise the soft timeout in the event that a worker is at."""

    worker: int
    is_again: bool  # whether that was done before, and the event did not notice


class Kill(NamedTuple):
    """Kill a worker, if it still is where it was seen."""

    worker: int
    memory_bytes: int | None = None  # the memory that it has, if that is the reason
    is_cancelled: bool = False  # whether the reason is that its event was cancelled


class GiveUp(NamedTuple):
    """The pool is broken: no worker can be started."""

    # how many in a row died before they were ready; 0: the last one could not even be started
    failed_starts: int


class FewerWorkers(NamedTuple):
    """Say that some workers cannot be started, and that the others do the work."""

    workers: int  # those that are there


class LookAgain(NamedTuple):
    """Look at the workers again."""

    seconds: float | None  # after this many seconds, even if nothing happens; None: not for that
    busy_seconds: float  # after this many seconds while much is going on


Effect = (
    SchedulerEffect
    | Start
    | Stop
    | AskBack
    | TakeBack
    | AskReport
    | RaiseSoftTimeout
    | Kill
    | GiveUp
    | FewerWorkers
    | LookAgain
)
