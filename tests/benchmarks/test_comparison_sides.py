"""Every system that is always there does what `comparison` asks of it, in its host as well."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Any

import psutil
import pytest

from benchmarks.comparison import (
    catalogue,
    footprint,
    handlers,
    interpreters,
    latency,
    loads,
    optional,
    scripts,
    suite,
    throughput,
)
from benchmarks.comparison.hosts import Guard, Host, HostError, Hosts, check
from benchmarks.comparison.systems import AUTO, Executor, MultiprocessingPool, Ours, System
from benchmarks.machine import claim_memory
from benchmarks.model import Bar, BenchmarkError, Figure, Note, Row, Settings
from benchmarks.pool.bench import can_emit
from benchmarks.pool.handlers import Order
from benchmarks.pool.kinds import VALUES, Function
from benchmarks.pool.limits import Control
from benchmarks.pool.processes import WORKERS
from evproc import Event
from tests.support.helpers import map_regions

ALWAYS = (Ours, MultiprocessingPool, Executor)


@pytest.fixture(scope="module", params=ALWAYS, ids=lambda each: each.label)
def system(request: pytest.FixtureRequest) -> Iterator[System]:
    """For all tests, with all workers: none of them is blamed for these."""
    with closing(request.param()) as made:
        check(made)
        if isinstance(made, Ours):
            map_regions(made._pool)
        yield made


# --- systems ---


def test_a_system_is_checked_and_gives_values_in_order(system: System) -> None:
    events: list[Event] = [handlers.BytesWanted(number, 3) for number in range(7)]
    values = [handlers.make_bytes(number, 3) for number in range(7)]
    assert system.run(events, 2) == values
    assert list(system.stream(iter(events), 2)) == values
    for process in system.ways.values():
        assert process(events[5]) == values[5]


def test_a_system_with_wrong_values_is_noticed() -> None:
    class Wrong(Ours):
        def run(self, events: list[Any], chunk: int, function: Function | None = None) -> list[Any]:
            return super().run(events, chunk)[::-1]

    with closing(Wrong()) as wrong, pytest.raises(BenchmarkError, match="wrong values"):
        check(wrong)


def test_chunk_sizes_that_are_tried() -> None:
    (load,) = (each for each in loads.COMPUTING if each.label == "20 us")
    assert throughput.candidates(Ours, load, 10**6) == (AUTO,)
    assert throughput.candidates(Executor, load, 10**6) == load.chunks
    assert throughput.candidates(optional.Joblib, load, 10**6) == (*load.chunks, AUTO)
    # all but those of which there would be none for each worker
    assert throughput.candidates(Executor, load, 64 * WORKERS) == (16, 64)
    assert throughput.candidates(Executor, load, 1) == (16,)


def test_batches_made_by_hand_have_every_event_once() -> None:
    events: list[Event] = [Order(number) for number in range(7)]
    batches = optional.batches(events, 3)
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert [ev for batch in batches for ev in batch] == events
    assert handlers.handle_all(events) == [None] * 7


# --- which there are ---


def test_what_is_always_there_is_always_measured() -> None:
    assert catalogue.installed()[: len(ALWAYS)] == ALWAYS
    assert [catalogue.by_label(each.label) for each in catalogue.SYSTEMS] == [*catalogue.SYSTEMS]
    # a figure's name is a label, and perhaps a comma and something else
    assert all("," not in each.label for each in catalogue.SYSTEMS)


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "package_versions", lambda names: {})
    assert catalogue.installed() == ALWAYS
    (note,) = catalogue.notes()
    assert note.text.startswith("left out, since not installed: loky, joblib, mpire, pebble")
    assert "evproc-pool[bench]" in note.text
    monkeypatch.setattr(catalogue, "package_versions", lambda names: dict.fromkeys(names, "1"))
    assert catalogue.installed() == catalogue.SYSTEMS
    (note,) = catalogue.notes()
    assert note.text.startswith("peers: loky 1, joblib 1")


def test_no_optional_peer_is_imported_before_it_is_used() -> None:
    modules = [each.module for each in catalogue.SYSTEMS if each.distribution] + ["matplotlib"]
    program = f"import sys, benchmarks.cli; print([m for m in {modules} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=interpreters.environment(),
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stdout.strip() == "[]"


# --- loads ---


def test_memory_is_claimed_where_contents_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    claimed: list[int] = []
    monkeypatch.setattr(throughput, "claim_memory", claimed.append)
    with closing(Ours()) as system:
        for load in (loads.NO_OP, loads.LARGE[0].load):
            throughput.take_sample(system, load, 3, 1)
    small, large = claimed
    assert small == 0
    assert large >= 3 * loads.BYTES


def test_no_more_memory_is_claimed_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Little:
        available = 1000

    monkeypatch.setattr(psutil, "virtual_memory", Little)
    claim_memory(sys.maxsize // 2)


@pytest.mark.parametrize("large", loads.LARGE, ids=lambda each: each.load.label)
def test_large_contents_are_each_an_object_of_their_own(large: loads.Large) -> None:
    events = large.load.make(2)
    given = [getattr(ev, "data", None) for ev in events]
    values = handlers.handle_all(events)
    for one, other in (given, values):
        if one is not None:
            assert one is not other
            assert len(memoryview(one).cast("B")) in (loads.BYTES, loads.ARRAY_BYTES)
    assert any(each is not None for each in (*given, *values))


def test_all_loads_are_named_differently() -> None:
    plain = (loads.NO_OP, *loads.COMPUTING)
    valued = [load for twins in loads.WITH_VALUES.values() for load in twins]
    valued += loads.EMITTING
    every = (*plain, *valued, *(large.load for large in loads.LARGE))
    every += tuple(mixed.load for mixed in loads.LINES)
    assert len({load.label for load in every}) == len(every) == 7 + 5 * 7 + 4 + 2


def test_each_case_runs_alone_by_its_name() -> None:
    names = [each.label for each in suite._HOSTED] + [each.label for each in suite._APART]
    for name in names:
        assert Settings(case=name).choose(names) == {name}


def test_each_throughput_case_has_a_twin_for_each_kind_of_value() -> None:
    for kind, twins in loads.WITH_VALUES.items():
        labels = [load.label for load in twins]
        assert labels == [f"{load.label}, {kind}" for load in (loads.NO_OP, *loads.COMPUTING)]


def test_a_value_for_each_event_from_every_system(system: System) -> None:
    for kind, make in VALUES.items():
        events = loads.WITH_VALUES[kind][0].make(5)
        assert list(system.run(events, 2)) == [make(number) for number in range(5)]


def test_what_was_emitted_from_every_system(system: System) -> None:
    if not can_emit():
        pytest.skip("Event has no emit")
    make = VALUES["dict of five"]
    for chunk in (1, 3):
        got = system.run_emitting(loads.EMITTING[0].make(5), chunk)
        assert [list(each) for each in got] == [[make(number)] for number in range(5)]
    assert throughput.take_sample(system, loads.EMITTING[0], 4, 1) > 0


def test_a_system_that_loses_what_was_emitted_is_noticed() -> None:
    class Losing(Ours):
        def run_emitting(self, events: list[Any], chunk: int) -> list[Any]:
            return [[1], []]

    with closing(Losing()) as losing, pytest.raises(BenchmarkError, match="nothing was emitted"):
        throughput.take_sample(losing, loads.EMITTING[0], 2, 1)


def test_emitting_is_left_out_where_events_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "can_emit", lambda: False)
    with closing(Control()) as control, closing(Hosts([])) as hosts:
        row, note = throughput.measure_values(hosts, loads.EMITTING[0], Settings(), control)
    assert row == Row("no-op, emitted", (Figure("PoolProcessor", "events/s", ()),))
    assert isinstance(note, Note)
    assert "Event has no emit" in note.text


@pytest.mark.parametrize("mixed", loads.LINES, ids=["read", "judged"])
def test_peers_get_the_plain_function_and_ours_has_the_handler(
    system: System, mixed: loads.Mixed
) -> None:
    plain = mixed.plain
    events = mixed.load.make(7) if isinstance(system, Ours) else plain.make(7)
    for chunk in (1, 3):
        values = list(system.run(events, chunk, plain.function))
        assert values == [plain.function(text) for text in plain.make(7)]
    request = partial(throughput.take_sample, load=mixed.load, count=6, chunk=2, plain=plain)
    assert request(system) > 0


# --- hosts ---


class Hosted:
    def close(self) -> None:
        pass


def pid_of(hosted: object) -> int:
    return os.getpid()


def fail(hosted: object) -> None:
    raise ValueError("asked too much")


def die(hosted: object) -> None:
    os._exit(3)


def test_a_host_is_a_process_that_is_asked() -> None:
    with closing(Guard()) as guard, closing(Host(Hosted, "hosted", guard=guard)) as host:
        host.wait_started()
        assert host.ask(pid_of) == host.ask(pid_of) != os.getpid()
        with pytest.raises(HostError, match="hosted: ValueError: asked too much"):
            host.ask(fail)
        assert host.ask(pid_of)
        with pytest.raises(HostError, match="exit code 3"):
            host.ask(die)


def test_systems_that_cannot_start_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Hosts([Ours, Unable])) as hosts:
        (error,) = hosts.start()
        assert error.label == Unable.label
        assert "OSError: it cannot be made" in str(error)
        assert list(hosts) == [Ours.label]
        request = partial(throughput.take_sample, load=loads.NO_OP, count=4, chunk=1)
        assert hosts[Ours.label].ask(request) > 0


class Unable(Ours):
    label = "unable"

    def __init__(self) -> None:
        raise OSError("it cannot be made")


# --- figures ---


def test_ratios_and_their_bars() -> None:
    figures = {
        name: Figure(name, "events/s", (speed,))
        for name, speed in {
            "PoolProcessor": 8.0,
            "control": 10.0,
            "multiprocessing.Pool": 2.0,
            "multiprocessing.Pool, one by one": 1.0,
        }.items()
    }
    found = {each.name: each for each in throughput.ratios(figures, 4.0)}
    assert {name: each.values for name, each in found.items()} == {
        "control's time / that of PoolProcessor": (0.8,),
        "control's time / that of multiprocessing.Pool": (0.2,),
        "events/s of PoolProcessor / of multiprocessing.Pool": (4.0,),
    }
    verdicts = {each.verdict for each in found.values()}
    assert verdicts == {None, "met"}


def test_the_best_peer_is_the_one_with_the_largest_median() -> None:
    figures = {
        name: Figure(name, "events/s", speeds)
        for name, speeds in {
            "PoolProcessor": (6.0, 6.0, 6.0),
            "control": (9.0, 9.0, 9.0),
            "loky": (1.0, 5.0, 8.0),
            "pebble": (2.0, 4.0, 4.0),
            "pebble, one by one": (7.0, 7.0, 7.0),
        }.items()
    }
    over = throughput.over_best(figures, 1.0)
    assert over.name == "events/s of PoolProcessor / of the best peer, loky"
    assert over.values == (6.0, 1.2, 0.75)
    assert (over.bar, over.verdict) == (Bar("at least", 1.0), "met")


def test_values_and_lines_are_measured_for_every_system() -> None:
    settings = Settings(repeats=1, min_seconds=0.0005)
    with closing(Control()) as control, closing(Hosts([Ours, Executor])) as hosts:
        assert not list(hosts.start())
        load = loads.WITH_VALUES["int"][0]
        *_, valued = throughput.measure_values(hosts, load, settings, control)
        *_, lines = throughput.measure_lines(hosts, loads.LINES[1], settings, control)
    labels = ["PoolProcessor", "control", "ProcessPoolExecutor"]
    for row, case in ((valued, "no-op, int"), (lines, loads.LINES[1].label)):
        assert isinstance(row, Row)
        assert row.case == case
        assert [each.name for each in row.figures if each.unit == "events/s"] == labels
        behind = [each.name for each in row.figures if each.better is not None]
        assert behind == ["events/s of PoolProcessor / of ProcessPoolExecutor"]
        limits = [each.bar for each in row.figures if each.bar]
        assert limits == ([Bar("at least", 1.0)] if row is lines else [])


def test_memory_is_compared_with_peers_although_it_may_be_nothing() -> None:
    figures = [Figure("PoolProcessor", "MB", (2.0,)), Figure("loky", "MB", (0.0,))]
    (over,) = suite._over_peers(figures)
    assert (over.name, over.values, over.times_behind) == ("PoolProcessor / loky", (20.0,), 20.0)
    assert suite._over_peers(figures[1:]) == ()


def test_percentiles() -> None:
    taken = latency.percentiles([float(number) for number in range(101)])
    assert taken == (50.0, 95.0)


def test_latency_is_compared_with_the_pipe() -> None:
    with closing(Hosts([Ours])) as hosts:
        assert not list(hosts.start())
        settings = Settings(repeats=1, min_seconds=0.001)
        p50, p95 = latency.measure(hosts, settings, "single")
    assert (p50.case, p95.case) == ("single, p50", "single, p95")
    names = [figure.name for figure in p50.figures]
    assert names == [
        "bare pipe",
        "bare pipe, None back",
        "PoolProcessor",
        "PoolProcessor, submit",
        "p50 of PoolProcessor / of the pipe",
        "p50 of PoolProcessor, submit / of the pipe",
    ]
    assert [each.bar.limit for each in p50.figures if each.bar] == [2.0, 3.0]
    assert not [each for each in p95.figures if each.bar]


# --- new interpreters ---


@pytest.mark.parametrize("system", catalogue.SYSTEMS, ids=lambda each: each.label)
def test_scripts_are_python_and_about_their_system(system: type[System]) -> None:
    script = scripts.first_result(system.label)
    compile(script, "script", "exec")
    assert system.module.partition(".")[0] in script


@pytest.mark.parametrize("system", ALWAYS, ids=lambda each: each.label)
def test_scripts_give_their_first_result(system: type[System]) -> None:
    assert interpreters.first_result(system.label) > 0


def test_importing_takes_time() -> None:
    assert interpreters.import_seconds("evproc") > 0
    with pytest.raises(BenchmarkError, match="No module named 'no_such_module'"):
        interpreters.import_seconds("no_such_module")


def test_events_of_the_main_script() -> None:
    (row,) = interpreters.measure_main(Settings(repeats=1, min_seconds=0.0001), "main")
    importable, local, share = row.figures
    assert share.values == (local.values[0] / importable.values[0],)
    assert share.bar is not None


def test_memory_is_told_by_process(system: System) -> None:
    found = footprint.after_load(system, 10)
    assert len(found["workers"]) == WORKERS
    assert min(found["coordinator"], *found["workers"]) > 10**6
    grown = footprint.while_streaming(system, 20, 5)
    assert grown["before"] > grown["grown"] >= 0


def test_a_footprint_is_taken_in_an_interpreter_of_its_own() -> None:
    arguments = ["-m", "benchmarks.comparison.footprint", "load", Executor.label, "4"]
    assert '"coordinator"' in interpreters.run_python(arguments)


def test_streams_are_read_bit_by_bit() -> None:
    values: Callable[[], Iterator[Any]]
    with closing(Ours()) as ours:
        values = partial(ours.stream, (Order(number) for number in iter(int, 1)), 1)
        assert list(islice(values(), 3)) == [None] * 3
