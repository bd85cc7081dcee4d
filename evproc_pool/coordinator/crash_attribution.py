"""Which event is charged for the death of a worker: the one that it was running, if any."""

from __future__ import annotations

from collections import Counter, deque
from typing import Final, NamedTuple

from evproc.registry import Registry
from evproc_pool.coordinator.codec import Codec
from evproc_pool.coordinator.sent_batch import Sent
from evproc_pool.protocol import status_words
from evproc_pool.protocol.backend import Gone
from evproc_pool.protocol.status_words import WorkerStatus

# An event is charged after this many deaths while its results were sent.
_MOST_UNCLEAR_DEATHS: Final = 2


class Verdict(NamedTuple):
    """What is known of the first batch of a dead worker.

    Attributes:
        over: How many of its events are over. Events without a result were not reported.
        running: The position of the event to charge, or None.
        handler: The handler that was running, or None.
        spared: The position of a later event that is over too, and need not be run again.
    """

    over: int
    running: int | None = None
    handler: str | None = None
    spared: int | None = None


class CrashAttribution:
    """Finds the event to charge; remembers deaths for which it could not.

    Args:
        codec: Packs events one by one while it is unclear which one is at fault.
        registry: The handlers.
    """

    def __init__(self, codec: Codec, registry: Registry) -> None:
        self._codec = codec
        self._registry = registry
        # by run and root: deaths of workers that had to send a result of it
        self._unclear: Counter[tuple[int, int]] = Counter()

    def examine(  # noqa: PLR0911 - a case each
        self, item: Gone, sents: deque[Sent], *, was_stuck: bool
    ) -> Verdict:
        """Find the event to charge.

        Args:
            item: The worker. All that it sent has been taken in.
            sents: Its batches that are not over.
            was_stuck: Whether it was killed because it was at one place for too long.
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
            # Nobody knows which event it was. Charge none: they are sent again first of all,
            # packed one by one, so that the next death shows it.
            self._one_by_one(sents)
            return Verdict(done)
        if at.position < done:
            return Verdict(done)
        # an event without a result is over, and so is one whose result could not be packed
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
            # It is charged, since it took long, or runs. But the worker may have died of another
            # event's result, which would kill the next worker too: so pack one by one.
            self._one_by_one(sents)
        handler = None if at.handler is None else self._registry.handlers[at.handler].name
        return Verdict(over, at.position, handler)

    def _between(
        self, sents: deque[Sent], over: int, at: WorkerStatus, *, was_stuck: bool
    ) -> int | None:
        """The position to charge for a death after an event, if any.

        A worker that dies while it packs or sends results would take the next one with it, and so
        on for ever. So events are sent one by one from then on, each result by itself. An event is
        charged if it happens again, or if the worker was stuck in packing its result.
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
        """Drop what is known of a run that is over."""
        for key in [each for each in self._unclear if each[0] == run]:
            del self._unclear[key]
