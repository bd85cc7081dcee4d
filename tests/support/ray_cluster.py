"""A Ray cluster of separate processes, as a user would start it; and what Ray leaves behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

import psutil

from tests.support.helpers import PATIENCE_SECONDS, ROOT, still_alive, wait_until

#: For processes of Ray: nothing is told to its makers, and nothing goes to a cluster of somebody
#: else on this machine.
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def _wait_until(holds: Callable[[], object], what: str) -> None:
    """Wait for what takes Ray some seconds, and much longer on a busy machine."""
    with contextlib.suppress(AssertionError):
        wait_until(holds, what)
        return
    wait_until(holds, what)


class RayCluster:
    """Nodes on this machine, and the connection of this process to them.

    Attributes:
        address: That of the head node.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}  # by the id of the node
        self._processes: list[subprocess.Popen[bytes]] = []
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        self._port = port

    def add_node(self, cpus: int = 1) -> str:
        """Start another node, or the head node; return its id."""
        place = ["--address", self.address]
        if not self._nodes:
            place = ["--head", "--port", str(self._port), "--temp-dir", self._folder]
            place += ["--include-dashboard", "false"]
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block"),
            *("--num-cpus", str(cpus), "--node-ip-address", "127.0.0.1"),
            *("--object-store-memory", str(80 << 20), "--disable-usage-stats", *place),
        ]
        with open(f"{self._folder}/log", "ab") as log:  # noqa: PTH123 - as it is given
            process = subprocess.Popen(
                command, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True
            )
        self._processes.append(process)
        found: list[str] = []

        def is_there() -> bool:
            assert process.poll() is None, self.log
            with contextlib.suppress(Exception):
                found[:] = set(self.node_ids()) - self._nodes.keys()
            return bool(found)

        if not self._nodes:
            _wait_until(self._has_begun, "the head node is there")
            self.connect()
        _wait_until(is_there, "the node has joined")
        self._nodes[found[0]] = process
        return found[0]

    def _has_begun(self) -> bool:
        return "Ray runtime started" in self.log

    @property
    def log(self) -> str:
        with open(f"{self._folder}/log", encoding="utf-8") as log:  # noqa: PTH123 - likewise
            return log.read()

    @property
    def head(self) -> str:
        """The id of the head node."""
        return next(iter(self._nodes))

    def connect(self) -> None:
        """Connect this process."""
        import ray

        if not ray.is_initialized():
            ray.init(self.address, log_to_driver=False, logging_level="ERROR")

    def disconnect(self) -> None:
        """End that."""
        import ray

        ray.shutdown()

    def node_ids(self) -> list[str]:
        """The ids of the nodes that Ray counts as alive."""
        import ray

        return [each["NodeID"] for each in ray.nodes() if each["Alive"]]

    def processes(self, node: str, what: str) -> list[psutil.Process]:
        """The processes of a node whose command line has a text."""
        found = []
        for each in psutil.Process(self._nodes[node].pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if what in " ".join(each.cmdline()):
                    found.append(each)
        return found

    def raylet(self, node: str) -> psutil.Process:
        """The process that is the node."""
        return self.processes(node, "raylet/raylet ")[0]

    def actors(self, node: str) -> list[psutil.Process]:
        """The processes of the agents' actors on a node."""
        return self.processes(node, "ray::EvprocAgent")

    def drain(self, node: str) -> None:
        """Have Ray drain a node, as an autoscaler does."""
        import ray

        client = ray._raylet.GcsClient(address=self.address)
        reason = 2  # preemption
        client.drain_node(node, reason, "a test", 2**62)

    def close(self) -> None:
        """End all of it, the head node last."""
        with contextlib.suppress(Exception):
            self.disconnect()
        processes = []
        for each in reversed(self._processes):
            with contextlib.suppress(psutil.Error):
                processes += psutil.Process(each.pid).children(recursive=True)
            each.send_signal(signal.SIGTERM)
            try:
                each.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                each.kill()
                each.wait()
        for left in still_alive(processes):
            with contextlib.suppress(psutil.Error):
                left.kill()


@contextlib.contextmanager
def ray_cluster(nodes: int = 2) -> Iterator[RayCluster]:
    """Start a cluster with nodes of one CPU, and connect to it; end it, whatever happens."""
    # its sockets are in there, so the path must be short
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        cluster = RayCluster(folder)
        try:
            for _ in range(nodes):
                cluster.add_node()
            yield cluster
        finally:
            cluster.close()


def agents() -> list[psutil.Process]:
    """The processes of agents below this process, and their workers."""
    found = []
    for each in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "agents.process import main" in " ".join(each.cmdline()):
                found += [each, *each.children(recursive=True)]
    return found
