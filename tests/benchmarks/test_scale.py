"""The benchmark `scale`: that its coordinator takes its time, and messages theirs."""

import pytest

from benchmarks.model import BenchmarkError, Row, Settings
from benchmarks.scale import plot, suite
from benchmarks.scale.simulation import Scaled
from benchmarks.scheduler import simulation
from evproc_pool.core.scheduler import Scheduler

QUICK = Settings(repeats=1, min_seconds=0.02, turns=1, case="100 ms")


def busy(workers: int, events: int, cost: float = 0.0, latency: float = 0.0) -> float:
    return Scaled(workers, 1e-3, events, 0, cost=cost, latency=latency).run_all()


@pytest.mark.parametrize("workers", [1, 7])
def test_a_coordinator_that_costs_nothing_keeps_workers_busy(workers: int) -> None:
    assert busy(workers, 2000 * workers) > 0.98


def test_a_coordinator_is_busy_at_most_all_of_the_time() -> None:
    # half of the workers' time can be served
    assert 0.4 < busy(10, 20_000, 2e-4) <= 0.51


def test_batches_ahead_hide_the_way_of_messages() -> None:
    assert busy(4, 20_000, latency=0.005) > 0.95
    assert busy(4, 20_000, latency=1.0) < 0.7


def test_a_scheduler_that_stands_still_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lazy(Scheduler):
        def demand(self, run: int) -> int:
            return 0

    monkeypatch.setattr(simulation, "Scheduler", Lazy)
    with pytest.raises(BenchmarkError, match="settled 0 events of 10"):
        busy(2, 10)


def test_lines_of_the_plot_are_found_in_what_was_measured() -> None:
    (row,) = [each for each in suite.run(QUICK) if isinstance(each, Row)]
    figures = [{"name": each.name, "median": each.values[0]} for each in row.figures]
    document = {"benchmarks": [{"name": "scale", "rows": [{"case": row.case, "figures": figures}]}]}
    found = plot.lines(document)
    assert list(found) == [("100 ms", latency) for latency in suite.LATENCIES]
    assert [number for number, _ in found["100 ms", "5 ms"]] == list(suite.WORKERS)


def test_how_many_are_kept_busy() -> None:
    workers = (16, 64, 256)
    assert suite.kept_busy(workers, (0.99, 0.95, 0.91)) == 256
    assert 64 < suite.kept_busy(workers, (0.99, 0.95, 0.8)) < 256
    assert suite.kept_busy(workers, (0.45, 0.1, 0.0)) == pytest.approx(8)


def test_samples_are_as_long_as_a_coordinator_needs_for_them() -> None:
    assert suite.events_for(10, 1e-3, 1e-6, 1.0) == 40_000
    assert suite.events_for(4096, 1e-4, 1e-6, 1.0) == 4_000_000
    assert suite.events_for(4096, 1.0, 1e-6, 0.01) == 4096
