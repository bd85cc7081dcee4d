"""The recipes of README.md do what is said below them."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.helpers import PATIENCE_SECONDS, ROOT, Script
from tests.test_readme import README, furnished

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")


def recipe(heading: str) -> str:
    """The code below a heading."""
    found = re.search(rf"^### {heading}\n[\s\S]*?^```python\n([\s\S]*?)^```$", README, re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return furnished(tmp_path)


def run(code: str, folder: Path) -> None:
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env={"PATH": "", "PYTHONPATH": str(ROOT)},
        timeout=150,
        check=True,
    )


def test_recipes_are_short() -> None:
    _, _, text = README.partition("\n## Recipes\n")
    text, _, _ = text.partition("\n## ")
    for section in text.split("\n### ")[1:]:
        code = "".join(re.findall(r"^```python\n([\s\S]*?)^```$", section, re.MULTILINE))
        lines = [
            line
            for line in code.splitlines()
            if line.strip() and not re.match(r"#|import |from ", line)
        ]
        assert len(lines) <= 15, section


def test_the_file_of_progress_has_the_counts_of_the_end(folder: Path) -> None:
    run(recipe("Show progress elsewhere"), folder)
    counts = json.loads((folder / "progress.json").read_text("utf-8"))
    assert (counts["roots_done"], counts["roots_total"], counts["failed"]) == (1000, 1000, 1)
    assert counts["is_over"]


def test_a_line_of_the_log_names_worker_handler_event_and_its_field(folder: Path) -> None:
    run(recipe("Log to a file"), folder)
    text = (folder / "shop.log").read_text("utf-8")
    form = r" \d+ pay 'order' \(.*Order\((\d)\)\) order=(\d) paid$"
    assert sorted(re.findall(form, text, re.MULTILINE)) == [(each, each) for each in "012"]
    assert text.count("\n") == 3


def test_a_record_from_elsewhere_is_no_error_in_that_log(folder: Path) -> None:
    run(f"{recipe('Log to a file')}\nlogging.getLogger('other').info('mine')", folder)
    *_, last = (folder / "shop.log").read_text("utf-8").splitlines()
    assert last.endswith(" - - order=- mine")


# --- FastAPI ---


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run the web application for real; give its address."""
    command = [sys.executable, "-m", "uvicorn", "web:app", "--port", "0"]
    with subprocess.Popen(
        command,
        cwd=folder,
        env={"PATH": "", "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            address = None
            while address is None:
                line = process.stderr.readline()
                assert line, "the server does not start"
                address = re.search(r"running on (http://\S+)", line)
            yield address[1], process
        finally:
            process.kill()


def post(address: str) -> tuple[int, object]:
    request = urllib.request.Request(address, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            text = error.read().decode()
            return error.code, json.loads(text)["detail"] if text.startswith("{") else text


def has_fastapi() -> None:
    for name in ("fastapi", "uvicorn"):
        pytest.importorskip(name, reason="has no wheels for this Python", exc_type=ImportError)


@POSIX
def test_the_web_application_answers_and_ends(folder: Path) -> None:
    has_fastapi()
    web = folder / "web.py"
    # a busy machine may need long to start a worker
    web.write_text(web.read_text("utf-8").replace("timeout=10", "timeout=1000"), "utf-8")
    with served(folder) as (address, process):
        assert post(f"{address}/orders/4") == (200, 40)
        assert post(f"{address}/orders/13") == (422, "order 13 cannot be paid")
        assert post(f"{address}/orders/5") == (200, 50)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=PATIENCE_SECONDS)
    assert "Application shutdown complete" in log
    assert "Traceback" not in log


@POSIX
def test_a_late_answer_is_status_504_and_a_lost_worker_500(folder: Path) -> None:
    has_fastapi()
    shop, web = folder / "shop.py", folder / "web.py"
    mishaps = """
    if ev.number == 1:
        import time; time.sleep(3600)
    if ev.number == 2:
        import os; os._exit(3)
"""
    begin = "def pay(proc, ev):\n"
    shop.write_text(shop.read_text("utf-8").replace(begin, f"{begin}{mishaps}"), "utf-8")
    web.write_text(
        web.read_text("utf-8").replace("timeout=10", "timeout=ev_timeout(number)"), "utf-8"
    )
    with web.open("a", encoding="utf-8") as file:
        file.write("\n\ndef ev_timeout(number):\n    return 0.1 if number == 1 else 100\n")
    with served(folder) as (address, _):
        assert post(f"{address}/orders/1") == (504, "this takes too long")
        assert post(f"{address}/orders/2") == (500, "Internal Server Error")
        assert post(f"{address}/orders/5") == (200, 50)


# --- resuming ---


def numbers_done(folder: Path) -> list[int]:
    with closing(sqlite3.connect(folder / "done.db")) as done:
        return [number for (number,) in done.execute("select number from done order by number")]


def test_a_second_run_does_what_is_missing_and_what_has_failed(folder: Path) -> None:
    code = recipe("Resume a run that was interrupted")
    run(code, folder)
    all_but_one = [number for number in range(20) if number != 13]
    assert numbers_done(folder) == all_but_one
    with closing(sqlite3.connect(folder / "done.db", isolation_level=None)) as done:
        done.execute("delete from done where number >= 10")
    # tells which it runs
    run(f"{code}\nassert [order.number for order in orders] == [*range(10, 20)]", folder)
    assert numbers_done(folder) == all_but_one
    shop = folder / "shop.py"
    # of another size: Python compiles it anew
    shop.write_text(shop.read_text("utf-8").replace("== 13", "== -100"), "utf-8")
    run(code, folder)
    assert numbers_done(folder) == [*range(20)]


@POSIX
def test_what_was_done_before_a_kill_is_in_the_file(folder: Path) -> None:
    kill = "import os, signal; len(numbers) or os.kill(os.getpid(), signal.SIGKILL)"
    code = recipe("Resume a run that was interrupted")
    with Script(code.replace("done.close()", f"            {kill}"), folder) as script:
        finished = script.finish()
    assert (finished.code, finished.left) == (-signal.SIGKILL, [])
    assert len(numbers_done(folder)) == 1
    run(code, folder)
    assert numbers_done(folder) == [number for number in range(20) if number != 13]


# --- signals ---


@POSIX
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_finishes_what_was_read(folder: Path, number: signal.Signals) -> None:
    code = recipe("Ctrl-C and SIGTERM").replace(
        "signal.raise_signal(signal.SIGTERM)", "print('ready', flush=True)"
    )
    code += "        assert outcome.error is None\nprint('end')\n"
    with Script(code, folder) as script:
        script.wait_until((folder / "out.txt").read_text, "it streams")
        os.killpg(script.process.pid, number)  # as a terminal and service managers do
        finished = script.finish()
    assert (finished.code, finished.err, finished.left) == (0, "", [])
    assert finished.out.split() == ["ready", "end"]


@POSIX
def test_the_second_signal_ends_it(folder: Path) -> None:
    raised = "signal.raise_signal(signal.SIGTERM)"
    code = recipe("Ctrl-C and SIGTERM").replace(raised, f"{raised}; {raised}")
    with Script(code, folder) as script:
        finished = script.finish()
    assert (finished.code, finished.left) == (-signal.SIGINT, [])
    assert finished.err.strip().splitlines()[-1] == "KeyboardInterrupt"
