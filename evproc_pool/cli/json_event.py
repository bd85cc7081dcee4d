"""Events from JSON: the default class, and a function of the application in its place.

Workers import this module, so it imports nothing that is slow.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from typing import Any, Final

from evproc import Event
from evproc_pool.cli.problems import CommandError

#: Makes an event of a JSON object.
Decode = Callable[[dict[str, Any]], Event]


class JsonEvent(Event):
    """An event from a JSON object with a `"name"`: `{"name": "order", "total": 5}`.

    Each member is an attribute, so a handler reads `ev.total`. `ev.data` is the whole object: for
    names that are no attributes (`ev.data["user-id"]`), and for `data`, `proc` and `emit`, which
    mean something else here. The member `"ctxt"` is `ev.ctxt`; without it, that is None.

    Args:
        data: The object; its `"name"` is a string.

    Attributes:
        name: The member `"name"`.
        data: The object.
    """

    name: str

    def __init__(self, data: dict[str, Any]) -> None:
        self.name = data["name"]
        self.data = data
        if "ctxt" in data:
            self.ctxt = data["ctxt"]

    def __getattr__(self, name: str) -> Any:
        # called only for what is no attribute; Python probes for names such as __deepcopy__
        if not name.startswith("__"):
            data = self.__dict__.get("data", ())
            if name in data:
                return data[name]
        raise AttributeError(f"event {self.__dict__.get('name')!r} has no member {name!r}")

    def __repr__(self) -> str:
        return f"JsonEvent({self.data!r})"


# What `describe_event` puts between the name of such an event and its members. It is the same for
# each event, and longer than what a row of a table has room for.
_CLASS: Final = f" ({JsonEvent.__module__}.{JsonEvent.__qualname__}: {JsonEvent.__qualname__}("


def by_members(event: str) -> str:
    """Return what `describe_event` says of an event, without the class if it is a `JsonEvent`."""
    name, found, members = event.partition(_CLASS)
    members = members.removesuffix("))").removesuffix(")").replace(f"'name': {name}, ", "", 1)
    return f"{name} {members}" if found else event


class BadInputError(Exception):
    """A line, or a file, from which no event can be made; the text says why."""


_decode: Final = json.JSONDecoder().decode


def parse(text: str) -> Any:
    """Parse JSON.

    Raises:
        BadInputError: It is none.
    """
    try:
        return _decode(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column" if error.lineno > 1 else "column"
        raise BadInputError(f"no JSON at {place} {error.colno}: {error.msg}") from None
    except RecursionError:
        raise BadInputError("too deeply nested JSON") from None
    except ValueError as error:  # a number of too many digits
        raise BadInputError(f"no JSON that Python can read: {error}") from None


def default_decode(data: Any) -> Event:
    """Make a `JsonEvent`.

    Raises:
        BadInputError: It is no object with a name.
    """
    try:
        if type(data["name"]) is str:
            return JsonEvent(data)
    except (KeyError, TypeError, IndexError):
        pass
    if not isinstance(data, dict):
        what = _KINDS.get(type(data), type(data).__name__)
        raise BadInputError(f'{what} in place of an object such as {{"name": ...}}')
    if "name" not in data:
        raise BadInputError('the object has no "name", which is the name of the event')
    raise BadInputError(f'"name" is {json.dumps(data["name"])[:40]}, and must be a string')


_KINDS: Final[dict[type, str]] = {
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "true or false",
    list: "an array",
    type(None): "null",
}


def decode_with(where: str) -> Callable[[Any], Event]:
    """Load the function that `--decode` names, and guard it.

    Args:
        where: As in `app.events:from_json`.

    Raises:
        CommandError: There is no such function.
    """
    module_name, colon, path = where.partition(":")
    if not (module_name and colon and path):
        raise CommandError(f"--decode {where}: write module:function, as in app.events:from_json")
    found = load(module_name, path, f"--decode {where}")
    if not callable(found):
        raise CommandError(f"--decode {where}: {path} is {found!r}, and must be a function")
    function: Callable[[Any], object] = found

    def decode(data: Any) -> Event:
        try:
            event = function(data)
        except Exception as error:
            raise BadInputError(f"{where} raised {type(error).__name__}: {error}") from error
        if not isinstance(event, Event):
            raise BadInputError(f"{where} returned {event!r:.80}, which is no event")
        return event

    return decode


def load(module_name: str, path: str, what: str) -> Any:
    """Import a module, and return what an attribute path in it names.

    Raises:
        CommandError: It cannot be imported, or has no such attribute; the text begins with `what`.
    """
    try:
        importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise CommandError(
            f"{what}: {module_name} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    found: Any = sys.modules[module_name]
    try:
        for name in path.split("."):
            found = getattr(found, name)
    except AttributeError as error:
        raise CommandError(f"{what}: {error}") from None
    return found


def decoder(where: str | None) -> Callable[[Any], Event]:
    """Return the function that makes an event of parsed JSON; see `--decode`."""
    return default_decode if where is None else decode_with(where)
