"""Which events end a chain, so that the worker does not run the rest. Pure.

A chain is a row of events in a batch that must run one after another: events of one cascade, or
roots of one key.
"""

from __future__ import annotations

from typing import NamedTuple

from evproc_pool.core.inputs_and_effects import Opened


class ChainEnds(NamedTuple):
    """The events that end a chain.

    Attributes:
        by_value: Whether an event does that gives a value to `StopProcessing`.
        by_error: Whether a failed event does.
        by_follow_ups: Whether an event with follow-ups does.
    """

    by_value: bool
    by_error: bool
    by_follow_ups: bool


def chain_ends(opened: Opened, *, has_retries: bool) -> tuple[ChainEnds, ChainEnds]:
    """Return what ends a chain of a cascade's events, and a chain of roots with a key.

    A failed event may have to run again before the others. It also ends its cascade, unless
    errors continue, and its run if that stops at the first error. The follow-ups of a root come
    before the next root with its key.
    """
    of_cascade = ChainEnds(
        by_value=True,
        by_error=has_retries or not opened.errors_continue,
        by_follow_ups=False,
    )
    of_key = ChainEnds(
        by_value=False,
        by_error=has_retries or opened.until_error,
        by_follow_ups=True,
    )
    return of_cascade, of_key
