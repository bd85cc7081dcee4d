"""`Statistics`: the numbers of a pool, as `PoolProcessor.statistics` returns them. Plain data.

Below it, how they become a table. A name that is too long for its column is cut in the middle;
numbers never are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

#: What a worker does: it loads its handlers, has nothing to do, has events, or ends soon.
WorkerState: TypeAlias = Literal["starting", "waiting", "working", "ending"]


class HandlerStatistics(NamedTuple):
    """The numbers of one handler. Times are in seconds, and at most 3% off for quantiles."""

    name: str
    calls: int
    errors: int  # calls that raised an error, or during which the worker died
    total: float
    mean: float
    p50: float
    p95: float
    max: float


class WorkerStatistics(NamedTuple):
    """The numbers of one worker. Those of workers that have ended are in the pool's totals only.

    `working`, `waiting` and `starting` are shares of its life, and sum up to 1. They are 0 if
    nothing is collected, and so are `events` and `restarts`.
    """

    worker: int  # its number
    pid: int | None  # None: it is gone meanwhile, or it has no process
    state: WorkerState
    event: str | None  # a short `repr` of the event that it is at
    handler: str | None  # which runs
    # how long it may have been at this event, in seconds: counted from its last report, or from
    # when it was first seen there
    seconds: float
    working: float
    waiting: float
    starting: float
    memory_bytes: int  # resident; 0: unknown
    events: int  # how many it has run
    restarts: int  # how many workers before it had its place


class BatchStatistics(NamedTuple):
    """How many events the batches had that were sent to workers."""

    batches: int
    mean: float
    p50: float  # at most 3% off
    max: int


class SlowEvent(NamedTuple):
    """One of the slowest events."""

    seconds: float  # all of its handlers
    event: str  # a short `repr`
    handler: str  # the slowest of its handlers
    path: tuple[int, ...]  # see `Outcome.path`


class Statistics(NamedTuple):
    """The numbers of a pool since it was made. `str` of it is a table.

    `pending`, `in_flight` and `workers` are always there. The others are collected if the pool was
    made with `statistics=True`; see `is_collected`.
    """

    is_collected: bool
    # root events
    accepted: int
    done: int  # whose cascades are over, the next three included
    failed: int  # whose cascades ended with an error
    stopped: int  # whose cascades were ended by `StopProcessing(value)`
    dropped: int  # that were cancelled, or whose call ended before
    # all events, follow-ups included
    events: int  # how often one was run
    pending: int  # about how many wait to be sent, or to be run again
    in_flight: int  # how many are with workers, and not known to be over
    retried: int  # how often one was run again
    lost: int  # how often a worker died of one
    unmatched: int  # how many no handler wanted
    handlers: tuple[HandlerStatistics, ...]  # by their total, the greatest first
    workers: tuple[WorkerStatistics, ...]
    batches: BatchStatistics
    slowest: tuple[SlowEvent, ...]  # at most 20, the slowest first

    def __str__(self) -> str:
        return _text(self)


# --- as text ---

_LONGEST_NAME: Final = 32
_LONGEST_EVENT: Final = 60
_NOT_COLLECTED: Final = (
    "events, handlers and times are not collected: PoolProcessor(statistics=True)"
)
_UNITS: Final = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


def _text(item: Statistics) -> str:
    """Return the statistics as a table."""
    now = f"now       {item.pending:,} pending, {item.in_flight:,} in flight"
    if not item.is_collected:
        return "\n".join([now, *_workers(item), "", _NOT_COLLECTED])
    is_at_work = item.pending or item.in_flight
    roots = [
        f"roots     {item.accepted:,} accepted, {item.done:,} done",
        *_counts(item, {"failed": "failed", "stopped": "with a value", "dropped": "dropped"}),
    ]
    events = [
        f"events    {item.events:,} run",
        *_counts(item, {name: name for name in ("retried", "lost", "unmatched")}),
    ]
    lines = [", ".join(roots), ", ".join(events), *([now] if is_at_work else ())]
    sizes = item.batches
    if sizes.batches:
        lines.append(
            f"batches   {sizes.batches:,} sent, of {sizes.mean:,.1f} events (median"
            f" {sizes.p50:,.0f}, most {sizes.max:,})"
        )
    return "\n".join([*lines, *_handlers(item), *_workers(item), *_slowest(item)])


def _counts(item: Statistics, names: Mapping[str, str]) -> list[str]:
    numbers = [(getattr(item, name), text) for name, text in names.items()]
    return [f"{number:,} {text}" for number, text in numbers if number]


def _handlers(item: Statistics) -> list[str]:
    if not item.handlers:
        return []
    whole = sum([each.total for each in item.handlers]) or 1.0
    heads = ("handler", "calls", "errors", "total", "share", "mean", "p50", "p95", "max")
    rows = [
        (
            _cut(each.name, _LONGEST_NAME),
            f"{each.calls:,}",
            f"{each.errors:,}",
            _seconds(each.total),
            f"{each.total / whole:.0%}",
            *map(_seconds, (each.mean, each.p50, each.p95, each.max)),
        )
        for each in item.handlers
    ]
    return ["", *_table(heads, rows)]


def _workers(item: Statistics) -> list[str]:
    if not item.workers:
        return []
    heads: tuple[str, ...]
    heads = ("worker", "pid", "state", "events", "working", "waiting", "starting", "memory")
    is_at_work = any(each.event is not None for each in item.workers)
    heads += ("restarts", "at") if is_at_work else ("restarts",)
    rows = [
        (
            str(each.worker),
            "-" if each.pid is None else str(each.pid),
            each.state,
            *(_collected(each) if item.is_collected else ("-",) * 4),
            f"{each.memory_bytes / 1e6:,.0f} MB" if each.memory_bytes else "-",
            f"{each.restarts:,}" if item.is_collected else "-",
            _at(each),
        )[: len(heads)]
        for each in item.workers
    ]
    return ["", *_table(heads, rows, left=(0, 2, 9))]


def _collected(each: WorkerStatistics) -> tuple[str, ...]:
    shares = (each.working, each.waiting, each.starting)
    return (f"{each.events:,}", *[f"{share:.0%}" for share in shares])


def _at(each: WorkerStatistics) -> str:
    if each.event is None:
        return ""
    handler = "" if each.handler is None else f"{each.handler}: "
    return f"{handler}{_cut(each.event, _LONGEST_EVENT)}, {_seconds(each.seconds)}"


def _slowest(item: Statistics) -> list[str]:
    if not item.slowest:
        return []
    rows = [
        (
            _seconds(each.seconds),
            _cut(each.handler, _LONGEST_NAME),
            ".".join(map(str, each.path)),
            _cut(each.event, _LONGEST_EVENT),
        )
        for each in item.slowest
    ]
    return ["", *_table(("slowest", "handler", "path", "event"), rows, left=(1, 3))]


def _table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)
) -> list[str]:
    """Return lines, with these columns aligned to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = []
    for row in (heads, *rows):
        cells = [
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _seconds(seconds: float) -> str:
    for unit, name in _UNITS:
        if seconds >= unit:
            return f"{seconds / unit:,.3g} {name}" if seconds < 1e3 else f"{seconds:,.0f} s"
    return f"{seconds * 1e6:.2g} us" if seconds else "0 s"


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    half = (most - 3) // 2
    return f"{text[: most - 3 - half]}...{text[-half:]}"
