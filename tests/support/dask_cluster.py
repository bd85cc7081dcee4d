"""A Dask cluster of separate processes, as a user would start it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, Any

from tests.support.helpers import PATIENCE_SECONDS, ROOT, wait_until


class DaskCluster:
    """A scheduler and its workers, and a client.

    Attributes:
        address: The scheduler's.
        client: Of `distributed`.
    """

    def __init__(
        self, folder: str, *, has_nanny: bool, modules: str = "", host: str = "127.0.0.1"
    ) -> None:
        self._folder = folder
        self._host = host
        path = os.pathsep.join(filter(None, [str(ROOT), modules]))
        self._environment = {**os.environ, "PYTHONPATH": path}
        self._has_nanny = has_nanny
        self._processes: list[subprocess.Popen[bytes]] = []
        self._log: IO[bytes] = open(f"{folder}/log", "wb")  # noqa: SIM115, PTH123 - see `close`
        with socket.create_server((host, 0)) as server:
            port = server.getsockname()[1]
        self.address = f"tcp://{host}:{port}"
        self._start("scheduler", "--host", host, "--port", str(port))
        self.client: Any = None

    def _start(self, *arguments: str, within: Sequence[str] = ()) -> None:
        command = [*within, sys.executable, "-m", "dask", *arguments, "--no-dashboard"]
        process = subprocess.Popen(
            command, cwd=self._folder, env=self._environment, stdout=self._log, stderr=self._log
        )
        self._processes.append(process)

    def connect(self) -> None:
        """Make the client."""
        from distributed import Client

        self.client = Client(self.address, timeout=PATIENCE_SECONDS)

    def disconnect(self) -> None:
        """Close the client."""
        client, self.client = self.client, None
        if client is not None:
            client.close()

    def add_worker(
        self, threads: int = 1, *, host: str | None = None, within: Sequence[str] = ()
    ) -> None:
        """Start another worker, and wait for it.

        Args:
            threads: How many threads it has.
            host: Its address; by default the scheduler's.
            within: The beginning of a command that starts it elsewhere.
        """
        count = len(self.client.nthreads())
        nanny = "--nanny" if self._has_nanny else "--no-nanny"
        options = ("--nthreads", str(threads), "--host", host or self._host, nanny)
        self._start("worker", self.address, *options, within=within)
        self.client.wait_for_workers(count + 1, timeout=PATIENCE_SECONDS)

    @property
    def pids(self) -> dict[str, int]:
        """The processes of the workers, by address."""
        found: dict[str, int] = self.client.run(os.getpid)
        return found

    def wait_for_loss(self, address: str) -> None:
        """Wait until the scheduler knows that a worker is gone."""
        wait_until(lambda: address not in self.client.nthreads(), "the worker is gone")

    def close(self) -> None:
        """End all of it."""
        with contextlib.suppress(Exception):
            self.disconnect()
        scheduler, *workers = self._processes
        # A worker that loses its scheduler while a signal ends it may wait for itself for ever.
        for process in workers:
            process.terminate()
        for process in [*workers, scheduler]:
            process.terminate()
            try:
                process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._log.close()


@contextlib.contextmanager
def dask_cluster(
    workers: int = 2, *, has_nanny: bool = False, modules: str = "", host: str = "127.0.0.1"
) -> Iterator[DaskCluster]:
    """Start a cluster with workers of one thread; end it, whatever happens.

    They import from the folder `modules`, too. All listen at the address `host`.
    """
    with tempfile.TemporaryDirectory() as folder:
        cluster = DaskCluster(folder, has_nanny=has_nanny, modules=modules, host=host)
        try:
            cluster.connect()
            for _ in range(workers):
                cluster.add_worker()
            yield cluster
        finally:
            cluster.close()
