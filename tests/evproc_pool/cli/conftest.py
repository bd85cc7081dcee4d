"""The command as a user runs it: piped, and in a pseudo-terminal; groups with faults."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.distributions import Distribution

ROOT = Path(__file__).parents[3]

# of the extras: the interpreters of the gate have them, others may not
if importlib.util.find_spec("click") is None or importlib.util.find_spec("rich") is None:
    collect_ignore_glob = ["test_*.py"]

# What bounds a command that hangs; no test waits for it to pass.
SECONDS = 120.0

GROUP = "shop.handlers"

SHOP = """
import os, time
import evproc

def is_big(ev):
    return ev.total > 100

@evproc.want("order")
@evproc.required_by("bill")
def check(proc, ev):
    ev.proc.check.ok = ev.total >= 0
    if ev.total < 0:
        raise ValueError(f"no order of {ev.total}")

@evproc.want("order")
def bill(proc, ev):
    ev.emit({"bill": ev.total})
    if ev.total == 13:
        return [Note()]
    raise evproc.StopProcessing(ev.total * 2)

@evproc.want("order", is_big)
@evproc.requires("check")
def approve(proc, ev):
    ev.emit("approved")

@evproc.want("note")
def note(proc, ev):
    ev.emit("noted")

class Note(evproc.Event):
    name = "note"

class Order(evproc.Event):
    name = "order"
    def __init__(self, total):
        self.total = total

def from_json(data):
    return Order(float(data["sum"]))
"""

SHOP_HANDLERS = {name: f"shop:{name}" for name in ("check", "bill", "approve", "note")}


class Done(NamedTuple):
    """How a command ended; in a terminal `err` is part of `out`."""

    code: int
    out: str
    err: str


def unpack(folder: Path, modules: dict[str, str], handlers: dict[str, str], name: str) -> None:
    Distribution(name, modules, {GROUP: handlers}).unpack(folder)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with a distribution of four handlers, and nothing wrong."""
    unpack(tmp_path, {"shop": SHOP}, SHOP_HANDLERS, "shop")
    return tmp_path


@pytest.fixture
def make_group(tmp_path: Path) -> Callable[..., Path]:
    """Make a group of one module, each of whose functions is a handler."""

    def make(code: str, *names: str, also: dict[str, str] | None = None) -> Path:
        handlers = {name: f"module_f:{name}" for name in names} | (also or {})
        unpack(tmp_path, {"module_f": f"import evproc\n{code}"}, handlers, "faulty")
        return tmp_path

    return make


def environment(**changes: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    kept = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR")}
    return {**kept, "PYTHONPATH": path, **changes}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "evproc_pool.cli", *map(str, arguments)]


def piped(folder: Path, *arguments: str | Path, given: str | bytes = b"", **changes: str) -> Done:
    """Run `evproc` in a folder, with pipes."""
    done = subprocess.run(
        command(*arguments),
        input=given.encode() if isinstance(given, str) else given,
        capture_output=True,
        cwd=folder,
        env=environment(**changes),
        timeout=SECONDS,
        check=False,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


class Terminal:
    """`evproc` in a pseudo-terminal of its own, as a shell starts it."""

    def __init__(self, folder: Path, *arguments: str | Path, **options: Any) -> None:
        import fcntl
        import struct
        import termios

        self.seen = ""
        self._end = time.monotonic() + SECONDS
        self._terminal, other = os.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        # the terminal becomes the controlling one, so that it sends SIGINT for Ctrl-C
        start = (
            "import os, sys; saved = os.dup(0); os.login_tty(os.dup(1));"
            "os.dup2(saved, 0); os.close(saved);"
            "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
        )
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", start, *command(*arguments)[1:]],
                stdin=options.pop("stdin", other),
                stdout=other,
                stderr=other,
                cwd=folder,
                env=environment(TERM="xterm", **options),
            )
        finally:
            os.close(other)

    def read(self) -> bool:
        """Read what is there; return whether there may be more."""
        ready, _, _ = select.select([self._terminal], [], [], self._end - time.monotonic())
        assert ready, f"the command hangs; it wrote {self.seen!r}"
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # how Linux says that nobody is at the other end
            return False
        self.seen += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)

    def wait_for(self, text: str) -> None:
        while text not in self.seen:
            assert self.read(), f"{text!r} is not in {self.seen!r}"

    def type(self, keys: bytes) -> None:
        os.write(self._terminal, keys)

    def finish(self) -> Done:
        while self.read():
            pass
        return Done(self.process.wait(SECONDS), self.seen, "")

    def __enter__(self) -> Terminal:  # noqa: PYI034 - typing.Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._terminal)
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()


def in_terminal(folder: Path, *arguments: str | Path, **options: Any) -> Done:
    """Run `evproc` in a folder, in a pseudo-terminal of 120 columns."""
    with Terminal(folder, *arguments, **options) as terminal:
        return terminal.finish()


@pytest.fixture(params=["piped", "terminal"])
def evproc(request: pytest.FixtureRequest) -> Iterator[Callable[..., Done]]:
    """Run `evproc` both ways."""
    if request.param == "terminal":
        if sys.platform == "win32":
            pytest.skip("no pseudo-terminals there")
        yield in_terminal
    else:
        yield piped


def wait_for_file(path: Path) -> None:
    end = time.monotonic() + SECONDS
    while not path.exists():
        assert time.monotonic() < end, f"{path} does not come"
        time.sleep(0.01)
