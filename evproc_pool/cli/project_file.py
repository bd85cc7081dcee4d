"""`[tool.evproc]` of the `pyproject.toml` in the working folder: defaults for `evproc run`."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from evproc.mistakes import near_names
from evproc_pool.cli.problems import CommandError

FILE: Final = "pyproject.toml"
_WHERE: Final = f"{FILE}, [tool.evproc]"


def read_defaults(folder: Path) -> dict[str, Any]:
    """Read the table; empty if there is no file, or no such table.

    Raises:
        CommandError: The file is no TOML.
        OSError: It cannot be read.
    """
    try:
        with (folder / FILE).open("rb") as file:
            found: object = tomllib.load(file).get("tool", {}).get("evproc", {})
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CommandError(f"{FILE}: {error}") from None
    if not isinstance(found, dict):
        raise CommandError(f"{_WHERE} is {found!r}, and must be a table")
    return found


def defaults(table: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the defaults of flags.

    Args:
        table: What the file has.
        names: For each key, with dashes, the name of the parameter.

    Raises:
        CommandError: A key is unknown, or its value is of a kind that no flag takes.
    """
    found: dict[str, Any] = {}
    for key, value in table.items():
        dashed = key.replace("_", "-")
        if dashed not in names:
            raise CommandError(f"{_WHERE}: unknown key {key!r}{_hint(dashed, names)}")
        found[names[dashed]] = _value(key, value)
    return found


def _hint(key: str, names: Collection[str]) -> str:
    near = near_names(key, names)
    return f"; there is {', '.join(map(repr, near))}" if near else ""


def _value(key: str, value: Any) -> Any:
    if isinstance(value, (str, int, float)):
        return value
    if isinstance(value, list) and key.replace("_", "-") == "retry-exceptions":
        return ",".join(map(str, value))
    if isinstance(value, list):
        return json.dumps(value, default=str)
    raise CommandError(f"{_WHERE}: {key} is {value!r}, and must be a text or a number")
