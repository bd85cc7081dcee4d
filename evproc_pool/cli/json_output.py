"""Outcomes as JSON lines, and failures as sentences: pure functions."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import math
import traceback
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, Final

from evproc.event import describe_event, shortened
from evproc_pool import Outcome, RemoteError
from evproc_pool.cli.json_event import by_members
from evproc_pool.cli.raised_by import place_of_error

#: Types that JSON has; a `float` may be one that JSON lacks.
_SCALARS: Final = frozenset({type(None), bool, int, str})

_LONGEST_SENTENCE: Final = 300

# ASCII: right in any encoding, and lone surrogates are no trouble
_dumps: Final = json.JSONEncoder(check_circular=False, allow_nan=False).encode


def plain(value: Any) -> Any:
    """Return a JSON value that stands for a handler's value.

    Named tuples and dataclasses become objects, sets and arrays of NumPy become arrays, dates
    become ISO 8601 texts, and numbers that JSON lacks become null. Anything else becomes its
    `repr`.
    """
    try:
        return _plain(value)
    except RecursionError:
        return _repr(value)


def _plain(value: Any) -> Any:  # noqa: C901, PLR0911 - a case for each kind of value
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is list:
        return [each if type(each) in _SCALARS else _plain(each) for each in value]
    if kind is float:
        return value if math.isfinite(value) else None
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if isinstance(value, (int, str, float)):  # of a subclass
        base = next(each for each in (int, str, float) if isinstance(value, each))
        return _plain(base(value))
    if isinstance(value, Mapping):
        return {_key(name): _plain(each) for name, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: _plain(each) for name, each in zip(value._fields, value, strict=False)}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, AbstractSet):
        return [_plain(each) for each in sorted(value, key=repr)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: _plain(getattr(value, name, None)) for name in names}
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if callable(to_list := getattr(value, "tolist", None)):
        return _plain(to_list())
    return _repr(value)


def _key(name: Any) -> str:
    name = _plain(name)
    return name if type(name) is str else json.dumps(name)


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception:
        return object.__repr__(value)


def dumps(value: Any) -> str:
    """Return the JSON text of any value."""
    if value is None:
        return "null"
    if type(value) is str:
        return quoted(value)
    return _dumps(plain(value))


def outcome_line(outcome: Outcome, line: int, *, with_path: bool = False) -> str:
    """Return the line for an outcome without an error, without its end.

    Args:
        outcome: The outcome.
        line: The number of its line.
        with_path: Whether to add the path of the event, which begins with that number.
    """
    emitted = dumps(outcome.emitted) if outcome.emitted else "[]"
    path = f', "path": {[line, *outcome.path[1:]]}' if with_path else ""
    return (
        f'{{"line": {line}{path}, "name": {_name(outcome.event)},'
        f' "value": {dumps(outcome.value)}, "emitted": {emitted},'
        f' "events": {outcome.events}, "seconds": {outcome.seconds:.6f}}}'
    )


def _name(event: Any) -> str:
    try:
        name = event.name
    except Exception:
        name = None
    return quoted(name) if type(name) is str else dumps(name)


def failure_line(
    outcome: Outcome,
    line: int,
    *,
    with_path: bool = False,
    with_traceback: bool = False,
    given: str | None = None,
) -> str:
    """Return the line for an outcome with an error.

    Args:
        outcome: The outcome.
        line: The number of its line.
        with_path: See `outcome_line`.
        with_traceback: Add the traceback.
        given: The line itself, or None to leave it out.
    """
    raised = _error_of(outcome)
    place = place_of_error(raised, outcome.handler)
    error: dict[str, Any] = {
        "type": type_name(raised),
        "message": _message(raised),
        "handler": place.handler if place else None,
        "event": by_members(describe_event(outcome.failed_event or outcome.event)),
        "attempts": outcome.attempts,
        "failed": outcome.failed,
    }
    if place is not None and place.clause is not None:
        error["filter"] = f"@want {place.clause}"
    if with_traceback:
        error["traceback"] = traceback_text(raised)
    text = outcome_line(outcome, line, with_path=with_path)
    rest = "" if given is None else f', "input": {quoted(given)}'
    return f'{text[:-1]}, "error": {_dumps(error)}{rest}}}'


def bad_line(line: int, reason: str, given: str) -> str:
    """Return the line for input from which no event can be made."""
    error = {"type": "BadInput", "message": reason}
    return f'{{"line": {line}, "error": {_dumps(error)}, "input": {quoted(given)}}}'


def failure_sentence(outcome: Outcome, line: int) -> str:
    """Say which event failed, where and why."""
    error = _error_of(outcome)
    failed = outcome.failed_event or outcome.event
    place = place_of_error(error, outcome.handler)
    where = f" in {place}" if place else ""
    name = json.loads(_name(failed))
    text = f"line {line}: event {name!r} failed{where}: {type_name(error)}: {_message(error)}"
    return shortened(text, _LONGEST_SENTENCE)


def _error_of(outcome: Outcome) -> BaseException:
    if outcome.error is None:
        raise ValueError("the outcome has no error")
    return outcome.error


def type_name(error: BaseException) -> str:
    """Name the type of an error as a traceback does."""
    if isinstance(error, RemoteError):
        return error.type_name.removeprefix("builtins.")
    kind = type(error)
    prefix = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"{prefix}{kind.__qualname__}"


def _message(error: BaseException) -> str:
    try:
        return error.text if isinstance(error, RemoteError) else str(error)
    except Exception:
        return "(its text cannot be made)"


def traceback_text(error: BaseException) -> str:
    """Return the traceback of an error, that of the worker included."""
    return "".join(traceback.format_exception(error))
