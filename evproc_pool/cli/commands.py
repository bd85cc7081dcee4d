"""The command line of `evproc`; the pure parts and the renderings are in modules of their own.

Each command imports what it needs: a shell that completes a word imports this module.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource

from evproc_pool.cli.click_options import Seconds, WithProjectFile, pool_options
from evproc_pool.cli.output import to_standard_output
from evproc_pool.cli.problems import FOUND, STANDARD_INPUT, CommandError, ReaderGoneError

F = TypeVar("F", bound=Callable[..., Any])
EXIT_STATUS: Final = """
\b
Exit status:
  0    all is well
  1    the handlers have a fault, or an event failed
  2    the command cannot do its work: a wrong argument, an unreadable file
  130  Ctrl-C (143: SIGTERM)
"""


def examples(*lines: str) -> str:
    """Make the end of a help text."""
    head = "Example:" if len(lines) == 1 else "Examples:"
    return "\n".join(["\b", head, *(f"  {line}" for line in lines), ""])


def run(arguments: list[str]) -> int:
    """Run a command; errors are exceptions.

    Returns:
        The exit status.
    """
    try:
        status = evproc.main(arguments, prog_name="evproc", standalone_mode=False)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.Abort as error:
        cause = error.__cause__
        raise (cause if isinstance(cause, KeyboardInterrupt) else KeyboardInterrupt()) from None
    except click.ClickException as error:
        error.show()
        return error.exit_code
    return status if isinstance(status, int) else 0


def complete_groups(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Return the installed entry-point groups that begin like this, for the completion."""
    import importlib_metadata

    groups = importlib_metadata.entry_points().groups
    return sorted(group for group in groups if group.startswith(incomplete))


def group_argument(command: F) -> F:
    """Add the argument GROUP."""
    return click.argument("group", shell_complete=complete_groups, callback=_check_group)(command)


def _check_group(context: click.Context, parameter: click.Parameter, group: str) -> str:
    """Say so if the arguments are swapped."""
    if Path(group).is_file() and group not in complete_groups(context, parameter, group):
        raise click.UsageError(
            f"{group!r} is a file, and no group: GROUP comes first, as in"
            f" {context.command_path} app.handlers {group}",
            context,
        )
    return group


def _given_or_piped(context: click.Context, _parameter: click.Parameter, file: str | None) -> str:
    """Take standard input in place of a file that is not given, unless somebody types there."""
    if file is not None:
        return file
    if sys.stdin is None or sys.stdin.isatty():
        raise click.UsageError("FILE is missing; - is standard input.", context)
    return STANDARD_INPUT


def _refuse_executor(context: click.Context, parameter: click.Parameter, text: str | None) -> None:
    """Say what `bench` measures; in the project file it is for `run`."""
    if text is not None and context.get_parameter_source(str(parameter.name)) is not (
        ParameterSource.DEFAULT_MAP
    ):
        raise click.UsageError(
            "bench measures processes of this machine; --executor is for evproc run", context
        )


def traceback_option(command: F) -> F:
    """Add `--traceback`, which `start` looks for itself."""
    return click.option(
        "--traceback",
        "show_traceback",
        is_flag=True,
        help="Show the traceback of each error.",
    )(command)


class Commands(click.Group):
    """The group of all commands."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; see `ReaderGoneError`."""
        try:
            status = super().invoke(ctx)
            with to_standard_output():
                sys.stdout.flush()
        except BrokenPipeError as error:
            raise ReaderGoneError from error
        return status


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "evproc handlers app.handlers",
        "evproc explain app.handlers order.json",
        "evproc graph app.handlers -o handlers.svg",
        "tail -f orders.jsonl | evproc run app.handlers --workers 4",
        "evproc bench app.handlers orders.jsonl",
        "evproc run app.handlers orders.jsonl -o done.jsonl --errors failed.jsonl --stats",
        "    (which events fail, and which handlers and events are slow)",
    )
    + EXIT_STATUS,
)
@click.version_option(package_name="evproc-pool", prog_name="evproc")
def evproc() -> None:
    """Look at the handlers of a group, run events through them, and measure.

    GROUP is the name of an entry-point group, such as app.handlers.
    """


@evproc.command(epilog=examples("evproc handlers app.handlers"))
@group_argument
@traceback_option
def handlers(group: str, show_traceback: bool) -> int:  # noqa: ARG001 - `start` looks for it
    """List the handlers of a group, and what is wrong with them.

    For each: its name, distribution and version, the events that it wants, the handlers that
    it requires, and the module and line of its function. The exit status is 1 if one of them
    cannot be imported, if a required handler is missing, if handlers require each other in a
    cycle, or if an event is sure to fail.
    """
    from evproc_pool.cli.inventory import take_inventory
    from evproc_pool.cli.views import show_inventory

    inventory = take_inventory(group)
    with to_standard_output():
        show_inventory(inventory, sys.stdout)
    return FOUND if inventory.faults else 0


def decode_option(command: F) -> F:
    """Add `--decode`."""
    return click.option(
        "--decode",
        metavar="MODULE:FUNCTION",
        help="A function that makes an event of a JSON object, as in app.events:from_json. By"
        ' default {"name": "order", "total": 5} is an event of that name, and handlers read'
        " ev.total; ev.data is the whole object.",
    )(command)


@evproc.command(
    cls=WithProjectFile,
    epilog=examples(
        "evproc explain app.handlers order.json",
        """evproc explain app.handlers '{"name": "order", "total": 5}'""",
        "evproc explain app.handlers orders.jsonl --line 17",
    ),
)
@group_argument
@click.argument("event", metavar="EVENT.json", type=click.Path(dir_okay=False, allow_dash=True))
@click.option(
    "--line",
    type=click.IntRange(min=1),
    metavar="N",
    help="The event is the N-th line of the file.",
)
@decode_option
@traceback_option
def explain(
    group: str,
    event: str,
    line: int | None,
    decode: str | None,
    show_traceback: bool,  # noqa: ARG001 - `start` looks for it
) -> int:
    """Say which handlers an event runs, and why.

    It says the order of the calls, and why the other handlers do not run.

    EVENT.json is a file that holds the event, one JSON object, or a line of one (--line); or the
    JSON object itself. - is standard input. Filters are asked, and no handler runs. The exit
    status is 1 if the event's handlers cannot be ordered, or if a filter raises an error.
    """
    from evproc import Processor
    from evproc_pool.cli.event_file import read_event
    from evproc_pool.cli.filter_text import described_filters
    from evproc_pool.cli.json_event import decoder
    from evproc_pool.cli.views import show_explanation

    make = decoder(decode)
    processor = Processor()
    processor.load_from(group)
    explanation = processor.explain(read_event(event, make, line))
    with to_standard_output():
        filters = described_filters(processor.nodes.values())
        show_explanation(explanation, sys.stdout, filters)
    return FOUND if explanation.error is not None else 0


@evproc.command(
    epilog=examples(
        "evproc graph app.handlers",
        "evproc graph app.handlers --event order",
        "evproc graph app.handlers -o handlers.svg",
        "evproc graph app.handlers --format mmd",
    )
)
@group_argument
@click.option("--event", metavar="NAME", help="Only the handlers of events of this name.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Write a file that ends in .svg (with the extra [graph]), .dot or .mmd (Mermaid).",
)
@click.option(
    "--format",
    "wanted",
    type=click.Choice(["svg", "dot", "mmd"]),
    help="The same to standard output, or whatever the name of the file.",
)
@traceback_option
def graph(
    group: str,
    event: str | None,
    output: str | None,
    wanted: str | None,
    show_traceback: bool,  # noqa: ARG001 - `start` looks for it
) -> int:
    """Show the order of the handlers, for events of each name.

    A handler stands below the last one that it waits for. Its number is its place in the order
    of calls. A handler that has a filter may decline an event. The exit status is 1 if the
    handlers have a fault; `evproc handlers` lists the faults, too.
    """
    from evproc_pool.cli import graph_command

    kind = graph_command.chosen_format(output, wanted)
    return graph_command.draw(group, event, output, kind)


@evproc.command(
    cls=WithProjectFile,
    epilog=examples(
        "evproc run app.handlers orders.jsonl --workers 4 -o done.jsonl --errors failed.jsonl",
        "tail -f orders.jsonl | evproc run app.handlers",
        "evproc run app.handlers orders.jsonl --decode app.events:from_json | jq .value",
    ),
    name="run",
)
@group_argument
@click.argument("file", default="-", type=click.Path(dir_okay=False, allow_dash=True))
@decode_option
@click.option("-o", "--output", metavar="FILE", help="Write outcomes here, not to the output.")
@click.option(
    "--errors",
    "errors_file",
    metavar="FILE",
    help="Write failures here, with their input, and not among the outcomes.",
)
@click.option(
    "--as-they-finish", "unordered", is_flag=True, help="Write outcomes in the order of their ends."
)
@click.option(
    "--buffersize",
    type=click.INT,
    metavar="N",
    help="The most events that are read and not yet written.  [default: 4096 for each worker]",
)
@click.option("--every-event", is_flag=True, help="Write an outcome for each follow-up, too.")
@click.option(
    "--progress/--no-progress",
    default=None,
    help="Show how far the run is: a bar in a terminal, otherwise a line every ten seconds. By"
    " default in a terminal, if neither events nor outcomes are in it.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error", "critical"], case_sensitive=False),
    help="Print what handlers log from this level on, with its level and its logger. By default"
    " the texts of warnings and errors.",
)
@pool_options
@traceback_option
def run_command(group: str, file: str, **given: Any) -> int:
    """Run events, a JSON object a line, in worker processes.

    FILE has one JSON object a line, {"name": ..., ...}; by default, or with -, lines come from
    standard input. Each makes one line of output: its line number, the value of its cascade, what
    was emitted, how many events ran and for how many seconds. A failure has an "error". What
    handlers print goes to standard error.

    A follow-up is an event that a handler returns. The event of a line and all of its follow-ups
    are a cascade. Emitted is what handlers give to ev.emit.

    Every option may stand in [tool.evproc] of a pyproject.toml in the working folder:
    workers = 4.

    The exit status is 1 if an event failed or a line is bad: both are told, and the rest goes on.
    Ctrl-C finishes what has begun; twice, it stops.
    """
    from evproc_pool.cli.run_command import RunOptions
    from evproc_pool.cli.run_command import run as run_lines

    own = {name: given.pop(name) for name in RunOptions._fields if name in given}
    return run_lines(RunOptions(group, file, **own), given)


@evproc.command(
    cls=WithProjectFile,
    epilog=examples(
        "evproc bench app.handlers orders.jsonl",
        "evproc bench app.handlers orders.jsonl --workers 4 --seconds 10",
    ),
)
@group_argument
@click.argument(
    "file",
    required=False,
    type=click.Path(dir_okay=False, allow_dash=True),
    callback=_given_or_piped,
)
@decode_option
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="The most workers; by default as many as the CPUs.",
)
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=10_000,
    show_default=True,
    metavar="N",
    help="The most events.",
)
@click.option(
    "--seconds",
    type=Seconds(min=0.0),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a run of the sample takes, at most. There are three runs of each kind.",
)
@click.option("--executor", hidden=True, expose_value=False, callback=_refuse_executor)
@traceback_option
def bench(  # noqa: PLR0917 - click passes them by name
    group: str,
    file: str,
    decode: str | None,
    workers: int | None,
    sample: int,
    seconds: float,
    show_traceback: bool,  # noqa: ARG001 - `start` looks for it
) -> int:
    """Measure which handler is slow, and whether a pool pays off.

    The first events of FILE, as many as run in --seconds, run in one process and with 1 to N
    workers. The verdict says how much faster the pool is, the most that it can give and why, and
    which handler is the bottleneck. If other programs disturb the runs, it says that it cannot
    tell whether the pool pays off. Bad lines are left out. Without FILE, or with -, lines come
    from standard input.

    For the times of all events, and those that fail: evproc run GROUP FILE --stats.

    The handlers run several times for each event: do not use it where that does harm.
    """
    from evproc_pool.cli.bench_command import bench as run_bench

    return run_bench(group, file, decode, workers, sample, seconds)


@evproc.command(
    epilog=examples(
        'eval "$(evproc completion bash)"     (in ~/.bashrc)',
        'eval "$(evproc completion zsh)"      (in ~/.zshrc)',
        "evproc completion fish | source      (in ~/.config/fish/config.fish)",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@traceback_option
def completion(shell: str, show_traceback: bool) -> int:  # noqa: ARG001 - `start` looks for it
    """Print what a shell needs to complete words."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise CommandError(f"there is no completion for {shell}")
    click.echo(found(evproc, {}, "evproc", "_EVPROC_COMPLETE").source())
    return 0
