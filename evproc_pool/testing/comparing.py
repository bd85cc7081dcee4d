"""Runs handlers with `evproc.Processor` and in pools, and compares what becomes of each event."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from evproc import Event
from evproc.event import a_or_an, describe_event
from evproc_pool import pickling
from evproc_pool.outcome import Outcome
from evproc_pool.pool import PoolProcessor
from evproc_pool.testing.simulated import OF_PROCESSES, simulated_pool

# The longest repr of a value that is shown.
_MOST_SHOWN: Final = 300

# How many simulated workers there are where there are no processes.
_FEW: Final = 2

_SetUp = Callable[[PoolProcessor], object]
_Events = Iterable[Event] | Callable[[], Iterable[Event]]


def assert_equal_outcomes(
    set_up: _SetUp | str,
    events: _Events,
    *,
    workers: int = 2,
    seeds: Iterable[int] = range(5),
    equal: Callable[[Any, Any], object] = operator.eq,
    **options: Any,
) -> None:
    """Assert that a pool makes the same of events as `evproc.Processor` does.

    The events are processed by worker processes, by simulated pools with the seeds, and last,
    as they are then, one after another in this process. For each the value, whether
    `StopProcessing` ended it, and the type and the text of its error must be the same.

    Args:
        set_up: Called with each pool, to register the handlers; or the entry-point group to
            load them from.
        events: They are not changed by pools, but by the handlers in this process. Or a
            callable that makes them, which is called for each of these.
        workers: How many processes, and how many simulated ones; 0 processes: none at all,
            only two simulated workers.
        seeds: For `simulated_pool`.
        equal: Called with two values; by default they are compared by ``==``.
        options: Of `PoolProcessor`, for all; those that are about processes only for
            the worker processes.

    Raises:
        TypeError: `set_up` is neither.
        AssertionError: Names the first event that differs, and where and how.
        Exception: What `set_up`, making the events, or a pool as a whole raised.
    """
    __tracebackhide__ = True  # pytest shows the caller's line
    if not (isinstance(set_up, str) or callable(set_up)):
        raise TypeError(
            "set_up is called with the pool, to register the handlers, or names an entry-point"
            f" group; it is {set_up!r}"
        )
    given = events if callable(events) else list(events)

    def run(pool: PoolProcessor) -> list[Outcome]:
        with pool:
            if isinstance(set_up, str):
                pool.load_from(set_up)
            else:
                set_up(pool)
            return list(pool.stream(given() if callable(given) else given))

    pooled = [(how, run(pool)) for how, pool in _pools(workers, seeds, options)]
    # last, since its handlers work on the events themselves
    serial = run(PoolProcessor(0, **{**options, "retry_backoff": 0}))
    for how, outcomes in pooled:
        difference = _first_difference(serial, outcomes, how, equal)
        if difference:
            raise AssertionError(difference)


def _pools(
    workers: int, seeds: Iterable[int], options: dict[str, Any]
) -> Iterator[tuple[str, PoolProcessor]]:
    """The pools, and what to call them."""
    if workers:
        yield f"with {workers} worker processes", PoolProcessor(workers, **options)
    size = workers or _FEW
    simulated = {name: value for name, value in options.items() if name not in OF_PROCESSES}
    for seed in seeds:
        yield f"simulated_pool({size}, seed={seed})", simulated_pool(size, seed=seed, **simulated)


def _first_difference(
    serial: Sequence[Outcome],
    pooled: Sequence[Outcome],
    how: str,
    equal: Callable[[Any, Any], object],
) -> str:
    """Where two runs differ, and how; empty if they do not."""
    for expected, actual in zip(serial, pooled, strict=False):
        why = _why_different(expected, actual, equal)
        if why is not None:
            event = f"event {expected.index} ({describe_event(expected.event)})"
            return (
                f"{event} of {len(serial)} ends differently{why}\n"
                f"  serially: {_ending(expected)}\n"
                f"  {how}: {_ending(actual)}"
            )
    if len(serial) != len(pooled):
        return f"there were {len(serial)} events serially, and {len(pooled)} {how}"
    return ""


def _why_different(
    expected: Outcome, actual: Outcome, equal: Callable[[Any, Any], object]
) -> str | None:
    """None if they are equal; otherwise a remark, or nothing to say."""
    if expected.error is not None or actual.error is not None:
        is_same = _error_text(expected.error) == _error_text(actual.error)
        return None if is_same else ""
    if expected.stopped != actual.stopped:
        return ""
    try:
        if equal(expected.value, actual.value):
            return None
    except Exception as error:
        return f" (equal= raised {_error_text(error)})"
    kind: Any = type(expected.value)
    if kind.__eq__ is object.__eq__:
        return " (values without __eq__ are never equal when they come from a worker: give equal=)"
    return ""


def _ending(outcome: Outcome) -> str:
    if outcome.error is not None:
        place = f", in handler {outcome.handler!r}" if outcome.handler else ""
        return f"fails with {_error_text(outcome.error)}{place}"
    if outcome.stopped:
        return f"stops with {_shown(outcome.value)}"
    return "ends without a value"


def _error_text(error: BaseException | None) -> str:
    """Its type and text; empty for None."""
    if error is None:
        return ""
    kind = type(error)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"{module}{kind.__qualname__}: {pickling.text_of(error)}"


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except Exception as error:
        return f"{a_or_an(type(value).__qualname__)} whose repr raises {type(error).__qualname__}"
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}..."
