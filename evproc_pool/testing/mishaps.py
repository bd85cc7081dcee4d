"""What may happen to a worker, and how it is made to happen at a chosen point.

`sabotage` adds a change to the spec by which the workers of a pool make their
registry: the handler's function is replaced by one that looks whether it is time. It is
described as the one inside, so that fingerprints and the notes on errors stay the same.
Nothing of this is there when it is not used.

How often the mishap has struck is counted in files that are made with ``O_EXCL``: by one
process each, whatever dies when. Without their folder nothing strikes any more.

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

#: Called with the event that is being handled.
Mishap = Callable[[Any], object]


class Mortal(Protocol):
    """A worker that is not a process, and for which ready mishaps mean something else."""

    def die(self, exitcode: int) -> NoReturn:
        """Be dead, as a process with this exit code."""

    def hang(self) -> NoReturn:
        """Do nothing more until killed."""


class _Here(threading.local):
    """The worker that this thread is, if it is one."""

    worker: Mortal | None = None


HERE: Final = _Here()


# --- the ready ones ---


def kill(ev: Any) -> None:  # noqa: ARG001 - a mishap
    """The worker is killed by SIGKILL, as by the kernel when memory runs out."""
    _die_by("SIGKILL")


def segfault(ev: Any) -> None:  # noqa: ARG001 - a mishap
    """The worker is killed by SIGSEGV, as by an error in native code."""
    _die_by("SIGSEGV")


def abort(ev: Any) -> None:  # noqa: ARG001 - a mishap
    """The worker is killed by SIGABRT, as by a failed assertion in native code."""
    _die_by("SIGABRT")


def exit_process(ev: Any) -> None:  # noqa: ARG001 - a mishap
    """The worker ends with exit code 1, without further ado."""
    if HERE.worker is not None:
        HERE.worker.die(1)
    os._exit(1)


def hang(ev: Any) -> None:  # noqa: ARG001 - a mishap
    """The worker goes round in circles; only `event_timeout` helps, or a kill from outside."""
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


# as on Linux and macOS, also where there is none
_NUMBERS: Final = {"SIGKILL": 9, "SIGSEGV": 11, "SIGABRT": 6}


# --- at a chosen point ---


class _Plan:
    """Whether it is time, and what happens then; pickled with the spec.

    Args:
        handler: The name of the handler.
        mishap: What happens.
        when: For which events; None: for all.
        times: How often at the most; None: every time.
        folder: Where it is counted.
        after: Whether it happens behind the handler.
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
        """Whether the event is one for it."""
        return self._when is None or bool(self._when(ev))

    def strike(self, ev: Any) -> None:
        """Let it happen, unless it has happened as often as it may."""
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
                return False  # it is over
            return True
        return False


class _Sabotaged(functools.partial):  # type: ignore[type-arg]  # the function's own is not known
    """A handler's function with a mishap; as a `partial` it is described as what it calls."""

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
    """What a generator gives, which has not begun when it is returned; then the mishap."""
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
    """Within the block, let something happen to the workers of a pool, in one of its handlers.

    As with `PoolProcessor.register`, workers are replaced, at both ends of the block.

    Args:
        pool: One with workers.
        handler: The name of a registered handler.
        mishap: What happens: `kill`, `segfault`, `abort`, `exit_process`, `hang`, or any
            callable, called in the worker with the event. What it raises counts as raised
            by the handler.
        when: Called in the worker with each event that comes to the handler; it happens
            where that is true. By default for the first that comes.
        times: How often it happens, in all workers together, those that come to replace
            dead ones included; None: every time.
        after: Just behind the handler, whatever became of it, instead of just before.

    Raises:
        KeyError: There is no such handler.
        TypeError: An argument of the wrong type.
        ValueError: The pool has no workers, or `times` is less than 1.
        PoolBusyError: Events are in flight. At the beginning: nothing has changed. At the
            end: workers stay as they are, and nothing happens to them any more.
        PoolClosedError: The pool is closed at the beginning.
    """
    _check(pool, handler, mishap, when, times)
    with tempfile.TemporaryDirectory(prefix="evproc_pool_") as folder:
        plan = _Plan(handler, mishap, when, times, folder, after=after)
        pool._owner.sabotage(plan)  # noqa: SLF001 - its one use
        try:
            yield
        except BaseException:
            # what was raised in the block says more than that events are in flight
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
    """The processes of a pool's workers, for kills from outside; one may just have died.

    Returns:
        Their ids, oldest worker first. Empty before the first events, after the end, with
        `workers=0`, and for a `simulated_pool`.
    """
    engine = pool._engine  # noqa: SLF001 - nobody else is to know
    return [] if engine is None else engine.pids()
