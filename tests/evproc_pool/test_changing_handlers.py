"""Handlers that are replaced or removed, lambdas, and events that no handler wants."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import evproc
from evproc import Event, HandlerNotRegisteredException, StopProcessing, UnmatchedEventException
from evproc_pool import PoolBusyError, PoolClosedError, PoolProcessor
from evproc_pool.protocol.registry_spec import (
    LoadFrom,
    Register,
    RegistrySpec,
    Step,
    Unregister,
    fingerprint,
    registered,
    unregistered,
)
from tests.support.actions import Do, act
from tests.support.helpers import Gate, Named, installed

BOTH = pytest.mark.parametrize("workers", [0, 2])


def says(text: str) -> Callable[[Any, Any], None]:
    """A handler that gives a text and ends the cascade."""

    def handler(proc: Any, ev: Any) -> None:
        raise StopProcessing(text)

    return handler


def notes(text: str) -> Callable[[Any, Any], None]:
    """A handler that adds a text to those of the handlers before it."""

    def handler(proc: Any, ev: Any) -> None:
        ev.proc.notes.texts = (*getattr(ev.proc.notes, "texts", ()), text)

    return handler


def give(proc: Any, ev: Any) -> None:
    raise StopProcessing(getattr(ev.proc.notes, "texts", ()))


@BOTH
def test_a_handler_that_is_replaced_keeps_its_place(workers: int) -> None:
    with PoolProcessor(workers) as pool:
        for name in ("one", "two", "three"):
            assert pool.register(notes(name), name) == name
        pool.register(give)
        assert pool.process(Named("ev")) == ("one", "two", "three")
        assert pool.register(notes("new"), "two", replace=True) == "two"
        assert pool.process(Named("ev")) == ("one", "new", "three")
        pool.register(notes("newer"), "two", replace=True)
        pool.register(notes("first"), "one", replace=True)
        assert (
            pool.process_many([Named("ev") for _ in range(3)]) == [("first", "newer", "three")] * 3
        )
        assert list(pool.nodes) == ["one", "two", "three", "give"]


@BOTH
def test_a_handler_that_is_removed_does_not_run(workers: int) -> None:
    with PoolProcessor(workers) as pool:
        for name in ("one", "two", "three"):
            pool.register(notes(name), name)
        pool.register(give)
        assert pool.process(Named("ev")) == ("one", "two", "three")
        pool.unregister("one")
        assert pool.process(Named("ev")) == ("two", "three")
        pool.register(notes("again"), "one")
        pool.unregister("give")
        pool.register(give)
        assert pool.process(Named("ev")) == ("two", "three", "again")
        before = list(pool.nodes)
        with pytest.raises(HandlerNotRegisteredException, match="did you mean 'three'"):
            pool.unregister("there")
        assert list(pool.nodes) == before
        assert pool.process(Named("ev")) == ("two", "three", "again")


def test_a_handler_that_has_been_replaced_is_not_sent_to_workers() -> None:
    lock: Any = threading.Lock()  # which cannot be pickled
    with PoolProcessor(1) as pool:
        pool.register(lambda proc, ev: lock, "handler")
        pool.register(lambda proc, ev: lock, "other")
        pool.register(says("new"), "handler", replace=True)
        pool.unregister("other")
        assert pool.process(Named("ev")) == "new"


def test_handlers_cannot_be_changed_with_events_in_flight(pool: PoolProcessor, gate: Gate) -> None:
    future = pool.submit(Do("wait_at", gate.address))
    arrival = gate.arrival()
    before = dict(pool.nodes)
    for change in (
        lambda: pool.register(says("new"), "act", replace=True),
        lambda: pool.unregister("act"),
    ):
        with pytest.raises(PoolBusyError):
            change()
    assert dict(pool.nodes) == before
    arrival.release()
    future.result()
    pool.close()
    with pytest.raises(PoolClosedError):
        pool.unregister("act")


@BOTH
def test_lambdas_have_names_of_their_own(workers: int) -> None:
    with PoolProcessor(workers) as pool:
        names = [
            pool.register(lambda proc, ev: setattr(ev.proc.notes, "texts", (ev.name,))),
            pool.register(lambda proc, ev: None),
            pool.register(give),
        ]
        assert names == ["<lambda>", "<lambda>-2", "give"]
        assert pool.process(Named("ev")) == ("ev",)
        pool.unregister("<lambda>")
        # the second one keeps its name, in the workers as well
        assert list(pool.nodes) == ["<lambda>-2", "give"]
        assert pool.process(Named("ev")) == ()


# --- the steps by which workers make their registry ---


def _changes(steps: list[Step]) -> Any:
    """Fill a `Processor` and note the steps, as a pool does."""
    processor = evproc.Processor()

    def register(func: Any, name: str, *, replace: bool = False) -> None:
        before = len(processor.nodes)
        key = processor.register(func, name, replace=replace)
        registered(steps, Register(func, key, len(processor.nodes) == before))

    def unregister(name: str) -> None:
        processor.unregister(name)
        unregistered(steps, name)

    def load() -> None:
        processor.load_from("changing")
        steps.append(LoadFrom("changing", skip=False))

    return processor, register, unregister, load


def test_the_steps_make_the_same_registry_and_do_not_grow(tmp_path: Path) -> None:
    code = "def first(proc, ev): ...\ndef second(proc, ev): ..."
    entries = {"changing": {"a": "changing_mod:first", "b": "changing_mod:second"}}
    with installed(tmp_path, "changing_dist", "1", {"changing_mod": code}, entries):
        steps: list[Step] = []
        processor, register, unregister, load = _changes(steps)

        def check() -> None:
            made = RegistrySpec(None, (), tuple(steps)).make_processor()
            assert fingerprint(made.registry) == fingerprint(processor.registry)

        register(act, "x")
        load()
        register(act, "y")
        check()
        for _ in range(3):
            register(give, "x", replace=True)  # one that was registered
            register(give, "a", replace=True)  # one of an entry point
            register(give, "z", replace=True)  # none before
            check()
        assert len(steps) == 5
        for name in ("z", "a", "x", "b"):
            unregister(name)
            check()
        assert steps == [
            LoadFrom("changing", skip=False),
            Register(act, "y"),
            Unregister("a"),
            Unregister("b"),
        ]
        register(act, "a")
        register(give, "a", replace=True)
        check()
        unregister("a")
        unregister("y")
        check()
        load()
        register(act, "b", replace=True)
        check()


# --- events that no handler wants ---


@evproc.want("asks")
def asks(proc: Any, ev: Any) -> None:
    proc.process(Named("nobody"))
    raise StopProcessing("no error")


@evproc.want("follows")
def follows(proc: Any, ev: Any) -> list[Event]:
    return [Named("wanted"), Named("nobody")]


@evproc.want("wanted")
def wanted(proc: Any, ev: Any) -> None: ...


def _pool(workers: int, unmatched: Any) -> PoolProcessor:
    pool = PoolProcessor(workers, unmatched=unmatched)
    for handler in (asks, follows, wanted):
        pool.register(handler)
    return pool


@BOTH
@pytest.mark.parametrize("ordering", ["cascade", "unordered"])
def test_an_event_that_no_handler_wants_is_an_error_if_asked_for(
    workers: int, ordering: Any
) -> None:
    events = [Named(name) for name in ("wanted", "nobody", "follows", "asks", "wanted")]
    with _pool(workers, "error") as pool:
        values = pool.process_many(events, return_exceptions=True, ordering=ordering)
        assert [type(value) for value in values] == [
            type(None),
            UnmatchedEventException,
            UnmatchedEventException,
            UnmatchedEventException,
            type(None),
        ]
        for value in values[1:4]:
            assert "no handler wants event 'nobody'" in str(value)
        for call in (pool.process, lambda ev: pool.submit(ev).result(), _first_of(pool)):
            for ev in events[1:4]:
                with pytest.raises(UnmatchedEventException, match="correct the name"):
                    call(ev)
        with pytest.raises(UnmatchedEventException):
            pool.process_many([Named("nobody")] * 3)
        outcomes = list(pool.stream(events[:3], ordering=ordering))
        assert [outcome.error is None for outcome in outcomes] == [True, False, False]


def _first_of(pool: PoolProcessor) -> Callable[[Any], Any]:
    return lambda ev: next(pool.stream([ev])).unwrap()


@BOTH
def test_such_an_event_is_ignored_by_default(workers: int) -> None:
    events = [Named(name) for name in ("wanted", "nobody", "follows", "asks")]
    with _pool(workers, "ignore") as pool:
        assert pool.process_many(events) == [None, None, None, "no error"]


def test_other_values_are_refused() -> None:
    with pytest.raises(ValueError, match="unmatched is 'ignore' or 'error'"):
        PoolProcessor(unmatched="raise")  # type: ignore[arg-type]  # what is tested
