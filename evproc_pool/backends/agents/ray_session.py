"""Which Ray a pool uses: the one that this process is connected to, or one that it starts or joins.

Ray has one connection for each process. If the program has made it, a pool uses it, and leaves it
alone. If not, the first pool makes it, and the last one of those that use it closes it: with a
cluster that was started for it, or without one that was only joined.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from typing import Any, Final

import ray
import ray.exceptions
import ray.util.client

from evproc_pool.errors import PoolBrokenError

# Ray's store of objects takes a third of the memory by default. A pool puts nothing there, and
# this is about the least that Ray allows.
_FOR_A_NEW_ONE: Final[dict[str, Any]] = {
    "include_dashboard": False,
    "object_store_memory": 80 << 20,
}

# Ray says much at its start, and repeats here what its processes elsewhere print.
_OPTIONS: Final[dict[str, Any]] = {"log_to_driver": False, "logging_level": logging.ERROR}

#: Why there is no pool through Ray Client, and what to do.
NO_CLIENT: Final = (
    "and a pool has to reach the nodes: run the program on one of them, by `ray job submit` for"
    " example, with executor='ray'"
)

# How long a head node may take to answer, in seconds.
_CONNECT_SECONDS: Final = 10.0

_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")

_LOCK: Final = threading.Lock()


class _Session:
    """A connection that a pool has made, by this address."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.key = connection_key()
        self.users = 0


# The one that is there, if a pool has made it.
_made: Final[list[_Session]] = []


def connection_key() -> str:
    """Which connection this process has; empty: none. No two have the same."""
    if not ray.is_initialized():
        return ""
    return str(ray.get_runtime_context().get_worker_id())


class RaySession:
    """The use of a connection by a pool.

    Args:
        address: What `ray.init` takes; empty: what it takes by default.

    Attributes:
        key: See `connection_key`.

    Raises:
        PoolBrokenError: There is no such cluster, this process is connected to another one, or by
            Ray Client.
    """

    def __init__(self, address: str) -> None:
        with _LOCK:
            if not ray.is_initialized():
                _connect(address)
                _made[:] = [_Session(address)]
            self.key = connection_key()
            self._made = next((each for each in _made if each.key == self.key), None)
            if self._made is not None:
                self._made.users += 1
        try:
            self._check(address)
        except BaseException:
            self.close()
            raise

    def _check(self, address: str) -> None:
        if ray.util.client.ray.is_connected():
            raise PoolBrokenError(f"this process is connected by Ray Client, {NO_CLIENT}")
        is_same = self._made is not None and self._made.address == address
        if is_same or address in ("", "auto", "local"):
            return
        connected = str(ray.get_runtime_context().gcs_address)
        if _place(address) != _place(connected):
            raise PoolBrokenError(
                f"this process is connected to the Ray cluster at {connected}, and not to"
                f" {address}: executor='ray' uses that one"
            )

    def close(self) -> None:
        """Close the connection, if a pool has made it and this is the last use. Idempotent."""
        made, self._made = self._made, None
        if made is None:
            return
        with _LOCK:
            made.users -= 1
            # the program may have closed it, and made another one
            if made.users == 0 and connection_key() == made.key:
                ray.shutdown()


def _connect(address: str) -> None:
    known = address or os.environ.get("RAY_ADDRESS", "")
    if known.startswith("ray://"):
        raise PoolBrokenError(f"RAY_ADDRESS={known} is Ray Client, {NO_CLIENT}")
    _check_reachable(known)
    try:
        try:
            ray.init(address or None, **_FOR_A_NEW_ONE, **_OPTIONS)
        except ValueError:  # there is one, and it has its size already
            ray.init(address or None, **_OPTIONS)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise PoolBrokenError(f"Ray cannot be used: {error}") from error


def _check_reachable(address: str) -> None:
    """Raise a `PoolBrokenError` if nothing answers at host:port: Ray would try for minutes."""
    host, port = _host_and_port(address)
    if not port.isdecimal():
        return  # a word like "auto", or something that Ray refuses by itself
    # Ray takes the machine's own address in the place of a loopback address
    hosts = [host, ray.util.get_node_ip_address()] if host in _LOOPBACK else [host]
    errors = [_error_of_connecting(each, int(port)) for each in hosts]
    if None not in errors:
        raise PoolBrokenError(
            f"no Ray cluster answers at {address}: start one (ray start --head), or correct the"
            f" address ({errors[0]})"
        )


def _host_and_port(address: str) -> tuple[str, str]:
    host, colon, port = address.rpartition(":")
    return (host.strip("[]"), port) if colon else (address, "")


def _place(address: str) -> tuple[str, str]:
    """Where a head node is: the same for all names of its host."""
    host, port = _host_and_port(address)
    if host in _LOOPBACK:
        host = ray.util.get_node_ip_address()
    with contextlib.suppress(OSError, UnicodeError):
        host = socket.gethostbyname(host)
    return host, port


def _error_of_connecting(host: str, port: int) -> Exception | None:
    try:
        socket.create_connection((host, port), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:  # that is what a port beyond 65,535 gives
        return error
    return None
