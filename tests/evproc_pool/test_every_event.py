"""What an outcome says of each event of a cascade; errors that do not end it; its limits."""

from __future__ import annotations

import gc
import pickle
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from evproc import Event, StopProcessing, want
from evproc.exc import _unset
from evproc_pool import CascadeLimitError, Outcome, PoolProcessor
from evproc_pool.core.cascade_limits import limit_error


class Node(Event):
    """Returns its children, after it has emitted; then fails or stops, if it is to.

    Args:
        children: Its follow-ups.
        emits: What it emits.
        fails: How often it fails, from now on.
        stops: The value to stop with, if any.
    """

    name = "node"

    def __init__(
        self, *children: Event, emits: Any = (), fails: int = 0, stops: Any = _unset
    ) -> None:
        super().__init__()
        self.children = children
        self.emits = list(emits)
        self.fails = fails
        self.stops = stops


class Chain(Event):
    """Returns another one, for ever."""

    name = "chain"


class Lonely(Event):
    """No handler wants it."""

    name = "lonely"


class Nameless(Event):
    """Its name cannot be asked for."""

    @property
    def name(self) -> str:
        raise LookupError("no name")


@want("node")
def first(proc: Any, ev: Node) -> Any:
    ev.proc.seen.first = True
    for value in ev.emits:
        ev.emit(value)
    return ev.children[:1]


@want("node")
def second(proc: Any, ev: Node) -> Any:
    if ev.fails:
        raise ValueError("node")
    if ev.stops is not _unset:
        raise StopProcessing(ev.stops)
    return ev.children[1:]


@want("chain")
def chain(proc: Any, ev: Chain) -> list[Event]:
    ev.emit("link")
    return [Chain()]


@want("flaky")
def flaky(proc: Any, ev: Any) -> None:
    ev.emit(len(TRIES))
    TRIES.append(ev)
    if len(TRIES) < 3:
        raise OSError("again")


class Flaky(Event):
    name = "flaky"


TRIES: list[Event] = []


def pool(**options: Any) -> PoolProcessor:
    TRIES.clear()
    made = PoolProcessor(workers=0, **options)
    for handler in (first, second, chain, flaky):
        made.register(handler)
    return made


def every(*events: Event, **options: Any) -> list[Outcome]:
    with pool(**options) as made:
        return list(made.stream(events, every_event=True, return_events=True))


def paths(outcomes: list[Outcome]) -> list[tuple[int, ...]]:
    return [outcome.path for outcome in outcomes]


def notes(error: BaseException | None) -> list[str]:
    return [note for note in getattr(error, "__notes__", ()) if note.startswith("evproc_pool")]


# --- every event ---


def test_follow_ups_come_in_the_order_of_the_cascade_and_the_root_last() -> None:
    inner = Node(Node(), Lonely())
    outcomes = every(Node(Node(), Lonely(), inner), Node(Node()))
    assert paths(outcomes) == [(0, 0), (0, 1), (0, 2), (0, 2, 0), (0, 2, 1), (0,), (1, 0), (1,)]
    assert [outcome.index for outcome in outcomes] == [0] * 6 + [1] * 2
    assert outcomes[2].event is inner
    assert [outcome.handlers for outcome in outcomes] == [2, 0, 2, 2, 0, 8, 2, 4]
    assert [outcome.events for outcome in outcomes] == [1, 1, 1, 1, 1, 6, 1, 2]


def test_without_every_event_there_are_the_roots_with_their_paths() -> None:
    with pool() as made:
        outcomes = list(made.stream([Node(Node(), Lonely()), Lonely()]))
    assert paths(outcomes) == [(0,), (1,)]
    assert [outcome.handlers for outcome in outcomes] == [4, 0]


def test_each_event_comes_back_as_its_handlers_left_it() -> None:
    outcomes = every(Node(Node(), Lonely()))
    for outcome in outcomes:
        assert outcome.processed is outcome.event
    assert outcomes[0].event.proc.seen.first
    with pool() as made:
        plain = list(made.stream([Node(Node())], every_event=True))
    assert [outcome.processed for outcome in plain] == [None, None]


def test_what_is_emitted_is_each_events_own_and_in_order_the_cascades() -> None:
    root = Node(Node(Node(emits="d"), emits="b"), Node(emits=["c", "c"]), emits="a")
    outcomes = every(root)
    assert [outcome.emitted for outcome in outcomes] == [["b"], ["c", "c"], ["d"], list("abccd")]
    assert outcomes[-1].emitted is not outcomes[0].emitted


def test_what_a_cascade_emitted_before_it_failed_or_stopped_is_there() -> None:
    failed, stopped = (
        every(Node(Node(emits="b"), Node(emits="c", **end), emits="a"))[-1]
        for end in ({"fails": 1}, {"stops": 5})
    )
    assert failed.emitted == ["a", "b"]
    assert (stopped.emitted, stopped.value) == (["a", "b", "c"], 5)


def test_what_a_failed_attempt_emitted_is_forgotten() -> None:
    (outcome,) = every(Flaky(), max_retries=2, retry_backoff=0)
    assert (outcome.emitted, outcome.attempts, outcome.handlers) == ([2], 3, 1)
    (outcome,) = every(Flaky())
    assert (outcome.emitted, outcome.failed) == ([], 1)
    assert outcome.event is outcome.failed_event


@pytest.mark.parametrize("options", [{}, {"errors": "continue"}])
def test_what_nobody_takes_is_in_no_later_outcome(options: dict[str, Any]) -> None:
    follow_up = Node(emits="b", fails=1)
    root = Node(follow_up, emits="a")
    with pool(**options) as made:
        for _ in range(2):
            assert len(made.process_many([root], True)) == 1
        follow_up.fails = 0
        assert made.process(root) is None
        (outcome,) = made.stream([root])
    assert outcome.emitted == ["a", "b"]


def test_dropped_events_have_no_outcome() -> None:
    outcomes = every(Node(Node(), Node(stops=7), Node(Node())))
    assert paths(outcomes) == [(0, 0), (0, 1), (0,)]
    assert [(outcome.value, outcome.stopped) for outcome in outcomes] == [
        (None, False),
        (7, True),
        (7, True),
    ]
    assert paths(every(Node(Node(), Node(fails=1), Node()))) == [(0, 0), (0, 1), (0,)]


def test_outcomes_are_yielded_as_the_events_are_handled() -> None:
    with pool() as made:
        stream = made.stream([Chain()], every_event=True)  # for ever
        assert [next(stream).path for _ in range(3)] == [(0, 0), (0, 0, 0), (0, 0, 0, 0)]
        stream.close()


def test_a_closed_pool_ends_a_stream_before_the_next_root() -> None:
    with pool() as made:
        stream = made.stream([Node(Node()), Node()], every_event=True)
        next(stream)
        made.close()
        assert next(stream).path == (0,)
        with pytest.raises(RuntimeError, match="closed"):
            next(stream)


# --- errors ---


def test_an_error_ends_the_cascade() -> None:
    bad = Node(emits="x", fails=1)
    outcomes = every(Node(bad, Node()))
    assert paths(outcomes) == [(0, 0), (0,)]
    for outcome in outcomes:
        assert isinstance(outcome.error, ValueError)
        assert outcome.failed_event is bad
        assert (outcome.handler, outcome.failed) == ("second", 1)
        assert outcome.processed is None
    assert [outcome.handlers for outcome in outcomes] == [2, 4]


def test_an_error_that_does_not_end_the_cascade_ends_the_event_and_its_follow_ups() -> None:
    bad = Node(Node(), emits="x", fails=1)
    worse = Node(fails=1)
    outcomes = every(Node(Node(Node()), bad, worse, Node(emits="y")), errors="continue")
    assert paths(outcomes) == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 0, 0), (0,)]
    assert [outcome.failed for outcome in outcomes] == [0, 1, 1, 0, 0, 2]
    root = outcomes[-1]
    assert root.failed_event is bad
    assert root.error is outcomes[1].error
    assert root.emitted == ["y"]
    assert root.processed is root.event
    with pytest.raises(ValueError, match="node"):
        root.unwrap()


def test_a_root_that_fails_has_no_follow_ups() -> None:
    outcomes = every(Node(Node(), fails=1), Node(Node()), errors="continue")
    assert paths(outcomes) == [(0,), (1, 0), (1,)]
    assert (outcomes[0].failed, outcomes[0].events, outcomes[0].processed) == (1, 1, None)


def test_a_value_ends_the_cascade_all_the_same() -> None:
    outcomes = every(Node(Node(fails=1), Node(stops=3), Node()), errors="continue")
    assert paths(outcomes) == [(0, 0), (0, 1), (0,)]
    assert (outcomes[-1].value, outcomes[-1].stopped, outcomes[-1].failed) == (3, True, 1)
    with pytest.raises(ValueError, match="node"):
        outcomes[-1].unwrap()


def test_events_that_fail_before_any_handler_have_an_outcome() -> None:
    bad: Any = 5
    outcomes = every(Node(Nameless(), Node()), bad, Nameless(), errors="continue")
    assert paths(outcomes) == [(0, 0), (0, 1), (0,), (1,), (2,)]
    assert [type(outcome.error) for outcome in outcomes] == [
        LookupError,
        type(None),
        LookupError,
        TypeError,
        LookupError,
    ]
    for outcome in outcomes[3:]:
        assert outcome.failed_event is outcome.event
        assert (outcome.handler, outcome.handlers, outcome.failed) == (None, 0, 1)
    assert [outcome.events for outcome in outcomes] == [1, 1, 3, 0, 1]


def test_a_key_that_fails_is_the_failure_of_its_root() -> None:
    root = Node()
    with pool(key=lambda ev: []) as made:
        (outcome,) = made.stream([root])
    assert isinstance(outcome.error, TypeError)
    assert (outcome.failed_event, outcome.failed, outcome.path) == (root, 1, (0,))


def test_a_call_says_what_an_error_ends_or_else_the_pool() -> None:
    def roots() -> list[Event]:
        return [Node(Node(fails=1), Node(emits="y"))]

    with pool() as made:
        (going_on,) = made.stream(roots(), errors="continue")
        (ended,) = made.stream(roots())
    assert (going_on.emitted, ended.emitted) == (["y"], [])
    with pool(errors="continue") as made:
        (going_on,) = made.stream(roots())
        (ended,) = made.stream(roots(), errors="end")
    assert (going_on.emitted, ended.emitted) == (["y"], [])


def test_the_other_calls_raise_the_first_error_of_a_cascade_that_went_on() -> None:
    def root() -> Event:
        return Node(Node(fails=1), Node(stops=3))

    with pool() as made:
        values = made.process_many([root(), Node(stops=4)], True, errors="continue")
        assert [type(values[0]), values[1]] == [ValueError, 4]
        with pytest.raises(ValueError, match="node"):
            made.process_many([root()], errors="continue")
    with pool(errors="continue") as made:
        assert isinstance(made.submit(root()).exception(), ValueError)
        with pytest.raises(ValueError, match="node"):
            made.process(root())


# --- notes ---


def calls(made: PoolProcessor, *events: Event) -> Iterator[BaseException | None]:
    """The error of the last event, by each call that takes several; generators included."""
    yield made.process_many(events, True)[-1]
    yield made.process_many(iter([*events]), True)[-1]
    yield made.process_many((ev for ev in events), True)[-1]
    *_, outcome = made.stream(ev for ev in events)
    yield outcome.error


@pytest.mark.parametrize("options", [{}, {"errors": "continue"}, {"key": id}])
def test_errors_name_the_event_of_the_input(options: dict[str, Any]) -> None:
    with pool(**options) as made:
        for error in calls(made, Node(), Node(fails=1)):
            assert notes(error) == ["evproc_pool: event 1 of the input"]
        deep = Node(Node(Node()), Node(Node(), Node(), Node(fails=1)))
        for error in calls(made, Node(), deep):
            assert notes(error) == ["evproc_pool: follow-up (1, 1, 2) of event 1 of the input"]


@pytest.mark.parametrize("options", [{}, {"errors": "continue"}])
def test_the_only_root_of_a_call_is_not_named(options: dict[str, Any]) -> None:
    with pool(**options) as made:
        errors = [
            made.submit(Node(fails=1)).exception(),
            *made.process_many([Node(fails=1)], True),
            next(made.stream([Node(fails=1)])).error,
        ]
        assert [notes(error) for error in errors] == [[], [], []]
        error = made.submit(Node(Node(fails=1))).exception()
    assert notes(error) == ["evproc_pool: follow-up (0, 0) of event 0 of the input"]


# --- limits ---


def test_the_depth_of_a_cascade_is_limited() -> None:
    outcomes = every(Node(), Chain(), max_cascade_depth=2)
    assert paths(outcomes) == [(0,), (1, 0), (1, 0, 0), (1,)]
    limited, total = outcomes[-2:]
    error = limited.error
    assert isinstance(error, CascadeLimitError)
    assert total.error is error
    assert (error.limit, error.path, error.handler) == ("max_cascade_depth=2", (1, 0, 0), "chain")
    assert "'chain'" in error.event
    assert "raise the limit, or mend the handler" in str(error)
    assert total.failed_event is limited.event
    assert (total.handler, total.handlers, total.failed) == ("chain", 3, 1)
    # it is a failed event
    assert (limited.emitted, total.emitted) == ([], ["link", "link"])


def test_a_cascade_as_deep_as_the_limit_is_well() -> None:
    (*_, total) = every(Node(Node(Node())), max_cascade_depth=2)
    assert (total.error, total.events) == (None, 3)
    (total,) = every(Node(), max_cascade_depth=0)
    assert total.error is None
    (total,) = every(Node(Node()), max_cascade_depth=0)
    assert isinstance(total.error, CascadeLimitError)


def test_the_number_of_events_of_a_cascade_is_limited() -> None:
    (*_, total) = every(Node(Node(), Lonely()), max_cascade_events=3)
    assert total.error is None
    outcomes = every(Node(Node(), Lonely(), Node()), max_cascade_events=3)
    assert paths(outcomes) == [(0,)]
    error = outcomes[0].error
    assert isinstance(error, CascadeLimitError)
    assert (error.limit, error.path, error.handler) == ("max_cascade_events=3", (0,), "second")


def test_the_others_go_on_with_what_there_is_left() -> None:
    wide = Node(Node(), Node(), Node())
    options: dict[str, Any] = {"max_cascade_events": 5, "errors": "continue"}
    outcomes = every(Node(wide, Node(Node(), Node())), **options)
    # 3 are queued by the root; `wide` would make it 6, the next one makes it 5
    assert paths(outcomes) == [(0, 0), (0, 1), (0, 1, 0), (0, 1, 1), (0,)]
    assert [outcome.failed for outcome in outcomes] == [1, 0, 0, 0, 1]


def test_an_event_that_failed_or_stopped_exceeds_nothing() -> None:
    (outcome,) = every(Node(Node(), fails=1), max_cascade_depth=0)
    assert isinstance(outcome.error, ValueError)
    (outcome,) = every(Node(Node(), stops=1), max_cascade_depth=0)
    assert (outcome.value, outcome.error) == (1, None)


def test_what_exceeds_a_limit_is_not_run_again() -> None:
    options: dict[str, Any] = {"retry_exceptions": Exception, "retry_backoff": 0}
    (outcome,) = every(Chain(), max_cascade_depth=0, max_retries=3, **options)
    assert isinstance(outcome.error, CascadeLimitError)
    assert outcome.attempts == 1


@pytest.mark.parametrize("limits", [{"max_cascade_depth": 9}, {"max_cascade_events": 10}])
def test_a_cascade_without_end_ends(limits: dict[str, int]) -> None:
    with pool(**limits) as made:
        for call in (made.process, lambda ev: made.submit(ev).result()):
            with pytest.raises(CascadeLimitError) as caught:
                call(Chain())
            assert caught.value.path == (0,) * 10
        assert isinstance(made.process_many([Chain()], True)[0], CascadeLimitError)


def test_a_limit_error_is_the_same_after_pickling() -> None:
    error = limit_error("max_cascade_depth=3", (0, 1), "h", Node())
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
    assert (copy.limit, copy.path, copy.handler) == ("max_cascade_depth=3", (0, 1), "h")


# --- what is held ---


@pytest.mark.parametrize("errors", ["end", "continue"])
def test_a_failed_event_is_gone_with_its_outcome(errors: Any) -> None:
    gc.disable()
    try:
        with pool(errors=errors) as made:
            root = Node(Node(fails=1), fails=0)
            held = weakref.ref(root)
            outcomes = list(made.stream([root], every_event=True))
            assert outcomes[-1].failed
            del root, outcomes
            assert held() is None
            root = Node(Node(fails=1))
            held = weakref.ref(root)
            assert len(made.process_many([root], True)) == 1
            with pytest.raises(ValueError, match="node"):
                made.process_many([root])
            del root
            assert held() is None
    finally:
        gc.enable()
