"""Runs handlers with `evproc.Processor` and in pools, and compares the outcomes of each event."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from evproc import Event
from evproc.event import a_or_an, describe_event
from evproc_pool.core.error_notes import path_text
from evproc_pool.outcome import Outcome
from evproc_pool.pool import PoolProcessor
from evproc_pool.serialization import basics
from evproc_pool.testing.simulated import OF_PROCESSES, simulated_pool

# The longest repr of a value in an error.
_MOST_SHOWN: Final = 300

# The number of simulated workers if no processes are asked for.
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
    every_event: bool = False,
    **options: Any,
) -> None:
    """Assert that events end in a pool as they end with `evproc.Processor`.

    The events are processed by worker processes, then by simulated pools with the seeds, and last
    one after another in this process. These must be the same for each event: the value, whether
    `StopProcessing` ended it, the type and the text of its error, and the emitted values. With
    `ordering="unordered"` timing decides how far a cascade has come before a value or an error
    ends it: then only the value and the error are compared.

    Args:
        set_up: Called with each pool, to register the handlers; or the entry-point group to
            load them from.
        events: Pools do not change them; the handlers in this process do. Or a callable that
            makes them, called once for each pool.
        workers: The number of processes and of simulated workers; 0: none, and two simulated ones.
        seeds: For `simulated_pool`.
        equal: Compares two values, or two emitted ones; by default ``==``.
        every_event: Compare each event of a cascade, and how many handlers were called.
        options: Options of `PoolProcessor`, for all pools. Those that concern processes are for
            the worker processes only.

    Raises:
        TypeError: `set_up` is neither a callable nor a string.
        AssertionError: Names the first event that differs, and where and how.
        Exception: Raised by `set_up`, by making the events, or by a pool as a whole.
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
            roots = given() if callable(given) else given
            return list(pool.stream(roots, every_event=every_event))

    pooled = [(how, run(pool)) for how, pool in _pools(workers, seeds, options)]
    # last, since its handlers work on the events themselves
    serial = run(PoolProcessor(0, **{**options, "retry_backoff": 0}))
    compare = _Compare.by_options(equal, every_event, options)
    for how, outcomes in pooled:
        difference = _first_difference(serial, outcomes, how, compare)
        if difference:
            raise AssertionError(difference)


def _pools(
    workers: int, seeds: Iterable[int], options: dict[str, Any]
) -> Iterator[tuple[str, PoolProcessor]]:
    """Yield the pools, each with its name in errors."""
    if workers:
        yield f"with {workers} worker processes", PoolProcessor(workers, **options)
    size = workers or _FEW
    simulated = {name: value for name, value in options.items() if name not in OF_PROCESSES}
    for seed in seeds:
        yield f"simulated_pool({size}, seed={seed})", simulated_pool(size, seed=seed, **simulated)


class _Compare(NamedTuple):
    """How outcomes are compared.

    Attributes:
        equal: Compares values.
        every_event: Whether follow-ups have outcomes.
        is_timed: Whether timing decides how far a cascade has come before its end.
        ends_by_error: Whether an error ends a cascade.
    """

    equal: Callable[[Any, Any], object]
    every_event: bool
    is_timed: bool
    ends_by_error: bool

    @classmethod
    def by_options(
        cls, equal: Callable[[Any, Any], object], every_event: bool, options: dict[str, Any]
    ) -> _Compare:
        """Compare as the options of the pools ask for."""
        return cls(
            equal,
            every_event,
            is_timed=options.get("ordering") == "unordered",
            ends_by_error=options.get("errors", "end") == "end",
        )

    def ends_early(self, outcome: Outcome) -> bool:
        """Whether timing decided how far the cascade has come."""
        has_ended = outcome.stopped or (self.ends_by_error and outcome.error is not None)
        return self.is_timed and has_ended

    def why_different(self, expected: Outcome, actual: Outcome) -> str | None:
        """Return None if they are equal; otherwise a remark, which may be empty."""
        ends_early = self.ends_early(expected) and len(expected.path) == 1
        # another run may not have come to an error beside a value
        has_error = not (ends_early and not self.ends_by_error)
        if expected.stopped != actual.stopped or (
            has_error and _error_text(expected.error) != _error_text(actual.error)
        ):
            return ""
        remark = None
        if expected.stopped or expected.error is None:
            remark = self._why_unequal(expected.value, actual.value)
        if remark is None and not ends_early:
            remark = self._why_emitted_else(expected.emitted, actual.emitted)
            if remark is None:
                remark = self._why_other_numbers(expected, actual)
        return remark

    def _why_emitted_else(self, expected: list[Any], actual: list[Any]) -> str | None:
        if len(expected) != len(actual):
            return f": {len(expected)} values are emitted serially, {len(actual)} there"
        for place, pair in enumerate(zip(expected, actual, strict=True)):
            remark = self._why_unequal(*pair)
            if remark is not None:
                here, there = map(_shown, pair)
                return f": value {place} that it emits is {here} serially, {there} there{remark}"
        return None

    def _why_other_numbers(self, expected: Outcome, actual: Outcome) -> str | None:
        if expected.failed != actual.failed:
            return f": {expected.failed} events fail serially, {actual.failed} there"
        if self.every_event and expected.handlers != actual.handlers:
            return f": {expected.handlers} handlers are called serially, {actual.handlers} there"
        return None

    def _why_unequal(self, expected: Any, actual: Any) -> str | None:
        """As `why_different`, for two values."""
        try:
            if self.equal(expected, actual):
                return None
        except Exception as error:
            return f" (equal= raised {_error_text(error)})"
        kind: Any = type(expected)
        if kind.__eq__ is object.__eq__:
            return (
                " (values without __eq__ are never equal when they come from a worker: give equal=)"
            )
        return ""


def _first_difference(
    serial: Sequence[Outcome], pooled: Sequence[Outcome], how: str, compare: _Compare
) -> str:
    """Say where two runs differ, and how; empty if they do not."""
    expected_ends, actual_ends = _roots(serial), _roots(pooled)
    for expected, actual in zip(expected_ends, actual_ends, strict=False):
        why = compare.why_different(expected, actual)
        if why is not None:
            return _text(expected, actual, how, f" of {len(expected_ends)} ends differently{why}")
    if len(expected_ends) != len(actual_ends):
        return f"there were {len(expected_ends)} events serially, and {len(actual_ends)} {how}"
    ended_early = {each.index for each in expected_ends if compare.ends_early(each)}
    return _first_follow_up_that_differs(serial, pooled, how, compare, ended_early)


def _first_follow_up_that_differs(
    serial: Sequence[Outcome],
    pooled: Sequence[Outcome],
    how: str,
    compare: _Compare,
    ended_early: set[int],
) -> str:
    """As `_first_difference`, for runs whose roots have ended equally."""
    there = {each.path: each for each in pooled}
    here = {each.path: each for each in serial}
    for path, expected in here.items():
        actual = there.get(path)
        if actual is None:
            if expected.index not in ended_early:
                return f"{_named(expected)} is handled serially, and not {how}"
            continue
        why = compare.why_different(expected, actual)
        if why is not None:
            return _text(expected, actual, how, f" ends differently{why}")
    for path, actual in there.items():
        if path not in here and actual.index not in ended_early:
            return f"{_named(actual)} is handled {how}, and not serially"
    return ""


def _roots(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [outcome for outcome in outcomes if len(outcome.path) == 1]


def _named(outcome: Outcome) -> str:
    what = describe_event(outcome.event)
    if len(outcome.path) == 1:
        return f"event {outcome.index} ({what})"
    return f"follow-up {path_text(outcome.path)} ({what})"


def _text(expected: Outcome, actual: Outcome, how: str, difference: str) -> str:
    return (
        f"{_named(expected)}{difference}\n"
        f"  serially: {_ending(expected)}\n"
        f"  {how}: {_ending(actual)}"
    )


def _ending(outcome: Outcome) -> str:
    ending = "ends without a value"
    if outcome.stopped:
        ending = f"stops with {_shown(outcome.value)}"
    if outcome.error is None:
        return ending
    place = f", in handler {outcome.handler!r}" if outcome.handler else ""
    beside = f", and {ending}" if outcome.stopped else ""
    return f"fails with {_error_text(outcome.error)}{place}{beside}"


def _error_text(error: BaseException | None) -> str:
    """Return the type and the text of an error; empty for None."""
    if error is None:
        return ""
    kind = type(error)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"{module}{kind.__qualname__}: {basics.text_of(error)}"


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except Exception as error:
        return f"{a_or_an(type(value).__qualname__)} whose repr raises {type(error).__qualname__}"
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}..."
