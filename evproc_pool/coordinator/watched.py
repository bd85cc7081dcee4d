"""Shows the progress of a call: has its notifications made while the call lasts.

A pool without listeners has no `Notices`. The first call that is watched gives the coordinator
some, and the last one takes them away. They tell no listeners, so nobody else hears of what was
accepted before, and is not over. What other calls do is told, and nobody gets it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from evproc.registry import Registry

if TYPE_CHECKING:
    from evproc_pool.coordinator.engine import Engine
    from evproc_pool.coordinator.run_handle import RunHandle
    from evproc_pool.observe.call_progress import CallProgress


class Watched:
    """A context manager: the time of a call whose progress is shown."""

    def __init__(
        self,
        engine: Engine,
        run: RunHandle,
        progress: CallProgress,
        registry: Registry,
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._run = run
        self._progress = progress
        self._registry = registry
        self._clock = clock

    def __enter__(self) -> None:
        from evproc_pool.coordinator.notices import Notices  # few pools need it

        with self._engine.lock:
            notices = self._engine.notices
            if notices is None:
                notices = Notices(None, self._registry, self._clock)
                self._engine.observe(notices)
            notices.watchers[self._run.id] = self._progress
        try:
            self._progress.begin(self._clock)
        except BaseException:  # an interrupt: the call does not begin
            self._leave()
            self._engine.close_run(self._run, drop=True)
            raise

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._leave()
        finally:
            self._progress.end(is_complete=kind is None)

    def _leave(self) -> None:
        with self._engine.lock:
            notices = self._engine.notices
            if notices is not None:
                notices.watchers.pop(self._run.id, None)
                if not (notices.watchers or notices.has_listeners):
                    self._engine.observe(None)
