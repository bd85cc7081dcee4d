"""The command line of `evproc run`: flags of the pool, and what a run is given."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import click
from click.core import ParameterSource

from evproc_pool import PoolProcessor
from evproc_pool.cli import run_loop
from evproc_pool.cli.json_event import decoder
from evproc_pool.cli.line_input import STANDARD_INPUT, EventSource, Portions, open_input
from evproc_pool.cli.output import say
from evproc_pool.cli.pool_flags import FLAGS, Flag, number_of_bytes, pool_arguments
from evproc_pool.cli.problems import FOUND, CommandError
from evproc_pool.cli.project_file import FILE, defaults, read_defaults


class Bytes(click.ParamType):  # type: ignore[type-arg]  # generic in some versions of click only
    """A number of bytes, as 512M."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read a number with its unit."""
        try:
            return number_of_bytes(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _option(flag: Flag) -> Callable[[Any], Any]:
    help_text = flag.help
    names = (flag.flag, flag.option)
    if flag.kind == "on-off":
        both = f"{flag.flag}/--no-{flag.flag.removeprefix('--')}"
        return click.option(both, flag.option, default=None, help=help_text)
    kinds: dict[str, tuple[Any, str]] = {
        "count": (click.INT, "N"),
        "seconds": (click.FLOAT, "SECONDS"),
        "bytes": (Bytes(), "BYTES"),
        "function": (str, "MODULE:FUNCTION"),
        "classes": (str, "CLASSES"),
        "json": (str, "ARRAY"),
    }
    kind, metavar = kinds.get(flag.kind, (click.Choice(flag.kind.split("|")), ""))
    return click.option(*names, type=kind, metavar=metavar or None, help=help_text)


def pool_options(command: Any) -> Any:
    """Add a flag for each option of a pool."""
    for flag in reversed(FLAGS):
        command = _option(flag)(command)
    return command


class WithProjectFile(click.Command):
    """A command whose options have their defaults in `pyproject.toml`, too."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Read the defaults first; an error in one of them names the file."""
        group = None if parent is None else parent.command
        siblings = list(group.commands.values()) if isinstance(group, click.Group) else []
        known = {key: name for each in [*siblings, self] for key, name in _options(each).items()}
        own = set(_options(self).values())
        found = defaults(read_defaults(Path.cwd()), known)
        extra["default_map"] = {name: value for name, value in found.items() if name in own}
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.BadParameter as error:
            if error.ctx is not None and error.param is not None:
                source = error.ctx.get_parameter_source(str(error.param.name))
                if source is ParameterSource.DEFAULT_MAP:
                    text = f"{error.message} (in {FILE})"
                    raise click.BadParameter(text, error.ctx, error.param) from None
            raise


def _options(command: click.Command) -> dict[str, str]:
    """Return the parameters of the options of a command, by their names without dashes."""
    return {
        name.removeprefix("--"): str(param.name)
        for param in command.params
        if isinstance(param, click.Option)
        for name in param.opts
        if name.startswith("--")
    }


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
    with _input(options.file) as descriptor, run_loop.output_file(options.output) as output:
        errors_file = (
            nullcontext(None)
            if options.errors_file is None
            else run_loop.output_file(options.errors_file)
        )
        with errors_file as errors:
            with _pool(arguments) as pool:
                pool.load_from(options.group)
                pool.check()
                recorder = run_loop.Recorder(
                    run_loop.LineWriter(output),
                    None if errors is None else run_loop.LineWriter(errors),
                    with_traceback=options.show_traceback,
                    with_path=options.every_event,
                )
                signalled = asyncio.run(_run(pool, descriptor, make, recorder, options))
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
