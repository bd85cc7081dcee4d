"""The arguments of a `PoolProcessor` and of its calls, checked and in groups.

`PoolOptions` has those of a pool, `CallOptions` and `StreamOptions` those of a call. Functions
with the name of a group make it. The other functions check one argument: each takes the
argument's name and value, and raises a `TypeError` or a `ValueError` that says what is valid.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from math import inf
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.context import BaseContext
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from evproc import Event
from evproc.event import describe_event
from evproc_pool.backends.local.cpu_count import usable_cpus
from evproc_pool.core.cascade_limits import CascadeEnding
from evproc_pool.core.estimates import MOST_EVENTS
from evproc_pool.core.retry_policy import RetryPolicy
from evproc_pool.core.root_events import Key
from evproc_pool.protocol.limits import Limits

if TYPE_CHECKING:
    from evproc.annotations import Unmatched

#: Whether follow-ups are independent; see `PoolProcessor`.
Ordering = Literal["cascade", "unordered"]

#: Whether an error ends the cascade; see `PoolProcessor`.
Errors = Literal["end", "continue"]

#: The default of `stream`'s `buffersize` for each worker: two full batches of tiny events.
BUFFER_PER_WORKER: Final = 2 * MOST_EVENTS

_IMPORTED_BY: Final = os.getpid()


# --- a pool's, in groups ---


class StartOptions(NamedTuple):
    """Workers and their start; see `PoolProcessor`.

    Attributes:
        workers: How many at the most.
        context: Starts them.
        initializer: Called in each worker first, or None.
        initargs: Its arguments.
        preload: What a forkserver imports.
    """

    workers: int
    context: BaseContext
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    preload: bool | None


class OrderOptions(NamedTuple):
    """Order and keys; see `PoolProcessor`.

    Attributes:
        unordered: Whether follow-ups are independent.
        key: Gives the key of a root event, or None.
    """

    unordered: bool
    key: Key | None


class PoolOptions(NamedTuple):
    """The options of a pool, checked.

    Attributes:
        start: Workers and their start.
        order: Order and keys.
        ending: Cascades: `errors` and the limits of a cascade.
        limits: The limits of a worker.
        retries: Failures and retries.
        unmatched: What happens to an event that no handler wants.
    """

    start: StartOptions
    order: OrderOptions
    ending: CascadeEnding
    limits: Limits
    retries: RetryPolicy
    unmatched: Unmatched


def start_options(
    workers: int | None,
    mp_context: BaseContext | str | None,
    initializer: Callable[..., object] | None,
    initargs: Iterable[Any],
    preload: bool | None,
) -> StartOptions:
    """Check the group; see `PoolProcessor`."""
    size = worker_count(workers)
    starts = context(mp_context)
    check_callable("initializer", initializer)
    return StartOptions(
        size, starts, initializer, arguments(initargs), flag_or_none("preload", preload)
    )


def order_options(ordering: str, key: Key | None) -> OrderOptions:
    """Check the group; see `PoolProcessor`."""
    check_callable("key", key)
    return OrderOptions(is_unordered(ordering), key)


def cascade_ending(
    errors: str, max_cascade_depth: int | None, max_cascade_events: int | None
) -> CascadeEnding:
    """Check the group; see `PoolProcessor`."""
    return CascadeEnding(
        continues(errors),
        count_or_none("max_cascade_depth", max_cascade_depth, least=0),
        count_or_none("max_cascade_events", max_cascade_events),
    )


def worker_limits(
    event_timeout: float | None,
    event_soft_timeout: float | None,
    max_tasks_per_child: int | None,
    max_worker_memory_bytes: int | None,
) -> Limits:
    """Check the group; see `PoolProcessor`."""
    limits = Limits(
        seconds_or_none("event_timeout", event_timeout),
        count_or_none("max_tasks_per_child", max_tasks_per_child),
        count_or_none("max_worker_memory_bytes", max_worker_memory_bytes),
        seconds_or_none("event_soft_timeout", event_soft_timeout),
    )
    check_soft(limits.event_soft_timeout, limits.event_timeout)
    return limits


def retry_policy(
    max_retries: int,
    retry_exceptions: type[BaseException] | Iterable[type[BaseException]],
    retry_backoff: float,
    retry_backoff_max: float,
    crash_limit: int,
) -> RetryPolicy:
    """Check the group; see `PoolProcessor`."""
    return RetryPolicy(
        count("max_retries", max_retries, least=0),
        exceptions("retry_exceptions", retry_exceptions),
        count("crash_limit", crash_limit),
        seconds("retry_backoff", retry_backoff),
        seconds("retry_backoff_max", retry_backoff_max),
    )


# --- a call's ---


class CallOptions(NamedTuple):
    """The options of one call, checked; the pool's where the call has none.

    Attributes:
        unordered: Whether follow-ups are independent.
        key: Gives the key of a root event, or None.
        shares_keys: Whether `key` is the pool's, whose order holds across calls.
        ending: What ends a cascade before its time.
    """

    unordered: bool
    key: Key | None
    shares_keys: bool
    ending: CascadeEnding


class StreamOptions(NamedTuple):
    """The options of a stream, checked; see `PoolProcessor.stream`."""

    call: CallOptions
    ordered: bool
    buffersize: int
    return_events: bool
    every_event: bool


def call_options(
    pool: PoolOptions, ordering: Ordering | None, key: Key | None, errors: Errors | None
) -> CallOptions:
    """Check the options of a call."""
    check_callable("key", key)
    order, ending = pool.order, pool.ending
    return CallOptions(
        order.unordered if ordering is None else is_unordered(ordering),
        order.key if key is None else key,
        key is None and order.key is not None,
        ending if errors is None else ending._replace(errors_continue=continues(errors)),
    )


def stream_options(  # noqa: PLR0917 - as many as `stream` has
    pool: PoolOptions,
    call: CallOptions,
    buffersize: int | None,
    ordered: bool,
    return_events: bool,
    every_event: bool,
) -> StreamOptions:
    """Check the options of a stream; `call` has those of every call."""
    every_event = flag("every_event", every_event)
    if buffersize is None:
        buffersize = BUFFER_PER_WORKER * max(1, pool.start.workers)
    elif isinstance(buffersize, bool) or not isinstance(buffersize, int):
        raise TypeError(f"buffersize is a number of events or None, not {buffersize!r}")
    elif buffersize < 1:
        raise ValueError(f"buffersize must be positive, and is {buffersize}")
    return StreamOptions(call, ordered, buffersize, return_events, every_event)


# --- one argument ---


def is_unordered(ordering: str) -> bool:
    """Check `ordering`; return whether it is "unordered"."""
    if ordering not in ("cascade", "unordered"):
        raise ValueError(f"ordering is 'cascade' or 'unordered', not {ordering!r}")
    return ordering == "unordered"


def continues(errors: str) -> bool:
    """Check `errors`; return whether a cascade goes on after an error."""
    if errors not in ("end", "continue"):
        raise ValueError(f"errors is 'end' or 'continue', not {errors!r}")
    return errors == "continue"


def check_callable(what: str, value: object) -> None:
    """Refuse a value that is neither callable nor None."""
    if value is not None and not callable(value):
        raise TypeError(f"{what} is a callable or None, not {value!r}")


def seconds_or_none(what: str, value: float | None) -> float | None:
    """Check a number of seconds above 0, or None."""
    if value is None:
        return None
    number = _number(what, value, " or None")
    if not 0 < number < inf:
        raise ValueError(f"{what} must be more than 0 and finite, and is {value}")
    return number


def check_soft(soft: float | None, hard: float | None) -> None:
    """Refuse an `event_soft_timeout` that is not below `event_timeout`."""
    if soft is not None and hard is not None and soft >= hard:
        raise ValueError(
            f"event_soft_timeout must be less than event_timeout ({hard:g}), and is {soft:g}"
        )


def seconds(what: str, value: float) -> float:
    """Check a number of seconds that may be 0."""
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
    """Check a bool; other true or false values are refused."""
    if not isinstance(value, bool):
        raise TypeError(f"{what} is True or False, not {value!r}")
    return value


def flag_or_none(what: str, value: bool | None) -> bool | None:
    """Check a bool or None; other true or false values are refused."""
    if value is not None and not isinstance(value, bool):
        raise TypeError(f"{what} is True, False or None, not {value!r}")
    return value


def events(value: Iterable[Event]) -> Iterator[Event]:
    """Check an iterable of events; return an iterator."""
    if isinstance(value, Event) and not hasattr(value, "__iter__"):
        raise TypeError(
            f"events is an iterable of events, not a single one, {describe_event(value)}: use"
            " process() or submit() for it, or put it into a list"
        )
    return iter(value)


def arguments(value: Iterable[Any]) -> tuple[Any, ...]:
    """Check `initargs`; return a tuple."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"initargs is a tuple of arguments, not {value!r}")
    return tuple(value)


def count_or_none(what: str, value: int | None, *, least: int = 1) -> int | None:
    """Check a whole number of at least `least`, or None."""
    return None if value is None else count(what, value, " or None", least=least)


def count(what: str, value: int, alternative: str = "", *, least: int = 1) -> int:
    """Check a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} is a whole number{alternative}, not {value!r}")
    if value < least:
        raise ValueError(f"{what} must be at least {least}, and is {value}")
    return value


def exceptions(
    what: str, value: type[BaseException] | Iterable[type[BaseException]]
) -> tuple[type[BaseException], ...]:
    """Check one exception class or several; return a tuple."""
    try:
        kinds = (value,) if isinstance(value, (type, str, bytes)) else tuple(value)
    except TypeError:
        raise TypeError(f"{what} is an exception class or several, not {value!r}") from None
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"{what} is an exception class or several, and {kind!r} is none")
    return kinds


def worker_count(workers: int | None) -> int:
    """Check `workers`; for None return the number of CPUs that this process may use."""
    if workers is None:
        return usable_cpus()
    if isinstance(workers, bool) or not isinstance(workers, int):
        raise TypeError(f"workers is a number of processes or None, not {workers!r}")
    if workers < 0:
        raise ValueError(f"workers must not be negative, and is {workers}")
    return workers


def context(mp_context: BaseContext | str | None) -> BaseContext:
    """Check `mp_context`; return a context."""
    if mp_context is None:
        # here: it imports what starts processes
        from evproc_pool.backends.local.start_methods import default_context

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
