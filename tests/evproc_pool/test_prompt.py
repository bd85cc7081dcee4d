"""`stream(prompt=False)`: the batches of `process_many`, the outcomes of any stream."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from evproc import Event, StopProcessing, want
from evproc_pool import PoolProcessor
from evproc_pool.coordinator.engine import Engine


class Number(Event):
    name = "number"

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@want("number")
def split(proc: Any, ev: Number) -> list[Event]:
    ev.emit(ev.number)
    if ev.number > 1:
        return [Number(ev.number // 2), Number(ev.number // 2)]
    raise StopProcessing


def opened_as(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Collect whether runs were opened as bulk."""
    found: list[object] = []
    open_run = Engine.open

    def spy(self: Engine, *args: Any, **options: Any) -> Any:
        found.append(options["is_bulk"])
        return open_run(self, *args, **options)

    monkeypatch.setattr(Engine, "open", spy)
    return found


def test_only_a_stream_is_prompt_unless_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    found = opened_as(monkeypatch)
    with PoolProcessor(workers=1) as pool:
        pool.register(split)
        list(pool.stream([Number(1)] * 2))
        list(pool.stream([Number(1)] * 2, prompt=False))
        pool.process_many([Number(1)] * 2)
    assert found == [False, True, True]


@pytest.mark.parametrize("workers", [0, 2])
def test_outcomes_are_those_of_a_prompt_stream(workers: int) -> None:
    roots = [Number(number) for number in (1, 9, 4, 30)]
    with PoolProcessor(workers=workers, ordering="unordered") as pool:
        pool.register(split)
        found = [
            [
                (each.path, each.emitted)
                for each in pool.stream(roots, every_event=True, prompt=prompt)
            ]
            for prompt in (True, False)
        ]
    assert found[0] == found[1]


def test_an_endless_input_is_read_no_further_than_asked() -> None:
    read: list[int] = []

    def numbers() -> Any:
        for number in itertools.count():
            read.append(number)
            yield Number(1)

    with PoolProcessor(workers=2) as pool:
        pool.register(split)
        stream = pool.stream(numbers(), buffersize=3, prompt=False)
        for count in range(1, 200):
            assert next(stream).emitted == [1]
            assert len(read) <= count + 3
        stream.close()
