from collections.abc import Callable, Iterator

import pytest

from benchmarks.timing import Sampler, interleaved


class Clock:
    """Stands still, but for the statement under test, which turns it on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls = 0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.calls += 1
        self.now += seconds


def sampler(seconds: float, min_seconds: float) -> tuple[Sampler, Clock]:
    clock = Clock()
    namespace = {"work": clock.work, "seconds": seconds}
    return Sampler("work(seconds)", namespace, min_seconds, timer=clock), clock


@pytest.mark.parametrize("exponent", range(-6, 3))
def test_a_sample_is_long_enough_but_not_much_longer(exponent: int) -> None:
    seconds = 2.0**exponent
    sample, _ = sampler(seconds, min_seconds=1.0)
    assert sample.loops * seconds >= 1.0
    assert sample.loops == 1 or sample.loops * seconds <= 1.5


def test_a_sample_is_the_time_of_one_execution() -> None:
    sample, clock = sampler(0.25, min_seconds=2.0)
    before = clock.calls
    assert sample() == 0.25
    assert clock.calls - before == sample.loops


def test_a_statement_that_the_clock_cannot_see_is_repeated_until_it_can() -> None:
    clock = Clock()
    calls = 0

    def work() -> None:
        nonlocal calls
        calls += 1
        if calls % 1000 == 0:  # the clock ticks once in a thousand calls
            clock.now += 1.0

    assert Sampler("work()", {"work": work}, 3.0, timer=clock).loops >= 3000


def test_an_interruption_during_calibration_does_not_shorten_the_samples() -> None:
    clock = Clock()
    pauses = iter([100.0])  # in the very first call only

    def work() -> None:
        clock.now += 0.25 + next(pauses, 0.0)

    assert Sampler("work()", {"work": work}, 1.0, timer=clock).loops >= 4


def test_the_garbage_collector_is_off_during_a_sample() -> None:
    seen: list[bool] = []
    namespace = {"seen": seen}
    Sampler("import gc; seen.append(gc.isenabled())", namespace, 0.0)()
    assert seen
    assert not any(seen)


def test_sides_are_sampled_in_turn() -> None:
    order: list[str] = []

    def side(name: str, values: Iterator[float]) -> Callable[[], float]:
        def sample() -> float:
            order.append(name)
            return next(values)

        return sample

    samplers = {
        "b": side("b", iter([1.0, 3.0, 10.0, 20.0])),
        "a": side("a", iter([5.0, 5.0, 6.0, 8.0])),
    }
    values = interleaved(samplers, repeats=2, turns=2)
    # the mean of its turns, repeat by repeat
    assert values == {"b": (2.0, 15.0), "a": (5.0, 7.0)}
    assert order == ["b", "a"] * 4
