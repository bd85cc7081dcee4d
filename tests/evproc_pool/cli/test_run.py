"""`evproc run`, as a whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest

from evproc import Processor
from evproc_pool import Outcome, PoolBrokenError
from evproc_pool.cli import run_loop, start
from evproc_pool.cli.json_output import plain
from evproc_pool.demo.events import from_json
from tests.evproc_pool.cli.conftest import (
    GROUP,
    SECONDS,
    Done,
    Terminal,
    command,
    environment,
    in_terminal,
    piped,
    wait_for_file,
)
from tests.support.sizes import BARS

Run = Callable[..., Done]
DEMO = "evproc_pool.demo.handlers"
DECODE = "evproc_pool.demo.events:from_json"

needs_terminal = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")


def order(total: float) -> str:
    return json.dumps({"name": "order", "total": total}) + "\n"


def records(text: str) -> list[dict[str, Any]]:
    """The JSON lines of a text; other ones are left out."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_the_demo_finds_what_a_processor_finds(tmp_path: Path, evproc: Run) -> None:
    lines = [{"name": "source-file", "path": str(path)} for path in Path(__file__).parent.iterdir()]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    done = evproc(tmp_path, "run", DEMO, "in.jsonl", "--decode", DECODE, "--workers", "2")
    assert (done.code, done.err) == (0, "")
    processor = Processor()
    processor.load_from(DEMO)
    values = [plain(processor.process(from_json(line))) for line in lines]
    assert [record["value"] for record in records(done.out)] == json.loads(json.dumps(values))
    assert [record["line"] for record in records(done.out)] == list(range(1, len(lines) + 1))
    assert values[0]["path"] == lines[0]["path"]  # a named tuple is an object


@pytest.mark.parametrize("flag", ["-o", "--errors"])
def test_a_file_keeps_what_it_has_until_the_handlers_are_known_to_be_right(
    flag: str, shop: Path, evproc: Run
) -> None:
    (shop / "in.jsonl").write_text(order(1))
    (shop / "old.jsonl").write_text("what took hours\n" * 9)
    assert evproc(shop, "run", "shop.typo", "in.jsonl", flag, "old.jsonl").code == 2
    assert (shop / "old.jsonl").read_text() == "what took hours\n" * 9
    evproc(shop, "run", GROUP, "in.jsonl", flag, "old.jsonl")
    assert "hours" not in (shop / "old.jsonl").read_text()


@pytest.mark.parametrize(
    "files",
    [("-o", "in.jsonl"), ("--errors", "./in.jsonl"), ("-o", "x.jsonl", "--errors", "x.jsonl")],
)
def test_files_must_differ(files: tuple[str, ...], shop: Path, evproc: Run) -> None:
    (shop / "in.jsonl").write_text(order(1))
    done = evproc(shop, "run", GROUP, "in.jsonl", *files)
    assert done.code == 2
    assert "must be different files" in done.out + done.err
    assert (shop / "in.jsonl").read_text() == order(1)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_statistics_come_last(workers: str, shop: Path, evproc: Run) -> None:
    (shop / "in.jsonl").write_text(order(500) + order(-1) + order(13))
    done = evproc(shop, "run", GROUP, "in.jsonl", "--workers", workers, "--stats")
    assert done.code == 1
    *_, table = (done.out + done.err).partition("roots ")
    assert table.split()[:6] == ["3", "accepted,", "3", "done,", "1", "failed,"]
    assert "slowest" in table


@pytest.mark.parametrize("workers", ["0", "2"])
def test_outcomes_failures_and_bad_lines(workers: str, shop: Path, evproc: Run) -> None:
    (shop / "in.jsonl").write_text(
        order(500) + "\n" + '{"name": order}\n' + order(-1) + order(13) + '{"name": "other"}'
    )
    done = evproc(shop, "run", GROUP, "in.jsonl", "--workers", workers)
    assert done.code == 1
    first, failed, third, unwanted = records(done.out)
    assert first["seconds"] >= 0
    del first["seconds"]
    assert first == {
        "line": 1,
        "name": "order",
        "value": 1000,
        "events": 1,
        "emitted": ["approved", {"bill": 500}],
    }
    assert failed["line"] == 4
    assert failed["error"]["type"] == "ValueError"
    assert failed["error"]["message"] == "no order of -1"
    assert failed["error"]["handler"] == "check"
    assert "input" not in failed
    assert "traceback" not in failed["error"]
    assert (third["value"], third["emitted"], third["events"]) == (None, [{"bill": 13}, "noted"], 2)
    assert (unwanted["line"], unwanted["value"], unwanted["emitted"]) == (6, None, [])
    said = [line for line in (done.out + done.err).splitlines() if not line.startswith("{")]
    assert said == [
        "line 3: no JSON at column 10: Expecting value",
        "line 4: event 'order' failed in handler 'check': ValueError: no order of -1",
        "4 events, 1 failed, 1 bad line",
    ]


def test_options_that_do_nothing_without_workers_are_named(shop: Path) -> None:
    options = ("--workers", "0", "--event-timeout", "5")
    done = piped(shop, "run", GROUP, *options, given=order(5))
    said = "warning: with --workers 0, --event-timeout has no effect\n"
    assert (done.code, done.err) == (0, said)
    done = piped(shop, "run", GROUP, *options, "--crash-limit", "2", given="")
    assert done.err == said.replace("timeout has", "timeout, --crash-limit have")


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_filter_that_raises_is_named_by_its_handler(workers: str, shop: Path) -> None:
    done = piped(shop, "run", GROUP, "--workers", workers, given='{"name": "order"}\n')
    (failed,) = records(done.out)
    assert (failed["error"]["handler"], failed["error"]["filter"]) == ("approve", "@want 1")
    assert done.err.startswith(
        "line 1: event 'order' failed in the filter of handler 'approve' (@want 1): AttributeError:"
    )


def test_files_for_outcomes_and_for_failures(shop: Path) -> None:
    text = "x\n" + order(-1) + order(5)
    done = piped(shop, "run", GROUP, "-o", "out.jsonl", "--errors", "errors.jsonl", given=text)
    summary = "2 events, 1 failed, 1 bad line; errors.jsonl has the failures\n"
    assert done == (1, "", summary)
    (good,) = records((shop / "out.jsonl").read_text())
    assert (good["line"], good["value"]) == (3, 10)
    bad, failed = records((shop / "errors.jsonl").read_text())
    assert (bad["line"], bad["input"], bad["error"]["type"]) == (1, "x", "BadInput")
    assert (failed["line"], failed["input"] + "\n") == (2, order(-1))


def test_only_the_first_failures_are_told(shop: Path) -> None:
    done = piped(shop, "run", GROUP, "--workers", "1", given=order(-1) * 15)
    assert done.code == 1
    assert len(records(done.out)) == 15
    assert done.err.count("failed in handler") == 10
    assert done.err.count("further failures are not told") == 1
    assert done.err.endswith("15 events, 15 failed\n")


def test_tracebacks_on_request(shop: Path) -> None:
    done = piped(shop, "run", GROUP, "--traceback", given=order(-1) + "{}\n")
    assert 'raise ValueError(f"no order of {ev.total}")' in done.err
    (failed,) = records(done.out)
    assert "in check" in failed["error"]["traceback"]


def test_every_event_of_a_cascade(shop: Path) -> None:
    done = piped(shop, "run", GROUP, "--every-event", given=order(5) + order(13))
    found = [(each["line"], each["path"], each["name"]) for each in records(done.out)]
    assert found == [(1, [1], "order"), (2, [2, 0], "note"), (2, [2], "order")]


def test_a_function_makes_events_and_one_that_fails_is_a_bad_line(shop: Path) -> None:
    given = '{"sum": "7"}\n{"sum": "seven"}\n'
    done = piped(shop, "run", GROUP, "--decode", "shop:from_json", given=given)
    assert done.code == 1
    assert [each["value"] for each in records(done.out)] == [14.0]
    assert done.err.startswith("line 2: shop:from_json raised ValueError: could not convert")


def test_what_handlers_print_is_no_outcome(make_group: Any) -> None:
    folder = make_group("def talk(proc, ev): print('hello', flush=True)", "talk")
    for workers in ("0", "1"):
        done = piped(folder, "run", GROUP, "--workers", workers, given=order(1))
        assert done.code == 0
        assert len(done.out.splitlines()) == len(records(done.out)) == 1
        assert done.err == "hello\n"


def test_nothing_in_is_nothing_out(shop: Path, evproc: Run) -> None:
    (shop / "empty").write_bytes(b"\xef\xbb\xbf")
    assert evproc(shop, "run", GROUP, "empty") == (0, "", "")
    assert evproc(shop, "run", GROUP, os.devnull) == (0, "", "")


WRONG: dict[str, tuple[list[str], int, str]] = {
    "no file": (["nothing.jsonl"], 2, "error: nothing.jsonl: No such file or directory"),
    "no folder": (["-o", "no/x"], 2, "error: no/x: No such file or directory"),
    "workers": (["--workers", "two"], 2, "Invalid value for '--workers': 'two' is not a valid"),
    "too few": (["--workers", "-1"], 2, "error: workers must be at least 0, and is -1"),
    "bytes": (["--max-worker-memory-bytes", "5 cats"], 2, "'5 cats' is no number of bytes"),
    "key": (["--key", "shop"], 2, "error: --key shop: write module:function"),
    "option": (["--wokers", "2"], 2, "No such option"),
    "group": (["--unmatched", "no"], 2, "Invalid value for '--unmatched'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument(case: str, shop: Path, evproc: Run) -> None:
    arguments, code, text = WRONG[case]
    done = evproc(shop, "run", GROUP, *arguments, *([] if case == "no file" else [os.devnull]))
    assert done.code == code
    assert text in done.out + done.err
    assert "Traceback" not in done.out + done.err


def test_a_group_with_a_fault_runs_nothing(make_group: Any, evproc: Run) -> None:
    folder = make_group("@evproc.requires('none')\ndef a(proc, ev): pass\n", "a")
    done = evproc(folder, "run", GROUP, os.devnull)
    assert done.code == 1
    assert "error: handler 'a' requires 'none'" in done.out + done.err
    assert (done.out + done.err).count("\n") == 1


def test_a_pool_that_cannot_start(make_group: Any) -> None:
    folder = make_group("def a(proc, ev): pass\ndef fails(): raise RuntimeError('no licence')", "a")
    arguments = ("--initializer", "module_f:fails", "--workers", "1")
    done = piped(folder, "run", GROUP, *arguments, given=order(1))
    assert (done.code, done.out) == (2, "")
    last = done.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert "no licence" in last


def test_an_error_of_the_pool_loses_no_outcome(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def break_down(*arguments: Any, **_: Any) -> NoReturn:
        _, source, recorder = arguments
        async for event in source:
            recorder.outcome(Outcome(event, 0, value=5, path=(0,)), source)
        raise PoolBrokenError("no worker can be started")

    (shop / "in.jsonl").write_text(order(1))
    monkeypatch.chdir(shop)
    monkeypatch.syspath_prepend(str(shop))
    monkeypatch.setattr(run_loop, "stream_lines", break_down)
    assert start.main(["run", GROUP, "in.jsonl", "-o", "out.jsonl", "--workers", "0"]) == 2
    assert capfd.readouterr().err == "error: no worker can be started\n"
    assert [each["value"] for each in records((shop / "out.jsonl").read_text())] == [5]
    sys.modules.pop("shop")


@pytest.mark.skipif(sys.platform == "win32", reason="no shell of that kind there")
def test_standard_input_that_is_closed(shop: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" <&-', "sh", *command("run", GROUP)],
        cwd=shop,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, "error: standard input is closed\n")


# --- pyproject.toml ---


def test_options_from_the_project_file_and_a_flag_against_it(shop: Path) -> None:
    (shop / "pyproject.toml").write_text(
        '[tool.evproc]\nworkers = 0\ndecode = "shop:from_json"\nmax_cascade_depth = 3\n'
        'retry-exceptions = ["OSError"]\npreload = false\n'
    )
    done = piped(shop, "run", GROUP, given='{"sum": "7"}\n')
    assert (done.code, done.err) == (0, "")
    assert records(done.out)[0]["value"] == 14.0
    done = piped(shop, "run", GROUP, "--decode", "shop:nothing", given="")
    assert "--decode shop:nothing" in done.err


PROJECTS = {
    "[tool.evproc]\nworkerz = 2\n": "[tool.evproc]: unknown key 'workerz'; there is 'workers'",
    "[tool.evproc]\nworkers = 'two'\n": "'two' is not a valid integer. (in pyproject.toml)",
    "[tool.evproc]\nworkers = {}\n": "[tool.evproc]: workers is {}, and must be a text or a number",
    "[tool]\nevproc = 5\n": "[tool.evproc] is 5, and must be a table",
    "[tool.evproc\n": "error: pyproject.toml: ",
}


@pytest.mark.parametrize("text", PROJECTS)
def test_a_wrong_project_file(text: str, shop: Path) -> None:
    (shop / "pyproject.toml").write_text(text)
    done = piped(shop, "run", GROUP)
    assert done.code == 2
    assert PROJECTS[text] in done.err
    assert "Traceback" not in done.err


# --- streams ---


@pytest.fixture
def started(shop: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start `evproc run` with pipes that stay open."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            command("run", GROUP, *arguments),
            **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, **options},
            cwd=shop,
            env=environment(),
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.mark.parametrize("workers", ["0", "1"])
def test_an_outcome_does_not_wait_for_the_next_line(started: Any, workers: str) -> None:
    process = started("--workers", workers)
    for total in (5, 6, 7):
        process.stdin.write(order(total).encode())
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["value"] == 2 * total
    process.stdin.close()
    assert process.wait(SECONDS) == 0


def test_a_reader_that_has_seen_enough_ends_an_endless_run_quietly(started: Any) -> None:
    endless = subprocess.Popen(
        [sys.executable, "-c", f"while True: print({order(5)!r}, end='')"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    process = started("--workers", "1", stdin=endless.stdout, stderr=subprocess.PIPE)
    assert endless.stdout is not None
    endless.stdout.close()
    try:
        assert json.loads(process.stdout.readline())["value"] == 10
        process.stdout.close()
        assert process.wait(SECONDS) == 0
        assert process.stderr.read() == b""
    finally:
        endless.kill()
        endless.wait()


def test_memory_stays_flat(started: Any) -> None:
    lines, first, later = (1_000_000, 50_000, 990_000) if BARS else (60_000, 20_000, 55_000)
    feed = subprocess.Popen(
        [sys.executable, "-c", f"for i in range({lines}): print({order(5)!r}, end='')"],
        stdout=subprocess.PIPE,
    )
    process = started("--workers", "1", stdin=feed.stdout)
    assert feed.stdout is not None
    feed.stdout.close()
    memory = {}
    for number, _ in enumerate(process.stdout, 1):
        if number in (first, later):
            memory[number] = psutil.Process(process.pid).memory_info().rss
    assert process.wait(SECONDS) == 0
    assert feed.wait(SECONDS) == 0
    assert number == lines
    assert memory[later] - memory[first] < 20_000_000


# --- the end ---

SLOW = """
import pathlib, time

@evproc.want("wait")
def wait(proc, ev):
    pathlib.Path(f"begun-{ev.number}").touch()
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
    raise evproc.StopProcessing(ev.number)

@evproc.want("quick")
def quick(proc, ev):
    pathlib.Path("quick").touch()
"""


@pytest.fixture
def slow(make_group: Any) -> Path:
    folder: Path = make_group(SLOW, "wait", "quick")
    return folder


def waits(count: int) -> bytes:
    return b"".join(b'{"name": "wait", "number": %d}\n' % number for number in range(count))


@pytest.mark.parametrize("arguments", [(), ("--as-they-finish",)])
def test_outcomes_come_in_the_order_of_the_lines_or_as_they_finish(
    arguments: tuple[str, ...], slow: Path, started: Any
) -> None:
    process = started("--workers", "2", *arguments)
    process.stdin.write(waits(1))
    process.stdin.flush()
    wait_for_file(slow / "begun-0")
    process.stdin.write(b'{"name": "quick"}\n')
    process.stdin.close()
    if arguments:
        assert json.loads(process.stdout.readline())["line"] == 2
    else:
        wait_for_file(slow / "quick")
    (slow / "go").touch()
    rest = [json.loads(line)["line"] for line in process.stdout]
    assert rest == ([1] if arguments else [1, 2])
    assert process.wait(SECONDS) == 0


@needs_terminal
@pytest.mark.parametrize("workers", ["0", "2"])
def test_ctrl_c_finishes_what_has_begun(workers: str, slow: Path) -> None:
    reading, writing = os.pipe()
    try:
        with Terminal(slow, "run", GROUP, "--workers", workers, stdin=reading) as terminal:
            os.write(writing, waits(1))
            wait_for_file(slow / "begun-0")
            terminal.type(b"\x03")
            terminal.wait_for("finishing what has begun; Ctrl-C again stops it")
            (slow / "go").touch()
            done = terminal.finish()
    finally:
        os.close(reading)
        os.close(writing)
    assert done.code == 130
    assert done.out.endswith("interrupted after line 1: 1 event, 0 failed\n")
    assert [record["value"] for record in records(done.out)] == [0]
    assert "Traceback" not in done.out


@needs_terminal
@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_second_ctrl_c_stops(workers: str, slow: Path) -> None:
    (slow / "in.jsonl").write_bytes(waits(1))
    with Terminal(slow, "run", GROUP, "in.jsonl", "--workers", workers) as terminal:
        wait_for_file(slow / "begun-0")
        children = psutil.Process(terminal.process.pid).children(recursive=True)
        terminal.type(b"\x03")
        terminal.wait_for("Ctrl-C again stops it")
        terminal.type(b"\x03")
        done = terminal.finish()
    assert done.code == 130
    assert done.out.endswith("interrupted\n")
    assert records(done.out) == []
    assert "Traceback" not in done.out
    _, alive = psutil.wait_procs(children, timeout=SECONDS)
    assert alive == []


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM there")
def test_sigterm_finishes_what_has_begun(slow: Path, started: Any) -> None:
    process = started("--workers", "1", stderr=subprocess.PIPE)
    process.stdin.write(waits(1))
    process.stdin.flush()
    wait_for_file(slow / "begun-0")
    process.send_signal(signal.SIGTERM)
    told = process.stderr.readline()
    assert told == b"finishing what has begun; the same signal again stops it\n"
    (slow / "go").touch()
    out, said = process.communicate(timeout=SECONDS)
    assert said == b"interrupted after line 1: 1 event, 0 failed\n"
    assert process.returncode == 128 + signal.SIGTERM
    assert json.loads(out)["value"] == 0


@needs_terminal
def test_a_terminal_says_what_it_waits_for(shop: Path) -> None:
    with Terminal(shop, "run", GROUP, "--workers", "0") as terminal:
        terminal.wait_for("reading events from the terminal, one JSON object a line; Ctrl-D ends")
        terminal.type(order(5).encode())
        terminal.wait_for('"value": 10')
        terminal.type(b"\x04")
        assert terminal.finish().code == 0


@needs_terminal
def test_a_file_in_a_terminal(shop: Path) -> None:
    (shop / "in.jsonl").write_text(order(5) * 3)
    done = in_terminal(shop, "run", GROUP, "in.jsonl", "--workers", "1")
    assert (done.code, len(records(done.out))) == (0, 3)


PLAIN_LOOP = """
import json, sys
for number, line in enumerate(sys.stdin.buffer, 1):
    name = json.loads(line)["name"]
    outcome = {"line": number, "name": name, "value": None, "emitted": [], "events": 1}
    sys.stdout.write(json.dumps({**outcome, "seconds": 0.000001}) + "\\n")
"""


@pytest.mark.skipif(not BARS, reason="compares CPU times, for a minute")
@pytest.mark.skipif(not hasattr(os, "wait4"), reason="the system does not tell CPU times")
def test_it_handles_half_the_lines_of_a_plain_loop_in_the_same_cpu_time(make_group: Any) -> None:
    folder = make_group("@evproc.want('order')\ndef nothing(proc, ev): pass", "nothing")
    line = '{"name": "order", "number": 17, "customer": "c-17", "total": 17.5}\n'
    (folder / "in.jsonl").write_text(line * 200_000)

    def cpu_seconds(*words: str) -> float:
        with (folder / "in.jsonl").open() as given:
            process = subprocess.Popen(
                words, stdin=given, stdout=subprocess.DEVNULL, cwd=folder, env=environment()
            )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        return usage.ru_utime + usage.ru_stime

    plain_loop, run = [], []
    for _ in range(3):  # alternating
        plain_loop.append(cpu_seconds(sys.executable, "-c", PLAIN_LOOP))
        run.append(cpu_seconds(*command("run", GROUP, "--workers", "2")))
    assert min(run) < 2 * min(plain_loop)
