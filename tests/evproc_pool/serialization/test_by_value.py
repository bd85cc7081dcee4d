"""Pickling by value: what this adds to cloudpickle."""

from __future__ import annotations

import functools
import multiprocessing
from pathlib import Path

import pytest

from evproc_pool.serialization import pickling
from tests.support.helpers import run_script

_SCRIPT = """
import enum, functools, sys
from evproc import Event, StopProcessing, want
from evproc_pool import PoolProcessor

class Planet(enum.Enum):
    EARTH = (1, 2)
    MARS = (3, 4)
    TERRA = (1, 2)

    def __init__(self, mass, radius):
        self.mass, self.radius = mass, radius

    @property
    def total(self):
        return self.mass + self.radius

class Label(enum.Enum):
    def __new__(cls, value, text):
        made = object.__new__(cls)
        made._value_, made.text = value, text
        return made

    FIRST = (0, "the first")
    SECOND = (1, "the second")

class Access(enum.Flag):
    READ = 1
    WRITE = 2
    BOTH = 3

class Number(enum.IntEnum):
    ONE = 1
    UNO = 1

@functools.lru_cache(maxsize=None)
def fibonacci(number):
    return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)

class Ev(Event):
    name = "ev"

    def __init__(self, number, planet):
        self.number, self.planet = number, planet

    @functools.cached_property
    def double(self):
        return 2 * self.number

    @functools.lru_cache(maxsize=4)
    def times(self, factor):
        return factor * self.number

@want("ev")
def handle(proc, ev):
    planet = ev.planet
    raise StopProcessing((
        [planet.mass, planet.total, planet is Planet.TERRA, planet, list(Planet.__members__)],
        [Label(1).text, (Access.READ | Access.WRITE).name, Number.UNO, list(Number.__members__)],
        [fibonacci(ev.number), fibonacci.__name__, fibonacci.cache_info().hits > 0],
        [ev.double, ev.times(3)],
    ))

events = [Ev(10 + number % 5, Planet.EARTH) for number in range(40)]
results = []
for workers in (0, 2):
    with PoolProcessor(workers, mp_context=sys.argv[1] if workers else None) as pool:
        pool.register(handle)
        # one alone, which is pickled in another way than many, and once more
        results.append([pool.process_many(events[:1]), *[pool.process_many(events)] * 2])
assert results[0] == results[1], results
assert results[1][0][0][0][3] is Planet.EARTH
assert Planet.EARTH.mass == 1
print("equal")
"""


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_caches_properties_and_enumerations_of_a_script_work_in_workers(
    method: str, tmp_path: Path
) -> None:
    assert run_script(_SCRIPT.replace("sys.argv[1]", repr(method)), tmp_path) == "equal\n"


def test_a_cache_around_a_local_function_keeps_its_limits_but_not_its_contents() -> None:
    offset = 3

    @functools.lru_cache(maxsize=2, typed=True)
    def add(number: int) -> int:
        """Add."""
        return number + offset

    assert add(1) == 4
    there = pickling.loads(pickling.dumps(add))
    assert there.cache_parameters() == {"maxsize": 2, "typed": True}
    assert there.cache_info().currsize == 0
    assert (there(1), there.__doc__) == (4, "Add.")


@functools.lru_cache
def _importable() -> None:
    """A function that can be imported."""


def test_an_importable_cache_is_the_existing_one() -> None:
    # beside a function that has to go by value
    there, _ = pickling.loads(pickling.dumps([_importable, lambda: None]))
    assert there is _importable


def test_code_keeps_its_file_name() -> None:
    function = eval(compile("lambda: (lambda: 1)", "a file of its own", "eval"))
    there = pickling.loads(pickling.dumps(function))
    assert there.__code__.co_filename == "a file of its own"
    assert there().__code__.co_filename == "a file of its own"
