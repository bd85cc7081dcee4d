"""`Call`, the event that is a call of `PoolExecutor`, and its handler. Workers import this."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from evproc import Event, StopProcessing, want
from evproc_pool.errors import Disguised

#: The name of the event and of its handler.
CALL: Final = "evproc_pool.call"


class Call(Event):
    """A function, and what to call it with."""

    name = CALL

    def __init__(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        self.fn = fn
        self.args = args
        self.kwargs = kwargs

    def __repr__(self) -> str:
        name = getattr(self.fn, "__qualname__", None) or reprlib.repr(self.fn)
        args = [*map(reprlib.repr, self.args)]
        args += [f"{key}={reprlib.repr(value)}" for key, value in self.kwargs.items()]
        return f"{name}({', '.join(args)})"


@want(CALL)
def call(proc: object, ev: Call) -> NoReturn:  # noqa: ARG001 - a handler's signature
    """Call the function; what it returns is the value of the event."""
    try:
        value = ev.fn(*ev.args, **ev.kwargs)
    except StopProcessing as stop:
        raise Disguised(stop) from None  # it is no handler's, and so an error
    raise StopProcessing(value)
