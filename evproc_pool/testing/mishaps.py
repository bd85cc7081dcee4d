"""Mishaps of workers, and how `sabotage` lets them happen at a chosen point.

`sabotage` adds a change to the spec by which the workers of a pool make their registry. It
replaces the handler's function by one that decides for each event whether the mishap strikes. The
new function is described as the one inside, so that fingerprints and the notes on errors stay the
same. Without `sabotage` nothing of this exists.

Files that are made with ``O_EXCL`` count how often the mishap has struck: one process makes each,
whichever dies when. Without their folder nothing strikes any more.

Rejected: a counter in shared memory (a process that is killed may hold its lock);
a registration under another function (another fingerprint, another order).
"""

from __future__ import annotations

import functools
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NoReturn, Protocol

from evproc.annotations import HandlerFunc
from evproc.registry import Registry
from evproc_pool.errors import PoolBusyError
from evproc_pool.pool import PoolProcessor

#: Called in the worker, with the event that is being handled.
Mishap = Callable[[Any], object]


class Mortal(Protocol):
    """A worker that is not a process, and does the ready mishaps in its own way."""

    def die(self, exitcode: int) -> NoReturn:
        """End as a process with this exit code."""

    def hang(self) -> NoReturn:
        """Do nothing more until it is killed."""


class _Here(threading.local):
    """The simulated worker whose thread this is, or None."""

    worker: Mortal | None = None


HERE: Final = _Here()


# --- the ready ones ---


def kill(ev: Any) -> None:  # noqa: ARG001 - a mishap
    """Kill the worker by SIGKILL, as the kernel does when memory runs out."""
    _die_by("SIGKILL")


def segfault(ev: Any) -> None:  # noqa: ARG001 - a mishap
    """Kill the worker by SIGSEGV, as an error in native code does."""
    _die_by("SIGSEGV")


def abort(ev: Any) -> None:  # noqa: ARG001 - a mishap
    """Kill the worker by SIGABRT, as a failed assertion in native code does."""
    _die_by("SIGABRT")


def exit_process(ev: Any) -> None:  # noqa: ARG001 - a mishap
    """End the worker with exit code 1, at once and without cleaning up."""
    if HERE.worker is not None:
        HERE.worker.die(1)
    os._exit(1)


def hang(ev: Any) -> None:  # noqa: ARG001 - a mishap
    """Loop for ever; only `event_timeout` ends the worker, or a kill from outside."""
    if HERE.worker is not None:
        HERE.worker.hang()
    while True:
        pass


def _die_by(name: str) -> NoReturn:
    if HERE.worker is not None:
        HERE.worker.die(-_NUMBERS[name])
    number = getattr(signal, name, signal.SIGTERM)  # Windows ends the process by any
    os.kill(os.getpid(), number)
    while True:  # a signal may take a moment
        time.sleep(1)


# the numbers on Linux and macOS, used on all systems
_NUMBERS: Final = {"SIGKILL": 9, "SIGSEGV": 11, "SIGABRT": 6}


# --- at a chosen point ---


class _Plan:
    """Decides when the mishap strikes; pickled with the spec.

    Args:
        handler: The name of the handler.
        mishap: The mishap.
        when: Selects the events; None: all.
        times: The most strikes; None: no limit.
        folder: Has the files that count.
        after: Whether it strikes after the handler.
    """

    def __init__(
        self,
        handler: str,
        mishap: Mishap,
        when: Callable[[Any], object] | None,
        times: int | None,
        folder: str,
        *,
        after: bool,
    ) -> None:
        self._handler = handler
        self._mishap = mishap
        self._when = when
        self._times = times
        self._folder = folder
        self.after = after

    def __call__(self, registry: Registry) -> None:
        """Sabotage the handler, in a worker."""
        handler = registry.by_name[self._handler]
        handler.func = _Sabotaged(handler.func, self)

    def concerns(self, ev: Any) -> bool:
        """Whether the mishap may strike at this event."""
        return self._when is None or bool(self._when(ev))

    def strike(self, ev: Any) -> None:
        """Call the mishap, unless it has struck often enough."""
        if self._claim():
            self._mishap(ev)

    def _claim(self) -> bool:
        if self._times is None:
            return os.path.isdir(self._folder)  # noqa: PTH112 - in a worker, for each event
        for number in range(self._times):
            path = os.path.join(self._folder, str(number))  # noqa: PTH118 - likewise
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            except FileExistsError:
                continue
            except FileNotFoundError:
                return False  # the block of `sabotage` has ended
            return True
        return False


class _Sabotaged(functools.partial):  # type: ignore[type-arg]  # the function's own is not known
    """A handler's function with a mishap. A `partial` is described as the function inside."""

    def __new__(cls, func: HandlerFunc, plan: _Plan) -> _Sabotaged:  # noqa: PYI034 - typing.Self came with Python 3.11
        made = super().__new__(cls, func)
        made.plan = plan
        return made

    plan: _Plan

    def __call__(self, proc: Any, ev: Any) -> Any:
        plan = self.plan
        if not plan.concerns(ev):
            return super().__call__(proc, ev)
        if not plan.after:
            plan.strike(ev)
            return super().__call__(proc, ev)
        try:
            returned = super().__call__(proc, ev)
        except Exception:
            plan.strike(ev)
            raise
        if isinstance(returned, Iterator):
            return _to_the_end(returned, plan, ev)
        plan.strike(ev)
        return returned


def _to_the_end(returned: Iterable[Any], plan: _Plan, ev: Any) -> Iterator[Any]:
    """Yield the events of a generator, which begins only now; then let the mishap strike."""
    try:
        yield from returned
    except Exception:
        plan.strike(ev)
        raise
    plan.strike(ev)


@contextmanager
def sabotage(
    pool: PoolProcessor,
    handler: str,
    mishap: Mishap,
    *,
    when: Callable[[Any], object] | None = None,
    times: int | None = 1,
    after: bool = False,
) -> Iterator[None]:
    """Let a mishap happen to the workers of a pool, in one of its handlers, within the block.

    As with `PoolProcessor.register`, workers are replaced, at both ends of the block.

    Args:
        pool: A pool with workers.
        handler: The name of a registered handler.
        mishap: `kill`, `segfault`, `abort`, `exit_process`, `hang`, or any callable, called in
            the worker with the event. An exception from it counts as raised by the handler.
        when: Called in the worker with each event of the handler. The mishap strikes if it
            returns true. By default at the first event.
        times: How often it strikes, in all workers together, those that replace dead ones
            included; None: every time.
        after: Strike just after the handler, even if that raised, instead of just before.

    Raises:
        KeyError: No handler has this name.
        TypeError: An argument of the wrong type.
        ValueError: The pool has no workers, or `times` is less than 1.
        PoolBusyError: Events are in flight. At the beginning: nothing has changed. At the
            end: workers stay as they are, and the mishap strikes no more.
        PoolClosedError: The pool is closed at the beginning.
    """
    _check(pool, handler, mishap, when, times)
    with tempfile.TemporaryDirectory(prefix="evproc_pool_") as folder:
        plan = _Plan(handler, mishap, when, times, folder, after=after)
        pool._owner.sabotage(plan)  # noqa: SLF001 - its one use
        try:
            yield
        except BaseException:
            # the error of the block says more than a PoolBusyError
            with suppress(PoolBusyError):
                pool._owner.end_sabotage(plan)  # noqa: SLF001 - likewise
            raise
        pool._owner.end_sabotage(plan)  # noqa: SLF001 - likewise


def _check(
    pool: PoolProcessor, handler: str, mishap: object, when: object, times: int | None
) -> None:
    if not callable(mishap):
        raise TypeError(f"mishap is a callable, not {mishap!r}")
    if when is not None and not callable(when):
        raise TypeError(f"when is a callable or None, not {when!r}")
    if times is not None and (isinstance(times, bool) or not isinstance(times, int)):
        raise TypeError(f"times is a whole number or None, not {times!r}")
    if times is not None and times < 1:
        raise ValueError(f"times must be at least 1, and is {times}")
    if pool.workers == 0:
        raise ValueError(
            "the pool has no workers (workers=0): a mishap would strike this very process"
        )
    if handler not in pool.nodes:
        names = ", ".join(map(repr, pool.nodes)) or "none"
        raise KeyError(f"there is no handler {handler!r} to sabotage; registered: {names}")


def worker_pids(pool: PoolProcessor) -> list[int]:
    """Return the process ids of a pool's workers, for kills from outside.

    Returns:
        The oldest worker first; one may just have died. Empty before the first events, after the
        end, with `workers=0`, and for a `simulated_pool`.
    """
    engine = pool._engine  # noqa: SLF001 - its engine is not public
    return [] if engine is None else engine.pids()
