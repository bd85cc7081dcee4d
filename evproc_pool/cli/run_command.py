"""`evproc run`: opens files and a pool for a run, and gives the exit status."""

from __future__ import annotations

import logging
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

from evproc_pool import PoolProcessor
from evproc_pool.cli import interruption, run_loop
from evproc_pool.cli.json_event import decoder
from evproc_pool.cli.line_input import EventSource, Portions, count_lines, open_input
from evproc_pool.cli.output import say
from evproc_pool.cli.pool_flags import as_typed, pool_arguments, without_effect
from evproc_pool.cli.problems import FOUND, STANDARD_INPUT, CommandError
from evproc_pool.cli.slow_events import by_line
from evproc_pool.cli.undisturbed import undisturbed


class RunOptions(NamedTuple):
    """What `evproc run` was asked for, beside the options of the pool."""

    group: str
    file: str
    decode: str | None
    output: str | None
    errors_file: str | None
    unordered: bool
    buffersize: int | None
    every_event: bool
    show_traceback: bool
    progress: bool | None = None
    log_level: str | None = None


def run(options: RunOptions, given: dict[str, Any]) -> int:
    """Run the lines of a file through a pool.

    Args:
        options: What was asked for.
        given: The flags of the pool, by option.

    Returns:
        The exit status.
    """
    make = decoder(options.decode)
    arguments = pool_arguments(given)
    if useless := without_effect(given):
        verb = "has" if len(useless) == 1 else "have"
        say(f"warning: with --workers 0, {', '.join(useless)} {verb} no effect")
    _set_log_level(options.log_level)
    with ExitStack() as stack:
        descriptor = stack.enter_context(_input(options.file))
        files = [stack.enter_context(run_loop.output_file(options.output))]
        if options.errors_file is not None:
            files.append(stack.enter_context(run_loop.output_file(options.errors_file)))
        _check_differ([descriptor, *[file.fileno() for file in files]])
        progress = _shows_progress(options.progress, descriptor, files[0].fileno())
        options = options._replace(progress=progress)
        output, *more = map(run_loop.LineWriter, files)
        if progress and os.isatty(files[0].fileno()):
            output = run_loop.LineWriter(run_loop.AboveProgress())
        recorder = run_loop.Recorder(
            output,
            more[0] if more else None,
            with_traceback=options.show_traceback,
            with_path=options.every_event,
        )
        with _pool(arguments, given) as pool:
            pool.load_from(options.group)
            pool.check()
            run_loop.empty(files)  # not before: what they had is lost
            source = EventSource(
                Portions(descriptor),
                make,
                recorder.bad,
                keep=options.errors_file is not None,
                expected=count_lines(descriptor) if options.progress else None,
            )
            try:
                signalled = interruption.run(
                    lambda: run_loop.stream_lines(
                        pool,
                        source,
                        recorder,
                        ordered=not options.unordered,
                        buffersize=options.buffersize,
                        every_event=options.every_event,
                        progress=bool(options.progress),
                    ),
                    source.stop,
                )
            except Exception:
                # what has come is not lost; nobody waits for it after a second Ctrl-C
                with suppress(OSError):
                    recorder.finish()
                raise
            finally:
                if arguments.get("statistics"):
                    say(str(by_line(pool.statistics(), source.line_of)))
        totals = recorder.finish()
    has_failures = options.errors_file and not totals.is_all_well
    where = f"; {options.errors_file} has the failures" if has_failures else ""
    if signalled is not None:
        say(f"interrupted after line {source.read}: {totals}{where}")
    elif not totals.is_all_well:
        say(f"{totals}{where}")
    if signalled is not None:
        return 128 + signalled
    return 0 if totals.is_all_well else FOUND


def _shows_progress(given: bool | None, source: int, output: int) -> bool:
    """Whether to show progress; `given` is what was asked for.

    By default in a terminal, in which nobody types events, and which does not get the outcomes.
    """
    if given is not None:
        return given
    return sys.stderr.isatty() and not (os.isatty(source) or os.isatty(output))


def _set_log_level(level: str | None) -> None:
    """Print what is logged; workers begin with the levels of this process."""
    if level is not None:
        logging.getLogger("asyncio").setLevel("WARNING")  # it tells of the loop of this command
        logging.basicConfig(
            level=level.upper(), format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
        )


def _check_differ(descriptors: Iterable[int]) -> None:
    """Raise a `CommandError` if two of them are the same file."""
    found = [os.fstat(each) for each in descriptors]
    files = [(each.st_dev, each.st_ino) for each in found if stat.S_ISREG(each.st_mode)]
    if len(set(files)) < len(files):
        raise CommandError("FILE, --output and --errors must be different files")


def _pool(arguments: dict[str, Any], given: dict[str, Any]) -> PoolProcessor:
    executor = arguments.get("executor")
    if executor is not None and not isinstance(executor, str):  # its processes are here
        arguments = {**arguments, "initializer": undisturbed(arguments.get("initializer"))}
    try:
        return PoolProcessor(**arguments)
    except (TypeError, ValueError, ImportError) as error:
        raise CommandError(as_typed(str(error), arguments, given)) from error


@contextmanager
def _input(path: str) -> Iterator[int]:
    descriptor = open_input(path)
    try:
        if path == STANDARD_INPUT and os.isatty(descriptor):
            say("reading events from the terminal, one JSON object a line; Ctrl-D ends them")
        yield descriptor
    finally:
        if path != STANDARD_INPUT:
            os.close(descriptor)
