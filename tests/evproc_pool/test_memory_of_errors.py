"""An error holds what its caller holds: no event or frame stays once it is dropped."""

from __future__ import annotations

import asyncio
import functools
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from evproc import Event, StopProcessing, want
from evproc_pool import PoolBrokenError, PoolProcessor
from evproc_pool.errors import release_frames
from evproc_pool.serialization.basics import detached
from tests.support import actions
from tests.support.actions import Do, LoadsOnlyHere, Picky
from tests.support.helpers import error_of, register_all, wait_until


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    """The garbage collector does not run by chance."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="module", params=[0, 1])
def some_pool(request: pytest.FixtureRequest) -> Iterator[PoolProcessor]:
    """Without workers and with one."""
    with PoolProcessor(workers=request.param) as pool:
        register_all(pool, [actions.act, actions.picky])
        pool.process(Do("nothing"))
        yield pool


# --- in the coordinator ---

CALLS: dict[str, Callable[[PoolProcessor, Any], object]] = {
    "process": lambda pool, ev: pool.process(ev),
    "process with a timeout": lambda pool, ev: pool.process(ev, timeout=60),
    "process_many": lambda pool, ev: pool.process_many([ev]),
    "process_many, others before it": lambda pool, ev: pool.process_many([Do(), Do(), ev, Do()]),
    "stream": lambda pool, ev: next(pool.stream([ev])).unwrap(),
    "stream, as they finish": lambda pool, ev: next(pool.stream([ev], ordered=False)).unwrap(),
    "submit": lambda pool, ev: pool.submit(ev).result(),
    "process_async": lambda pool, ev: _raise(asyncio.run(_process_async(pool, [ev]))),
}


async def _process_async(pool: PoolProcessor, events: list[Any]) -> list[BaseException]:
    """Return the error: a task that ends with it is in a cycle of its own."""
    try:
        await pool.process_async(events.pop())
    except Exception as error:
        return [error]
    return []


def _raise(errors: list[BaseException]) -> None:
    raise errors.pop()


EVENTS: dict[str, Callable[[], Any]] = {
    "a handler raises": lambda: Do("fail", KeyError, 1),
    "an error that cannot be sent": lambda: Do("fail", actions.HasALock),
    "an event that cannot be pickled": lambda: Do("stop", threading.Lock(), "too much"),
    "an event that cannot be rebuilt": LoadsOnlyHere,
    "a follow-up that cannot be rebuilt": lambda: Do("follow_surprise"),
    "a filter raises": Picky,
    "a follow-up's filter raises": lambda: Do("follow", Picky()),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("make", EVENTS)
def test_an_event_that_failed_is_gone_with_its_error(
    some_pool: PoolProcessor, make: str, call: str
) -> None:
    if some_pool.workers == 0 and ("rebuilt" in make or "pickled" in make):
        pytest.skip("nothing is pickled")
    ev = EVENTS[make]()
    reference = weakref.ref(ev)
    error = error_of(functools.partial(CALLS[call], some_pool, ev))
    assert error.__traceback__ is not None
    del ev, error
    wait_until(lambda: reference() is None, "the event is gone")  # a thread may deliver it


def test_the_error_of_an_input_is_in_no_cycle(some_pool: PoolProcessor) -> None:
    reference: Any = None

    def events() -> Iterator[Event]:
        nonlocal reference
        ev = Do("nothing")
        reference = weakref.ref(ev)
        yield ev
        raise KeyError

    def read_all(call: Callable[[Any], Any]) -> list[Any]:
        return list(call(events()))

    for call in (some_pool.process_many, some_pool.stream):
        assert isinstance(error_of(functools.partial(read_all, call)), KeyError)
        wait_until(lambda: reference() is None, "the event is gone")


def test_the_error_of_a_broken_pool_does_not_grow() -> None:
    pool = PoolProcessor(workers=1, initializer=int, initargs=("no number",))
    pool.register(actions.act)
    first = error_of(lambda: pool.process(Do("nothing")))
    ev = Do("nothing")
    reference = weakref.ref(ev)
    errors = [error_of(functools.partial(call, pool, ev)) for call in CALLS.values()]
    assert {type(each) for each in errors} == {type(first)}
    assert isinstance(first, PoolBrokenError)
    assert all(isinstance(each.__cause__, ValueError) for each in errors)
    del ev, errors
    assert reference() is None


# --- in a worker ---


class Marker:
    alive: ClassVar[weakref.WeakSet[Marker]] = weakref.WeakSet()

    def __init__(self) -> None:
        self.alive.add(self)


class Keep(Event):
    name = "keep"

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how


@want("keep")
def keep(proc: Any, ev: Keep) -> None:
    marker = Marker()  # noqa: F841 - the frame holds it
    try:
        raise ValueError("bad input")
    except ValueError as error:
        kept = error  # noqa: F841 - a cycle
        if ev.how == "the same":
            raise
        if ev.how == "with a cause":
            raise RuntimeError from error
        if ev.how == "with a context":
            raise RuntimeError  # noqa: B904
        raise ExceptionGroup("several", [error]) from None


class Count(Event):
    name = "count"


@want("count")
def count(proc: Any, ev: Count) -> None:
    raise StopProcessing(len(Marker.alive))


@pytest.mark.parametrize("how", ["the same", "with a cause", "with a context", "in a group"])
def test_a_worker_keeps_nothing_of_a_failed_handler(how: str) -> None:
    with PoolProcessor(workers=1, initializer=gc.disable) as pool:
        register_all(pool, [keep, count])
        pool.process_many([Keep(how) for _ in range(20)], return_exceptions=True)
        assert pool.process(Count()) == 0


# --- the functions that do it ---


def test_the_frame_of_a_generator_that_goes_on_stays_as_it_is() -> None:
    def generator() -> Iterator[ValueError]:
        local = "still there"
        try:
            raise ValueError
        except ValueError as error:
            yield error
        yield ValueError(local)

    going_on = generator()
    release_frames(next(going_on))
    assert next(going_on).args == ("still there",)


def test_a_cycle_of_causes_is_no_endless_loop() -> None:
    first, second = ValueError(1), ValueError(2)
    first.__cause__, second.__cause__ = second, first
    release_frames(first)


def test_the_traceback_of_an_error_that_is_kept_becomes_its_cause() -> None:
    error = detached(error_of(lambda: actions.objects(None)))
    assert error.__traceback__ is None
    assert 'raise ArithmeticError("filter")' in str(error.__cause__)


def _refuse(self: object) -> Any:
    raise OSError("no")


@pytest.mark.parametrize(
    "name", ["__cause__", "__context__", "__traceback__", "__class__", "exceptions"]
)
@pytest.mark.parametrize("base", [Exception, ExceptionGroup])
def test_frames_are_released_whatever_a_class_overrides(name: str, base: Any) -> None:
    kind = type("Strange", (base,), {name: property(_refuse)})
    inner = ValueError("inner")
    error = kind("text", [inner]) if base is ExceptionGroup else kind("text")
    held = Do("nothing")
    seen = weakref.ref(held)

    def hold(held: Any, error: BaseException) -> None:
        raise error

    for each in (error, inner):
        with pytest.raises(BaseException):  # noqa: B017, PT011 - of any class
            hold(held, each)
    del held
    release_frames(error)
    assert seen() is None or base is Exception
    release_frames(inner)
    assert seen() is None


def test_an_error_that_is_kept_again_and_again_does_not_grow() -> None:
    error = ValueError("always the same")

    def keep() -> str:
        try:
            raise error
        except ValueError as caught:
            return str(detached(caught).__cause__)

    first = keep()
    assert "always the same" in first
    assert [keep(), keep()] == [first, first]
