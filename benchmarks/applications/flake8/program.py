"""flake8's program, with the pool in the place of its own.

A file whose worker died, or that took too long, gets a finding with the code of files that cannot
be checked, and a line on standard error; the exit status is 1, whatever is selected. An error that
a plug-in raises is left to flake8, which prints it and reports nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Sequence
from typing import Any, Final

from flake8.checker import Manager
from flake8.exceptions import PluginExecutionFailed
from flake8.main.application import Application
from flake8.utils import is_using_stdin

from benchmarks.applications.flake8.handlers import File, register
from benchmarks.applications.flake8.plugins import Loaded, load, use
from evproc_pool import EventTimeoutError, Outcome, PoolProcessor, RemoteError, WorkerLostError

#: flake8's code for files that cannot be checked.
CANNOT_CHECK: Final = "E902"


class PluginFailed(PluginExecutionFailed):  # type: ignore[misc]  # flake8 is Any if not installed
    """An error of a plug-in, without what cannot be pickled of it."""

    def __init__(self, text: str) -> None:
        super().__init__("", "", None)
        self.text = text

    def __str__(self) -> str:
        return self.text


class PoolManager(Manager):  # type: ignore[misc]
    """flake8's manager, which runs the files on a pool.

    Attributes:
        event_timeout: How many seconds a file may take; None: as many as it likes.
        has_lost: Whether a file was not checked, since its worker ended.
    """

    event_timeout: float | None = None
    has_lost = False

    def run_parallel(self) -> None:
        """Run in worker processes."""
        self._run_on_pool(self.jobs)

    def run_serial(self) -> None:
        """Run in this process, as for one file, standard input or ``--jobs=1``.

        With a timeout it is one worker: nothing ends a plug-in that hangs in this process.
        Standard input is read here, so no worker can check it.
        """
        if self.event_timeout is not None and is_using_stdin(self.options.filenames):
            print("flake8: --event-timeout has no effect on standard input", file=sys.stderr)
            self.event_timeout = None
        self._run_on_pool(0 if self.event_timeout is None else 1)

    def _run_on_pool(self, workers: int) -> None:
        found = Loaded(self.argv, self.plugins, self.options)
        use(found)
        with PoolProcessor(
            workers,
            mp_context=multiprocessing.get_start_method(),  # as flake8's own workers
            initializer=load,
            initargs=(self.argv,),
            event_timeout=self.event_timeout,
        ) as pool:
            register(pool, found)
            outcomes = pool.stream(map(File, self.filenames))
            try:
                self.results = [self._result(each) for each in outcomes]
            except Exception:
                pool.terminate()  # as flake8 does: it reports nothing then
                raise

    def _result(self, outcome: Outcome[File]) -> Any:
        error = outcome.error
        if isinstance(error, WorkerLostError | EventTimeoutError):
            text = f"{type(error).__name__}: {_in_short(error)}"
            # the style guide may drop the finding
            print(f"flake8: {outcome.event.path} was not checked: {text}", file=sys.stderr)
            self.has_lost = True
            finding = (CANNOT_CHECK, 0, 0, text, None)
            return outcome.event.path, [finding], dict.fromkeys(self.statistics, 0)
        if isinstance(error, RemoteError) and error.type_name.endswith(".PluginExecutionFailed"):
            raise PluginFailed(error.text)
        return outcome.unwrap()


def _in_short(error: WorkerLostError | EventTimeoutError) -> str:
    """Say in a line what happened, and which plug-in was running."""
    where = f"in {error.handler}" if error.handler else "between two plug-ins"
    if isinstance(error, EventTimeoutError):
        return f"longer than {error.timeout:g} s, {where}"
    return f"the process ended with {error.exitcode}, {where}"


class PoolApplication(Application):  # type: ignore[misc]
    """flake8's application, with a `PoolManager`."""

    def __init__(self, event_timeout: float | None) -> None:
        super().__init__()
        self._event_timeout = event_timeout

    def make_file_checker_manager(self, argv: Sequence[str]) -> None:
        """Take our manager for flake8's."""
        self.file_checker_manager = PoolManager(self.guide, self.plugins.checkers, argv)
        self.file_checker_manager.event_timeout = self._event_timeout

    def run_checks(self) -> None:
        """Check all files, and note whether any was lost."""
        super().run_checks()
        self.catastrophic_failure |= self.file_checker_manager.has_lost


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what `flake8` does, and return its exit status."""
    parser = argparse.ArgumentParser("flake8", add_help=False, allow_abbrev=False)
    parser.add_argument("--event-timeout", type=_seconds, metavar="SECONDS")
    own, argv = parser.parse_known_args(arguments)
    application = PoolApplication(own.event_timeout)
    application.run(argv)
    status: int = application.exit_code()
    return status


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds > 0:
        raise argparse.ArgumentTypeError("a file needs more than 0 seconds")
    return seconds
