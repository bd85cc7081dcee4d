"""0.2.0 in another process, with something that looks like it where it is not to be had."""

import os
import subprocess
import sys
import venv
from contextlib import closing
from pathlib import Path

import pytest

import evproc
from benchmarks.model import BenchmarkError
from benchmarks.process import cases, original

# as much of 0.2.0 as the cases need
LOOKALIKE = """
class Event(object):
    def __init__(self, ctxt=None):
        self.ctxt = ctxt

def want(name, *filters):
    def decorator(func):
        func.wants = lambda ev: ev.name == name and all(f(ev) for f in filters)
        return func
    return decorator

class Processor(object):
    def __init__(self):
        self.funcs = []
    def register(self, func, name=None):
        self.funcs.append(func)
    def process(self, ev):
        for func in [func for func in self.funcs if func.wants(ev)]:
            func(self, ev)
"""


def site_packages(folder: Path) -> Path:
    (found,) = folder.glob("[Ll]ib/**/site-packages")
    return found


def pretend(folder: Path, version: str = "0.2.0", source: str = LOOKALIKE) -> None:
    """Put something called evproc where a pip install would put it."""
    packages = site_packages(folder)
    (packages / "evproc.py").write_text(source, encoding="utf-8")
    info = packages / f"evproc-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: evproc\nVersion: {version}\n")


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    folder = tmp_path / "environment"
    venv.create(folder, symlinks=os.name != "nt")
    return folder


def python_of(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


# --- finding ---


def test_none_is_found_where_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(original.VARIABLE, raising=False)
    assert original.find(with_020=False) is None


def test_the_one_that_is_named_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(original.VARIABLE, sys.executable)
    assert original.find(with_020=False) == Path(sys.executable)
    # named is better than installed
    monkeypatch.setattr(original, "install", lambda folder: pytest.fail("installed"))
    assert original.find(with_020=True) == Path(sys.executable)


def test_one_that_is_named_and_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(original.VARIABLE, "no such interpreter")
    with pytest.raises(BenchmarkError, match="EVPROC_020_PYTHON names 'no such interpreter'"):
        original.find(with_020=True)


# --- installing ---


def fake_run(commands: list[list[str]], version: str = "0.2.0") -> object:
    """Make virtual environments for real, and pretend that pip installs."""

    def run(command: list[str]) -> None:
        commands.append(command)
        if "venv" in command:
            venv.create(command[-1], symlinks=os.name != "nt")
        else:
            pretend(Path(command[0]).parents[1], version)

    return run


def test_it_is_installed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(original, "_run", fake_run(commands))
    folder = tmp_path / "cache"
    python = original.install(folder)
    assert python == python_of(folder)
    assert len(commands) == 2
    assert commands[1][-1] == "evproc==0.2.0"
    with closing(original.Original(python)):
        pass
    assert original.install(folder) == python
    assert len(commands) == 2
    assert list(tmp_path.iterdir()) == [folder]


def test_it_is_installed_again_where_half_of_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(original, "_run", fake_run(commands))
    folder = tmp_path / "cache"
    original.install(folder)
    (site_packages(folder) / "evproc.py").unlink()
    original.install(folder)
    assert len(commands) == 4
    assert list(tmp_path.iterdir()) == [folder]


def test_an_installation_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_run = original._run

    def run(command: list[str]) -> None:
        if "venv" not in command:
            real_run([sys.executable, "-c", "raise SystemExit('no index to be reached')"])

    monkeypatch.setattr(original, "_run", run)
    with pytest.raises(BenchmarkError, match=r"(?s)evproc==0\.2\.0.*status 1.*no index"):
        original.install(tmp_path / "cache")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege there")
def test_a_link_that_somebody_put_there_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: Path
) -> None:
    pretend(environment)
    folder = tmp_path / "cache"
    folder.symlink_to(environment)
    monkeypatch.setattr(original, "_run", fake_run([]))
    with pytest.raises(BenchmarkError, match="cannot make"):
        original.install(folder)
    assert python_of(environment).exists()


# --- asking ---


def test_it_samples_the_cases_that_it_is_asked_for(environment: Path) -> None:
    pretend(environment)
    with closing(original.Original(python_of(environment))) as peer:
        assert peer.description.startswith("evproc 0.2.0 ran on ")
        assert peer.mismatch is None
        for case in (cases.WITH_BARS[0][0], cases.Case("set-up", 10, set_up=True)):
            sample = peer.sampler(case, min_seconds=0.0)
            assert sample() > 0
            assert sample() > 0


def test_what_fails_there_is_told_here(environment: Path) -> None:
    pretend(environment, source=LOOKALIKE.replace("func(self, ev)", "1 / 0"))
    with closing(original.Original(python_of(environment))) as peer:
        with pytest.raises(BenchmarkError, match="ZeroDivisionError"):
            peer.sampler(cases.WITH_BARS[0][0], min_seconds=0.0)
        # and it goes on
        assert peer.sampler(cases.Case("none", 10, matching=0), min_seconds=0.0)() > 0


def test_its_end_is_told_too(environment: Path) -> None:
    pretend(environment, source=LOOKALIKE.replace("func(self, ev)", "import os; os._exit(7)"))
    with closing(original.Original(python_of(environment))) as peer:
        with pytest.raises(BenchmarkError, match="ended with status 7"):
            peer.sampler(cases.WITH_BARS[0][0], min_seconds=0.0)
        with pytest.raises(BenchmarkError, match="ended with status 7"):
            peer.sampler(cases.WITH_BARS[0][0], min_seconds=0.0)


def test_an_interpreter_without_it_is_refused(environment: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"evproc 0\.2\.0 is not installed there"):
        original.Original(python_of(environment))


def test_another_version_is_refused(environment: Path) -> None:
    pretend(environment, version="0.1.0")
    with pytest.raises(BenchmarkError, match=r"evproc 0\.1\.0, not 0\.2\.0"):
        original.Original(python_of(environment))


def test_ours_in_its_place_is_refused(environment: Path) -> None:
    pretend(environment, source="Explanation = None")
    with pytest.raises(BenchmarkError, match="evproc-pool is installed there"):
        original.Original(python_of(environment))


def test_what_is_no_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="cannot run"):
        original.Original(tmp_path / "absent")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a script that runs by its first line")
def test_what_talks_like_no_python_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "talker"
    script.write_text("#!/bin/sh\necho hello\n")
    script.chmod(0o700)
    with pytest.raises(BenchmarkError, match=r"said 'hello\\n'"):
        original.Original(script)


@pytest.mark.skipif(
    not os.environ.get(original.VARIABLE), reason=f"{original.VARIABLE} names no interpreter"
)
def test_the_real_one_calls_the_same_handlers() -> None:
    # as often as the case says, which is as often as ours: see test_cases
    script = f"""
import evproc, sys
sys.path.append({str(Path(original.__file__).parents[2])!r})
from benchmarks.process import cases
for case in [*(case for case, _ in cases.WITH_BARS), *cases.WITHOUT_BARS]:
    calls = []
    def make():
        def first(proc, ev): calls.append((1, ev.name))
        def second(proc, ev): calls.append((2, ev.name))
        def third(proc, ev): calls.append((3, ev.name))
        return first, second, third
    namespace = cases.framework(evproc, case, make)
    exec(case.statement, namespace)
    assert len(namespace["proc"].nodes) == case.registered, case
    assert len(set(calls)) == len(calls) == case.matching * case.events, (case, calls)
assert not hasattr(evproc, "Explanation")
"""
    command = [os.environ[original.VARIABLE], "-I", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_this_process_keeps_its_own() -> None:
    assert hasattr(evproc, "Explanation")
