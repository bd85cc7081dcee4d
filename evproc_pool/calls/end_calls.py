"""The methods of `PoolProcessor` that end it: a base class."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Self

from evproc_pool import options

if TYPE_CHECKING:
    from evproc_pool.calls.engines import EngineOwner


class EndCalls:
    """See `PoolProcessor`."""

    if TYPE_CHECKING:
        _owner: EngineOwner

    def close(self, *, drain: bool = True, timeout: float | None = None) -> None:
        """Finish what was submitted, then end the workers. Idempotent.

        In this order: no new call is accepted; what was submitted, and calls of `process_many`
        in other threads, are finished, pauses before retries included; streams are ended;
        workers are asked to end, and killed if they do not within five seconds; shared memory
        is released. With `workers=0` nothing is waited for.

        Args:
            drain: False: finish nothing; as `terminate`.
            timeout: After so many seconds the rest is ended as by `terminate`. None: wait as
                long as it takes. Code of yours that runs in this process meanwhile, a filter or
                a future's callback, is waited for, and so are the imports of a forkserver that
                is starting.

        Raises:
            RuntimeError: Called from a future's callback, for which it would wait.
        """
        seconds = inf if timeout is None else options.seconds("timeout", timeout)
        if drain:
            self._owner.close(seconds)
        else:
            self.terminate()

    def terminate(self) -> None:
        """Kill the workers. Events in flight fail with `PoolClosedError`. Idempotent."""
        self._owner.terminate()

    def __enter__(self) -> Self:
        self._owner.check_open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self.terminate()
            return
        if kind is not None:
            self._owner.drop_unbegun(kind)
        self.close()
