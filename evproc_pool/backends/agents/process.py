"""The process of an agent: takes commands from standard input, and writes events.

It is started as a plain subprocess, since a worker of Dask or Ray may be a daemon of
`multiprocessing`, which must not have children of that module; this process may. It also has a GIL
of its own. What it or its workers print goes to standard error; the real standard output belongs to
the messages. Each message has its length before it, as 8 bytes.

If standard input ends, however its other end died, the agent kills its workers and ends.
"""

from __future__ import annotations

import multiprocessing
import os
import struct
import sys
import threading
import time
from typing import IO, Any, Final

from evproc_pool.backends.agents.agent import Agent
from evproc_pool.backends.agents.messages import Event, Hello, Setup, dump, load
from evproc_pool.backends.agents.versions import differences
from evproc_pool.backends.local.processes import LocalBackend
from evproc_pool.backends.local.start_methods import default_context
from evproc_pool.internals.cpython import run_exit_functions

#: Before each message: its length.
LENGTH: Final = struct.Struct("<Q")

#: How Python is started for it. Not by ``-m``: `multiprocessing` would import that as the main
#: module of each worker.
COMMAND: Final = ("-c", "from evproc_pool.backends.agents.process import main; main()")

# How long the agent may take to end when its connection is closed.
_END_SECONDS: Final = 10.0


def read(stream: IO[bytes]) -> Any:
    """Read a message. Raises EOFError at the end."""
    (length,) = LENGTH.unpack(_read_bytes(stream, LENGTH.size))
    return load(_read_bytes(stream, length))


def _read_bytes(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data


class Writer:
    """Writes messages to a stream."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def __call__(self, message: list[Event] | Hello) -> None:
        """Write a message."""
        data = dump(message)
        self._stream.write(LENGTH.pack(len(data)))
        self._stream.write(data)
        self._stream.flush()


def _take_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Keep the real standard input and output; give others to what this process and others print.

    Descriptors that `os.dup` makes are not inherited.
    """
    commands, events = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return commands, events


def main() -> None:
    """Be an agent until the coordinator ends it."""
    commands, events = _take_streams()
    try:
        path: list[str] = read(commands)
        sys.path[:] = path
        setup: Setup = read(commands)
    except EOFError:
        return
    write = Writer(events)
    write(Hello(os.getpid(), differences(setup.versions)))
    context = default_context(os.getpid())
    if setup.start_method in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context(setup.start_method)
    backend = LocalBackend(context, setup.modules)
    agent = Agent(backend, write)
    reader = threading.Thread(target=_serve, args=(agent, commands), daemon=True)
    reader.start()
    agent.run()
    run_exit_functions()  # `multiprocessing` removes the forkserver's folder
    sys.stderr.flush()
    # the reader may be in the middle of a read, which would hold up the interpreter's end
    os._exit(0)


def _serve(agent: Agent, commands: IO[bytes]) -> None:
    try:
        while True:
            agent.commands.put(read(commands))
    except (EOFError, OSError):
        agent.commands.close()
        time.sleep(_END_SECONDS)
        os._exit(1)  # the pump hangs; the workers notice its death
