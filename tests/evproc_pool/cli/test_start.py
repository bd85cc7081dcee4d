"""The entry point: help, completion, extras, and what ends a command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from evproc import EntryPointGroupException, EntryPointLoadException, EventException
from evproc_pool import PoolBrokenError
from evproc_pool.cli import start
from evproc_pool.cli.problems import CommandError
from tests.evproc_pool.cli.conftest import GROUP, ROOT, SECONDS, Done, command, environment, piped

Run = Callable[..., Done]
COMMANDS = ("handlers", "explain", "graph", "run", "bench", "completion")


def test_the_help_names_every_command_with_an_example(tmp_path: Path, evproc: Run) -> None:
    done = evproc(tmp_path, "--help")
    assert (done.code, done.err) == (0, "")
    for name in COMMANDS:
        assert f"\n  {name}" in done.out
    assert "tail -f orders.jsonl | evproc run app.handlers --workers 4" in done.out
    assert "130  Ctrl-C" in done.out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_each_command_has_an_example(name: str, tmp_path: Path) -> None:
    done = piped(tmp_path, name, "--help")
    assert (done.code, done.err) == (0, "")
    assert f"evproc {name} " in done.out.partition("  Example")[2]
    assert max(map(len, done.out.splitlines())) <= 100


def test_the_version(tmp_path: Path) -> None:
    assert piped(tmp_path, "--version").out.startswith("evproc, version ")


def test_a_command_that_does_not_exist(tmp_path: Path, evproc: Run) -> None:
    done = evproc(tmp_path, "handler", GROUP)
    assert done.code == 2
    assert "No such command 'handler'" in done.out + done.err


def test_the_console_script_and_the_extras() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["scripts"] == {"evproc": "evproc_pool.cli.start:main"}
    extras = project["optional-dependencies"]
    assert {name: [each.split(">")[0] for each in extras[name]] for name in ("cli", "graph")} == {
        "cli": ["click", "rich"],
        "graph": ["pygraphviz"],
    }


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_one_sentence_names_it(missing: str, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from evproc_pool.cli.start import main; sys.exit(main(['handlers', 'x']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    text = (
        f"error: the command evproc needs {missing}, which is not installed:"
        " pip install 'evproc-pool[cli]'\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", text)


def test_help_is_whole_in_80_columns_and_explains_its_words(tmp_path: Path) -> None:
    done = piped(tmp_path, "--help", COLUMNS="80")
    assert done.out.count("...") == 1  # of the usage
    done = piped(tmp_path, "run", "--help", COLUMNS="80")
    text = " ".join(done.out.split())
    assert "this process. [default: number of CPUs]" in text
    for word in ("A follow-up is", "are a cascade.", "Emitted is"):
        assert word in text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_of_each_shell(shell: str, shop: Path) -> None:
    done = piped(shop, "completion", shell)
    assert (done.code, done.err) == (0, "")
    assert "_EVPROC_COMPLETE" in done.out
    found = shutil.which(shell)
    if found is not None:
        subprocess.run([found, "-n"], input=done.out, text=True, check=True, timeout=SECONDS)

    def completed(words: str, place: int, word: str) -> str:
        # what the script asks for
        place_or_word = word if shell == "fish" else str(place)
        changes = {"COMP_WORDS": words, "COMP_CWORD": place_or_word}
        return piped(shop, _EVPROC_COMPLETE=f"{shell}_complete", **changes).out

    assert "handlers" in completed("evproc ha", 1, "ha")
    assert GROUP in completed("evproc handlers shop.", 2, "shop.")
    assert "--max-retries" in completed("evproc run x --max-r", 3, "--max-r")


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_bash_completes_a_group(shop: Path) -> None:
    program = shop / "bin" / "evproc"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {" ".join(command())} "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(evproc completion bash)"; COMP_WORDS=(evproc handlers shop.); COMP_CWORD=2;'
        ' _evproc_completion evproc; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=shop,
        env=environment(PATH=f"{program.parent}{os.pathsep}{os.environ['PATH']}"),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.stdout == f"{GROUP}\n"


@pytest.mark.parametrize("name", ["handlers", "graph"])
def test_a_reader_that_has_seen_enough(name: str, shop: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            command(name, GROUP),
            cwd=shop,
            env=environment(PYTHONUNBUFFERED="1" if name == "graph" else ""),
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=SECONDS,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


# --- what ends a command ---


def raising(error: BaseException) -> Callable[[], NoReturn]:
    def raise_it() -> NoReturn:
        raise error

    return raise_it


ENDS: list[tuple[BaseException, int, str]] = [
    (CommandError("no"), 2, "error: no\n"),
    (CommandError("found", 1), 1, "error: found\n"),
    (EntryPointGroupException("no group"), 2, "error: no group\n"),
    (EntryPointLoadException("broken\nplug-in"), 1, "error: broken\\nplug-in\n"),
    (EventException("cycle"), 1, "error: cycle\n"),
    (PoolBrokenError("no worker"), 2, "error: no worker\n"),
    (FileNotFoundError(2, "No such file", "a.txt"), 2, "error: a.txt: No such file\n"),
    (OSError(28, "No space left"), 2, "error: No space left\n"),
    (KeyError("x"), 2, "error: KeyError: 'x' (--traceback shows where)\n"),
    (KeyboardInterrupt(), 130, "interrupted\n"),
]


@pytest.mark.parametrize(("error", "status", "text"), ENDS)
def test_an_error_is_one_sentence(
    error: BaseException, status: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start.guarded(raising(error), show_traceback=False) == status
    assert capsys.readouterr() == ("", text)


def test_a_traceback_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert start.guarded(raising(KeyError("x")), show_traceback=True) == 2
    text = capsys.readouterr().err
    assert text.startswith("Traceback")
    assert "in raise_it" in text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
def test_a_full_disk(shop: Path) -> None:
    (shop / "in.jsonl").write_text('{"name": "order", "total": 5}\n')
    for arguments in (("handlers", GROUP), ("run", GROUP, "in.jsonl", "--workers", "0")):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                command(*arguments),
                cwd=shop,
                env=environment(),
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        assert done.returncode == 2
        assert done.stderr == "error: standard output: No space left on device\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
@pytest.mark.parametrize("option", ["--output", "--errors"])
def test_a_full_disk_below_a_file(option: str, shop: Path) -> None:
    total = -5 if option == "--errors" else 5
    done = piped(
        shop,
        "run",
        GROUP,
        option,
        "/dev/full",
        "--workers",
        "0",
        given=f'{{"name": "order", "total": {total}}}',
    )
    assert (done.code, done.err) == (2, "error: /dev/full: No space left on device\n")
    done = piped(shop, "graph", GROUP, "-o", "/dev/full", "--format", "mmd")
    assert (done.code, done.err) == (2, "error: /dev/full: No space left on device\n")


def test_the_application_in_the_working_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(tmp_path)])
    assert start.main(["--version"]) == 0
    assert sys.path[0] == str(tmp_path)
    assert capsys.readouterr().out.startswith("evproc, ")


def test_an_argument_that_is_missing(capsys: pytest.CaptureFixture[Any]) -> None:
    assert start.main(["handlers"]) == 2
    assert "Missing argument 'GROUP'" in capsys.readouterr().err


def test_swapped_arguments(shop: Path) -> None:
    (shop / "in.jsonl").write_text("{}")
    for name in ("run", "bench", "explain"):
        done = piped(shop, name, "in.jsonl", GROUP)
        assert done.code == 2
        hint = f"GROUP comes first, as in evproc {name} app.handlers in.jsonl"
        assert hint in " ".join(done.err.split())
    # a group may have the name of a file
    (shop / GROUP).write_text("")
    assert piped(shop, "handlers", GROUP).code == 0


def test_the_console_script_finds_handlers_in_the_working_folder(shop: Path) -> None:
    script = shop / "bin" / "evproc"
    script.parent.mkdir()
    # what an installer writes
    script.write_text(
        "import sys\nfrom evproc_pool.cli.start import main\n"
        "if __name__ == '__main__':\n    sys.exit(main())\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), "run", GROUP, "--workers", "1"],
        input=b'{"name": "order", "total": 5}\n',
        cwd=shop,
        env=environment(),
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b'"value": 10' in done.stdout


def test_a_completion_imports_nothing_that_is_slow() -> None:
    slow = ("asyncio", "rich", "importlib_metadata", "evproc_pool.pool", "multiprocessing")
    code = f"import sys, evproc_pool.cli.commands; print(*{set(slow)!r}.intersection(sys.modules))"
    # `site` may import anything
    path = os.pathsep.join([str(ROOT), *sys.path])
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env=environment(PYTHONPATH=path),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    assert done.stdout == "\n"
