"""`Event.emit` and `Processor.emitted`: results of a cascade that do not end it."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import evproc
from evproc import Event, Processor, StopProcessing, want
from evproc.event import EMITTING, take_emitted
from tests.support.processors import Named


def processor_of(**handlers: Any) -> Processor:
    made = Processor()
    for name, handler in handlers.items():
        made.register(want(name)(handler), name)
    return made


def emitting(*values: Any, then: Callable[[Any, Any], Any] | None = None) -> Any:
    def handler(proc: Any, ev: Any) -> Any:
        for value in values:
            ev.emit(value)
        return None if then is None else then(proc, ev)

    return handler


def fail(proc: Any, ev: Any) -> None:
    raise ValueError("bad input")


def stop(proc: Any, ev: Any) -> None:
    raise StopProcessing("value")


def test_a_processor_has_what_the_events_of_the_last_cascade_emitted() -> None:
    proc = processor_of(
        root=emitting(1, None, then=lambda proc, ev: [Named("first"), Named("second")]),
        first=emitting([2], then=lambda proc, ev: [Named("last")]),
        second=emitting(),
        last=emitting(3),
        quiet=lambda proc, ev: None,
    )
    assert proc.emitted == []
    assert proc.process(Named("root")) is None
    assert proc.emitted == [1, None, [2], 3]
    proc.process(Named("quiet"))
    assert proc.emitted == []
    proc.process(Named("first"))
    assert proc.emitted == [[2], 3]
    proc.process(Named("nobody wants it"))
    assert proc.emitted == []


def test_the_order_is_that_of_the_cascade_and_then_that_of_the_calls() -> None:
    other = Named("other")

    def root(proc: Any, ev: Any) -> list[Any]:
        ev.emit("root 1")
        other.emit("before its turn")  # which is forgotten
        ev.emit("root 2")
        return [Named("middle"), other]

    proc = processor_of(root=root, middle=emitting("middle"), other=emitting("other 1", "other 2"))
    proc.process(Named("root"))
    assert proc.emitted == ["root 1", "root 2", "middle", "other 1", "other 2"]


def test_a_stop_keeps_what_was_emitted() -> None:
    proc = processor_of(
        root=emitting(1, then=lambda proc, ev: [Named("stops"), Named("dropped")]),
        stops=emitting(2, then=stop),
        dropped=emitting(3),
    )
    assert proc.process(Named("root")) == "value"
    assert proc.emitted == [1, 2]
    assert proc.process(Named("stops")) == "value"
    assert proc.emitted == [2]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_a_failed_event_emitted_is_forgotten(error: type[BaseException]) -> None:
    def fails(proc: Any, ev: Any) -> None:
        ev.emit("never seen")
        raise error

    failed = Named("fails")
    proc = processor_of(
        root=emitting(1, then=lambda proc, ev: [Named("well"), failed, Named("dropped")]),
        well=emitting(2),
        fails=fails,
        dropped=emitting(3),
    )
    with pytest.raises(error):
        proc.process(Named("root"))
    assert proc.emitted == [1, 2]
    with pytest.raises(error):
        proc.process(failed)
    assert proc.emitted == []
    assert vars(failed) == {"ctxt": None, "_name": "fails"}


def test_what_comes_to_no_handler_has_emitted_nothing() -> None:
    def filter_that_raises(ev: Any) -> bool:
        raise ValueError("in a filter")

    proc = processor_of(well=emitting(1))
    proc.register(want("bad", filter_that_raises)(lambda proc, ev: None))
    proc.register(want("worse", stop_in_a_filter)(lambda proc, ev: None))
    for wrong in (Named("bad"), Named("worse"), Named(5), "no event"):
        proc.process(Named("well"))
        assert proc.emitted == [1]
        with pytest.raises((TypeError, ValueError, StopProcessing)):
            proc.process(wrong)  # type: ignore[arg-type]  # one of them is no event
        assert proc.emitted == []


def stop_in_a_filter(ev: Any) -> bool:
    raise StopProcessing


def test_a_nested_cascade_keeps_its_values_apart() -> None:
    seen = []

    def outer(proc: Any, ev: Any) -> list[Any]:
        ev.emit("outer 1")
        proc.process(Named("inner"))
        seen.append(proc.emitted)
        ev.emit("outer 2")
        with pytest.raises(ValueError, match="bad input"):
            proc.process(Named("fails"))
        seen.append(proc.emitted)
        return [Named("follow-up")]

    proc = processor_of(
        outer=outer,
        inner=emitting("inner", then=lambda proc, ev: [Named("follow-up")]),
        fails=emitting("never seen", then=fail),
    )
    proc.register(want("follow-up")(emitting("follow-up")))
    proc.process(Named("outer"))
    assert seen == [["inner", "follow-up"], []]
    assert proc.emitted == ["outer 1", "outer 2", "follow-up"]


def test_a_nested_cascade_of_the_same_event_keeps_its_values_apart() -> None:
    inner: list[list[Any]] = []

    def again(proc: Any, ev: Any) -> None:
        depth = len(inner)
        ev.emit(f"before {depth}")
        if ev.ctxt:
            ev.ctxt = False
            proc.process(ev)
            inner.append(proc.emitted)
        ev.emit(f"after {depth}")

    proc = processor_of(again=again)
    proc.process(Named("again", True))
    assert inner == [["before 0", "after 0"]]
    assert proc.emitted == ["before 0", "after 0"]


def test_an_event_that_comes_again_in_its_cascade_emits_again() -> None:
    def twice(proc: Any, ev: Any) -> list[Any]:
        ev.emit(ev.ctxt)
        ev.ctxt += 1
        return [ev] if ev.ctxt < 3 else []

    proc = processor_of(twice=twice)
    proc.process(Named("twice", 0))
    assert proc.emitted == [0, 1, 2]


def test_each_thread_has_its_own() -> None:
    barrier = threading.Barrier(2)
    found: dict[str, list[Any]] = {}

    def handler(proc: Any, ev: Any) -> None:
        barrier.wait()
        ev.emit(ev.ctxt)
        barrier.wait()

    proc = processor_of(ev=handler)

    def run(text: str) -> None:
        proc.process(Named("ev", text))
        barrier.wait()
        found[text] = proc.emitted

    threads = [threading.Thread(target=run, args=(text,)) for text in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"one": ["one"], "two": ["two"]}
    assert proc.emitted == []


def test_each_processor_has_its_own() -> None:
    one, two = processor_of(ev=emitting(1)), processor_of(ev=emitting(2))
    one.process(Named())
    two.process(Named())
    assert (one.emitted, two.emitted) == ([1], [2])


class Plain:
    """Handlers that pickle."""

    @staticmethod
    def emit(proc: Any, ev: Any) -> None:
        ev.emit(5)


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda proc: pickle.loads(pickle.dumps(proc))]
)
def test_a_copy_of_a_processor_has_processed_nothing(copied: Callable[[Any], Any]) -> None:
    proc = Processor()
    proc.register(Plain.emit)
    proc.process(Named())
    other = copied(proc)
    assert other.emitted == []
    other.process(Named())
    proc.process(Named("ev"))
    assert other.emitted == proc.emitted == [5]
    assert other.emitted is not proc.emitted


@dataclasses.dataclass(frozen=True)
class Frozen(Event):
    name = "frozen"
    number: int = 0


@pytest.mark.parametrize("make", [Frozen, Named])
def test_what_an_event_emitted_is_taken_once_and_neither_copied_nor_pickled(
    make: Callable[[], Event],
) -> None:
    ev = make()
    assert take_emitted(ev) == []
    ev.emit(1)
    ev.emit(2)
    assert EMITTING == [True]
    assert take_emitted(copy.deepcopy(ev)) == []
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert take_emitted(pickle.loads(pickle.dumps(ev, protocol))) == []
    twin = copy.copy(ev)
    assert take_emitted(ev) == [1, 2]
    assert take_emitted(ev) == take_emitted(twin) == []
    twin.emit(3)
    assert (take_emitted(ev), take_emitted(twin)) == ([], [3])


def test_take_emitted_takes_anything() -> None:
    assert take_emitted(object()) == []


def test_nothing_is_emitting_until_somebody_emits() -> None:
    code = (
        "import evproc; from evproc.event import EMITTING; from evproc import processor\n"
        "class E(evproc.Event): name = 'e'\n"
        "p = evproc.Processor(); p.register(lambda proc, ev: None); p.process(E())\n"
        "assert EMITTING == [] and processor._emits is False and p.emitted == []\n"
        "p.register(lambda proc, ev: ev.emit(1)); p.process(E())\n"  # the first one counts
        "assert EMITTING == [True] and p.emitted == [1], p.emitted\n"
        "E().emit(1)\n"
        "assert EMITTING == [True]\n"
    )
    root = Path(evproc.__file__).parents[1]
    subprocess.run([sys.executable, "-S", "-c", code], cwd=root, check=True)


class _Plain(Event):
    name = "plain"


def _refuses(ev: object) -> bool:
    raise StopProcessing


def test_where_nobody_has_emitted_events_end_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evproc.processor._emits", False)
    follow_ups: list[_Plain] = [_Plain()]

    def handle(proc: object, ev: Event) -> list[_Plain] | None:
        what = ways.pop(0)
        if what == "stop":
            raise StopProcessing(5)
        if what == "fail":
            raise ValueError(what)
        return follow_ups if what == "follow" else None

    proc = Processor()
    proc.register(handle)
    ways = ["stop", "none", "follow", "none", "follow", "stop"]
    assert [proc.process(_Plain()) for _ in range(4)] == [5, None, None, 5]
    for some in (["fail"], ["follow", "fail"]):
        ways[:] = some
        with pytest.raises(ValueError, match="fail"):
            proc.process(_Plain())
    proc.register(want("plain", _refuses)(lambda proc, ev: None), "filtered")
    with pytest.raises(StopProcessing):
        proc.process(_Plain())
    assert proc.emitted == []


def test_a_copy_of_a_processor_has_emitted_nothing() -> None:
    def emits(proc: object, ev: Event) -> None:
        ev.emit(1)

    proc = Processor()
    proc.register(emits)
    proc.process(_Plain())
    assert proc.emitted == [1]
    assert copy.copy(proc.__dict__["_kept"]).__dict__ == {}
    assert copy.deepcopy(proc).emitted == []


def test_what_has_no_readable_signature_is_taken_for_a_handler() -> None:
    class Odd:
        __signature__ = "odd"

        def __init__(self, proc: object, ev: object) -> None: ...

    made: Any = Odd
    assert Processor().register(made) == "Odd"
