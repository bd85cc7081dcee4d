"""What mypy sees of the pool: outcomes of one's own events, and a processor of either kind."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from typing import Any, assert_type

import pytest

import evproc
import evproc_pool
from evproc import Event
from evproc_pool import Outcome, PoolProcessor
from tests.evproc.test_any_processor import public, set_up


class Order(Event):
    name = "order"

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def take(proc: object, ev: Order) -> list[Event]:
    return []


@pytest.fixture
def here() -> PoolProcessor:
    pool = PoolProcessor(workers=0)
    pool.register(take)
    return pool


# --- outcomes ---


def test_a_stream_of_orders_gives_outcomes_of_orders(here: PoolProcessor) -> None:
    numbers = []
    for outcome in here.stream([Order(1), Order(2)], return_events=True):
        assert_type(outcome, Outcome[Order])
        assert_type(outcome.event, Order)
        assert_type(outcome.processed, Order | None)
        numbers.append(outcome.event.number)
    assert numbers == [1, 2]


def test_follow_ups_may_be_any_events(here: PoolProcessor) -> None:
    for outcome in here.stream([Order(1)], every_event=True):
        assert_type(outcome, Outcome[Event])


def test_an_asynchronous_stream_gives_the_same(here: PoolProcessor) -> None:
    async def orders() -> AsyncIterator[Order]:
        yield Order(2)

    async def main() -> list[int]:
        numbers = []
        async for outcome in here.stream_async([Order(1)]):
            assert_type(outcome, Outcome[Order])
            numbers.append(outcome.event.number)
        async for outcome in here.stream_async(orders()):
            assert_type(outcome.event, Order)
            numbers.append(outcome.event.number)
        async for each in here.stream_async([Order(1)], every_event=True):
            assert_type(each, Outcome[Event])
        return numbers

    assert asyncio.run(main()) == [1, 2]


def test_an_outcome_of_orders_is_an_outcome(here: PoolProcessor) -> None:
    def number_of(outcome: Outcome) -> int:  # as it was written before it was generic
        assert_type(outcome, Outcome[Event])
        return outcome.index

    assert [number_of(outcome) for outcome in here.stream([Order(1)])] == [0]


def test_an_outcome_is_what_it_was_when_the_program_runs() -> None:
    outcome = Outcome(Order(1), 0)
    assert type(outcome) is Outcome
    assert not hasattr(outcome, "__dict__")
    assert type(Outcome[Order](Order(1), 0)) is Outcome


# --- processors ---


def test_a_pool_is_a_processor_for_who_takes_any() -> None:
    with PoolProcessor(workers=0) as pool:
        assert set_up(pool) == ("second",)


def test_a_pool_has_the_methods_of_any_processor_with_their_signatures() -> None:
    for name, each in public(evproc.AnyProcessor).items():
        if not callable(each):
            continue
        expected = inspect.signature(each)
        actual = inspect.signature(getattr(PoolProcessor, name))
        # a pool's options come after, and only by keyword
        ours: dict[str, Any] = dict(actual.parameters)
        for extra in ours.keys() - expected.parameters.keys():
            assert ours.pop(extra).kind is inspect.Parameter.KEYWORD_ONLY
        assert ours == dict(expected.parameters)
        assert actual.return_annotation == expected.return_annotation


def test_both_packages_have_one_version() -> None:
    assert evproc_pool.__version__ == evproc.__version__
    assert "__version__" in dir(evproc_pool)
