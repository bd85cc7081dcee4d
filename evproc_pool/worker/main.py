"""The process of a worker: its signals and resources, and how it ends. `loop` is its work.

Ctrl-C and SIGTERM are left to the coordinator; see `process`, also for what handlers fork.
"""

from __future__ import annotations

import gc
import signal
import socket
from collections.abc import Sequence
from typing import Any

from evproc_pool.internals.cpython import forget_exit_functions, run_exit_functions
from evproc_pool.internals.stdlib_multiprocessing import release_signals
from evproc_pool.ipc.channel import BlockingChannel
from evproc_pool.ipc.resources import WorkerResources
from evproc_pool.protocol import status_words
from evproc_pool.serialization import basics
from evproc_pool.worker import reporter
from evproc_pool.worker.loop import Worker, prepare
from evproc_pool.worker.output import Output
from evproc_pool.worker.process import END_SIGNALS, ForkedChild, leave_signals, left_by


def main(sock: socket.socket, shares: WorkerResources, to_close: Sequence[int]) -> None:
    """Run a worker until it ends.

    `to_close` are descriptors of the coordinator that a forked process inherits. They would keep
    other workers from noticing that the coordinator is gone.
    """
    leave_signals(signal.SIGINT, *END_SIGNALS)
    release_signals()
    basics.become_worker()
    for fd in to_close:
        socket.close(fd)
    if to_close:
        forget_exit_functions()  # the coordinator's
    shares.install()
    channel = BlockingChannel(sock, shares.shared_memory)
    cells = shares.words.words if shares.words is not None else [0] * status_words.WORDS
    output = Output(channel, cells, Worker._run.__code__)  # noqa: SLF001 - it searches its frame
    child = ForkedChild(channel.close, shares.disown, output.end)
    error: BaseException | None = None
    try:
        _serve(channel, cells, shares.shared, output)
    except (EOFError, ConnectionError):
        pass  # the coordinator is gone: nothing is left to do
    except BaseException as caught:
        error = left_by(caught) if child.is_this else caught
    try:
        if error is not None:
            raise error
    finally:
        channel.close()
        output.end()
        run_exit_functions()


def _serve(
    channel: BlockingChannel, cells: memoryview | list[int], shared: Sequence[Any], output: Output
) -> None:
    has_reporter = reporter.SIGNAL is not None
    worker = prepare(channel, cells, shared=shared, has_reporter=has_reporter, output=output)
    if worker is not None:
        worker.install_reporter()
        # Loaded modules stay: a full garbage collection need not visit them.
        gc.freeze()
        worker.run()
