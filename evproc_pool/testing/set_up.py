"""The handlers of a pool that a test makes: an entry-point group, a list, or a callable."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable

from evproc.annotations import HandlerFunc
from evproc.decorator import describe_callable
from evproc_pool.pool import PoolProcessor

#: An entry-point group, handlers, or a callable that is called with the pool and registers them.
SetUp = str | Iterable[HandlerFunc] | Callable[[PoolProcessor], object]


def checked(set_up: SetUp) -> SetUp:
    """Check an argument; return it so that it can be used for several pools.

    Raises:
        TypeError: It is none of the three, or a handler.
    """
    if isinstance(set_up, str):
        return set_up
    if callable(set_up):
        if not _takes_one(set_up):
            raise TypeError(
                "set_up is called with the pool, to register the handlers, and"
                f" {describe_callable(set_up)} takes something else; a handler goes into a list,"
                " [handler]"
            )
        return set_up
    if isinstance(set_up, Iterable):
        return list(set_up)
    raise TypeError(
        "set_up is a list of handlers, an entry-point group, or a callable that is called with the"
        f" pool and registers them; it is {set_up!r}"
    )


def register_handlers(pool: PoolProcessor, set_up: SetUp) -> None:
    """Give a pool its handlers."""
    if isinstance(set_up, str):
        pool.load_from(set_up)
    elif callable(set_up):
        set_up(pool)
    else:
        for handler in set_up:
            pool.register(handler)


def _takes_one(function: Callable[..., object]) -> bool:
    try:
        signature = inspect.signature(function)
    except Exception:
        return True  # its signature cannot be read
    try:
        signature.bind(None)
    except TypeError:
        return False
    return True
