"""Where an error comes from, by the notes that `evproc` adds to it; they come from workers, too."""

from __future__ import annotations

import ast
import re
from typing import Final, NamedTuple

_NAME: Final = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_NOTE: Final = re.compile(
    rf"evproc: raised by (?:filter .*? \(@want (?P<clause>\d+)\) of )?handler (?P<name>{_NAME}) ",
    re.DOTALL,
)


class Place(NamedTuple):
    """Where an error was raised.

    Attributes:
        handler: The name of the handler.
        clause: Which `@want` of it has the filter that raised it; None: the handler did.
    """

    handler: str
    clause: int | None = None

    def __str__(self) -> str:
        if self.clause is None:
            return f"handler {self.handler!r}"
        return f"the filter of handler {self.handler!r} (@want {self.clause})"


def place_of_error(error: BaseException, handler: str | None = None) -> Place | None:
    """Return where an error was raised; `handler` is what is known of it."""
    if handler is not None:
        return Place(handler)
    notes = getattr(error, "__notes__", ())
    # the last one: those before may come from a `Processor` in the handler
    for note in reversed(notes if isinstance(notes, (list, tuple)) else ()):
        if isinstance(note, str) and (found := _NOTE.match(note)):
            clause = found["clause"]
            return Place(ast.literal_eval(found["name"]), int(clause) if clause else None)
    return None
