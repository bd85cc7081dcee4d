"""Where a worker was when it died, and so which event is charged, if any."""

from __future__ import annotations

from collections import Counter, deque
from typing import Final, NamedTuple

from evproc.registry import Registry
from evproc_pool.coordinator.codec import Codec, Sent
from evproc_pool.protocol import status_words
from evproc_pool.protocol.backend import Gone
from evproc_pool.protocol.status_words import WorkerStatus

# So many workers may die in sending what one event left behind, until it is charged.
_MOST_UNCLEAR_DEATHS: Final = 2


class Verdict(NamedTuple):
    """What is known of the batch that a dead worker was at.

    Attributes:
        over: How many of its events are over; those that had nothing to tell were not told.
        running: The position of the event to charge, or None.
        handler: The handler that it was in, if it was in one.
        spared: The position of an event behind these that is over all the same, and
            need not be run again.
    """

    over: int
    running: int | None = None
    handler: str | None = None
    spared: int | None = None


class CrashAttribution:
    """Finds out; remembers what could not be found out the first time.

    Args:
        codec: Is told to pack events one by one where it is not clear which one it was.
        registry: The coordinator's.
    """

    def __init__(self, codec: Codec, registry: Registry) -> None:
        self._codec = codec
        self._registry = registry
        # by run and root, how often a worker died when it had something of it to send
        self._unclear: Counter[tuple[int, int]] = Counter()

    def examine(  # noqa: PLR0911 - a case each
        self, item: Gone, sents: deque[Sent], *, was_stuck: bool
    ) -> Verdict:
        """Say where a worker was.

        Args:
            item: The worker, of which everything that it sent has been taken in.
            sents: The batches that it was sent and are not over.
            was_stuck: Whether it was killed for being where it was for too long.
        """
        if not sents:
            return Verdict(0)
        sent = sents[0]
        done = sent.batch.done
        at = item.progress
        if at is None:
            return Verdict(done, done)
        if at.batch != sent.number:
            return Verdict(done)
        if at.position == status_words.UNPICKLING:
            # Nobody knows which event it was. Charge none, and find out: they go to
            # others first of all, now packed one by one with the place published for each.
            self._one_by_one(sents)
            return Verdict(done)
        if at.position < done:
            return Verdict(done)
        # what had nothing to tell is over, and so is what could not be packed
        is_over = at.is_over and (
            not at.is_unreported or at.may_repeat or (was_stuck and at.packing > 0)
        )
        over = at.position + is_over
        spared = None
        if at.unsent is not None and at.unsent >= done:
            over = min(over, at.unsent)
            if over <= at.position and at.is_over and not at.is_unreported:
                spared = at.position
        if is_over:
            running = self._between(sents, over, at, was_stuck=was_stuck)
            return Verdict(over, running, spared=spared)
        if at.is_over or at.is_reporting:
            # it has to be charged, since it took long, or runs; what the worker died of may be what
            # another has left behind, which would kill the next one with what it is beside
            self._one_by_one(sents)
        handler = None if at.handler is None else self._registry.handlers[at.handler].name
        return Verdict(over, at.position, handler)

    def _between(
        self, sents: deque[Sent], over: int, at: WorkerStatus, *, was_stuck: bool
    ) -> int | None:
        """The position to charge for a death behind an event, if any.

        Where a worker died in packing or sending what events left behind, whoever runs
        them next would die as well, and so on for ever. So they are sent one by one from
        then on, and each result by itself; and an event is charged if it happens again, or
        if it was stuck in packing what that one left behind.
        """
        if at.unsent is None:
            return None
        batch = sents[0].batch
        self._one_by_one(sents)
        if was_stuck and at.packing:
            is_one = at.packing == 1 and over <= at.packed < batch.size
            return at.packed if is_one else None
        if at.unsent != at.position or not over <= at.position < batch.size:
            return None
        key = batch.run_id, batch.root_at(at.position)
        self._unclear[key] += 1
        return at.position if self._unclear[key] >= _MOST_UNCLEAR_DEATHS else None

    def _one_by_one(self, sents: deque[Sent]) -> None:
        self._codec.one_by_one += sum(each.batch.size for each in sents)

    def forget(self, run: int) -> None:
        """A run is over."""
        for key in [each for each in self._unclear if each[0] == run]:
            del self._unclear[key]
