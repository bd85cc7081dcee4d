"""The peers that have to be installed: the extra `bench` has them all.

Those that have no chunk size get batches that are made by hand, as their users do:
deadpool, Dask and Ray.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import chain
from typing import Any, Final

from benchmarks.comparison.handlers import handle, handle_all
from benchmarks.comparison.systems import AUTO, System
from benchmarks.pool.kinds import Function
from benchmarks.pool.processes import WORKERS, context, start_method
from evproc import Event

# What is in its store at a time: events and values of a sample.
_RAY_STORE_BYTES: Final = 2 * 2**30


def batches(events: list[Any], chunk: int) -> list[list[Any]]:
    """Cut a list into pieces."""
    return [events[begin : begin + chunk] for begin in range(0, len(events), chunk)]


class Loky(System):
    """`loky.ProcessPoolExecutor`, by its own start method, which is what it is about."""

    label = "loky"
    module = distribution = "loky"

    def __init__(self) -> None:
        import loky

        self._executor = loky.ProcessPoolExecutor(WORKERS)

    def run(self, events: list[Any], chunk: int, function: Function | None = None) -> list[Any]:
        """See `System`."""
        return list(self.stream(events, chunk, function))

    def stream(
        self, events: Iterable[Any], chunk: int, function: Function | None = None
    ) -> Iterator[Any]:
        """See `System`."""
        values: Iterator[Any] = self._executor.map(function or handle, events, chunksize=chunk)
        return values

    def single(self, ev: Event) -> Any:
        """See `System`."""
        return self._executor.submit(handle, ev).result()

    def close(self) -> None:
        """See `System`."""
        self._executor.shutdown()


class Joblib(System):
    """`joblib.Parallel` with its default backend, which is loky, kept between calls."""

    label = "joblib"
    module = distribution = "joblib"
    has_auto = True

    def _parallel(self, chunk: int, return_as: str = "list") -> Any:
        import joblib

        return joblib.Parallel(
            WORKERS, batch_size="auto" if chunk == AUTO else chunk, return_as=return_as
        )

    def run(self, events: list[Any], chunk: int, function: Function | None = None) -> list[Any]:
        """See `System`."""
        return list(self._values(events, chunk, "list", function))

    def stream(
        self, events: Iterable[Any], chunk: int, function: Function | None = None
    ) -> Iterator[Any]:
        """See `System`."""
        return iter(self._values(events, chunk, "generator", function))

    def _values(
        self, events: Iterable[Any], chunk: int, return_as: str, function: Function | None
    ) -> Iterable[Any]:
        import joblib

        # the processes stay from one call to the next
        call = joblib.delayed(function or handle)
        values: Iterable[Any] = self._parallel(chunk, return_as)(call(ev) for ev in events)
        return values

    def single(self, ev: Event) -> Any:
        """See `System`."""
        return self.run([ev], 1)[0]

    def close(self) -> None:
        """See `System`."""
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown()


class Mpire(System):
    """`mpire.WorkerPool`, its workers kept between calls."""

    label = "mpire"
    module = distribution = "mpire"
    has_auto = True

    def __init__(self) -> None:
        import mpire

        self._pool = mpire.WorkerPool(WORKERS, start_method=start_method(), keep_alive=True)

    def run(self, events: list[Any], chunk: int, function: Function | None = None) -> list[Any]:
        """See `System`."""
        values: list[Any] = self._pool.map(
            function or handle,
            events,
            chunk_size=chunk or None,
            concatenate_numpy_output=False,
        )
        return values

    def stream(
        self, events: Iterable[Any], chunk: int, function: Function | None = None
    ) -> Iterator[Any]:
        """See `System`."""
        values: Iterator[Any] = self._pool.imap(
            function or handle, events, chunk_size=chunk or None
        )
        return values

    def single(self, ev: Event) -> Any:
        """See `System`."""
        return self._pool.apply(handle, (ev,))

    def close(self) -> None:
        """See `System`."""
        self._pool.terminate()


class Pebble(System):
    """`pebble.ProcessPool`: `map` and `schedule`."""

    label = "pebble"
    module = "pebble"
    distribution = "pebble"

    def __init__(self) -> None:
        import pebble

        self._pool = pebble.ProcessPool(WORKERS, context=context())

    def run(self, events: list[Any], chunk: int, function: Function | None = None) -> list[Any]:
        """See `System`."""
        return list(self.stream(events, chunk, function))

    def stream(
        self, events: Iterable[Any], chunk: int, function: Function | None = None
    ) -> Iterator[Any]:
        """See `System`."""
        values: Iterator[Any] = self._pool.map(function or handle, events, chunksize=chunk).result()
        return values

    def single(self, ev: Event) -> Any:
        """See `System`."""
        return self._pool.schedule(handle, args=(ev,)).result()

    def close(self) -> None:
        """See `System`."""
        self._pool.stop()
        self._pool.join()


class Deadpool(System):
    """`deadpool.Deadpool`: `submit`, of batches made by hand."""

    label = "deadpool"
    module = "deadpool"
    distribution = "deadpool-executor"
    streams = False

    def __init__(self) -> None:
        import deadpool

        self._executor = deadpool.Deadpool(
            max_workers=WORKERS, min_workers=WORKERS, mp_context=start_method()
        )

    def run(self, events: list[Any], chunk: int, function: Function | None = None) -> list[Any]:
        """See `System`."""
        call = function or handle
        if chunk == 1:
            futures = [self._executor.submit(call, ev) for ev in events]
            return [future.result() for future in futures]
        futures = [
            self._executor.submit(handle_all, batch, call) for batch in batches(events, chunk)
        ]
        return list(chain.from_iterable(future.result() for future in futures))

    def single(self, ev: Event) -> Any:
        """See `System`."""
        return self._executor.submit(handle, ev).result()

    def close(self) -> None:
        """See `System`."""
        self._executor.shutdown(wait=True)


class Dask(System):
    """A Dask cluster on this machine: `Client.map`, of batches made by hand."""

    label = "Dask"
    module = distribution = "distributed"
    streams = False
    is_restless = True
    grace_seconds = 30.0

    def __init__(self) -> None:
        import dask
        import distributed

        # 10 MB in an event is what some loads are about
        warnings.filterwarnings("ignore", message="Sending large graph")
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            dask.config.set(
                {
                    "distributed.worker.multiprocessing-method": start_method(),
                    # it stands still while others are measured
                    "distributed.scheduler.worker-ttl": None,
                    "temporary-directory": folder,
                }
            )
            cluster = stack.enter_context(
                distributed.LocalCluster(
                    n_workers=WORKERS,
                    threads_per_worker=1,
                    dashboard_address=None,
                    silence_logs=logging.CRITICAL,
                )
            )
            self._client = stack.enter_context(distributed.Client(cluster))
            self._stack = stack.pop_all()

    def run(self, events: list[Any], chunk: int, function: Function | None = None) -> list[Any]:
        """See `System`."""
        call = function or handle
        if chunk == 1:
            values: list[Any] = self._client.gather(self._client.map(call, events, pure=False))
            return values
        futures = self._client.map(
            partial(handle_all, function=call), batches(events, chunk), pure=False
        )
        return list(chain.from_iterable(self._client.gather(futures)))

    def single(self, ev: Event) -> Any:
        """See `System`."""
        return self._client.submit(handle, ev, pure=False).result()

    def close(self) -> None:
        """See `System`."""
        self._stack.close()


class Ray(System):
    """Ray on this machine: tasks, of batches made by hand."""

    label = "Ray"
    module = distribution = "ray"
    streams = False
    is_restless = True
    grace_seconds = 60.0

    def __init__(self) -> None:
        # it would tell its makers
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # it warns of what it will do about GPUs one day
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        with ExitStack() as stack:
            # its sockets are in there, so the path must be short
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True)
            )
            stack.callback(ray.shutdown)
            ray.init(
                num_cpus=WORKERS,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=_RAY_STORE_BYTES,
                _temp_dir=folder,
            )
            self._ray = ray
            self._one: dict[Function, Any] = {handle: ray.remote(handle)}
            self._batch = ray.remote(handle_all)
            self._stack = stack.pop_all()

    def run(self, events: list[Any], chunk: int, function: Function | None = None) -> list[Any]:
        """See `System`."""
        call = function or handle
        if chunk == 1:
            one = self._remote(call)
            values: list[Any] = self._ray.get([one.remote(ev) for ev in events])
            return values
        tasks = [self._batch.remote(batch, call) for batch in batches(events, chunk)]
        return list(chain.from_iterable(self._ray.get(tasks)))

    def single(self, ev: Event) -> Any:
        """See `System`."""
        return self._ray.get(self._remote(handle).remote(ev))

    def _remote(self, function: Function) -> Any:
        if function not in self._one:
            self._one[function] = self._ray.remote(function)
        return self._one[function]

    def close(self) -> None:
        """See `System`."""
        self._stack.close()
