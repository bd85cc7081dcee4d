"""`Processor.process`: calls, follow-ups, stops, errors; and what handlers may return."""

from __future__ import annotations

import copy
import dataclasses
import gc
import pickle
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import evproc
from evproc import Event, HandlerReturnException, Processor, StopProcessing, processor, want
from evproc.exc import _unset
from evproc.processor import run_handlers
from tests.support.processors import Named, Recorder, notes, raises


def processor_of(*handlers: Any) -> Processor:
    made = Processor()
    for handler in handlers:
        made.register(handler)
    return made


@dataclasses.dataclass(frozen=True)
class Frozen(Event):
    name = "frozen"
    number: int


class Duck:
    """Has what an event has, but is none."""

    name = "ev"
    ctxt = None
    proc = None


class Virtual:
    """An event by registration only."""

    name = "ev"


Event.register(Virtual)


# --- the names of 0.2.0 ---


def test_the_public_names_of_0_2_0_are_where_they_were() -> None:
    from evproc import decorator, event, exc

    assert decorator.want is evproc.want
    assert decorator.requires is evproc.requires
    assert decorator.required_by is evproc.required_by
    assert event.Event is evproc.Event
    assert isinstance(Named().proc, event.ProcessorData)
    assert isinstance(Named().proc.tests, event.Namespace)
    assert processor.Processor is evproc.Processor
    assert isinstance(processor.ProcNode, type)
    for name in (
        "EventException",
        "ProcessorReregisterException",
        "IncompatibleRequirementsException",
        "StopProcessing",
    ):
        assert getattr(exc, name) is getattr(evproc, name)


def test_every_public_name_exists() -> None:
    assert len(set(evproc.__all__)) == len(evproc.__all__)
    for name in evproc.__all__:
        assert hasattr(evproc, name)


def test_nodes_are_the_handlers_by_name() -> None:
    record = Recorder()
    first, second = record.handler("first"), record.handler("second")
    proc = processor_of(second, first)
    assert list(proc.nodes) == ["second", "first"]
    assert proc.nodes["first"].func is first
    assert isinstance(proc.nodes["first"], processor.ProcNode)
    with pytest.raises(TypeError):
        del proc.nodes["first"]  # type: ignore[attr-defined]  # what is tested


# --- calling handlers ---


def test_a_handler_is_called_with_the_processor_and_the_event() -> None:
    called = []

    def handler(proc: Processor, ev: Event) -> None:
        called.append((proc, ev))

    proc, ev = processor_of(handler), Named()
    assert proc.process(ev) is None
    assert len(called) == 1
    assert called[0][0] is proc
    assert called[0][1] is ev


def test_without_handlers_processing_is_none() -> None:
    assert Processor().process(Named()) is None


def test_a_handler_can_be_registered_under_another_name() -> None:
    record = Recorder()
    proc = Processor()
    proc.register(record.handler("first"), name="other")
    proc.register(record.handler("first"), "another")
    assert list(proc.nodes) == ["other", "another"]
    proc.process(Named())
    assert record.take() == ["first", "first"]


class Callables:
    def __init__(self, calls: list[Any]) -> None:
        self.calls = calls

    def method(self, proc: Any, ev: Any) -> None:
        self.calls.append("method")

    def __call__(self, proc: Any, ev: Any) -> None:
        self.calls.append("object")


def test_bound_methods_callable_objects_and_partials_are_handlers() -> None:
    import functools

    calls: list[Any] = []

    def part(extra: str, proc: Any, ev: Any) -> None:
        calls.append(extra)

    proc = Processor()
    proc.register(Callables(calls).method)
    proc.register(Callables(calls), name="object")
    proc.register(want("ev")(functools.partial(part, "partial")))
    proc.register(want("other")(Callables(calls).method), name="decorated")
    proc.process(Named("ev"))
    assert calls == ["method", "object", "partial"]
    calls.clear()
    proc.process(Named("other"))
    assert calls == ["method", "object", "method"]


def test_all_filters_are_asked_before_the_first_handler_runs() -> None:
    happened: list[str] = []

    def filtering(ev: Any) -> bool:
        happened.append("filter")
        return not hasattr(ev.proc.first, "value")

    @want(filtering)
    def first(proc: Any, ev: Any) -> None:
        happened.append("first")
        ev.proc.first.value = 1
        ev._name = "renamed"

    @want("ev", filtering)
    def second(proc: Any, ev: Any) -> None:
        happened.append("second")

    processor_of(first, second).process(Named("ev"))
    assert happened == ["filter", "filter", "first", "second"]


def test_handlers_hand_data_on_through_the_namespaces() -> None:
    def first(proc: Any, ev: Any) -> None:
        ev.proc.tests.args = [1]

    def second(proc: Any, ev: Any) -> None:
        raise StopProcessing(ev.proc.tests.args)

    assert processor_of(first, second).process(Named()) == [1]


def test_a_frozen_dataclass_is_processed() -> None:
    def first(proc: Any, ev: Any) -> list[Event]:
        ev.proc.tests.seen = True
        return [Frozen(ev.number + 1)] if ev.number < 3 else []

    @want("frozen", lambda ev: ev.number == 3)
    def last(proc: Any, ev: Any) -> None:
        raise StopProcessing((ev, ev.proc.tests.seen))

    assert processor_of(first, last).process(Frozen(0)) == (Frozen(3), True)


def test_a_handler_that_is_registered_while_an_event_is_processed_counts_from_the_next() -> None:
    record = Recorder()

    def registers(proc: Processor, ev: Event) -> list[Event] | None:
        if "late" in proc.nodes:
            return None
        proc.register(record.handler("late"))
        return [Named("follow-up")]

    proc = processor_of(record.handler("registers", registers), record.handler("other"))
    proc.process(Named("ev"))
    # not for `ev`, but for its follow-up
    assert record.take() == ["registers", "other", "registers", "other", "late"]


def test_a_handler_may_process_another_event_itself() -> None:
    def inner(proc: Any, ev: Any) -> None:
        raise StopProcessing("inner")

    def outer(proc: Processor, ev: Any) -> None:
        raise StopProcessing(["outer", proc.process(Named("inner"))])

    proc = processor_of(want("inner")(inner), want("outer")(outer))
    assert proc.process(Named("outer")) == ["outer", "inner"]


def test_several_threads_may_process_with_one_processor() -> None:
    count, threads = 50, 4

    def split(proc: Any, ev: Any) -> list[Event] | None:
        return [Named("leaf", ev.ctxt), Named("end", ev.ctxt)] if ev.name == "root" else None

    @want("leaf", lambda ev: ev.ctxt % 2)
    def odd(proc: Any, ev: Any) -> None:
        pass

    @want("end")
    def end(proc: Any, ev: Any) -> None:
        raise StopProcessing(ev.ctxt)

    proc = processor_of(split, odd, end)
    values: dict[int, list[Any]] = {}
    barrier = threading.Barrier(threads)

    def run(number: int) -> None:
        barrier.wait()
        values[number] = [
            proc.process(Named("root", number * count + place)) for place in range(count)
        ]

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    flat = [value for number in range(threads) for value in values[number]]
    assert flat == list(range(count * threads))


def module_level(proc: Any, ev: Any) -> list[Event] | None:
    return [Named("follow-up")] if ev.name == "ev" else None


@want("follow-up")
def stops_at_the_follow_up(proc: Any, ev: Any) -> None:
    raise StopProcessing("follow-up")


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda proc: pickle.loads(pickle.dumps(proc))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_processor_can_be_copied_like_that_of_0_2_0(copied: Callable[[Any], Any]) -> None:
    proc = processor_of(module_level, stops_at_the_follow_up)
    assert proc.process(Named("ev")) == "follow-up"  # with what it has learned by then
    twin = copied(proc)
    assert list(twin.nodes) == ["module_level", "stops_at_the_follow_up"]
    assert twin.process(Named("ev")) == "follow-up"


def test_a_deep_copy_of_a_processor_has_handlers_of_its_own() -> None:
    proc = processor_of(module_level)
    twin = copy.deepcopy(proc)
    twin.register(stops_at_the_follow_up)
    assert list(proc.nodes) == ["module_level"]
    assert proc.process(Named("ev")) is None
    assert twin.process(Named("ev")) == "follow-up"


# --- what is an event ---


@pytest.mark.parametrize(
    ("value", "described", "instead"),
    [
        (None, "a NoneType, None", "derived from evproc.Event"),
        ("ev", "a str, 'ev'", "derived from evproc.Event"),
        (5, "an int, 5", "derived from evproc.Event"),
        ([Named()], "a list, [Named('ev')]", "process_many()"),
        (Named, "the class <class", "make one of it, Named(...)"),
        (Duck(), "a Duck, <", "derived from evproc.Event"),
    ],
    ids=["None", "str", "int", "list of events", "event class", "duck"],
)
def test_process_takes_events_only_and_says_what_it_got(
    value: Any, described: str, instead: str
) -> None:
    record = Recorder()
    proc = processor_of(record.handler("all"))
    with pytest.raises(TypeError) as caught:
        proc.process(value)
    assert str(caught.value).startswith(f"process() takes an event, not {described}")
    assert instead in str(caught.value)
    assert record.take() == []


def test_a_virtual_subclass_of_event_is_an_event() -> None:
    record = Recorder()

    def follow(proc: Any, ev: Any) -> list[Any] | None:
        return None if record.calls else [Virtual()]

    proc = processor_of(follow, want("ev")(record.handler("virtual")))
    proc.process(Virtual())  # type: ignore[arg-type]  # the type checker knows no virtual subclasses
    assert record.take() == ["virtual", "virtual"]


def test_a_class_that_is_registered_later_is_an_event_from_then_on() -> None:
    class Later:
        name = "later"

    proc = Processor()
    with pytest.raises(TypeError):
        proc.process(Later())  # type: ignore[arg-type]  # what is tested
    Event.register(Later)
    assert proc.process(Later()) is None  # type: ignore[arg-type]  # likewise


# --- follow-ups ---


def cascade(record: Recorder, tree: dict[str, list[str]]) -> Callable[[Any, Any], list[Event]]:
    return lambda proc, ev: [Named(name) for name in tree.get(ev.name, [])]


def test_follow_ups_come_after_what_is_queued_already() -> None:
    record = Recorder()
    tree = {"root": ["a", "b"], "a": ["c", "d"], "b": ["e"], "c": ["f"]}
    proc = processor_of(record.handler("all", cascade(record, tree)))
    proc.process(Named("root"))
    assert [ev.name for ev in record.seen] == ["root", "a", "b", "c", "d", "e", "f"]


def test_follow_ups_run_after_all_handlers_of_the_event_and_in_their_order() -> None:
    record = Recorder()
    first = record.handler("first", cascade(record, {"root": ["a"], "a": ["c"]}))
    second = record.handler("second", cascade(record, {"root": ["b"]}))
    processor_of(first, second).process(Named("root"))
    order = [(name, ev.name) for name, ev in zip(record.calls, record.seen, strict=True)]
    expected = [(handler, ev) for ev in ("root", "a", "b", "c") for handler in ("first", "second")]
    assert order == expected


def test_an_event_may_be_its_own_follow_up() -> None:
    record = Recorder()
    proc = processor_of(
        record.handler("all", lambda proc, ev: [ev, ev] if len(record.calls) == 1 else None)
    )
    ev = Named()
    proc.process(ev)
    assert record.seen == [ev, ev, ev]


def test_events_that_were_processed_are_not_kept_alive_by_the_cascade() -> None:
    alive: list[weakref.ref[Event]] = []
    counts = []

    def handler(proc: Any, ev: Any) -> list[Event] | None:
        gc.collect()
        counts.append(sum(ref() is not None for ref in alive))
        if ev.name == "root":
            children: list[Event] = [Named("child") for _ in range(3)]
            alive.extend(weakref.ref(child) for child in children)
            return children
        return None

    processor_of(handler).process(Named("root"))
    # the one that is being processed and those behind it
    assert counts == [0, 3, 2, 1]


RIGHT: dict[str, Callable[[list[Event]], Any]] = {
    "list": list,
    "tuple": tuple,
    "generator": lambda events: (ev for ev in events),
    "iterator": iter,
    "deque": deque,
    "set": lambda events: set(events[:1]),
    "frozenset": lambda events: frozenset(events[:1]),
    "dict": lambda events: dict.fromkeys(events, "value"),
    "dict values": lambda events: dict(enumerate(events)).values(),
    "map": lambda events: map(copy.copy, events),
}


@pytest.mark.parametrize("kind", RIGHT)
def test_any_iterable_of_events_can_be_returned(kind: str) -> None:
    record = Recorder()
    made = RIGHT[kind]([Named("one"), Named("two")])

    def handler(proc: Any, ev: Any) -> Any:
        return made if ev.name == "root" else None

    processor_of(record.handler("all", handler)).process(Named("root"))
    expected = ["root", "one"] if "set" in kind else ["root", "one", "two"]
    assert [ev.name for ev in record.seen] == expected


def test_the_events_of_a_set_are_all_processed() -> None:
    record = Recorder()
    events = {Named("one"), Named("two"), Frozen(1), Frozen(1)}

    def handler(proc: Any, ev: Any) -> Any:
        return events if ev.name == "root" else None

    processor_of(record.handler("all", handler)).process(Named("root"))
    assert sorted(ev.name for ev in record.seen) == ["frozen", "one", "root", "two"]


def test_an_iterable_of_the_old_protocol_can_be_returned() -> None:
    record = Recorder()

    class Sequence:
        def __getitem__(self, place: int) -> Event:
            return [Named("one"), Named("two")][place]

    def handler(proc: Any, ev: Any) -> Any:
        return Sequence() if ev.name == "root" else None

    processor_of(record.handler("all", handler)).process(Named("root"))
    assert [ev.name for ev in record.seen] == ["root", "one", "two"]


@pytest.mark.parametrize("empty", [None, [], (), {}, set(), iter(())], ids=repr)
def test_nothing_to_follow_is_none_or_empty(empty: Any) -> None:
    record = Recorder()
    proc = processor_of(record.handler("all", lambda proc, ev: empty), record.handler("next"))
    assert proc.process(Named()) is None
    assert record.take() == ["all", "next"]


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr today")


async def make_coroutine() -> None:
    pass


async def make_async_generator() -> Any:
    yield Named()


VALUE = "to give the caller a value: raise StopProcessing({0}), or ev.emit({0}) to go on"

#: What a handler returns, how that is called, and what is said to do instead.
WRONG: dict[str, tuple[Callable[[], Any], str, str]] = {
    "event": (
        Named,
        "returned an event, 'ev' (tests.support.processors.Named: Named('ev'))",
        "return it in a list, [event]",
    ),
    "virtual event": (
        Virtual,
        "returned an event, 'ev' (tests.evproc.test_processor.Virtual)",
        "return it in a list, [event]",
    ),
    "event class": (lambda: Named, "returned the class <class", VALUE.format("value")),
    "str": (lambda: "text", "returned a str, 'text'", VALUE.format("'text'")),
    "empty str": (lambda: "", "returned a str, ''", VALUE.format("''")),
    "bytes": (lambda: b"text", "returned a bytes, b'text'", VALUE.format("b'text'")),
    "empty bytes": (lambda: b"", "returned a bytes, b''", VALUE.format("b''")),
    "int": (lambda: 5, "returned an int, 5, for event", VALUE.format("5")),
    "zero": (lambda: 0, "returned an int, 0", VALUE.format("0")),
    "False": (lambda: False, "returned a bool, False", VALUE.format("False")),
    "object": (object, "returned an object, <object", VALUE.format("value")),
    "unprintable": (Unprintable, "returned a Unprintable, <unprintable>", VALUE.format("value")),
    "coroutine": (
        make_coroutine,
        "returned a coroutine, <coroutine",
        "handlers are plain functions, with no `async`",
    ),
    "async generator": (
        make_async_generator,
        "returned an async_generator, <async",
        VALUE.format("value"),
    ),
    "long": (
        lambda: int("9" * 200),
        "returned an int, " + "9" * 117 + "..., for event",
        VALUE.format("9" * 37 + "..."),
    ),
    "list of str": (
        lambda: ["text"],
        "returned an iterable (list) that yields a str, 'text'",
        VALUE.format("['text']"),
    ),
    "list of list": (
        lambda: [[Named()]],
        "returned an iterable (list) that yields a list, [Named",
        "leave it out, or put what it holds in its place",
    ),
    "list with None": (
        lambda: [Named(), None],
        "returned an iterable (list) that yields a NoneType",
        "leave it out, or put what it holds in its place",
    ),
    "list of classes": (
        lambda: [Named],
        "returned an iterable (list) that yields the class",
        "make events of it, Named(...)",
    ),
    "list of ducks": (
        lambda: [Duck()],
        "returned an iterable (list) that yields a Duck",
        "to give the caller a value: raise StopProcessing([<tests.",
    ),
    "dict of events": (
        lambda: {"key": Named()},
        "returned an iterable (dict) that yields a str, 'key'",
        VALUE.format("{'key': Named('ev')}"),
    ),
    "bytearray": (
        lambda: bytearray(b"t"),
        "returned an iterable (bytearray) that yields an int, 116",
        VALUE.format("116"),
    ),
    "generator": (
        lambda: (each for each in (Named(), 5)),
        "returned an iterable (generator) that yields an int, 5",
        VALUE.format("5"),
    ),
    "unprintable in list": (
        lambda: [Unprintable()],
        "returned an iterable (list) that yields a Unprintable, <unprintable>",
        VALUE.format("value"),
    ),
    "a stop": (
        lambda: StopProcessing(5),
        "returned a StopProcessing, StopProcessing(5)",
        "raise it instead of returning it",
    ),
    "dict": (
        lambda: {"a": 1},
        "returned an iterable (dict) that yields a str, 'a'",
        VALUE.format("{'a': 1}"),
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_anything_else_is_an_error_that_says_what_was_returned_and_by_whom(kind: str) -> None:
    make, text, instead = WRONG[kind]
    record = Recorder()

    def handler(proc: Any, ev: Any) -> Any:
        return make() if ev.name == "root" else None

    proc = processor_of(record.handler("culprit", handler), record.handler("next"))
    with pytest.raises(HandlerReturnException) as caught:
        proc.process(Named("root"))
    said = str(caught.value)
    assert said.startswith("handler 'culprit' (")
    assert f"{Recorder.__module__}.Recorder.handler.<locals>.handler" in said
    assert text in said
    assert f"for event 'root' ({Named.__module__}.Named: Named('root'))" in said
    assert f": a handler returns an iterable of events, or None; {instead}" in said
    # that an int is not iterable is no news
    assert "is not iterable" not in "".join(traceback.format_exception(caught.value))
    # a coroutine that nobody awaits would warn, and warnings are errors
    gc.collect()
    # nothing else has run: no handler, no follow-up
    assert record.take() == ["culprit"]
    # and the next event is processed as if nothing had been
    assert proc.process(Named("other")) is None


def test_what_was_returned_by_mistake_is_not_closed() -> None:
    closed = []

    class Connection:
        def close(self) -> None:
            closed.append(self)

    def handler(proc: Any, ev: Any) -> Any:
        return Connection()

    with pytest.raises(HandlerReturnException, match="Connection"):
        processor_of(handler).process(Named())
    assert closed == []


def test_what_was_returned_is_described_in_one_line() -> None:
    class Tall:
        def __repr__(self) -> str:
            return "one\ntwo"

    proc = processor_of(Recorder().handler("culprit", lambda proc, ev: Tall()))  # type: ignore[arg-type, return-value]  # what is tested
    with pytest.raises(HandlerReturnException) as caught:
        proc.process(Named())
    assert len(str(caught.value).splitlines()) == 1


def test_an_event_that_can_be_iterated_is_still_a_single_event() -> None:
    class Iterable(Named):
        def __iter__(self) -> Iterator[Event]:
            return iter([Named()])

    proc = processor_of(Recorder().handler("culprit", lambda proc, ev: Iterable()))
    with pytest.raises(
        HandlerReturnException, match=r"returned an event, 'ev' \(.*\.Iterable: Named"
    ):
        proc.process(Named())


def test_an_iterable_whose_iteration_raises_raises_its_own_error() -> None:
    class Broken:
        error: Exception = ValueError("cannot be iterated today")

        def __iter__(self) -> Iterator[Event]:
            raise self.error

    proc = processor_of(Recorder().handler("culprit", lambda proc, ev: Broken()))
    with pytest.raises(ValueError, match="cannot be iterated today"):
        proc.process(Named())
    Broken.error = TypeError("cannot be iterated today either")
    with pytest.raises(TypeError) as caught:
        proc.process(Named())
    # whoever says it, the reader must learn what went wrong
    assert "cannot be iterated today either" in "".join(traceback.format_exception(caught.value))


def test_a_generator_may_yield_events_until_it_fails() -> None:
    record = Recorder()

    def generator(proc: Any, ev: Any) -> Iterator[Event]:
        yield Named("one")
        raise KeyError("after one")

    proc = processor_of(record.handler("culprit", generator), record.handler("next"))
    with pytest.raises(KeyError, match="after one") as caught:
        proc.process(Named("root"))
    assert "handler 'culprit'" in notes(caught.value)[0]
    assert record.take() == ["culprit"]


def test_a_generator_that_stops_after_some_events_has_given_those() -> None:
    record = Recorder()

    def generator(proc: Any, ev: Any) -> Iterator[Event] | None:
        return stops() if ev.name == "root" else None

    def stops() -> Iterator[Event]:
        yield Named("one")
        yield Named("two")
        raise StopProcessing

    proc = processor_of(record.handler("stops", generator), record.handler("next"))
    assert proc.process(Named("root")) is None
    # `next` does not run for `root`, and does for what was yielded before
    assert record.take() == ["stops", "stops", "next", "stops", "next"]


def test_a_generator_that_stops_with_a_value_ends_the_cascade() -> None:
    record = Recorder()

    def stops(proc: Any, ev: Any) -> Iterator[Event]:
        yield Named("one")
        raise StopProcessing(5)

    proc = processor_of(record.handler("stops", stops), record.handler("next"))
    assert proc.process(Named("root")) == 5
    assert record.take() == ["stops"]


# --- StopProcessing ---


def test_stop_processing_ends_the_event_and_lets_queued_events_go_on() -> None:
    record = Recorder()

    def first(proc: Any, ev: Any) -> list[Event] | None:
        return [Named("a"), Named("b")] if ev.name == "root" else None

    def stops(proc: Any, ev: Any) -> None:
        if ev.name != "b":
            raise StopProcessing

    proc = processor_of(
        record.handler("first", first), record.handler("stops", stops), record.handler("last")
    )
    assert proc.process(Named("root")) is None
    assert record.take() == ["first", "stops"] * 2 + ["first", "stops", "last"]


@pytest.mark.parametrize("value", [None, 0, False, "", [], 5, StopProcessing], ids=repr)
@pytest.mark.parametrize("where", ["root", "a"])
def test_stop_processing_with_a_value_ends_the_cascade_with_it(value: Any, where: str) -> None:
    record = Recorder()

    def first(proc: Any, ev: Any) -> list[Event] | None:
        return [Named("a"), Named("b")] if ev.name == "root" else None

    def stops(proc: Any, ev: Any) -> None:
        if ev.name == where:
            raise StopProcessing(value)

    proc = processor_of(
        record.handler("first", first), record.handler("stops", stops), record.handler("last")
    )
    assert proc.process(Named("root")) is value
    before = ["first", "stops", "last"] if where == "a" else []
    assert record.take() == [*before, "first", "stops"]


def test_a_subclass_of_stop_processing_stops() -> None:
    class Enough(StopProcessing):
        pass

    assert processor_of(Recorder().handler("h", raises(Enough(5)))).process(Named()) == 5
    assert processor_of(Recorder().handler("h", raises(Enough()))).process(Named()) is None


def test_stop_processing_takes_no_note() -> None:
    stop = StopProcessing()
    processor_of(Recorder().handler("h", raises(stop))).process(Named())
    assert notes(stop) == []


def test_stop_processing_of_a_filter_leaves_process() -> None:
    def filtering(ev: Any) -> bool:
        raise StopProcessing(5)

    record = Recorder()
    follow = record.handler("follow", lambda proc, ev: [Named("asked")])
    proc = processor_of(want("root")(follow), want("asked", filtering)(record.handler("asking")))
    for name, called in {"asked": [], "root": ["follow"]}.items():
        with pytest.raises(StopProcessing) as caught:
            proc.process(Named(name))
        # by the filter, and by no handler
        assert all("filter" in note for note in notes(caught.value))
        assert record.take() == called


def test_an_error_of_a_filter_is_not_blamed_on_a_handler() -> None:
    def filtering(ev: Any) -> bool:
        raise KeyError("k")

    record = Recorder()
    follow = record.handler("follow", lambda proc, ev: [Named("asked")])
    proc = processor_of(want("root")(follow), want("asked", filtering)(record.handler("asking")))
    for name, called in {"asked": [], "root": ["follow"]}.items():
        with pytest.raises(KeyError) as caught:
            proc.process(Named(name))
        [note] = notes(caught.value)
        assert "filter" in note
        assert record.take() == called


# --- errors ---


def test_an_error_leaves_process_as_it_is_with_a_note_and_ends_the_cascade() -> None:
    class Own(Exception):
        def __init__(self, code: int, *, text: str) -> None:
            super().__init__(text)
            self.code = code

    error = Own(7, text="original")
    record = Recorder()

    def first(proc: Any, ev: Any) -> list[Event] | None:
        return [Named("a"), Named("b")] if ev.name == "root" else None

    def fails(proc: Any, ev: Any) -> None:
        if ev.name == "a":
            raise error

    proc = processor_of(
        record.handler("first", first), record.handler("fails", fails), record.handler("last")
    )
    with pytest.raises(Own) as caught:
        proc.process(Named("root"))
    assert caught.value is error
    assert (error.code, error.args) == (7, ("original",))
    assert record.take() == ["first", "fails", "last", "first", "fails"]
    [note] = notes(caught.value)
    for text in (
        "handler 'fails'",
        f"({Recorder.__module__}.Recorder.handler.<locals>.handler",
        f"event 'a' ({Named.__module__}.Named: Named('a'))",
    ):
        assert text in note
    assert note in "".join(traceback.format_exception(caught.value))


def test_the_same_exception_object_raised_again_and_again_has_one_note_per_place() -> None:
    error = ValueError("always the same")
    proc = processor_of(Recorder().handler("fails", raises(error)))
    for name in ("ev", "other", "ev", "other", "ev"):
        with pytest.raises(ValueError, match="always the same"):
            proc.process(Named(name))
    assert len(notes(error)) == 2
    assert "event 'ev'" in notes(error)[0]
    assert "event 'other'" in notes(error)[1]


def test_an_error_that_passes_two_handlers_names_both() -> None:
    def outer(proc: Processor, ev: Any) -> None:
        proc.process(Named("inner"))

    proc = processor_of(
        want("inner")(Recorder().handler("inner", raises(KeyError("k")))), want("outer")(outer)
    )
    with pytest.raises(KeyError) as caught:
        proc.process(Named("outer"))
    inner, outer_note = notes(caught.value)
    assert "handler 'inner'" in inner
    assert "handler 'outer'" in outer_note


@pytest.mark.parametrize(("kind", "is_noted"), [(KeyboardInterrupt, False), (SystemExit, True)])
@pytest.mark.parametrize("name", ["root", "follow-up"])
def test_the_exit_of_a_handler_has_a_note_and_an_interrupt_has_none(
    kind: type[BaseException], is_noted: bool, name: str
) -> None:
    error = kind()

    def act(proc: Any, ev: Any) -> list[Event] | None:
        if ev.name == name:
            raise error
        return [Named("follow-up")]

    with pytest.raises(kind):
        processor_of(Recorder().handler("h", act)).process(Named("root"))
    assert [f"event {name!r}" in note for note in notes(error)] == [True] * is_noted


def test_handlers_that_cannot_be_ordered_do_not_run() -> None:
    record = Recorder()
    proc = processor_of(
        record.handler("first"), evproc.requires("missing")(record.handler("second"))
    )
    with pytest.raises(evproc.IncompatibleRequirementsException):
        proc.process(Named())
    assert record.take() == []


def test_a_follow_up_whose_handlers_cannot_be_ordered_ends_the_cascade() -> None:
    record = Recorder()

    def follow(proc: Any, ev: Any) -> list[Event] | None:
        return [Named("a"), Named("b"), Named("a")] if ev.name == "root" else None

    proc = processor_of(
        record.handler("all", follow), want("b")(evproc.requires("missing")(record.handler("b")))
    )
    with pytest.raises(evproc.IncompatibleRequirementsException, match="event 'b'"):
        proc.process(Named("root"))
    assert record.take() == ["all", "all"]


def test_a_processor_is_usable_after_an_error() -> None:
    record = Recorder()
    proc = processor_of(
        want("bad")(Recorder().handler("fails", raises(KeyError("k")))), record.handler("all")
    )
    for _ in range(2):
        with pytest.raises(KeyError):
            proc.process(Named("bad"))
        assert record.take() == []
        assert proc.process(Named("good")) is None
        assert record.take() == ["all"]


# --- run_handlers ---


def test_run_handlers_collects_follow_ups_in_any_queue_and_says_whether_it_was_stopped() -> None:
    proc = processor_of(
        Recorder().handler("one", lambda proc, ev: [Named("a")]),
        Recorder().handler("two", lambda proc, ev: (Named("b"),)),
    )
    for queue in (list[Event](), deque[Event]()):
        returned = run_handlers(proc, Named(), proc.registry.handlers, queue)
        assert returned is _unset
        assert [ev.name for ev in queue] == ["a", "b"]
    stopping = processor_of(Recorder().handler("stops", raises(StopProcessing(None))))
    assert run_handlers(stopping, Named(), stopping.registry.handlers, []) is None


def test_run_handlers_keeps_the_follow_ups_of_the_handlers_before_an_error() -> None:
    proc = processor_of(
        Recorder().handler("one", lambda proc, ev: [Named("a")]),
        Recorder().handler("two", raises(KeyError("k"))),
    )
    queue: list[Event] = []
    with pytest.raises(KeyError):
        run_handlers(proc, Named(), proc.registry.handlers, queue)
    assert [ev.name for ev in queue] == ["a"]


def test_run_handlers_takes_an_iterator_that_knows_where_it_is() -> None:
    proc = processor_of(Recorder().handler("one"), Recorder().handler("two", raises(KeyError("k"))))
    at: list[str] = []

    def handlers() -> Iterator[Any]:
        for handler in proc.registry.handlers:
            at.append(handler.name)
            yield handler

    with pytest.raises(KeyError):
        run_handlers(proc, Named(), handlers(), [])
    assert at == ["one", "two"]


def test_an_iterator_of_handlers_that_fails_at_once_blames_no_handler() -> None:
    def handlers() -> Iterator[Any]:
        raise RuntimeError("no handlers")
        yield

    with pytest.raises(RuntimeError, match="no handlers") as caught:
        run_handlers(Processor(), Named(), handlers(), [])
    assert notes(caught.value) == []
