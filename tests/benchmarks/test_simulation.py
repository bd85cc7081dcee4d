"""The fake backend of the benchmark `scheduler`: that it plays its part, not how fast it is."""

import pytest

from benchmarks.model import BenchmarkError
from benchmarks.scheduler import simulation
from benchmarks.scheduler.simulation import Simulation
from evproc_pool.core.inputs_and_effects import Effect, Input, Settled
from evproc_pool.core.scheduler import Scheduler


@pytest.mark.parametrize("workers", [1, 2, 64])
@pytest.mark.parametrize("events", [1, 3, 5_000])
def test_it_runs_to_its_end(workers: int, events: int) -> None:
    simulated = Simulation(workers, 1e-3, events, seed=0).run()
    assert simulated.seconds > 0
    assert 0 < simulated.busy <= 1.000001


def test_one_worker_is_always_busy() -> None:
    assert Simulation(1, 1e-4, 1_000, seed=0).run().busy == pytest.approx(1.0)


def test_equal_seeds_make_equal_histories() -> None:
    first, again, other = (Simulation(8, 1e-3, 500, seed).run().busy for seed in (1, 1, 2))
    assert first == again != other


def test_a_scheduler_that_loses_events_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(Scheduler):
        def step(self, item: Input, *, more: bool = False) -> list[Effect]:
            effects = super().step(item, more=more)
            return [each for each in effects if not isinstance(each, Settled)]

    monkeypatch.setattr(simulation, "Scheduler", Forgetful)
    with pytest.raises(BenchmarkError, match="settled 0 events of 10"):
        Simulation(2, 1e-3, 10, seed=0).run()


def test_a_scheduler_that_stands_still_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lazy(Scheduler):
        def demand(self, run: int) -> int:
            return 0

    monkeypatch.setattr(simulation, "Scheduler", Lazy)
    with pytest.raises(BenchmarkError, match="settled 0 events of 10"):
        Simulation(2, 1e-3, 10, seed=0).run()
