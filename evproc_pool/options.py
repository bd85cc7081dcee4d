"""The arguments of a `PoolProcessor` and of its calls, checked and in groups.

`PoolOptions` has those of a pool, `CallOptions` those of a call. Functions with the name of a
group make it. The others check one argument, and raise a `TypeError` or a `ValueError` that says
what is valid.
"""

from __future__ import annotations

import contextlib
import operator
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from math import inf
from multiprocessing import current_process, get_all_start_methods, get_context
from multiprocessing.context import BaseContext
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args

from evproc import Event
from evproc.event import describe_event
from evproc_pool.backends.choice import Choice, check_options, choose
from evproc_pool.backends.local.cpu_count import usable_cpus
from evproc_pool.core.cascade_limits import CascadeEnding
from evproc_pool.core.estimates import MOST_EVENTS
from evproc_pool.core.retry_policy import RetryPolicy
from evproc_pool.core.root_events import Key
from evproc_pool.protocol.limits import NO_LIMITS, Limits
from evproc_pool.protocol.worker_output import WorkerOutput, current_levels

if TYPE_CHECKING:
    from evproc.annotations import Unmatched
    from evproc_pool.observe.call_progress import CallProgress
    from evproc_pool.observe.collector import Collector
    from evproc_pool.observe.notifications import Listener
    from evproc_pool.observe.notifier import Notifier
    from evproc_pool.observe.progress import ProgressCounts

    #: Whether and how a call shows how far it is; see `PoolProcessor.process_many`.
    Progress = bool | Callable[[ProgressCounts], object]

#: Whether follow-ups are independent; see `PoolProcessor`.
Ordering = Literal["cascade", "unordered"]

#: Whether an error ends the cascade; see `PoolProcessor`.
Errors = Literal["end", "continue"]

#: How the output of handlers is changed; see `PoolProcessor`.
WorkerPrints = Literal["label"]

#: The default of `stream`'s `buffersize` for each worker: two full batches of tiny events.
BUFFER_PER_WORKER: Final = 2 * MOST_EVENTS

_IMPORTED_BY: Final = os.getpid()


# --- a pool's, in groups ---


class StartOptions(NamedTuple):
    """Workers and their start; see `PoolProcessor`. `preload` is for a forkserver."""

    workers: int
    context: BaseContext
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    preload: bool | None
    finalizer: Callable[[], object] | None = None
    native_threads: int | None = None
    logs: bool = True
    output: WorkerPrints | None = None
    executor: Choice | None = None
    has_size: bool = True  # `workers` was given

    def worker_output(self) -> WorkerOutput:
        """What workers do with what they log and print, by the levels of this moment."""
        levels = current_levels() if self.logs else None
        return WorkerOutput(levels, has_labels=self.output is not None)

    @property
    def thread_limit(self) -> int:
        """How many threads a native library may have in a worker; 0: no limit."""
        if self.native_threads is not None:
            return self.native_threads
        from evproc_pool.protocol.process_state import THREAD_VARIABLES

        # then it is the user's choice
        if any(os.environ.get(name) for name in THREAD_VARIABLES):
            return 0
        return max(1, usable_cpus() // max(1, self.workers))


class CallOptions(NamedTuple):
    """The options of a call, checked; see `PoolProcessor.stream`.

    Attributes:
        shares_keys: Whether `key` is the pool's, whose order holds across calls.
        ending: What ends a cascade before its time.
    """

    unordered: bool
    key: Key | None
    shares_keys: bool
    ending: CascadeEnding
    buffersize: int
    ordered: bool = True
    return_events: bool = False
    every_event: bool = False
    prompt: bool = True
    progress: CallProgress | None = None


class Observers(NamedTuple):
    """What listens to a pool, if anything does."""

    notifier: Notifier | None
    collector: Collector | None


NO_OBSERVERS: Final = Observers(None, None)


class PoolOptions(NamedTuple):
    """The options of a pool, checked; `call` has those of a call that has none of its own."""

    start: StartOptions
    call: CallOptions
    limits: Limits
    retries: RetryPolicy
    unmatched: Unmatched
    observers: Observers = NO_OBSERVERS


def start_options(  # noqa: PLR0917 - as many as the pool has
    workers: int | None,
    mp_context: BaseContext | str | None,
    initializer: Callable[..., object] | None,
    initargs: Iterable[Any],
    preload: bool | None,
    finalizer: Callable[[], object] | None,
    native_threads: int | None,
    worker_logging: bool = True,
    worker_output: WorkerPrints | None = None,
    executor: object = None,
    limits: Limits = NO_LIMITS,
) -> StartOptions:
    """Check the group; see `PoolProcessor`."""
    chosen = None
    if executor is not None:
        chosen = choose(executor)
        given = {
            "mp_context": mp_context,
            "preload": preload,
            "native_threads": native_threads,
            "worker_output": worker_output,
            "event_timeout": limits.event_timeout,
            "event_soft_timeout": limits.event_soft_timeout,
            "max_tasks_per_child": limits.max_tasks,
            "max_worker_memory_bytes": limits.max_memory_bytes,
        }
        check_options(chosen, workers, given)
    size = usable_cpus() if workers is None else count("workers", workers, _OR_NONE, least=0)
    if workers is None and chosen is not None:
        size = chosen.workers or size
    if size and chosen is None and current_process().daemon:
        size = 0
        import inspect  # slow to import

        level, frame = 1, inspect.currentframe()  # up to the caller of this package
        while frame is not None and frame.f_globals.get("__name__", "").startswith("evproc_pool."):
            level, frame = level + 1, frame.f_back
        warnings.warn(
            "this process is a daemon of multiprocessing, which must not start processes: the"
            " PoolProcessor works as with workers=0, without limits such as event_timeout. Start"
            " this process with daemon=False (ProcessPoolExecutor does), or pass workers=0",
            RuntimeWarning,
            stacklevel=level,
        )
    starts = context(mp_context)
    check_callable("initializer", initializer)
    check_callable("finalizer", finalizer)
    if isinstance(initargs, (str, bytes)) or not isinstance(initargs, Iterable):
        raise TypeError(f"initargs is a tuple of arguments, not {initargs!r}")
    if preload is not None and not isinstance(preload, bool):
        raise TypeError(f"preload is True, False or None, not {preload!r}")
    threads = count_or_none("native_threads", native_threads, least=0)
    if not isinstance(worker_logging, bool):
        raise TypeError(f"worker_logging is True or False, not {worker_logging!r}")
    if worker_output not in (None, "label"):
        raise ValueError(f"worker_output is 'label' or None, not {worker_output!r}")
    return StartOptions(
        size,
        starts,
        initializer,
        tuple(initargs),
        preload,
        finalizer,
        threads,
        worker_logging,
        worker_output,
        chosen,
        has_size=workers is not None,
    )


def check_cancel(start: StartOptions, *, cancel_running: bool) -> None:
    """Refuse `cancel_running` where no handler can be ended."""
    choice = start.executor
    if cancel_running and choice is not None and not choice.promises.ends_handlers:
        raise ValueError(
            f"cancel_running= cannot be kept with executor={choice.value!r}: it cannot end a call"
            " that runs; leave it out"
        )


def default_call(  # noqa: PLR0917 - as many as the pool has
    workers: int,
    ordering: str,
    key: Key | None,
    errors: str,
    max_cascade_depth: int | None,
    max_cascade_events: int | None,
) -> CallOptions:
    """Check order, keys and cascades; see `PoolProcessor`."""
    check_callable("key", key)
    ending = CascadeEnding(
        is_second("errors", errors, _ERRORS),
        count_or_none("max_cascade_depth", max_cascade_depth, least=0),
        count_or_none("max_cascade_events", max_cascade_events),
    )
    is_unordered = is_second("ordering", ordering, _ORDERINGS)
    buffersize = BUFFER_PER_WORKER * max(1, workers)
    return CallOptions(is_unordered, key, key is not None, ending, buffersize)


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
    soft, hard = limits.event_soft_timeout, limits.event_timeout
    if soft is not None and hard is not None and soft >= hard:
        raise ValueError(
            f"event_soft_timeout must be less than event_timeout ({hard:g}), and is {soft:g}"
        )
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
        exceptions(retry_exceptions),
        count("crash_limit", crash_limit),
        seconds("retry_backoff", retry_backoff),
        seconds("retry_backoff_max", retry_backoff_max),
    )


def observers(listeners: Iterable[Listener], *, statistics: bool) -> Observers:
    """Check the group; see `PoolProcessor`."""
    if isinstance(listeners, (str, bytes)) or not isinstance(listeners, Iterable):
        raise TypeError(f"listeners is a list of callables, not {listeners!r}")
    found = list(listeners)
    for each in found:
        if not callable(each):
            raise TypeError(f"a listener is a callable that takes a notification, not {each!r}")
    if not isinstance(statistics, bool):
        raise TypeError(f"statistics is True or False, not {statistics!r}")
    if not (found or statistics):
        return NO_OBSERVERS
    from evproc_pool.observe.collector import Collector  # few pools need them
    from evproc_pool.observe.notifier import Notifier

    collector = Collector() if statistics else None
    if collector is not None:
        found.insert(0, collector)
    return Observers(Notifier(found, time.monotonic), collector)


# --- a call's ---


def call_options(  # noqa: PLR0917 - as many as `stream` has
    default: CallOptions,
    ordering: Ordering | None,
    key: Key | None,
    errors: Errors | None,
    buffersize: int | None = None,
    ordered: bool = True,
    return_events: bool = False,
    every_event: bool = False,
) -> CallOptions:
    """Check the options of a call; `default` has the pool's."""
    check_callable("key", key)
    unordered, ending = default.unordered, default.ending
    if ordering is not None:
        unordered = is_second("ordering", ordering, _ORDERINGS)
    if errors is not None:
        ending = ending._replace(errors_continue=is_second("errors", errors, _ERRORS))
    flag("every_event", every_event)
    return CallOptions(
        unordered,
        default.key if key is None else key,
        key is None and default.shares_keys,
        ending,
        default.buffersize if buffersize is None else count("buffersize", buffersize, _OR_NONE),
        ordered,
        return_events,
        every_event,
    )


def flag(name: str, value: bool) -> bool:
    """Return an option that is true or false.

    Raises:
        TypeError: It is neither.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} is True or False, not {value!r}")
    return value


def call_progress(value: Progress, events: object) -> CallProgress | None:
    """Check how a call shows its progress; return what does, for its input."""
    if value is False:
        return None
    if value is True:
        try:
            import rich  # noqa: F401 - an extra
        except ImportError as error:
            raise ImportError(
                f"progress=True needs rich, which cannot be imported ({error}):"
                " pip install 'evproc-pool[progress]', or pass a function that gets the counts",
                name="rich",
            ) from None
    elif not callable(value):
        raise TypeError(
            f"progress is True, False or a callable that gets the counts, not {value!r}"
        )
    from evproc_pool.observe.call_progress import CallProgress  # few calls need it

    roots = -1
    with contextlib.suppress(Exception):  # the input's own `__len__`
        roots = operator.length_hint(events, -1)
    return CallProgress(None if roots < 0 else roots, None if value is True else value)


# --- one argument ---

_ORDERINGS: Final = get_args(Ordering)
_ERRORS: Final = get_args(Errors)
_OR_NONE: Final = " or None"


def is_second(what: str, value: str, choices: tuple[str, str]) -> bool:
    """Check an argument that is one of two words; return whether it is the second."""
    if value not in choices:
        raise ValueError(f"{what} is {choices[0]!r} or {choices[1]!r}, not {value!r}")
    return value == choices[1]


def check_callable(what: str, value: object) -> None:
    """Refuse a value that is neither callable nor None."""
    if value is not None and not callable(value):
        raise TypeError(f"{what} is a callable or None, not {value!r}")


def seconds_or_none(what: str, value: float | None) -> float | None:
    """Check a number of seconds above 0, or None."""
    if value is None:
        return None
    number = seconds(what, value, _OR_NONE)
    if number == 0:
        raise ValueError(f"{what} must be more than 0 and finite, and is {value}")
    return number


def seconds(what: str, value: float, alternative: str = "") -> float:
    """Check a number of seconds that may be 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what} is a number of seconds{alternative}, not {value!r}")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"{what} is too large a number of seconds") from None
    if not 0 <= number < inf:
        raise ValueError(f"{what} must not be negative, and must be finite, and is {value}")
    return number


def events(value: Iterable[Event]) -> Iterator[Event]:
    """Check an iterable of events; return an iterator."""
    if isinstance(value, Event) and not hasattr(value, "__iter__"):
        raise TypeError(
            f"events is an iterable of events, not a single one, {describe_event(value)}: use"
            " process() or submit() for it, or put it into a list"
        )
    return iter(value)


def count_or_none(what: str, value: int | None, *, least: int = 1) -> int | None:
    """Check a whole number of at least `least`, or None."""
    return None if value is None else count(what, value, _OR_NONE, least=least)


def count(what: str, value: int, alternative: str = "", *, least: int = 1) -> int:
    """Check a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} is a whole number{alternative}, not {value!r}")
    if value < least:
        raise ValueError(f"{what} must be at least {least}, and is {value}")
    return value


def exceptions(
    value: type[BaseException] | Iterable[type[BaseException]],
) -> tuple[type[BaseException], ...]:
    """Check `retry_exceptions`; return a tuple."""
    what = "retry_exceptions is an exception class or several"
    try:
        kinds = (value,) if isinstance(value, (type, str, bytes)) else tuple(value)
    except TypeError:
        raise TypeError(f"{what}, not {value!r}") from None
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"{what}, and {kind!r} is none")
    return kinds


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
