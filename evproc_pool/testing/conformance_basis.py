"""What the checks of `conformance` are written with."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from evproc import Event
from evproc_pool.backends.promises import Promises
from evproc_pool.outcome import Outcome
from evproc_pool.pool import PoolProcessor
from evproc_pool.testing.comparing import difference
from evproc_pool.testing.conformance_handlers import HANDLERS

#: How long to wait for what must happen, in seconds.
PATIENCE_SECONDS: Final = 60.0


class Basis:
    """A backend, or an executor, that checks run over.

    Attributes:
        promises: What the backend promises.
        may_die: Whether the check of a death may kill the process that a handler runs in; False if
            handlers run in this process.
        is_elsewhere: Whether handlers run beside the caller. False for `workers=0`: nothing is
            pickled there, a call cannot give up, and options about workers have no effect.
    """

    promises: Promises = Promises()
    may_die: bool = True
    is_elsewhere: bool = True

    def make_pool(self, **options: Any) -> PoolProcessor:
        """Make a pool with at least two workers, and with these options of `PoolProcessor`."""
        raise NotImplementedError("derive from Conformance, and make a pool of yours here")

    @contextlib.contextmanager
    def replaced_workers(self) -> Iterator[None]:
        """Have all workers replaced while a pool runs, if `elasticity` is promised.

        Before the block: have as many workers (or nodes) join as there are, and tell those that
        were there before to leave; do not wait for what runs there. After it: wait until they have
        left.
        """
        raise NotImplementedError("elasticity is promised: have workers join and leave here")
        yield  # a generator

    def close_pool(self, pool: PoolProcessor) -> None:
        """End a pool, and an executor that was made for it."""
        pool.close()

    def run_all(self) -> None:
        """Run each check; raise the first failure, with the name of the check."""
        for name in dir(self):
            if name.startswith("test_"):
                try:
                    getattr(self, name)()
                except Exception as error:
                    error.add_note(f"in the check {name}")
                    raise

    @contextlib.contextmanager
    def _pool(self, **options: Any) -> Iterator[PoolProcessor]:
        pool = self.make_pool(**options)
        try:
            register(pool)
            yield pool
        finally:
            self.close_pool(pool)

    def _compare(self, make: Callable[[], list[Event]], **options: Any) -> list[Outcome]:
        """Run events here and in a pool, follow-ups included; demand that they end equally."""
        with self._pool(**options) as pool:
            pooled = list(pool.stream(make(), every_event=True, return_events=True))
        with PoolProcessor(0, **{**options, "retry_backoff": 0}) as serial:
            register(serial)
            expected = list(serial.stream(make(), every_event=True, return_events=True))
        text = difference(expected, pooled, "in the pool", every_event=True, **options)
        demand(not text, text)
        return pooled


Check = Callable[[Any], None]


def elsewhere(check: Check) -> Check:
    """Leave a check out if handlers do not run beside the caller."""

    @functools.wraps(check)
    def checked(suite: Basis) -> None:
        if suite.is_elsewhere:
            check(suite)

    return checked


def register(pool: PoolProcessor) -> None:
    """Register the handlers of the checks."""
    for handler in HANDLERS:
        pool.register(handler)


@contextlib.contextmanager
def new_folder() -> Iterator[Path]:
    """Make a folder, and remove it."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def wait_until(holds: Callable[[], object], what: str) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        demand(time.monotonic() < end, f"within {PATIENCE_SECONDS:g} s it did not happen: {what}")
        time.sleep(0.001)


def demand(holds: object, text: str) -> None:
    """Fail with a text unless a condition holds."""
    if not holds:
        raise AssertionError(text)


def equal(found: object, wanted: object) -> None:
    """Fail unless both are equal."""
    demand(found == wanted, f"found {found!r}, and not {wanted!r}")


def raises(kind: type[BaseException], call: Callable[[], object]) -> BaseException:
    """Fail unless a call raises an error of this kind; return that."""
    try:
        found = call()
    except kind as error:
        return error
    raise AssertionError(f"{found!r} instead of {kind.__name__}")
