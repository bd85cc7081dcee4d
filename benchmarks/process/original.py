"""evproc 0.2.0 in an interpreter of its own: found, installed, asked over a pipe.

The protocol is a line of JSON each way: first the other side introduces itself,
then every request gets one answer. Between requests it waits in a read and takes
no time from the side that is being measured.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final

from benchmarks.model import BenchmarkError
from benchmarks.process.cases import Case

#: Names the interpreter that has 0.2.0.
VARIABLE: Final = "EVPROC_020_PYTHON"

#: What is said where 0.2.0 is left out.
MISSING: Final = (
    f"evproc 0.2.0 is left out: set {VARIABLE} to a Python interpreter that has it, or give"
    " --with-020 to install it into a temporary folder"
)

_REQUIREMENT: Final = "evproc==0.2.0"
_SERVER: Final = Path(__file__).with_name("served.py")

# It ends as soon as its input does; this is for one that hangs.
_GRACE_SECONDS: Final = 10.0


def find(*, with_020: bool) -> Path | None:
    """Find an interpreter that should have 0.2.0, or make one.

    Args:
        with_020: Whether it may be installed where none is named.

    Returns:
        The interpreter, or None: none is named, and nothing may be installed.

    Raises:
        BenchmarkError: The one that is named does not exist, or it cannot be installed.
    """
    named = os.environ.get(VARIABLE)
    if named:
        # an interpreter may also be named as a command
        found = shutil.which(named)
        if found is None:
            raise BenchmarkError(f"{VARIABLE} names {named!r}, which is no executable")
        return Path(found)
    return install(_cache()) if with_020 else None


def _cache() -> Path:
    """The virtual environment of this user and this interpreter."""
    user = "" if sys.platform == "win32" else f"-{os.getuid()}"
    return Path(tempfile.gettempdir()) / f"evproc-0.2.0{user}-{sys.implementation.cache_tag}"


def install(folder: Path) -> Path:
    """Make a virtual environment with 0.2.0, unless it is there already.

    It is made elsewhere and moved when it is complete, so that neither an
    interruption nor a second run at the same time leaves half of one behind.

    Returns:
        Its interpreter.

    Raises:
        BenchmarkError: It cannot be made; the folder is not there then.
    """
    python = _python_of(folder)
    if _is_ours(folder) and _has_evproc(python):
        return python
    # incomplete all the same if something tidies up the temporary folder file by file
    shutil.rmtree(folder, ignore_errors=True)
    made = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    try:
        _run([sys.executable, "-m", "venv", str(made)])
        _run([str(_python_of(made)), "-I", "-m", "pip", "install", "--quiet", _REQUIREMENT])
        made.replace(folder)
    except OSError as error:
        if not (_is_ours(folder) and _has_evproc(python)):
            raise BenchmarkError(f"cannot make {folder}: {error}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return python


def _python_of(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _is_ours(folder: Path) -> bool:
    """Whether this user made it: what others put into a shared folder is not run."""
    if sys.platform == "win32":
        return folder.is_dir()  # the temporary folder is the user's own there
    return folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.getuid()


def _has_evproc(python: Path) -> bool:
    if not python.exists():
        return False
    command = [str(python), "-I", "-c", "import evproc"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise BenchmarkError(
            f"cannot install {_REQUIREMENT}: {' '.join(command)} ended with status"
            f" {done.returncode}:\n{said}"
        )


class Original:
    """A process that runs evproc 0.2.0, until it is closed.

    Args:
        python: An interpreter that has it.

    Attributes:
        description: Which versions it runs.
        mismatch: A remark if its interpreter is of another version, or None.
    """

    def __init__(self, python: Path) -> None:
        """Start it.

        Raises:
            BenchmarkError: The interpreter does not run, or does not have 0.2.0.
        """
        self._python = python
        try:
            self._process = subprocess.Popen(
                # -I: this process's PYTHONPATH and working folder hold the other evproc
                [str(python), "-I", str(_SERVER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
            )
        except OSError as error:
            raise BenchmarkError(f"cannot run {python}: {error}") from error
        try:
            hello = self._answer()
        except BaseException:
            self.close()
            raise
        versions = ", ".join(f"{name} {version}" for name, version in hello["packages"].items())
        self.description = f"evproc 0.2.0 ran on {hello['python']} with {versions}"
        here = f"{platform.python_implementation()} {platform.python_version()}"
        self.mismatch = (
            None
            if hello["python"] == here
            else f"the ratios to 0.2.0 compare interpreters too: {hello['python']} with {here}"
        )

    def sampler(self, case: Case, min_seconds: float) -> Callable[[], float]:
        """Calibrate a case there; see `benchmarks.timing.Sampler`.

        One at a time: what is sampled is always the case that was asked for last.

        Raises:
            BenchmarkError: It failed. So it does when a sample is taken.
        """
        self._ask({"case": case._asdict(), "min_seconds": min_seconds})
        return self._sample

    def _sample(self) -> float:
        return float(self._ask({"sample": True})["seconds"])

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        pipe = self._pipe(self._process.stdin)
        try:
            pipe.write(json.dumps(request) + "\n")
            pipe.flush()
        except OSError:  # it has ended; reading says so better
            pass
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._pipe(self._process.stdout).readline()
        if not line:
            status = self._process.wait(_GRACE_SECONDS)
            raise BenchmarkError(f"{self._python} ended with status {status}, without an answer")
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError as error:
            raise BenchmarkError(f"{self._python} said {line!r}: is it a Python?") from error
        if "error" in answer:
            raise BenchmarkError(f"{self._python}: {answer['error']}")
        return answer

    def _pipe(self, pipe: IO[str] | None) -> IO[str]:
        if pipe is None:
            raise RuntimeError("the process was started with pipes, and has none")
        return pipe

    def close(self) -> None:
        """End the process, and wait for it."""
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                self._pipe(pipe).close()
            except OSError:  # a line that it will never read is still buffered
                continue
        try:
            self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
