"""Warnings as bytes, on their way from a worker to the application's `warnings.showwarning`."""

from __future__ import annotations

import pickle
import sys
from typing import Any, NamedTuple

from evproc.event import module_of, qualname
from evproc_pool.errors import bases_of
from evproc_pool.protocol.frame import Data
from evproc_pool.serialization.basics import PROTOCOL, plain


class Warned(NamedTuple):
    """A warning, as `warnings.showwarning` gets it."""

    message: Warning | str
    category: type[Warning]
    filename: str
    lineno: int


def dump_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int
) -> bytes:
    """Encode a warning."""
    try:
        text = plain(str(message))
    except Exception:
        text = f"<{qualname(type(message))} without a text>"
    kinds = [(module_of(each), qualname(each)) for each in bases_of(category)]
    return pickle.dumps((text, kinds, plain(filename), int(lineno)), PROTOCOL)


def load_warning(payload: Data) -> Warned:
    """Rebuild a warning; of its nearest base class, if its own is not imported here."""
    text, kinds, filename, lineno = pickle.loads(payload)
    category: type[Warning] = next(filter(None, (_category(*each) for each in kinds)), UserWarning)
    message: Warning | str = text
    try:
        made = category(text)
        if str(made) == text:
            message = made
    except Exception:
        message = text  # its class wants other arguments
    return Warned(message, category, filename, lineno)


def _category(module: str, name: str) -> type[Warning] | None:
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) and issubclass(found, Warning) else None
