"""The limits: what two processes can do that no pool stands between.

`Control` sends no events: each of its processes makes half of them itself, and
runs them when told to. No pool that has two workers can be faster, unless by
luck. `SocketPair` sends them as plainly as can be done in Python: pickled in
batches, two of which are on their way to each process.
"""

from __future__ import annotations

import gc
import pickle
import selectors
from collections.abc import Iterator
from contextlib import ExitStack, closing
from multiprocessing.connection import Connection
from typing import Any, Final

from benchmarks.pool import loads
from benchmarks.pool.handlers import make_processor
from benchmarks.pool.processes import WORKERS, Helper
from evproc import Event

_GO: Final = b"go"
_DONE: Final = b"done"

# Batches on their way to a process: one that it works at, and one behind it.
_AHEAD: Final = 2


class Control:
    """Two processes with half of the events each, and no coordination."""

    label = "control"

    def __init__(self) -> None:
        with ExitStack() as stack:
            self._helpers = [
                stack.enter_context(closing(Helper(_serve_control, number)))
                for number in range(WORKERS)
            ]
            self._stack = stack.pop_all()

    def prepare(self, make: loads.Make, count: int) -> list[int]:
        """Have the events made, so that they are there when `run` says go.

        Returns:
            How many each process has.

        Raises:
            BenchmarkError: A process has ended.
        """
        for helper in self._helpers:
            helper.connection.send((make, count))
        return [helper.receive() for helper in self._helpers]

    def run(self) -> None:
        """Process what was prepared.

        Raises:
            BenchmarkError: A process has ended.
        """
        for helper in self._helpers:
            helper.connection.send(_GO)
        for helper in self._helpers:
            helper.receive()

    def close(self) -> None:
        """End the processes, and wait for them."""
        self._stack.close()


def _serve_control(connection: Connection[Any, Any], number: int) -> None:
    process = make_processor().process
    while True:
        make, count = connection.recv()
        events = loads.share(make(count), number, WORKERS)
        gc.collect()
        connection.send(len(events))
        connection.recv()
        for ev in events:
            process(ev)
        connection.send(_DONE)


class SocketPair:
    """Two processes, a socket pair to each, pickled batches on it; see `peers.Chunked`."""

    label = "socket pair"

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        with ExitStack() as stack:
            stack.callback(self._selector.close)
            for _ in range(WORKERS):
                helper = stack.enter_context(closing(Helper(_serve_batches)))
                self._selector.register(helper.connection, selectors.EVENT_READ, helper)
            self._stack = stack.pop_all()

    def run(self, events: list[Event], chunk: int) -> list[Any]:
        """See `peers.Chunked`.

        Sent without a look at what comes back: an answer is a list of None, of
        some bytes an event, which the pipe's buffer holds, so no two writers can
        wait for each other. That is not so for large values, nor in a pool.
        """
        batches = iter(range(0, len(events), chunk))
        values: list[Any] = [None] * len(events)
        sent: dict[int, list[int]] = {}
        keys = list(self._selector.get_map().values())
        for key in keys * _AHEAD:
            self._send(key, events, chunk, batches, sent.setdefault(key.fd, []))
        while any(sent.values()):
            for key, _ in self._selector.select():
                answer = pickle.loads(key.data.connection.recv_bytes())
                begin = sent[key.fd].pop(0)
                values[begin : begin + len(answer)] = answer
                self._send(key, events, chunk, batches, sent[key.fd])
        return values

    def _send(
        self,
        key: selectors.SelectorKey,
        events: list[Event],
        chunk: int,
        batches: Iterator[int],
        sent: list[int],
    ) -> None:
        begin = next(batches, None)
        if begin is not None:
            batch = pickle.dumps(events[begin : begin + chunk], pickle.HIGHEST_PROTOCOL)
            key.data.connection.send_bytes(batch)
            sent.append(begin)

    def close(self) -> None:
        """End the processes, and wait for them."""
        self._stack.close()


def _serve_batches(connection: Connection[Any, Any]) -> None:
    process = make_processor().process
    while True:
        events = pickle.loads(connection.recv_bytes())
        values = [process(ev) for ev in events]
        connection.send_bytes(pickle.dumps(values, pickle.HIGHEST_PROTOCOL))
