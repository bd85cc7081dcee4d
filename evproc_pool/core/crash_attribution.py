"""Decides which event is charged for the death of its worker, and which events are over.

The status words have the place where a worker died. `done` events of its first batch are reported:

- the place is behind `done`, at no event, or in another batch: the worker was between two events,
  or unpickled some. None is charged;
- otherwise the events before the place are over. Those from `unsent` on run again: their results
  did not arrive. An `unsent` behind `done` is out of date, since it is cleared after sending;
- if results were packed or sent, or output was flushed, of one event only, this one is charged. It
  may have had effects. Of several, none is: see `_between`.
"""

from __future__ import annotations

from typing import NamedTuple

from evproc_pool.core.batches import Batch


class LastPlace(NamedTuple):
    """Where a worker was in its first batch; the fields of `protocol.status_words.WorkerStatus`."""

    position: int  # below 0: at none
    handler: int | None  # the index in the registry
    unsent: int | None  # the first position whose result was not sent
    is_over: bool = False
    is_unreported: bool = False  # it is over, and its result was not sent
    packing: int = 0  # how many events had their results pickled
    packed: int = 0  # the position of the first of these
    may_repeat: bool = False  # an unreported event must run again
    is_reporting: bool = False  # a thread packed and sent other results beside the event
    is_flushing: bool = False  # the output of events that are over was being flushed


class Verdict(NamedTuple):
    """What is known of the first batch of a dead worker."""

    over: int  # how many of its events are over; those without a result were not reported
    running: int | None = None  # the position of the event to charge
    handler: int | None = None  # the index of the handler that was running
    spared: int | None = None  # the position of a later event that is over, and must not run again
    one_by_one: bool = False  # what the worker held is packed one by one when it is sent again


def examine(
    batch: Batch,
    at: LastPlace | None,
    *,
    is_in_batch: bool = True,
    is_unpickling: bool = False,
    was_stuck: bool,
) -> Verdict:
    """Find the event to charge, once all that the worker sent has been taken in.

    Args:
        batch: Its first batch that is not over.
        at: Where it was; None: nobody knows.
        is_in_batch: Whether that is a place in this batch.
        is_unpickling: Whether it was unpickling the events of a batch together.
        was_stuck: It was killed because it was at one place for too long.
    """
    done = batch.done
    if at is None:
        return Verdict(done, done)
    if not is_in_batch or at.position < done:
        # Nobody knows which event it was that could not be unpickled. Charge none: the next
        # death shows it.
        return Verdict(done, one_by_one=is_in_batch and is_unpickling)
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
        if was_stuck and at.is_flushing and at.position == done:
            return Verdict(done, done)  # also without a result: it took too long
        running = _between(batch, over, at, was_stuck=was_stuck)
        return Verdict(over, running, spared=spared, one_by_one=at.unsent is not None)
    # It is charged, since it took long, or runs. But the worker may have died of another
    # event's result, which would kill the next worker too: so pack one by one.
    return Verdict(over, at.position, at.handler, spared, one_by_one=at.is_over or at.is_reporting)


def _between(batch: Batch, over: int, at: LastPlace, *, was_stuck: bool) -> int | None:
    """The position to charge for a death after an event, if any.

    The event whose result was packed or sent is charged, if it is known: it may have had effects.
    If there were several, any of them may kill the next worker too, and so on for ever. So they
    are sent one by one from then on, each result by itself.
    """
    if at.unsent is None:
        return None
    if was_stuck and at.packing:
        is_one = at.packing == 1 and over <= at.packed < batch.size
        return at.packed if is_one else None
    if at.is_flushing and at.position > batch.done:
        return None  # the output is that of several events
    is_one = at.unsent == at.position and over <= at.position < batch.size
    return at.position if is_one else None
