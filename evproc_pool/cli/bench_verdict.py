"""Whether a pool pays off for handlers, and the most that it can give: a pure function of times.

With n workers a run takes no less time than each of these::

    work of the CPUs / n        the CPUs are busy
    sending, all events         the coordinator is: it sends events and takes outcomes, one by one
    the longest event           one worker is: an event with its follow-ups is never cut

The least of `serial / each` is the most that a pool can give. If other programs keep the CPUs busy,
the time that a run takes is not its own, so it does not say how long handlers wait.

There is no verdict if other programs disturbed the runs, or if it depends on which runs of the same
kind are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from evproc_pool.cli.output import counted

#: From which speed-up on a pool is worth its processes.
WORTH: Final = 1.2

# A run with fewer workers counts as the best if it takes at most so many times as long.
_AS_GOOD: Final = 1.05

# Below this share of CPU time handlers wait, most of their time.
_WAITS: Final = 0.5

# From this share on other programs disturb what is measured.
_BUSY: Final = 0.25

# A pool that gives less than this part of the most is held up by something that was not measured.
_MUCH_LESS: Final = 0.6

Limit = Literal["cpus", "sending", "longest"]


class HandlerTime(NamedTuple):
    """What one handler took in the serial run.

    Attributes:
        name: Its name.
        calls: How often it was called.
        seconds: Its time in all.
        longest: Its longest call, in seconds.
    """

    name: str
    calls: int
    seconds: float
    longest: float


class PoolTime(NamedTuple):
    """A run with workers.

    Attributes:
        seconds: Wall-clock time, without the start of the workers.
        sending: CPU time of the coordinator, in seconds.
        start: What the start of the pool took, in seconds.
        slowest: The slowest run with as many workers, in seconds; 0 if there was one only.
    """

    seconds: float
    sending: float
    start: float = 0.0
    slowest: float = 0.0


class Measured(NamedTuple):
    """The times of a sample.

    Attributes:
        events: How many root events.
        failed: How many of them failed.
        serial: Wall-clock time of a `Processor`, in seconds.
        serial_cpu: CPU time of that run, in seconds.
        longest: The longest event of it, with its follow-ups, in seconds.
        handlers: What the handlers took.
        pools: The runs by their number of workers.
        cpus: How many CPUs there are to use.
        event_bytes: The mean size of a pickled event.
        others: The share of all CPUs that other programs kept busy meanwhile, from 0 to 1.
        slowest: The slowest serial run, in seconds; 0 if there was one only.
        failure: Which event failed first, and why.
    """

    events: int
    failed: int
    serial: float
    serial_cpu: float
    longest: float
    handlers: Sequence[HandlerTime]
    pools: Mapping[int, PoolTime]
    cpus: int
    event_bytes: float = 0.0
    others: float = 0.0
    slowest: float = 0.0
    failure: str = ""

    @property
    def waits(self) -> bool:
        """Whether handlers wait for most of their time; not known if the CPUs are busy."""
        return self.others < _BUSY and self.serial_cpu < _WAITS * self.serial


class Verdict(NamedTuple):
    """Whether to use a pool.

    Attributes:
        pays_off: Whether to; None: that cannot be told.
        workers: The number of workers of the best run; 1 only if no more were tried.
        speed_up: How many times as fast that was as the serial run.
        most: The most that a pool could give on this machine.
        limit: What the most is due to.
        bottleneck: The handler that takes the greatest part; None if none was called.
        share: That part, from 0 to 1.
        lines: The verdict in words, a sentence or two a line.
    """

    pays_off: bool | None
    workers: int
    speed_up: float
    most: float
    limit: Limit
    bottleneck: str | None
    share: float
    lines: tuple[str, ...]


def decide(measured: Measured) -> Verdict:
    """Decide whether a pool pays off.

    Args:
        measured: At least one event, and at least one run with workers.

    Raises:
        ValueError: There is no event or no run.
    """
    if not measured.events or not measured.pools:
        raise ValueError("there is nothing to decide by")
    workers = _best(measured.pools)
    best = measured.pools[workers]
    speed_up = _times(measured.serial, best.seconds)
    most, limit = most_of(measured, best.sending)
    slowest = max(measured.handlers, key=lambda each: each.seconds, default=None)
    in_handlers = sum(each.seconds for each in measured.handlers)
    share = slowest.seconds / in_handlers if slowest is not None and in_handlers else 0.0
    doubt = _doubt(measured, best, workers)
    verdict = Verdict(
        None if doubt else speed_up >= WORTH,
        workers,
        speed_up,
        most,
        limit,
        None if slowest is None or not slowest.calls else slowest.name,
        share,
        (),
    )
    return verdict._replace(lines=tuple(_lines(verdict, measured, best, doubt)))


def _best(pools: Mapping[int, PoolTime]) -> int:
    """Return the fewest workers that are as good as any; one worker is no gain over none."""
    several = {number: each for number, each in pools.items() if number > 1} or pools
    least = min(each.seconds for each in several.values())
    return min(n for n, each in several.items() if each.seconds <= least * _AS_GOOD)


def _doubt(measured: Measured, best: PoolTime, workers: int) -> str:
    """Say why there can be no verdict; empty if there can."""
    if measured.others >= _BUSY:
        return f"other programs kept {measured.others:.0%} of the CPUs busy"
    slowest = max(measured.serial, measured.slowest), max(best.seconds, best.slowest)
    spread = max(slowest[0] - measured.serial, slowest[1] - best.seconds)
    least, most = _times(measured.serial, slowest[1]), _times(slowest[0], best.seconds)
    if spread > abs(measured.serial - best.seconds) and least < WORTH <= most:
        return (
            "runs of the same kind differ by more than the gain. The pool is"
            f" {least:.2f} to {most:.2f} times as fast, by which of them are compared"
        )
    if workers == 1 and _times(measured.serial, best.seconds) >= WORTH:
        return "one worker gains nothing over one process, so something disturbed the runs"
    return ""


def most_of(measured: Measured, sending: float) -> tuple[float, Limit]:
    """Return the greatest speed-up that is possible, and what it is due to."""
    # handlers that wait leave the CPUs to others
    used = measured.serial_cpu if measured.waits else measured.serial
    by_limit: dict[Limit, float] = {
        "cpus": _times(measured.serial * measured.cpus, used),
        "sending": _times(measured.serial, sending),
        "longest": _times(measured.serial, measured.longest),
    }
    limit = min(by_limit, key=by_limit.__getitem__)
    return by_limit[limit], limit


def _times(seconds: float, others: float) -> float:
    return seconds / max(others, 1e-9)


def _lines(verdict: Verdict, measured: Measured, best: PoolTime, doubt: str) -> Iterator[str]:
    if doubt:
        yield f"Whether to use the pool cannot be told: {doubt}. Measure again when it is quiet."
        yield (
            f"Measured: with {counted(verdict.workers, 'worker')} it was {verdict.speed_up:.2f}"
            " times as fast as one process."
        )
    elif verdict.pays_off:
        yield (
            f"Use the pool: with {counted(verdict.workers, 'worker')} it is"
            f" {verdict.speed_up:.1f} times as fast as one process."
        )
    else:
        yield (
            f"Do not use the pool: at best, with {counted(verdict.workers, 'worker')}, it is"
            f" {verdict.speed_up:.2f} times as fast as one process."
        )
    yield _why(verdict, measured, best)
    yield from _remarks(verdict, measured, best)


def _why(verdict: Verdict, measured: Measured, best: PoolTime) -> str:
    event, sending = measured.serial / measured.events, best.sending / measured.events
    most = f"The most that a pool can give here is {verdict.most:.1f} times"
    if verdict.limit == "sending":
        return (
            f"{most}: an event takes {duration(event)} in its handlers, and {duration(sending)} in"
            " the coordinator, which sends it and takes its outcome."
        )
    if verdict.limit == "longest":
        return (
            f"{most}: one event takes {duration(measured.longest)} of the"
            f" {duration(measured.serial)}, and is never cut. Have it return follow-ups, and use"
            " --ordering unordered."
        )
    cpus = "there is 1 CPU" if measured.cpus == 1 else f"there are {measured.cpus} CPUs"
    if measured.waits:
        cpus = (
            f"handlers use a CPU for {measured.serial_cpu / measured.serial:.0%} of it, and {cpus}"
        )
    return f"{most}: {cpus} to use. Sending an event takes {duration(sending)}."


def _remarks(verdict: Verdict, measured: Measured, best: PoolTime) -> Iterator[str]:
    if sum(each.calls > 0 for each in measured.handlers) > 1:
        faster = 1 / (1 - verdict.share / 2)
        yield (
            f"The bottleneck is handler {verdict.bottleneck!r}: it takes {verdict.share:.0%} of the"
            f" time. If it were twice as fast, all would be {faster:.1f} times as fast."
        )
    if verdict.pays_off is None:
        return
    is_held_up = verdict.speed_up < _MUCH_LESS * min(verdict.most, max(measured.pools))
    if measured.waits:
        yield (
            "The handlers wait for most of their time: more workers than CPUs may help (--workers)."
        )
    elif is_held_up and verdict.most >= WORTH:
        yield (
            "The workers give less than they could: the handlers may wait for something that they"
            " share, such as memory, a disk or a service."
        )
    if verdict.pays_off and best.start > measured.serial - best.seconds:
        yield (
            f"The start of the workers takes {duration(best.start)}, more than this sample gains:"
            " the pool is for longer runs."
        )


def duration(seconds: float) -> str:
    """Return a time that a person reads."""
    if seconds >= 1:
        return f"{seconds:.1f} s"
    if seconds >= 1e-3:
        return f"{seconds * 1e3:.1f} ms"
    return f"{seconds * 1e6:.1f} us"
