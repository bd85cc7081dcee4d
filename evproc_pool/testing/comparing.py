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
from evproc_pool.testing.set_up import SetUp, checked, register_handlers
from evproc_pool.testing.simulated import OF_PROCESSES, simulated_pool

#: The number of workers if none is asked for.
FEW: Final = 2

# The longest ending of an event in an error, and what a longer one keeps at its beginning, and
# before the place where the two endings differ.
_MOST_SHOWN: Final = 300
_AROUND_SHOWN: Final = 60

_Events = Iterable[Event] | Callable[[], Iterable[Event]]


def assert_equal_outcomes(
    set_up: SetUp,
    events: _Events,
    *,
    workers: int = FEW,
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
        set_up: The handlers in a list; or the entry-point group to load them from; or a callable
            that is called with each pool, to register them.
        events: Pools do not change them; the handlers in this process do. Or a callable that
            makes them, called once for each pool.
        workers: The number of processes and of simulated workers; 0: none, and two simulated ones.
        seeds: For `simulated_pool`.
        equal: Compares two values, or two emitted ones; by default ``==``.
        every_event: Compare each event of a cascade, and how many handlers were called.
        options: Options of `PoolProcessor`, for all pools. Those that concern processes are for
            the worker processes only.

    Raises:
        TypeError: `set_up` is nothing of this kind.
        ValueError: There are neither workers nor seeds.
        AssertionError: Names the first event that differs, what it gives with `Processor` and in
            the pool, which pools differ, and how to run one of them again.
        Exception: Raised by `set_up`, by making the events, or by a pool as a whole.
    """
    __tracebackhide__ = True  # pytest shows the caller's line
    compare(
        set_up,
        events,
        workers,
        workers or FEW,
        seeds=seeds,
        equal=equal,
        every_event=every_event,
        **options,
    )


def compare(
    set_up: SetUp,
    events: _Events,
    processes: int,
    simulated: int,
    *,
    seeds: Iterable[int] = range(5),
    equal: Callable[[Any, Any], object] = operator.eq,
    every_event: bool = False,
    **options: Any,
) -> None:
    """As `assert_equal_outcomes`, with the numbers of processes and of simulated workers."""
    __tracebackhide__ = True
    handlers = checked(set_up)
    given = events if callable(events) else list(events)

    def run(pool: PoolProcessor) -> list[Outcome]:
        with pool:
            register_handlers(pool, handlers)
            roots = given() if callable(given) else given
            return list(pool.stream(roots, every_event=every_event))

    pooled = [(how, run(pool)) for how, pool in _pools(processes, simulated, seeds, options)]
    if not pooled:
        raise ValueError("nothing is compared: there are neither workers nor seeds")
    # last, since its handlers work on the events themselves
    serial = run(PoolProcessor(0, **{**options, "retry_backoff": 0}))
    difference = _differences(serial, pooled, _Compare.by_options(equal, every_event, options))
    if difference:
        raise AssertionError(difference)


def difference(
    serial: Sequence[Outcome],
    pooled: Sequence[Outcome],
    name: str,
    *,
    every_event: bool = False,
    **options: Any,
) -> str:
    """Say where the outcomes of two runs differ, the first with `Processor`; empty if nowhere.

    `name` is the other in words; `options` are those of both pools.
    """
    how = _How(name, name, "the same call", is_sure=False)
    return _differences(
        serial, [(how, pooled)], _Compare.by_options(operator.eq, every_event, options)
    )


class _How(NamedTuple):
    """How events were run.

    Attributes:
        name: The pool, in a sentence.
        short: The same in a list.
        again: What runs them so again.
        is_sure: Whether that ends in the same way.
    """

    name: str
    short: str
    again: str
    is_sure: bool


def _pools(
    processes: int, simulated: int, seeds: Iterable[int], options: dict[str, Any]
) -> Iterator[tuple[_How, PoolProcessor]]:
    """Yield the pools."""
    if processes:
        pool = PoolProcessor(processes, **options)
        name = f"{processes} worker process{'es' if processes > 1 else ''}"
        again = f"assert_equal_outcomes(..., workers={processes}, seeds=()), by another timing"
        yield _How(f"with {name}", name, again, is_sure=False), pool
    suitable = {name: value for name, value in options.items() if name not in OF_PROCESSES}
    for seed in seeds:
        pool = simulated_pool(simulated, seed=seed, **suitable)
        # without processes where that means as many simulated workers
        workers = 0 if simulated == FEW else simulated
        again = f"assert_equal_outcomes(..., workers={workers}, seeds=[{seed}])"
        name = f"simulated_pool({simulated}, seed={seed})"
        yield _How(f"with {name}", f"seed {seed}", again, is_sure=True), pool


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
            return f": {len(expected)} values are emitted with Processor, {len(actual)} in the pool"
        for place, pair in enumerate(zip(expected, actual, strict=True)):
            remark = self._why_unequal(*pair)
            if remark is not None:
                here, there = _cut(*map(_shown, pair))
                return (
                    f": value {place} that it emits is {here} with Processor, {there} in the pool"
                    f"{remark}"
                )
        return None

    def _why_other_numbers(self, expected: Outcome, actual: Outcome) -> str | None:
        if expected.failed != actual.failed:
            return f": {expected.failed} events fail with Processor, {actual.failed} in the pool"
        if self.every_event and expected.handlers != actual.handlers:
            return (
                f": {expected.handlers} handlers are called with Processor, {actual.handlers} in"
                " the pool"
            )
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


def _differences(
    serial: Sequence[Outcome],
    pooled: Sequence[tuple[_How, Sequence[Outcome]]],
    compare: _Compare,
) -> str:
    """Say where a pool differs, which others do, and how to run it again; empty if none does."""
    texts = {how: _first_difference(serial, outcomes, how, compare) for how, outcomes in pooled}
    different = [how for how, text in texts.items() if text]
    if not different:
        return ""
    shown = max(different, key=lambda how: how.is_sure)
    text = f"{texts[shown]}\n  pools that differ: {_names(different)}"
    same = [how for how in texts if how not in different]
    if same:
        text += f"; that do not: {_names(same)}"
    return f"{text}\n  to run it again: {shown.again}"


def _names(pools: Iterable[_How]) -> str:
    return ", ".join(how.short for how in pools)


def _first_difference(
    serial: Sequence[Outcome], pooled: Sequence[Outcome], how: _How, compare: _Compare
) -> str:
    """Say where two runs differ, and how; empty if they do not."""
    expected_ends, actual_ends = _roots(serial), _roots(pooled)
    for expected, actual in zip(expected_ends, actual_ends, strict=False):
        why = compare.why_different(expected, actual)
        if why is not None:
            return _text(expected, actual, how, f" of {len(expected_ends)} ends differently{why}")
    if len(expected_ends) != len(actual_ends):
        here, there = len(expected_ends), len(actual_ends)
        return f"there were {here} events with Processor, and {there} {how.name}"
    ended_early = {each.index for each in expected_ends if compare.ends_early(each)}
    return _first_follow_up_that_differs(serial, pooled, how, compare, ended_early)


def _first_follow_up_that_differs(
    serial: Sequence[Outcome],
    pooled: Sequence[Outcome],
    how: _How,
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
                return f"{_named(expected)} is handled with Processor, and not {how.name}"
            continue
        why = compare.why_different(expected, actual)
        if why is not None:
            return _text(expected, actual, how, f" ends differently{why}")
    for path, actual in there.items():
        if path not in here and actual.index not in ended_early:
            return f"{_named(actual)} is handled {how.name}, and not with Processor"
    return ""


def _roots(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [outcome for outcome in outcomes if len(outcome.path) == 1]


def _named(outcome: Outcome) -> str:
    what = describe_event(outcome.event)
    if len(outcome.path) == 1:
        return f"event {outcome.index} ({what})"
    return f"follow-up {path_text(outcome.path)} ({what})"


def _text(expected: Outcome, actual: Outcome, how: _How, difference: str) -> str:
    here, there = _cut(_ending(expected), _ending(actual))
    return f"{_named(expected)}{difference}\n  with Processor: {here}\n  {how.name}: {there}"


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
    return text


def _cut(here: str, there: str) -> tuple[str, str]:
    """Shorten two texts, so that the place where they begin to differ stays in them."""
    pairs = enumerate(zip(here, there, strict=False))
    same = next((place for place, (one, other) in pairs if one != other), 0)
    return _cut_one(here, same), _cut_one(there, same)


def _cut_one(text: str, same: int) -> str:
    if len(text) <= _MOST_SHOWN:
        return text
    begin = same - _AROUND_SHOWN
    if begin > 2 * _AROUND_SHOWN:
        text = f"{text[:_AROUND_SHOWN]} ... {text[begin:]}"
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}..."
