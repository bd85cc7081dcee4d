"""Fixtures for every test: nothing is left behind, and nothing hangs for ever.

The hard limit on a test's time is pytest's own `faulthandler_timeout`, which
dumps the stacks of all threads and then ends the run.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import Phase, settings

from evproc_pool.backends.local.start_methods import prepared
from tests.support.sizes import BARS

# How long a process may take to be gone that has been told to go. No test waits
# for it to pass: it bounds the wait on a condition.
GRACE_SECONDS = 20.0

# A failure of Hypothesis shrinks for up to 300 s, and pytest ends a test before that. To have it
# shrunk: pytest --hypothesis-profile=shrink -o faulthandler_timeout=0
settings.register_profile("shrink", settings())
settings.register_profile(
    "quick",
    phases=[each for each in Phase if each not in (Phase.shrink, Phase.explain)],
    max_examples=100 if BARS else 25,
)
settings.load_profile("quick")

_LISTS_CHILDREN = Path(f"/proc/self/task/{os.getpid()}/children").exists()


def pytest_configure() -> None:
    """Let programs that tests start be interrupted, also where these run in the background."""
    # a shell has its background jobs ignore SIGINT, and that is inherited
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _own_helpers() -> set[int]:
    """Pids of what the standard library keeps for the life of the interpreter."""
    pids: set[int | None] = set()
    if sys.platform != "win32":
        from multiprocessing import forkserver, resource_tracker

        pids.add(forkserver._forkserver._forkserver_pid)  # type: ignore[attr-defined]  # no public way
        pids.add(resource_tracker._resource_tracker._pid)  # type: ignore[attr-defined]  # likewise
    return {pid for pid in pids if pid is not None}


def _children() -> set[psutil.Process]:
    helpers = _own_helpers()
    found = set()
    for pid in _pids_below(os.getpid()):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            found |= {psutil.Process(pid)} if pid not in helpers else set()
    return found


def _pids_below(pid: int) -> Iterator[int]:
    """Children and theirs; asks the system, since psutil reads of every process there is."""
    if not _LISTS_CHILDREN:
        yield from (child.pid for child in psutil.Process(pid).children(recursive=True))
        return
    with contextlib.suppress(OSError):  # likewise
        for file in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in map(int, file.read_text("ascii").split()):
                yield child
                yield from _pids_below(child)


def _open_files() -> set[str]:
    """File descriptors with what they are open on; those of the helpers excepted."""
    found = set()
    with contextlib.suppress(FileNotFoundError):  # where there is no /proc
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - for each test: Path takes twice as long
            with contextlib.suppress(OSError):  # the descriptor of this very listing
                found.add(f"{name} -> {os.readlink(f'/proc/self/fd/{name}')}")  # noqa: PTH115 - likewise
    return found


def _shared_memory() -> set[str]:
    """Named segments; without semaphores, which other programs on the machine make too."""
    folder = Path("/dev/shm")
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    return {name for name in names if not name.startswith("sem.")}


@pytest.fixture(scope="session", autouse=True)
def _standard_helpers() -> None:
    """Start the standard forkserver now, so that no test is blamed for its pipes."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context("forkserver")
        process = context.Process(target=os.getpid)
        with prepared(context):  # as the first pool would have it
            process.start()
        process.join()
        process.close()


@pytest.fixture(scope="module", autouse=True)
def _frozen() -> None:
    """Have the collections below take no longer than what the tests of a module have made."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a process, a file descriptor or a shared segment."""
    processes, files, segments = _children(), _open_files(), _shared_memory()
    yield
    gc.collect()
    _, alive = psutil.wait_procs(_children() - processes, timeout=GRACE_SECONDS)
    report = [f"process {each.pid}: {_command(each)}" for each in alive]
    for each in alive:
        each.kill()
    psutil.wait_procs(alive)
    # a thread may be about to close them: that of futures ends a pool that nobody refers to
    end = time.monotonic() + GRACE_SECONDS
    while (left := _left(files, segments)) and time.monotonic() < end:
        time.sleep(0.01)
    report += left
    if report:
        pytest.fail("left behind:\n  " + "\n  ".join(report))


def _left(files: set[str], segments: set[str]) -> list[str]:
    """What is open that was not, in words."""
    left = [f"file descriptor {each}" for each in sorted(_open_files() - files)]
    return left + [f"shared memory {each}" for each in sorted(_shared_memory() - segments)]


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error as error:
        return str(error)
