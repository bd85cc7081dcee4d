"""What is wrong with an argument is said at once, and changes nothing."""

from __future__ import annotations

import multiprocessing
from typing import Any

import pytest

import evproc
from evproc_pool import PoolProcessor
from evproc_pool.testing import worker_pids
from tests.support import actions
from tests.support.actions import Do
from tests.support.helpers import PATIENCE_SECONDS, register_all

_CONSTRUCTOR: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"workers": -1}, ValueError, "workers must be at least 0, and is -1"),
    ({"workers": 1.5}, TypeError, "workers is a whole number or None, not 1.5"),
    ({"workers": "2"}, TypeError, "not '2'"),
    ({"workers": True}, TypeError, "not True"),
    ({"workers": [2]}, TypeError, "not \\[2\\]"),
    ({"mp_context": 5}, TypeError, "mp_context is a multiprocessing context"),
    ({"mp_context": multiprocessing}, TypeError, "mp_context is a multiprocessing context"),
    ({"mp_context": "no such method"}, ValueError, "no such method"),
    ({"initializer": 5}, TypeError, "initializer is a callable or None, not 5"),
    ({"initializer": "print"}, TypeError, "not 'print'"),
    ({"finalizer": 3}, TypeError, "finalizer is a callable or None, not 3"),
    ({"initializer": print, "initargs": 5}, TypeError, "initargs is a tuple of arguments, not 5"),
    ({"initargs": None}, TypeError, "not None"),
    ({"initargs": "ab"}, TypeError, "not 'ab'"),
    ({"preload": "yes"}, TypeError, "preload is True, False or None, not 'yes'"),
    ({"native_threads": -1}, ValueError, "native_threads must be at least 0, and is -1"),
    ({"native_threads": "all"}, TypeError, "native_threads is a whole number or None"),
    ({"event_timeout": 10**400}, ValueError, "event_timeout is too large"),
    ({"mp_context": ""}, ValueError, "mp_context names a start method, here .*, and not ''"),
    ({"mp_context": b"spawn"}, TypeError, "not b'spawn'"),
    ({"ordering": "sideways"}, ValueError, "ordering is 'cascade'.*not 'sideways'"),
    ({"ordering": None}, ValueError, "not None"),
    ({"ordering": 5}, ValueError, "not 5"),
    ({"errors": "stop"}, ValueError, "errors is 'end' or 'continue', not 'stop'"),
    ({"errors": None}, ValueError, "not None"),
    ({"max_cascade_depth": -1}, ValueError, "max_cascade_depth must be at least 0, and is -1"),
    ({"max_cascade_depth": 1.5}, TypeError, "max_cascade_depth is a whole number or None"),
    ({"max_cascade_events": 0}, ValueError, "max_cascade_events must be at least 1, and is 0"),
    ({"max_cascade_events": True}, TypeError, "not True"),
    ({"key": "name"}, TypeError, "key is a callable or None, not 'name'"),
    ({"no_such_option": 5}, TypeError, "no_such_option"),
]


@pytest.mark.parametrize(("options", "error", "text"), _CONSTRUCTOR, ids=str)
def test_a_bad_option_of_the_constructor(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text) as raised:
        PoolProcessor(**options)
    assert raised.type is error


def test_options_are_given_by_name() -> None:
    with pytest.raises(TypeError, match="positional"):
        PoolProcessor(1, "spawn")  # type: ignore[call-arg]  # that is the point


class _NoName:
    def __call__(self, proc: object, ev: object) -> None: ...


async def _asynchronous(proc: object, ev: object) -> None: ...


_METHODS: list[tuple[str, tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    ("register", (5,), {}, TypeError, "callable"),
    ("register", (None,), {}, TypeError, "not None"),
    ("register", (), {}, TypeError, "argument"),
    ("register", (actions.act, 5), {}, TypeError, "name is a string, not 5"),
    ("register", (_NoName(),), {}, TypeError, "register it with name="),
    ("register", (_asynchronous,), {}, TypeError, "asynchronous"),
    ("register", (actions.act,), {}, evproc.ProcessorReregisterException, "'act'"),
    ("load_from", (5,), {}, TypeError, "string, not 5"),
    ("load_from", ("no.such.group",), {}, evproc.EntryPointGroupException, "no.such.group"),
    ("load_from", (), {}, TypeError, "argument"),
    ("load_from", ("no.such.group", None), {}, TypeError, "not None"),
    ("load_from", ("no.such.group", "ignore"), {}, TypeError, "'ignore'"),
    ("process", (5,), {}, TypeError, "process\\(\\) takes an event, not an int, 5"),
    ("process", (None,), {}, TypeError, "takes an event"),
    ("process", (Do,), {}, TypeError, "the class"),
    ("process", (), {}, TypeError, "argument"),
    ("process", (Do("nothing"), 5), {}, TypeError, "positional"),
    ("process_many", (5,), {}, TypeError, "iterable"),
    ("process_many", (None,), {}, TypeError, "iterable"),
    ("process_many", (Do("nothing"),), {}, TypeError, "not a single one, 'do' .*use process\\(\\)"),
    ("process_many", ("text",), {}, TypeError, "takes an event"),
    ("process_many", ([Do("nothing"), 5],), {}, TypeError, "takes an event"),
    ("process_many", ([],), {"ordering": "sideways"}, ValueError, "sideways"),
    ("process_many", ([],), {"key": 5}, TypeError, "key is a callable or None, not 5"),
    ("process_many", ([],), {"errors": "stop"}, ValueError, "'end' or 'continue', not 'stop'"),
    ("process_many", ([],), {"timeout": 5}, TypeError, "timeout"),
    ("stream", (5,), {}, TypeError, "iterable"),
    ("stream", (Do("nothing"),), {}, TypeError, "not a single one, 'do' .*use process\\(\\)"),
    ("stream", ([],), {"buffersize": 0}, ValueError, "buffersize must be at least 1, and is 0"),
    ("stream", ([],), {"buffersize": -3}, ValueError, "-3"),
    ("stream", ([],), {"buffersize": "5"}, TypeError, "'5'"),
    ("stream", ([],), {"buffersize": True}, TypeError, "True"),
    ("stream", ([],), {"ordering": 5}, ValueError, "5"),
    ("stream", ([],), {"errors": 5}, ValueError, "'end' or 'continue', not 5"),
    ("stream", ([],), {"every_event": 1}, TypeError, "every_event is True or False, not 1"),
    ("stream", ([],), {"prompt": 0}, TypeError, "prompt is True or False, not 0"),
    ("stream", ([],), {"key": "name"}, TypeError, "'name'"),
    ("stream", ([], True), {}, TypeError, "positional"),
    ("submit", (), {}, TypeError, "argument"),
    ("submit", (Do("nothing"), 5), {}, TypeError, "positional"),
    ("explain", (5,), {}, TypeError, "process\\(\\) takes an event, not an int, 5"),
    ("check", (5,), {}, TypeError, "positional"),
]


@pytest.fixture(params=[0, 2])
def any_pool(request: pytest.FixtureRequest, shared_pool: PoolProcessor) -> PoolProcessor:
    """With workers and without."""
    if request.param:
        return shared_pool
    pool: PoolProcessor = register_all(PoolProcessor(workers=0), [actions.act, actions.nested])
    return pool


@pytest.mark.parametrize(
    ("method", "args", "options", "error", "text"),
    _METHODS,
    ids=lambda value: str(value)[:40],
)
def test_a_bad_argument_of_a_method(
    any_pool: PoolProcessor,
    method: str,
    args: tuple[Any, ...],
    options: dict[str, Any],
    error: type[Exception],
    text: str,
) -> None:
    before = _state(any_pool)
    with pytest.raises(error, match=text) as raised:
        getattr(any_pool, method)(*args, **options)
    assert raised.type is error
    assert _state(any_pool) == before
    assert any_pool.process_many([Do("stop", 1), Do("stop", 2)]) == [1, 2]
    assert _state(any_pool) == before


def _state(pool: PoolProcessor) -> tuple[object, ...]:
    """What an error must not change: the handlers, whether the pool runs, its processes."""
    return list(pool.nodes.items()), pool.workers, repr(pool), worker_pids(pool)


def test_a_bad_argument_of_stream_is_said_before_the_first_outcome_is_asked_for(
    any_pool: PoolProcessor,
) -> None:
    # a generator that is not iterated would say nothing
    with pytest.raises(ValueError, match="buffersize"):
        any_pool.stream([Do("nothing")], buffersize=0)


@pytest.mark.parametrize("place", [0, 1])
def test_what_is_no_event_is_the_failure_of_that_event(any_pool: PoolProcessor, place: int) -> None:
    before = _state(any_pool)
    events: list[Any] = [Do("stop", 1), Do("stop", 2)]
    events[place] = 5
    outcomes = list(any_pool.stream(events))
    assert [type(outcome.error) for outcome in outcomes].index(TypeError) == place
    assert outcomes[1 - place].value == 2 - place
    error = any_pool.submit(events[place]).exception(PATIENCE_SECONDS)
    assert type(error) is TypeError
    assert str(error) == str(outcomes[place].error)
    assert "process() takes an event, not an int, 5" in str(error)
    assert _state(any_pool) == before


@pytest.mark.parametrize("name", ["workers", "nodes"])
def test_what_the_pool_says_of_itself_cannot_be_set(any_pool: PoolProcessor, name: str) -> None:
    before = _state(any_pool)
    with pytest.raises(AttributeError):
        setattr(any_pool, name, 5)
    with pytest.raises(TypeError, match="item assignment"):
        any_pool.nodes["other"] = actions.act  # type: ignore[index]  # that is the point
    assert _state(any_pool) == before
