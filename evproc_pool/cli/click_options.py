"""The options of a pool for `click`, and defaults from `pyproject.toml`.

Imports nothing that is slow: a shell that completes a word imports it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from evproc_pool.cli.pool_flags import FLAGS, Flag, number_of_bytes
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


class Seconds(click.FloatRange):
    """Seconds: a number, and no NaN or infinity."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read a number."""
        found: float = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is no number of seconds", param, ctx)
        return found


def _option(flag: Flag) -> Callable[[Any], Any]:
    help_text = f"{flag.help}  [default: {flag.default}]" if flag.default else flag.help
    names = (flag.flag, flag.option)
    if flag.kind == "on-off":
        both = f"{flag.flag}/--no-{flag.flag.removeprefix('--')}"
        return click.option(both, flag.option, default=None, help=help_text)
    kinds: dict[str, tuple[Any, str]] = {
        "count": (click.INT, "N"),
        "seconds": (Seconds(), "SECONDS"),
        "bytes": (Bytes(), "BYTES"),
        "function": (str, "MODULE:FUNCTION"),
        "classes": (str, "CLASSES"),
        "executor": (str, "EXECUTOR"),
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
