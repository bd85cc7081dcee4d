"""Queues, locks and values of `multiprocessing` reach the initializer, as with executors."""

from __future__ import annotations

import functools
import multiprocessing
import os
from multiprocessing.context import BaseContext
from typing import Any

import pytest

from evproc_pool import PoolBrokenError, PoolProcessor, SerializationError
from evproc_pool.testing import simulated_pool
from tests.support import actions
from tests.support.actions import Do
from tests.support.helpers import PATIENCE_SECONDS

_METHODS = multiprocessing.get_all_start_methods()

# `multiprocessing` keeps the memory of small values for ever, which is no leak of the pool
_MEMORY = multiprocessing.RawValue("i")

_got: list[Any] = []


def _keep(*args: Any, **kwargs: Any) -> None:
    _got[:] = [*args, *kwargs.values()]


def _use() -> int:
    """What handlers do with them in a worker."""
    queue, (lock, value), named, raw, connection = _got
    with lock, value.get_lock():
        value.value += 1
    raw.value += 1
    named["queue"].put(os.getpid())
    queue.put("from a worker")
    queue.close()
    queue.join_thread()  # so that its thread has no lock when the process ends
    connection.send("through a pipe")
    return os.getpid()


def _arguments(context: BaseContext) -> tuple[Any, ...]:
    receiver, sender = context.Pipe(duplex=False)
    named = {"queue": context.SimpleQueue()}
    value = context.Value("i", 5)
    raw = context.RawValue("i", 5)
    return context.Queue(), (context.Lock(), value), named, raw, sender, receiver


@pytest.mark.parametrize("method", _METHODS)
def test_objects_of_multiprocessing_are_shared(method: str) -> None:
    context = multiprocessing.get_context(method)
    *arguments, receiver = _arguments(context)
    queue, (_, value), named, raw, sender = arguments
    with PoolProcessor(1, mp_context=context, initializer=_keep, initargs=arguments) as pool:
        pool.register(actions.act)
        for count in (1, 2):
            pid = pool.process(Do("call", _use))
            assert queue.get(timeout=PATIENCE_SECONDS) == "from a worker"
            assert named["queue"].get() == pid
            assert receiver.recv() == "through a pipe"
            assert (value.value, raw.value) == (5 + count, 5 + count)
            # the next one gets them, too
            pool.process_many([Do("leave", 0)], return_exceptions=True)
    for each in (receiver, sender, queue, named["queue"]):
        each.close()
    queue.join_thread()


def test_in_a_partial_with_a_function_that_goes_by_value() -> None:
    context = multiprocessing.get_context("spawn")
    value = context.Value("i", 5)

    def local() -> int:
        return 7

    initializer = functools.partial(_keep, made=local, value=value)
    with PoolProcessor(1, mp_context=context, initializer=initializer) as pool:
        pool.register(actions.act)
        assert pool.process(Do("call", _call_and_add)) == 12
    assert value.value == 6


def _call_and_add() -> int:
    function, value = _got
    before: int = function() + value.value
    value.value += 1
    return before


def test_in_a_simulated_pool() -> None:
    lock = multiprocessing.get_context("spawn").Lock()
    with simulated_pool(2, initializer=_keep, initargs=[lock]) as pool:
        pool.register(actions.act)
        pool.process(Do())
        assert _got == [lock]


@pytest.mark.skipif("fork" not in _METHODS, reason="there is no fork")
def test_a_lock_of_another_context_is_an_error_that_says_what_to_do() -> None:
    lock = multiprocessing.get_context("fork").Lock()
    with PoolProcessor(1, mp_context="spawn", initializer=_keep, initargs=[lock]) as pool:
        pool.register(actions.act)
        with pytest.raises(PoolBrokenError, match="context that you give to the pool"):
            pool.process(Do())


def test_an_event_cannot_carry_them() -> None:
    lock = multiprocessing.get_context("spawn").Lock()
    with PoolProcessor(1) as pool:
        pool.register(actions.act)
        with pytest.raises(SerializationError, match="hand it over in initargs="):
            pool.process(Do("call", len, [lock]))
