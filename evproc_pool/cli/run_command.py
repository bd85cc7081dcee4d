"""`evproc run`: opens files and a pool for a run, and gives the exit status."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

from evproc_pool import PoolProcessor
from evproc_pool.cli import run_loop
from evproc_pool.cli.json_event import decoder
from evproc_pool.cli.line_input import EventSource, Portions, open_input
from evproc_pool.cli.output import say
from evproc_pool.cli.pool_flags import pool_arguments
from evproc_pool.cli.problems import FOUND, STANDARD_INPUT, CommandError


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
    with ExitStack() as stack:
        descriptor = stack.enter_context(_input(options.file))
        files = [stack.enter_context(run_loop.output_file(options.output))]
        if options.errors_file is not None:
            files.append(stack.enter_context(run_loop.output_file(options.errors_file)))
        _check_differ([descriptor, *[file.fileno() for file in files]])
        output, *more = map(run_loop.LineWriter, files)
        recorder = run_loop.Recorder(
            output,
            more[0] if more else None,
            with_traceback=options.show_traceback,
            with_path=options.every_event,
        )
        with _pool(arguments) as pool:
            pool.load_from(options.group)
            pool.check()
            run_loop.empty(files)  # not before: what they had is lost
            try:
                signalled = asyncio.run(_run(pool, descriptor, make, recorder, options))
            except Exception:
                # what has come is not lost; nobody waits for it after a second Ctrl-C
                with suppress(OSError):
                    recorder.finish()
                raise
            finally:
                if arguments.get("statistics"):
                    say(str(pool.statistics()))
        totals = recorder.finish()
    if not totals.is_all_well:
        where = f"; {options.errors_file} has the failures" if options.errors_file else ""
        say(f"{totals}{where}")
    if signalled is not None:
        return 128 + signalled
    return 0 if totals.is_all_well else FOUND


async def _run(
    pool: PoolProcessor,
    descriptor: int,
    make: Callable[[Any], Any],
    recorder: run_loop.Recorder,
    options: RunOptions,
) -> int | None:
    """Run all lines; return the number of the signal that ended the input, or None."""
    source = EventSource(
        Portions(descriptor), make, recorder.bad, keep=options.errors_file is not None
    )
    interruption = run_loop.Interruption(source.stop)
    with interruption.caught():
        await run_loop.stream_lines(
            pool,
            source,
            recorder,
            ordered=not options.unordered,
            buffersize=options.buffersize,
            every_event=options.every_event,
        )
    return interruption.received


def _check_differ(descriptors: Iterable[int]) -> None:
    """Raise a `CommandError` if two of them are the same file."""
    found = [os.fstat(each) for each in descriptors]
    files = [(each.st_dev, each.st_ino) for each in found if stat.S_ISREG(each.st_mode)]
    if len(set(files)) < len(files):
        raise CommandError("FILE, --output and --errors must be different files")


def _pool(arguments: dict[str, Any]) -> PoolProcessor:
    try:
        return PoolProcessor(**arguments)
    except (TypeError, ValueError) as error:
        raise CommandError(str(error)) from error


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
