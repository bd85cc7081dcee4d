"""`stream`: outcomes, order, laziness, ends; with workers and without."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

from evproc import Event, Processor
from evproc_pool import Outcome, PoolClosedError, PoolProcessor
from evproc_pool.coordinator.engine import Engine
from evproc_pool.coordinator.feeding import Feeder
from evproc_pool.coordinator.run_handle import OutcomeSink, RunHandle
from evproc_pool.core.inputs_and_effects import Opened
from evproc_pool.pool import BUFFER_PER_WORKER
from tests.support import actions
from tests.support.actions import Do, LoadsOnlyInWorkers, Unwanted
from tests.support.helpers import Background, Gate, register_all, warm


@pytest.fixture(scope="module", params=[0, 2])
def either(request: pytest.FixtureRequest) -> Iterator[PoolProcessor]:
    """A pool without processes, and one with."""
    with PoolProcessor(workers=request.param) as pool:
        register_all(pool, [actions.act, *actions.ordered_handlers()])
        warm(pool)
        yield pool


class Counted:
    """An input that knows how far it was read."""

    def __init__(self, events: Iterator[Event]) -> None:
        self._events = events
        self.read = 0

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        event = next(self._events)
        self.read += 1
        return event


def values(count: int) -> list[Event]:
    return [Do("stop", number) for number in range(count)]


def test_an_outcome_for_each_event_in_input_order(either: PoolProcessor) -> None:
    events = [Do("nothing"), Do("stop", 5), Do("fail", KeyError, "k"), Unwanted(), Do("stop", None)]
    outcomes = list(either.stream(events))
    assert [outcome.event for outcome in outcomes] == events
    assert [outcome.index for outcome in outcomes] == [0, 1, 2, 3, 4]
    assert [outcome.value for outcome in outcomes] == [None, 5, None, None, None]
    assert [outcome.stopped for outcome in outcomes] == [False, True, False, False, True]
    assert [type(outcome.error) for outcome in outcomes] == [type(None)] * 2 + [KeyError] + [
        type(None)
    ] * 2
    assert [outcome.handler for outcome in outcomes] == [None, None, "act", None, None]
    assert all(outcome.attempts == 1 for outcome in outcomes)
    assert all(outcome.processed is None for outcome in outcomes)


def test_unwrap_returns_the_value_or_raises_the_error(either: PoolProcessor) -> None:
    good, bad = either.stream([Do("stop", "v"), Do("fail", KeyError, "k")])
    assert good.unwrap() == "v"
    with pytest.raises(KeyError, match="k"):
        bad.unwrap()


def test_events_and_seconds_are_those_of_the_whole_cascade(either: PoolProcessor) -> None:
    spin = [Do("follow", *[Do("nothing")] * 3, Unwanted()), Do("nothing")]
    cascade, single = either.stream(spin)
    assert (cascade.events, single.events) == (5, 1)
    assert cascade.seconds > 0
    assert single.seconds > 0


def test_events_are_counted_up_to_the_one_that_ended_the_cascade(either: PoolProcessor) -> None:
    (outcome,) = either.stream([Do("follow", Do("nothing"), Do("stop", 1), Do("nothing"))])
    assert (outcome.events, outcome.value, outcome.stopped) == (3, 1, True)


def test_a_value_in_the_middle_of_nothing(either: PoolProcessor) -> None:
    events = [Do("stop", number) if number % 100 == 50 else Do("nothing") for number in range(500)]
    outcomes = list(either.stream(events))
    assert {outcome.index: outcome.value for outcome in outcomes if outcome.stopped} == {
        number: number for number in (50, 150, 250, 350, 450)
    }


def test_an_event_that_nobody_wants_comes_back_as_it_is(either: PoolProcessor) -> None:
    events = [actions.Unwanted() for _ in range(3)]
    outcomes = list(either.stream(events, return_events=True))
    assert [outcome.processed for outcome in outcomes] == events
    assert [outcome.processed for outcome in either.stream(events)] == [None] * 3


def test_return_events_brings_the_event_back_as_the_handlers_left_it(
    either: PoolProcessor,
) -> None:
    failed, quiet, ordered = either.stream(
        [Do("fail", KeyError), Do("nothing"), actions.Ordered()], return_events=True
    )
    assert failed.processed is None
    assert isinstance(quiet.processed, Do)
    assert ordered.processed is not None
    assert ordered.processed.proc.order.names[-1] == "last"
    assert ordered.processed.proc.order.names == ordered.value[2]


def test_the_event_of_an_outcome_is_the_object_that_was_handed_in(either: PoolProcessor) -> None:
    event = Do("nothing")
    (outcome,) = either.stream([event], return_events=True)
    assert outcome.event is event


def test_unordered_yields_whatever_is_finished(gate: Gate, shared_pool: PoolProcessor) -> None:
    events = [Do("wait_at", gate.address, "slow", "slow"), *values(50)]
    stream = shared_pool.stream(events, ordered=False)
    first = [next(stream) for _ in range(10)]
    assert "slow" not in [outcome.value for outcome in first]
    gate.arrival().release()
    rest = list(stream)
    assert sorted(outcome.index for outcome in [*first, *rest]) == list(range(51))
    assert {outcome.index: outcome.value for outcome in [*first, *rest]}[0] == "slow"


@pytest.mark.parametrize("buffersize", [1, 2, 7])
def test_no_more_than_the_buffer_is_read_ahead(either: PoolProcessor, buffersize: int) -> None:
    events = Counted(Do("stop", number) for number in itertools.count())
    stream = either.stream(events, buffersize=buffersize)
    for yielded in range(1, 60):
        assert next(stream).value == yielded - 1
        # the one that was just yielded is not ahead any more
        assert events.read <= yielded + buffersize
    stream.close()


def test_the_default_buffer_bounds_an_endless_input(shared_pool: PoolProcessor) -> None:
    events = Counted(Do("nothing") for _ in itertools.count())
    stream = shared_pool.stream(events)
    for yielded, _ in enumerate(itertools.islice(stream, 60_000), 1):
        assert events.read <= yielded + BUFFER_PER_WORKER * shared_pool.workers
    stream.close()


def test_nothing_is_read_before_the_first_outcome_is_asked_for(either: PoolProcessor) -> None:
    events = Counted(iter(values(3)))
    stream = either.stream(events)
    assert events.read == 0
    assert next(stream).value == 0
    stream.close()


def test_a_closed_stream_leaves_the_pool_usable(gate: Gate) -> None:
    with register_all(PoolProcessor(workers=1), [actions.act]) as pool:
        events = Counted(Do("wait_at", gate.address, str(n), n) for n in itertools.count())
        stream = pool.stream(events, buffersize=8)
        with Background(lambda: next(stream)) as first:
            gate.arrival().release()
            assert first.result().value == 0
        stream.close()
        read = events.read
        with Background(lambda: pool.process(Do("stop", "after"))) as after:
            # what had been sent is finished; what had not is dropped
            gate.close()
            assert after.result() == "after"
        assert events.read == read


def test_an_input_that_raises_does_so_behind_the_outcomes_of_what_was_read(
    either: PoolProcessor,
) -> None:
    def events() -> Iterator[Event]:
        yield from values(5)
        raise LookupError("no more")

    seen: list[Outcome] = []
    with pytest.raises(LookupError, match="no more"):
        seen.extend(either.stream(events()))
    assert [outcome.value for outcome in seen] == [0, 1, 2, 3, 4]


def test_what_is_no_event_is_a_failed_outcome(either: PoolProcessor) -> None:
    junk: Any = "junk"
    good, bad, also_good = either.stream([Do("stop", 1), junk, Do("stop", 2)])
    assert (good.value, also_good.value) == (1, 2)
    assert isinstance(bad.error, TypeError)
    assert bad.event is junk


def test_a_value_that_cannot_be_rebuilt_fails_its_own_outcome_only(
    shared_pool: PoolProcessor,
) -> None:
    events = [Do("stop", 0), Do("call", LoadsOnlyInWorkers), Do("stop", 2)]
    outcomes = list(shared_pool.stream(events))
    assert [outcome.value for outcome in outcomes] == [0, None, 2]
    assert outcomes[1].error is not None


def test_streams_of_several_threads_share_the_workers(shared_pool: PoolProcessor) -> None:
    def consume(base: int) -> list[int]:
        return [
            each.value for each in shared_pool.stream([Do("stop", base + n) for n in range(300)])
        ]

    with (
        Background(lambda: consume(0)) as one,
        Background(lambda: consume(1000)) as two,
        Background(lambda: consume(2000)) as three,
    ):
        results = [one.result(), two.result(), three.result()]
    assert results == [[base + n for n in range(300)] for base in (0, 1000, 2000)]


def test_two_streams_of_one_thread_may_be_interleaved(shared_pool: PoolProcessor) -> None:
    one, two = shared_pool.stream(values(500)), shared_pool.stream(values(500))
    for number, (left, right) in enumerate(zip(one, two, strict=True)):
        assert left.value == right.value == number


def test_a_stream_iterated_by_another_thread_than_made_it(shared_pool: PoolProcessor) -> None:
    stream = shared_pool.stream(values(20))
    collected: list[Outcome] = []
    thread = threading.Thread(target=lambda: collected.extend(stream))
    thread.start()
    thread.join()
    assert [outcome.value for outcome in collected] == list(range(20))


def test_the_pool_that_is_closed_under_a_stream_ends_it(gate: Gate) -> None:
    pool = register_all(PoolProcessor(workers=1), [actions.act])
    stream = pool.stream([Do("wait_at", gate.address)])
    with Background(lambda: next(stream)) as waiting:
        gate.arrival()
        pool.terminate()
        assert isinstance(waiting.error(), PoolClosedError)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"buffersize": 0}, ValueError, "buffersize must be at least 1"),
        ({"buffersize": -3}, ValueError, "buffersize must be at least 1"),
        ({"buffersize": 1.5}, TypeError, "buffersize is a whole number or None"),
        ({"buffersize": True}, TypeError, "buffersize is a whole number or None"),
        ({"ordering": "sorted"}, ValueError, "ordering is 'cascade' or 'unordered'"),
        ({"key": "name"}, TypeError, "key is a callable or None"),
    ],
)
def test_bad_options_are_refused_before_anything_is_read(
    either: PoolProcessor, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    events = Counted(iter(values(3)))
    with pytest.raises(error, match=text):
        either.stream(events, **options)
    assert events.read == 0


def test_an_input_that_is_no_iterable_is_refused_at_once(either: PoolProcessor) -> None:
    nothing: Any = 5
    with pytest.raises(TypeError, match="not iterable"):
        either.stream(nothing)


# --- an input that comes slowly ---


def test_an_event_is_sent_before_the_next_one_is_waited_for(gate: Gate) -> None:
    def live() -> Iterator[Event]:
        yield Do("wait_at", gate.address)
        gate.arrival().release()  # which would never come
        yield Do("stop", 2)

    with register_all(PoolProcessor(workers=2), [actions.act]) as pool:
        warm(pool)
        assert [outcome.value for outcome in pool.stream(live())] == [None, 2]


class _Engine:
    """Takes whatever it is given."""

    notices = None

    def __init__(self) -> None:
        self.portions: list[int] = []

    def demand(self, _: object) -> int:
        return 1000

    def accept(self, roots: Any) -> None:
        self.portions.append(len(roots.events))

    def close_run(self, _: object) -> None:
        self.portions.append(0)


def _portions(events: Iterator[Event], clock: Any, feeds: int) -> list[int]:
    """In which portions an input is read."""
    processor = register_all(Processor(), [actions.act])
    engine, run = _Engine(), RunHandle(Opened(0), OutcomeSink(), can_cancel=False)
    feeder = Feeder(
        cast("Engine", engine),
        run,
        OutcomeSink(),
        events,
        registry=processor.registry,
        key=None,
        clock=clock,
    )
    for _ in range(feeds):
        feeder.feed()
    return engine.portions


def test_what_is_at_hand_is_read_at_once() -> None:
    assert _portions(iter(values(700)), lambda: 0.0, 2) == [700, 0]
    assert _portions(iter(tuple(values(1300))), lambda: 0.0, 3) == [1000, 300, 0]


def test_what_is_not_is_read_in_ever_larger_portions_while_it_comes_quickly() -> None:
    quick = iter(itertools.chain(values(700)))
    assert _portions(quick, lambda: 0.0, 10) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 189, 0]


def test_what_comes_slowly_is_read_one_by_one() -> None:
    now = 0.0

    def slowly_in_the_middle() -> Iterator[Event]:
        nonlocal now
        for number, event in enumerate(values(30)):
            now += 1.0 if 7 <= number < 10 else 0.00001
            yield event

    # The eighth event is the last of the third portion that is read quickly, and the
    # first of the next one is slow.
    assert _portions(slowly_in_the_middle(), lambda: now, 9) == [1, 2, 4, 8, 1, 2, 4, 8, 0]
