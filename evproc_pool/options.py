"""The arguments of a `PoolProcessor`, checked.

Each takes the argument's name and what was given for it, and raises a `TypeError` or a
`ValueError` that says what it has to be.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from math import inf
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.context import BaseContext
from typing import Any, Final

from evproc import Event
from evproc.event import describe_event
from evproc_pool.backends.local.cpu_count import usable_cpus

_IMPORTED_BY: Final = os.getpid()


def is_unordered(ordering: str) -> bool:
    """Whether an `ordering` is the unordered one."""
    if ordering not in ("cascade", "unordered"):
        raise ValueError(f"ordering is 'cascade' or 'unordered', not {ordering!r}")
    return ordering == "unordered"


def continues(errors: str) -> bool:
    """Whether cascades go on after an error, by `errors`."""
    if errors not in ("end", "continue"):
        raise ValueError(f"errors is 'end' or 'continue', not {errors!r}")
    return errors == "continue"


def check_callable(what: str, value: object) -> None:
    """Refuse what cannot be called."""
    if value is not None and not callable(value):
        raise TypeError(f"{what} is a callable or None, not {value!r}")


def seconds_or_none(what: str, value: float | None) -> float | None:
    """A number of seconds, more than 0."""
    if value is None:
        return None
    number = _number(what, value, " or None")
    if not 0 < number < inf:
        raise ValueError(f"{what} must be more than 0 and finite, and is {value}")
    return number


def check_soft(soft: float | None, hard: float | None) -> None:
    """Refuse an `event_soft_timeout` that leaves a handler no time until `event_timeout`."""
    if soft is not None and hard is not None and soft >= hard:
        raise ValueError(
            f"event_soft_timeout must be less than event_timeout ({hard:g}), and is {soft:g}"
        )


def seconds(what: str, value: float) -> float:
    """A number of seconds, or 0."""
    number = _number(what, value)
    if not 0 <= number < inf:
        raise ValueError(f"{what} must not be negative, and must be finite, and is {value}")
    return number


def _number(what: str, value: float, alternative: str = "") -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what} is a number of seconds{alternative}, not {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{what} is too large a number of seconds") from None


def flag(what: str, value: bool) -> bool:
    """True or False, and not what only counts as one of them."""
    if not isinstance(value, bool):
        raise TypeError(f"{what} is True or False, not {value!r}")
    return value


def flag_or_none(what: str, value: bool | None) -> bool | None:
    """True, False or None, and not what only counts as one of them."""
    if value is not None and not isinstance(value, bool):
        raise TypeError(f"{what} is True, False or None, not {value!r}")
    return value


def events(value: Iterable[Event]) -> Iterator[Event]:
    """An iterator over events."""
    if isinstance(value, Event) and not hasattr(value, "__iter__"):
        raise TypeError(
            f"events is an iterable of events, not a single one, {describe_event(value)}: use"
            " process() or submit() for it, or put it into a list"
        )
    return iter(value)


def initargs(value: Iterable[Any]) -> tuple[Any, ...]:
    """The arguments of an initializer."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"initargs is a tuple of arguments, not {value!r}")
    return tuple(value)


def count_or_none(what: str, value: int | None, *, least: int = 1) -> int | None:
    """A whole number, or None."""
    return None if value is None else count(what, value, " or None", least=least)


def count(what: str, value: int, alternative: str = "", *, least: int = 1) -> int:
    """A whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} is a whole number{alternative}, not {value!r}")
    if value < least:
        raise ValueError(f"{what} must be at least {least}, and is {value}")
    return value


def exceptions(
    what: str, value: type[BaseException] | Iterable[type[BaseException]]
) -> tuple[type[BaseException], ...]:
    """One exception class or several, as a tuple."""
    try:
        kinds = (value,) if isinstance(value, (type, str, bytes)) else tuple(value)
    except TypeError:
        raise TypeError(f"{what} is an exception class or several, not {value!r}") from None
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"{what} is an exception class or several, and {kind!r} is none")
    return kinds


def worker_count(workers: int | None) -> int:
    """How many workers; None: as many as there are CPUs to use."""
    if workers is None:
        return usable_cpus()
    if isinstance(workers, bool) or not isinstance(workers, int):
        raise TypeError(f"workers is a number of processes or None, not {workers!r}")
    if workers < 0:
        raise ValueError(f"workers must not be negative, and is {workers}")
    return workers


def context(mp_context: BaseContext | str | None) -> BaseContext:
    """A `multiprocessing` context, also by the name of its start method."""
    if mp_context is None:
        from evproc_pool.backends.local.start_methods import (
            default_context,  # with what starts processes
        )

        return default_context(_IMPORTED_BY)
    if isinstance(mp_context, str):
        try:
            return get_context(mp_context)
        except ValueError:
            methods = ", ".join(map(repr, get_all_start_methods()))
            raise ValueError(
                f"mp_context names a start method, here {methods}, and not {mp_context!r}"
            ) from None
    if not isinstance(mp_context, BaseContext):
        raise TypeError(
            "mp_context is a multiprocessing context, the name of a start method, or None,"
            f" not {mp_context!r}"
        )
    return mp_context
