"""`evproc run --executor`: on executors of `concurrent.futures`, on a Dask and on a Ray cluster."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from evproc_pool.backends import choice
from evproc_pool.cli.pool_flags import as_typed, executor
from tests.evproc_pool.cli.conftest import (
    GROUP,
    SECONDS,
    Done,
    Terminal,
    command,
    environment,
    piped,
    unpack,
    wait_for_file,
)

needs_terminal = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")

HANDLERS = """
import concurrent.futures, multiprocessing, pathlib, time
import evproc

@evproc.want("double")
def double(proc, ev):
    ev.emit(ev.number)
    raise evproc.StopProcessing(2 * ev.number)

@evproc.want("wait")
def wait(proc, ev):
    folder = pathlib.Path(ev.folder)
    (folder / f"begun-{ev.number}").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
    raise evproc.StopProcessing(ev.number)

@evproc.want("fail")
def fail(proc, ev):
    raise ValueError(ev.number)

def two_processes():
    return concurrent.futures.ProcessPoolExecutor(2)

def two_spawned():
    context = multiprocessing.get_context("spawn")
    return concurrent.futures.ProcessPoolExecutor(2, context)

threads = concurrent.futures.ThreadPoolExecutor(2)
number = 5
"""

PROCESSES = ("--executor", "busy:two_processes")
SPAWNED = ("--executor", "busy:two_spawned")
THREADS = ("--executor", "busy:threads")


def make_modules(folder: Path) -> Path:
    """Make a folder with handlers."""
    unpack(folder, {"busy": HANDLERS}, {n: f"busy:{n}" for n in ("double", "wait", "fail")}, "busy")
    return folder


@pytest.fixture
def busy(tmp_path: Path) -> Path:
    return make_modules(tmp_path)


def doubles(count: int) -> str:
    return "".join(f'{{"name": "double", "number": {number}}}\n' for number in range(count))


def waits(folder: Path, count: int = 1) -> bytes:
    lines = [{"name": "wait", "number": each, "folder": str(folder)} for each in range(count)]
    return b"".join(json.dumps(each).encode() + b"\n" for each in lines)


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def check_run(folder: Path, work: Path, *arguments: str) -> None:
    """Run events with two that fail, and with every output that there is."""
    (work / "in.jsonl").write_text(doubles(300) + '{"name": "fail", "number": 7}\nno json\n')
    flags = ("-o", str(work / "out"), "--errors", str(work / "bad"), "--stats", "--progress")
    done = piped(folder, "run", GROUP, str(work / "in.jsonl"), *flags, *arguments)
    assert done.code == 1, done.err
    found = records((work / "out").read_text())
    assert [each["line"] for each in found] == list(range(1, 301))
    assert [each["value"] for each in found] == [2 * number for number in range(300)]
    assert [each["emitted"] for each in found] == [[number] for number in range(300)]
    failed = {each["line"]: each["error"] for each in records((work / "bad").read_text())}
    assert failed[301]["handler"] == "fail"
    assert failed[302]["type"] == "BadInput"
    assert "301 events, 1 failed, 1 bad line" in done.err
    _, _, table = done.err.partition("roots ")
    assert table.split()[:6] == ["301", "accepted,", "301", "done,", "1", "failed,"]
    assert "301 of 301 events" in done.err  # the last line of the progress


def check_interrupt(folder: Path, work: Path, *arguments: str, again: bool = False) -> Done:
    """Type Ctrl-C while a handler runs; then let it end, or type it again."""
    reading, writing = os.pipe()
    try:
        with Terminal(folder, "run", GROUP, *arguments, stdin=reading) as terminal:
            # both processes of an executor have begun by then
            os.write(writing, waits(work, 2))
            wait_for_file(work / "begun-0")
            wait_for_file(work / "begun-1")
            children = psutil.Process(terminal.process.pid).children(recursive=True)
            terminal.type(b"\x03")
            terminal.wait_for("finishing what has begun; Ctrl-C again stops it")
            if again:
                terminal.type(b"\x03")
            else:
                (work / "go").touch()
            done = terminal.finish()
    finally:
        os.close(reading)
        os.close(writing)
    assert done.code == 130
    _, alive = psutil.wait_procs(children, timeout=SECONDS)
    assert alive == []
    assert "Traceback" not in done.out
    assert done.out.count("Ctrl-C again stops it") == 1  # forked processes say nothing
    return done


@pytest.mark.parametrize("arguments", [PROCESSES, THREADS])
def test_an_executor_gives_the_same_outcomes(arguments: tuple[str, ...], busy: Path) -> None:
    check_run(busy, busy, *arguments)


@needs_terminal
@pytest.mark.parametrize("arguments", [PROCESSES, SPAWNED, THREADS])
def test_ctrl_c_finishes_what_has_begun_on_an_executor(
    arguments: tuple[str, ...], busy: Path
) -> None:
    done = check_interrupt(busy, busy, *arguments)
    assert done.out.endswith("interrupted after line 2: 2 events, 0 failed\n")
    assert [each["value"] for each in records(done.out)] == [0, 1]


@needs_terminal
@pytest.mark.parametrize("arguments", [PROCESSES, SPAWNED])
def test_a_second_ctrl_c_stops_on_an_executor(arguments: tuple[str, ...], busy: Path) -> None:
    done = check_interrupt(busy, busy, *arguments, again=True)
    assert done.out.endswith("interrupted\n")


def test_the_project_file_may_name_an_executor(busy: Path) -> None:
    (busy / "pyproject.toml").write_text('[tool.evproc]\nexecutor = "busy:threads"\n')
    done = piped(busy, "run", GROUP, given=doubles(3))
    assert [each["value"] for each in records(done.out)] == [0, 2, 4]
    # which is no default of a command that has nothing to do with it
    assert piped(busy, "bench", GROUP, "--seconds", "0.01", given=doubles(3)).code == 0


NO_EXECUTOR = "executor is a concurrent.futures.Executor, a callable without arguments that makes"

WRONG: dict[str, tuple[list[str], str]] = {
    "workers": (
        [*PROCESSES, "--workers", "0"],
        "--workers 0 runs handlers in this process, and --executor elsewhere",
    ),
    "option": (
        [*PROCESSES, "--native-threads", "1"],
        "--native-threads cannot be kept with --executor busy:two_processes: it starts its own",
    ),
    "text": (["--executor", "localhost:8786"], NO_EXECUTOR),
    "no executor": (["--executor", "busy:number"], f"{NO_EXECUTOR} one, a Client of Dask"),
    "no module": (
        ["--executor", "bussy:threads"],
        "--executor bussy:threads: bussy cannot be imported: ModuleNotFoundError",
    ),
    "no attribute": (["--executor", "busy:none"], "--executor busy:none: module 'busy' has no"),
    "what is made": (["--executor", "busy:double.__name__.upper"], "made 'DOUBLE', which is no"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_executor_is_told_in_a_sentence(case: str, busy: Path) -> None:
    arguments, text = WRONG[case]
    done = piped(busy, "run", GROUP, *arguments, given=doubles(1))
    assert (done.code, done.out) == (2, "")
    assert text in done.err
    assert done.err.count("\n") == 1


def test_bench_refuses_an_executor(busy: Path) -> None:
    done = piped(busy, "bench", GROUP, *PROCESSES, given=doubles(1))
    assert done.code == 2
    assert "bench measures processes of this machine; --executor is for evproc run" in done.err


def test_a_text_that_names_no_attribute_is_left_to_the_pool() -> None:
    for text in (
        "ray",
        "ray:auto",
        "ray://head:10001",
        "tcp://a:1",
        "tls://[::1]:8786",
        "10.0.0.1:6379",
        ":x",
    ):
        assert executor(text, "--executor") == text
    for engine in choice.ENGINES:
        for address in engine.addresses:
            assert executor(f"{address}word", "--executor") == f"{address}word"
    assert executor("os.path:join", "--executor") is os.path.join


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError) as caught:
        choice.choose("tcp://a:1")
    given = {"executor": "tcp://a:1"}
    assert as_typed(str(caught.value), given, given) == (
        "--executor tcp://a:1 needs distributed, which is not installed:"
        " pip install 'evproc-pool[dask]'"
    )


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_modules(tmp_path_factory.mktemp("modules"))


@pytest.fixture(scope="module")
def on_dask(modules: Path) -> Iterator[tuple[str, str]]:
    pytest.importorskip("distributed", reason="needs the extra [dask]")
    from tests.support.dask_cluster import dask_cluster

    with dask_cluster(modules=str(modules)) as cluster:
        cluster.disconnect()
        yield "--executor", cluster.address


@pytest.mark.cluster
class TestOnDask:
    """Two workers of one thread each, which import the same handlers."""

    def test_a_cluster_gives_the_same_outcomes(
        self, on_dask: tuple[str, str], modules: Path, tmp_path: Path
    ) -> None:
        check_run(modules, tmp_path, *on_dask)

    @needs_terminal
    def test_ctrl_c_finishes_what_has_begun_on_a_cluster(
        self, on_dask: tuple[str, str], modules: Path, tmp_path: Path
    ) -> None:
        done = check_interrupt(modules, tmp_path, *on_dask)
        assert done.out.endswith("interrupted after line 2: 2 events, 0 failed\n")
        assert [each["value"] for each in records(done.out)] == [0, 1]

    @needs_terminal
    def test_a_second_ctrl_c_stops_on_a_cluster(
        self, on_dask: tuple[str, str], modules: Path, tmp_path: Path
    ) -> None:
        done = check_interrupt(modules, tmp_path, *on_dask, again=True)
        assert done.out.endswith("interrupted\n")

    def test_memory_stays_flat_on_a_cluster(self, on_dask: tuple[str, str], modules: Path) -> None:
        lines, first, later = 40_000, 15_000, 38_000
        line = doubles(1).strip()
        feed = subprocess.Popen(
            [sys.executable, "-c", f"for _ in range({lines}): print({line!r})"],
            stdout=subprocess.PIPE,
        )
        process = subprocess.Popen(
            command("run", GROUP, *on_dask),
            stdin=feed.stdout,
            stdout=subprocess.PIPE,
            cwd=modules,
            env=environment(),
        )
        assert feed.stdout is not None
        assert process.stdout is not None
        memory = {}
        with feed.stdout, process.stdout:
            for number, _ in enumerate(process.stdout, 1):
                if number in {first, later}:
                    memory[number] = psutil.Process(process.pid).memory_info().rss
        assert (process.wait(SECONDS), feed.wait(SECONDS)) == (0, 0)
        assert number == lines
        assert memory[later] - memory[first] < 20_000_000

    def test_an_address_without_a_port_is_told_to_be_none(
        self, on_dask: tuple[str, str], modules: Path
    ) -> None:
        done = piped(modules, "run", GROUP, "--executor", "tcp://127.0.0.1", given=doubles(1))
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert "error: no scheduler of Dask can be at tcp://127.0.0.1: missing port" in done.err

    def test_an_address_where_no_scheduler_is_is_told(
        self, on_dask: tuple[str, str], modules: Path
    ) -> None:
        done = piped(
            modules,
            *("run", GROUP, "--executor", "tcp://127.0.0.1:1"),
            given=doubles(1),
            DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT="1s",
        )
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert "error: no scheduler of Dask answers at tcp://127.0.0.1:1: start one" in done.err


@pytest.fixture(scope="module")
def on_ray() -> Iterator[tuple[str, str]]:
    pytest.importorskip("ray", reason="needs the extra [ray]")
    from tests.support.ray_cluster import ENVIRONMENT, ray_cluster

    with pytest.MonkeyPatch.context() as patch:
        for name in ("RAY_AUTH_MODE", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
            patch.setenv(name, ENVIRONMENT[name])
        with ray_cluster() as cluster:
            cluster.disconnect()
            yield "--executor", f"ray:{cluster.address}"


@pytest.mark.cluster
class TestOnRay:
    """Two nodes of a CPU each. Ray adds the folder of the command to what they import from."""

    def test_a_cluster_gives_the_same_outcomes(
        self, on_ray: tuple[str, str], modules: Path, tmp_path: Path
    ) -> None:
        check_run(modules, tmp_path, *on_ray)

    @needs_terminal
    @pytest.mark.parametrize("again", [False, True])
    def test_ctrl_c_on_a_cluster(
        self, on_ray: tuple[str, str], modules: Path, tmp_path: Path, again: bool
    ) -> None:
        done = check_interrupt(modules, tmp_path, *on_ray, again=again)
        if again:
            assert done.out.endswith("interrupted\n")
            return
        assert done.out.endswith("interrupted after line 2: 2 events, 0 failed\n")
        assert [each["value"] for each in records(done.out)] == [0, 1]

    def test_a_cluster_that_is_not_there_is_told(self, modules: Path) -> None:
        pytest.importorskip("ray", reason="needs the extra [ray]")
        for address in ("127.0.0.1:1", "localhost:1", "127.0.0.1:65536"):
            done = piped(modules, "run", GROUP, "--executor", f"ray:{address}", given=doubles(1))
            assert (done.code, done.err.count("\n")) == (2, 1)
            assert f"error: no Ray cluster answers at {address}: start one" in done.err
