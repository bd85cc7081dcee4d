"""What the tests of the pool share: gates, scripts, and ways to wait."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import psutil

from evproc import Event
from evproc_pool import PoolProcessor
from tests.support.actions import Do

#: The folder that holds the packages and `tests`.
ROOT = Path(__file__).parents[2]

#: How long anything may take that should happen; no test waits for it to pass.
PATIENCE_SECONDS = 30.0


class Arrival:
    """A handler that waits at a gate.

    Attributes:
        pid: Its process.
        text: What it said.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        with connection.makefile("r", encoding="utf-8") as lines:
            pid, _, text = lines.readline().partition(" ")
        self.pid = int(pid)
        self.text = text.strip()

    def release(self) -> None:
        """Let it go on."""
        self._connection.close()


class Gate:
    """Handlers wait here (`Do("wait_at", gate.address)`), so that a test knows where they are."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._server.settimeout(PATIENCE_SECONDS / 2)
        self.address: tuple[str, int] = self._server.getsockname()
        self._arrivals: list[Arrival] = []

    def arrival(self) -> Arrival:
        """Wait for the next handler to arrive."""
        connection, _ = self._server.accept()
        connection.settimeout(PATIENCE_SECONDS)
        arrival = Arrival(connection)
        self._arrivals.append(arrival)
        return arrival

    def close(self) -> None:
        """Let all go on, those that arrive from now on included."""
        self._server.close()
        for arrival in self._arrivals:
            arrival.release()

    def __enter__(self) -> Gate:  # noqa: PYI034 - typing.Self came with Python 3.11
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Ending(NamedTuple):
    """How a cascade ended, for comparison: a value, or an error's type and arguments."""

    value: object = None
    error: type[BaseException] | None = None
    args: tuple[Any, ...] = ()


def ending(function: Callable[[], object]) -> Ending:
    """Call it."""
    try:
        return Ending(function())
    except BaseException as error:
        return failure(error)


def failure(error: BaseException) -> Ending:
    return Ending(error=type(error), args=error.args)


def endings(values: Sequence[object]) -> list[Ending]:
    """Of `process_many(..., return_exceptions=True)`."""
    return [failure(each) if isinstance(each, BaseException) else Ending(each) for each in values]


def error_of(function: Callable[[], object]) -> BaseException:
    """What a call raises."""
    try:
        value = function()
    except BaseException as error:
        return error
    raise AssertionError(f"no error, but {value!r}")


def notes_of(error: BaseException) -> str:
    """All notes, a line each."""
    return "\n".join(getattr(error, "__notes__", ()))


def pids(pool: PoolProcessor) -> set[int]:
    """As `worker_pids`, whose package takes scripts long to import; for comparison."""
    return set() if pool._engine is None else set(pool._engine.pids())


def warm(pool: PoolProcessor) -> set[int]:
    """Work until every worker is ready; answers with their processes."""
    events = [Do("nothing") for _ in range(pool.workers)]  # or else not all would be started
    pool.process_many(events)
    engine = pool._engine
    while engine is not None and engine._coordinator._supervisor.scheduler.workers < pool.workers:
        time.sleep(0.001)  # leave the CPU to what is being started
        pool.process_many(events)
    return pids(pool)


def map_regions(pool: PoolProcessor) -> None:
    """Map the memory that is shared with workers, as the first large message does."""
    backend: Any = None if pool._engine is None else pool._engine._backend
    for worker in getattr(backend, "_processes", {}).values():
        if worker.shared_memory is not None:
            assert worker.shared_memory.can_be_used


#: Nothing starts a thread at the end of a program on CPython 3.12.0 to 3.12.2: gh-113964.
STARTS_THREADS_AT_THE_END = sys.version_info[:2] != (3, 12) or sys.version_info >= (3, 12, 3)


def wait_until(holds: Callable[[], object], what: str) -> None:
    """Wait until a condition holds, or fail and say what did not happen."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < end, f"{what}: not in {PATIENCE_SECONDS} s"
        time.sleep(0.001)


def close_in_time(pool: PoolProcessor) -> None:
    """Close a pool; if that hangs, end it by force and fail."""
    with Background(pool.close) as call:
        try:
            call.result()
        except TimeoutError:
            pool.terminate()
            raise AssertionError("close() hangs") from None


class Background:
    """A call in another thread, which is waited for at the end, but not for ever."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._future: Future[Any] = Future()
        self._thread = threading.Thread(target=self._run, args=(function,), daemon=True)
        self._thread.start()

    def _run(self, function: Callable[[], object]) -> None:
        try:
            self._future.set_result(function())
        except BaseException as error:
            self._future.set_exception(error)

    def result(self) -> Any:
        """What the call returns, or raises.

        Raises:
            TimeoutError: It does neither.
        """
        return self._future.result(PATIENCE_SECONDS)

    @property
    def is_over(self) -> bool:
        """Whether the call has returned or raised."""
        return self._future.done()

    def wait_until_it_waits(self, function: str) -> None:
        """Wait until the call waits for something within a function of this name."""

        def waits() -> bool:
            frame = sys._current_frames().get(self._thread.ident or 0)
            names = []
            while frame is not None:
                names.append(frame.f_code.co_name)
                frame = frame.f_back
            return names[:1] in (["wait"], ["select"]) and function in names

        wait_until(waits, f"the call waits within {function}()")

    def error(self) -> BaseException | None:
        """What the call raises, or None; a `TimeoutError` too if it does not end."""
        try:
            self.result()
        except BaseException as error:
            return error
        return None

    def __enter__(self) -> Background:  # noqa: PYI034 - typing.Self came with Python 3.11
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._thread.join(PATIENCE_SECONDS)


def register_all(pool: Any, handlers: Sequence[Callable[[Any, Any], Any]]) -> Any:
    """Register handlers under their names; returns the pool."""
    for handler in handlers:
        pool.register(handler)
    return pool


class Named(Event):
    """An event whose name the test chooses."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    @property
    def name(self) -> str:
        return self._name


# --- scripts ---


class Finished(NamedTuple):
    """How a script ended.

    Attributes:
        left: Command lines of what it left behind, long after it ended.
    """

    code: int
    out: str
    err: str
    left: list[str]


class Script:
    """A Python program in a session of its own.

    Args:
        code: Its text.
        folder: Where its files go; also its working folder.
        how: `file`, `stdin` or `-c`.
        python: Options of the interpreter.
        environment: What is different in its environment.
    """

    def __init__(
        self,
        code: str,
        folder: Path,
        *,
        how: str = "file",
        python: Sequence[str] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        source = folder / "script.py"
        source.write_text(code, "utf-8")
        arguments = {"file": [str(source)], "stdin": ["-"], "-c": ["-c", code]}[how]
        self._out = folder / "out.txt"
        self._err = folder / "err.txt"
        # no empty entry: that is the working folder, which may be gone
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        with self._out.open("wb") as out, self._err.open("wb") as err, source.open("rb") as text:
            self.process = subprocess.Popen(
                [sys.executable, *python, *arguments],
                stdin=text if how == "stdin" else subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": path, **(environment or {})},
                start_new_session=True,
            )

    def wait_until(self, holds: Callable[[], object], what: str) -> None:
        """Wait until a condition holds; fail if the script ends before."""

        def found() -> object:
            has_ended = self.process.poll() is not None
            assert holds() or not has_ended, self._err.read_text("utf-8")
            return holds()

        wait_until(found, what)

    @property
    def members(self) -> list[psutil.Process]:
        """What lives in its session."""
        return list(_session(self.process.pid))

    def finish(self) -> Finished:
        """Wait until it has ended, and until nothing of it is left."""
        try:
            self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            left = [_describe(each) for each in self.members]
            self.kill()
            raise AssertionError(
                f"the script did not end; there were {left}\n{self._out.read_text('utf-8')}"
                f"\n{self._err.read_text('utf-8')}"
            ) from None
        left = [_describe(each) for each in still_alive(self.members)]
        self.kill()
        return Finished(
            self.process.returncode,
            self._out.read_text("utf-8"),
            self._err.read_text("utf-8"),
            left,
        )

    def kill(self) -> None:
        """End everything in its session."""
        for each in self.members:
            each.kill()
        self.process.wait()

    def __enter__(self) -> Script:  # noqa: PYI034 - typing.Self came with Python 3.11
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()


def _session(leader: int) -> Iterator[psutil.Process]:
    for pid in psutil.pids():
        with suppress(OSError, psutil.NoSuchProcess):  # it has ended meanwhile
            if os.getsid(pid) == leader and lives(process := psutil.Process(pid)):
                yield process


def fork(act: Callable[[], object]) -> int:
    """Have a forked process do it, and exit with the number that is returned; its pid."""
    pid = os.fork()
    if not pid:
        try:
            code = act()
            os._exit(code if isinstance(code, int) else 0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(99)
    return pid


def exit_code(pid: int) -> int:
    """What a child exits with."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def lives(process: psutil.Process) -> bool:
    """Whether it does anything still: one that is dead may wait to be noticed by its parent."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def still_alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those of them that do not end, for which it waits as long as anything may take.

    `psutil.wait_procs` waits for their parents to notice as well, and the parent of what
    is left of a program that has ended may take a second.
    """
    end = time.monotonic() + PATIENCE_SECONDS / 3
    alive = list(processes)
    while (alive := [each for each in alive if lives(each)]) and time.monotonic() < end:
        time.sleep(0.001)
    return alive


def _describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid}: {' '.join(process.cmdline())}"
    except psutil.Error as error:
        return str(error)


def run_script(code: str, folder: Path, **options: Any) -> str:
    """Run a script that is to succeed, say nothing on standard error and leave nothing behind."""
    with Script(code, folder, **options) as script:
        finished = script.finish()
    assert (finished.code, finished.err, finished.left) == (0, "", []), finished
    return finished.out


# --- distributions ---


@contextmanager
def installed(
    folder: Path,
    name: str,
    version: str,
    modules: dict[str, str],
    entry_points: dict[str, dict[str, str]],
) -> Iterator[Path]:
    """A distribution as an installer leaves it, in a folder that is on `sys.path` meanwhile."""
    install(folder, name, version, modules, entry_points)
    sys.path.insert(0, str(folder))
    try:
        yield folder
    finally:
        sys.path.remove(str(folder))
        for module in modules:
            sys.modules.pop(module, None)


def install(
    folder: Path,
    name: str,
    version: str,
    modules: dict[str, str],
    entry_points: dict[str, dict[str, str]],
) -> None:
    """Write the files of a distribution."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    for module, code in modules.items():
        (folder / f"{module}.py").write_text(code, "utf-8")
    lines = []
    for group, entries in entry_points.items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines), "utf-8")
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "utf-8"
    )
    (info / "INSTALLER").write_text("test\n", "utf-8")
    files = [*(f"{module}.py" for module in modules), f"{info.name}/METADATA"]
    (info / "RECORD").write_text("".join(f"{each},,\n" for each in files), "utf-8")
