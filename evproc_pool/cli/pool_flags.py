"""The options of a `PoolProcessor` as flags, and as keys of `[tool.evproc]`.

`FLAGS` is the table. A test holds that it has every option of a pool but `listeners`. A flag that
is not given is not passed on, so the pool's own defaults hold. Errors of a pool name options as
arguments; `as_typed` names the flags instead.
"""

from __future__ import annotations

import builtins
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from evproc_pool.cli.json_event import load
from evproc_pool.cli.problems import CommandError


class Flag(NamedTuple):
    """A flag for an option of a pool.

    Attributes:
        option: The name of the option.
        kind: What it takes: "count", "seconds", "bytes", "function", "classes", "executor",
            "json", "on-off", or the words to choose from, with "|" between them.
        help: What it does.
        name: The flag, if it is not the option's name.
        default: What holds if it is not given; empty: nothing, or no limit.
    """

    option: str
    kind: str
    help: str
    name: str = ""
    default: str = ""

    @property
    def flag(self) -> str:
        """The name on the command line, with the dashes."""
        return f"--{self.name or self.option.replace('_', '-')}"


FLAGS: Final = (
    Flag(
        "workers",
        "count",
        "The most worker processes; 0 runs all in this process.",
        default="number of CPUs",
    ),
    Flag(
        "executor",
        "executor",
        "Run handlers elsewhere: tcp://host:port is the scheduler of a Dask cluster, ray a Ray"
        " cluster (ray:host:port names one), module:attribute an executor of concurrent.futures,"
        " or a callable that makes one.",
    ),
    Flag(
        "mp_context",
        "spawn|forkserver|fork",
        "How workers are started.",
        default="forkserver on Linux, spawn elsewhere",
    ),
    Flag("initializer", "function", "Called in each worker before it loads the handlers."),
    Flag("initargs", "json", "Arguments of the initializer, as a JSON array."),
    Flag("finalizer", "function", "Called in each worker that is asked to end."),
    Flag(
        "ordering", "cascade|unordered", "unordered: follow-ups are independent.", default="cascade"
    ),
    Flag("key", "function", "Events with equal keys run in the order of their lines."),
    Flag(
        "errors",
        "end|continue",
        "continue: an event that fails ends only itself and its own follow-ups.",
        "cascade-errors",
        default="end",
    ),
    Flag("max_cascade_depth", "count", "The greatest depth of follow-ups."),
    Flag("max_cascade_events", "count", "The most events of a cascade."),
    Flag("event_timeout", "seconds", "Kill a worker after so many seconds in one event."),
    Flag("event_soft_timeout", "seconds", "Raise SoftTimeoutError in the handler before that."),
    Flag("max_tasks_per_child", "count", "Replace a worker after so many events."),
    Flag("max_worker_memory_bytes", "bytes", "Replace a worker that has so much memory, as 2G."),
    Flag(
        "worker_logging",
        "on-off",
        "Print warnings and errors that handlers log.",
        default="worker-logging",
    ),
    Flag("worker_output", "label", "label: lines that handlers print say which worker it was."),
    Flag(
        "statistics",
        "on-off",
        "Print statistics to standard error at the end. Paths of events begin with the line.",
        "stats",
    ),
    Flag("max_retries", "count", "How often an event that failed is run again.", default="0"),
    Flag(
        "retry_exceptions",
        "classes",
        "For which exceptions, as in app.errors:Busy,OSError.",
        default="Exception",
    ),
    Flag(
        "retry_backoff",
        "seconds",
        "Pause before the first retry; then twice as long.",
        default="0.1",
    ),
    Flag("retry_backoff_max", "seconds", "The longest of these pauses.", default="60.0"),
    Flag("crash_limit", "count", "How many workers may die while they run one event.", default="1"),
    Flag("preload", "on-off", "Import the handlers' modules once for all workers."),
    Flag(
        "native_threads",
        "count",
        "The most threads of OpenBLAS, MKL and OpenMP in a worker.",
        default="CPUs / workers",
    ),
    Flag(
        "unmatched",
        "ignore|error",
        "What happens to an event that no handler wants.",
        default="ignore",
    ),
)

#: Options that do nothing without worker processes. A test holds that README names the same.
FOR_WORKERS: Final = frozenset(
    {
        "event_timeout",
        "event_soft_timeout",
        "max_tasks_per_child",
        "max_worker_memory_bytes",
        "crash_limit",
        "preload",
        "native_threads",
        "mp_context",
        "worker_logging",
        "worker_output",
    }
)


def without_effect(given: Mapping[str, Any]) -> list[str]:
    """Return the flags that ask for something that needs workers, if there are none."""
    if given.get("workers") != 0:
        return []
    return [
        each.flag
        for each in FLAGS
        if each.option in FOR_WORKERS
        and (value := given.get(each.option)) is not None
        and value is not False
    ]


_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def number_of_bytes(text: str) -> int:
    """Read a number of bytes: "2G", "512M", "1000"."""
    match = re.fullmatch(r"(\d+)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError(f"{text!r} is no number of bytes such as 512M or 2G")
    return int(match[1]) * _UNITS[match[2].upper()]


def function(where: str, flag: str) -> Any:
    """Import what `module:name` names."""
    module, colon, path = where.partition(":")
    if not (module and colon and path):
        raise CommandError(f"{flag} {where}: write module:function")
    return load(module, path, f"{flag} {where}")


# What begins an address of a Ray cluster, such as ray:auto, and is no module with an executor.
_RAY: Final = "ray"


def executor(text: str, flag: str) -> Any:
    """Import what `module:attribute` names; return any other text, which the pool checks."""
    module, colon, path = text.partition(":")
    names = f"{module}.{path}".split(".")
    if colon and module != _RAY and all(name.isidentifier() for name in names):
        return load(module, path, f"{flag} {text}")
    return text


def classes(text: str, flag: str) -> tuple[Any, ...]:
    """Import several classes; built-in ones need no module."""
    found = []
    for name in filter(None, map(str.strip, text.split(","))):
        if ":" in name:
            found.append(function(name, flag))
        elif hasattr(builtins, name):
            found.append(getattr(builtins, name))
        else:
            raise CommandError(f"{flag} {name}: no built-in exception; write module:Class")
    return tuple(found)


def array(text: str, flag: str) -> tuple[Any, ...]:
    """Read a JSON array."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, list):
        raise CommandError(f"{flag} {text}: write a JSON array, as in '[\"a\", 1]'")
    return tuple(value)


_FROM_TEXT: Final[dict[str, Callable[[str, str], Any]]] = {
    "function": function,
    "classes": classes,
    "executor": executor,
    "json": array,
}


def pool_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a `PoolProcessor`, for the values of flags by option.

    Args:
        given: Values; None is a flag that was not given.

    Raises:
        CommandError: Something named cannot be imported.
    """
    arguments: dict[str, Any] = {}
    for each in FLAGS:
        value = given.get(each.option)
        if value is None:
            continue
        read = _FROM_TEXT.get(each.kind)
        arguments[each.option] = value if read is None else read(value, each.flag)
    return arguments


def as_typed(text: str, arguments: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Return an error of a pool, with flags in the place of arguments.

    Args:
        text: The error.
        arguments: What the pool got, by option.
        given: The values of the flags, by option.
    """
    if "executor" in arguments:
        text = text.replace(repr(arguments["executor"]), given["executor"])
    flags = {each.option: each.flag for each in FLAGS}
    return re.sub(r"\b([a-z_]+)=", lambda found: _flag_for(found, flags), text)


def _flag_for(found: re.Match[str], flags: Mapping[str, str]) -> str:
    flag = flags.get(found[1])
    is_last = found.end() == len(found.string) or found.string[found.end()] in " ,.;:)"
    return found[0] if flag is None else flag if is_last else f"{flag} "
