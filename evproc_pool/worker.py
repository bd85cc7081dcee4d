"""A worker process: its own registry, and a loop over batches.

1. Ignore SIGINT: Ctrl-C reaches the whole process group, and the coordinator
   decides what it means.
2. Take the recipe from the first frame, follow it, answer with the fingerprint
   of the registry that came of it (or with why it failed).
3. For each batch: unpickle the events, run the plan of each, and send what they
   left behind. Before each event and handler the place is published in shared
   memory, for the case that the process dies there.
4. End when told to, or when the coordinator is gone.

A frame is sent when the batch is over, and before that whenever `FLUSH_SECONDS`
of work have come together: what took long is not lost with the process.
"""

from __future__ import annotations

import contextlib
import signal
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import Any, Final

from evproc import Event, Processor
from evproc.event import describe_event
from evproc.exc import _unset
from evproc.processor import run_handlers
from evproc.registry import Handler
from evproc_pool import progress, wire
from evproc_pool.channel import BlockingChannel, Frame
from evproc_pool.recipe import Recipe, fingerprint

#: Work that may be lost with the process, in seconds.
FLUSH_SECONDS: Final = 0.001


def main(
    sock: socket.socket, words: progress.ProgressWords | None, to_close: Sequence[int]
) -> None:
    """Run a worker until it is told to end.

    Args:
        sock: Its end of the channel.
        words: Where it says what it is doing.
        to_close: Descriptors that a forked process has inherited and must not hold:
            the coordinator's ends, which would keep other workers from noticing
            that the coordinator is gone.
    """
    with contextlib.suppress(ValueError):  # not the main thread: nothing to ignore
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    for fd in to_close:
        socket.close(fd)
    channel = BlockingChannel(sock)
    # the coordinator is gone: there is nobody to tell, and nothing to do
    with contextlib.suppress(EOFError, ConnectionError):
        worker = _start(channel, words)
        if worker is not None:
            worker.run()
    channel.close()


def _start(channel: BlockingChannel, words: progress.ProgressWords | None) -> Worker | None:
    frame = channel.receive()
    try:
        recipe: Recipe = wire.loads(frame.payload)
        processor = recipe.follow()
        answer = wire.dumps(fingerprint(processor.registry))
    except BaseException as error:  # an initializer may raise SystemExit
        channel.send(wire.NOT_READY, wire.dumps(wire.encode_error(error, None)))
        return None
    channel.send(wire.READY, answer)
    return Worker(channel, processor, words.words if words is not None else [0, 0, 0])


class Worker:
    """The loop over batches.

    Args:
        channel: To the coordinator.
        processor: What the handlers are given; its registry has them.
        words: See `progress`; anything that takes items will do.
    """

    def __init__(
        self, channel: BlockingChannel, processor: Processor, words: memoryview | list[int]
    ) -> None:
        self._channel = channel
        self._processor = processor
        self._words: Any = words
        self._plans: dict[int, tuple[Handler, ...]] = {}
        self._batches = 0
        self._waiting: deque[Frame] = deque()

    def run(self) -> None:
        """Serve until told to end.

        Raises:
            EOFError: The coordinator is gone.
            OSError: Likewise.
        """
        while True:
            frame = self._waiting.popleft() if self._waiting else self._channel.receive()
            if frame.tag == wire.QUIT:
                return
            self._words[progress.BATCH] = self._batches = self._batches + 1
            self._words[progress.POSITION] = progress.UNPICKLING
            batch = self._read(frame)
            # the events are there now: do not hold them twice
            del frame
            for number, indices in batch.new_plans:
                self._plans[number] = self._processor.registry.plan(indices).handlers
            self._run_batch(batch)
            self._words[progress.POSITION] = progress.IDLE

    def _read(self, frame: Frame) -> wire.BatchFrame:
        try:
            return wire.BatchFrame(*wire.loads(frame.payload))
        except Exception:
            self._channel.send(wire.UNREADABLE, b"")
        # It comes again with the events pickled one by one. Batches that were sent
        # before the coordinator knew have to wait, since results come in order.
        while True:
            frame = self._channel.receive()
            if frame.tag == wire.RESENT:
                break
            self._waiting.append(frame)
        return wire.BatchFrame(*wire.loads(frame.payload))

    def _run_batch(self, batch: wire.BatchFrame) -> None:
        outbox = _Outbox(self._channel)
        skip_to = 0
        chains = dict(batch.chains)
        chain_end = 0
        size = len(batch.plans)
        then = perf_counter()
        for position, number in enumerate(batch.plans):
            chain_end = chains.get(position, chain_end)
            if position >= skip_to and number != wire.OMITTED:
                self._words[progress.POSITION] = position
                if self._run_event(batch, position, outbox):
                    skip_to = chain_end
                now = perf_counter()
                outbox.took(number, now - then)
                then = now
            elif number == wire.OMITTED:
                # what cannot be encoded has failed: its cascade goes no further
                skip_to = max(skip_to, chain_end)
            if position + 1 == size or outbox.seconds > FLUSH_SECONDS:
                outbox.send(position + 1)

    def _run_event(self, batch: wire.BatchFrame, position: int, outbox: _Outbox) -> bool:
        """Run one event; say whether its cascade ended with it."""
        follow_ups: list[Event] = []
        ev = batch.events[position]
        published = _Published(self._words, self._plans[batch.plans[position]])
        try:
            if batch.isolated:
                ev = _load_event(ev)
            retval = run_handlers(self._processor, ev, iter(published), follow_ups)
        except BaseException as error:
            outbox.errors.append((position, wire.encode_error(error, published.current)))
            return True
        finally:
            self._words[progress.HANDLER] = progress.IDLE
        stopped = retval is not _unset
        if not stopped and not follow_ups:
            return False
        # what StopProcessing(value) drops need not travel
        content = ([], True, retval) if stopped else (follow_ups, False, None)
        try:
            outbox.returns.append((position, wire.dumps(content)))
        except Exception as error:
            what = "the value given to StopProcessing" if stopped else "what a handler returned"
            failure = wire.cannot_pickle(
                f"{what} for event {describe_event(ev)}",
                content[2] if stopped else content[0],
                error,
            )
            outbox.errors.append((position, wire.encode_error(failure, None)))
            return True
        return stopped


def _load_event(pickled: bytes) -> Event:
    try:
        event: Event = wire.loads(pickled)
    except Exception as error:
        raise wire.cannot_rebuild("the event", error) from error
    return event


class _Published:
    """The handlers of a plan, each published as it begins.

    A class, so that after an exception `current` tells which one raised it.
    """

    __slots__ = ("_handlers", "_words", "current")

    def __init__(self, words: Any, handlers: tuple[Handler, ...]) -> None:
        self._words = words
        self._handlers = handlers
        self.current: str | None = None

    def __iter__(self) -> Iterator[Handler]:
        words = self._words
        for handler in self._handlers:
            words[progress.HANDLER] = handler.index
            self.current = handler.name
            yield handler


class _Outbox:
    """What has been done and not been sent."""

    def __init__(self, channel: BlockingChannel) -> None:
        self._channel = channel
        self._clear()

    def _clear(self) -> None:
        self.returns: list[tuple[int, bytes]] = []
        self.errors: list[tuple[int, wire.ErrorRecord]] = []
        self.seconds = 0.0
        self._timings: dict[int, tuple[int, float]] = {}

    def took(self, plan: int, seconds: float) -> None:
        """Count an event's time."""
        self.seconds += seconds
        events, total = self._timings.get(plan, (0, 0.0))
        self._timings[plan] = events + 1, total + seconds

    def send(self, done: int) -> None:
        """Send it, and say how many events of the batch are over."""
        timings = [(plan, events, total) for plan, (events, total) in self._timings.items()]
        frame = wire.ProgressFrame(done, self.returns, self.errors, timings)
        self._channel.send(wire.PROGRESS, wire.dumps(tuple(frame)))
        self._clear()
