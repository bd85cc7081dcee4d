"""Reading one event from a file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evproc import Event
from evproc_pool.cli.json_event import BadInputError, parse
from evproc_pool.cli.problems import STANDARD_INPUT, CommandError


def read_event(path: str, make: Callable[[Any], Event]) -> Event:
    """Read a file that holds one event.

    Raises:
        CommandError: It cannot be read, or holds none.
    """
    where = "standard input" if path == STANDARD_INPUT else path
    try:
        is_piped = path == STANDARD_INPUT
        data = sys.stdin.buffer.read() if is_piped else Path(path).read_bytes()
        return make(parse(data.decode("utf-8-sig")))
    except OSError as error:
        raise CommandError(f"{where}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CommandError(f"{where}: line {line} is no UTF-8 text") from None
    except BadInputError as error:
        raise CommandError(f"{where}: {error}") from error
