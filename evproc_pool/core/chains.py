"""Which events leave the rest of a chain unrun. Pure.

A chain is what follows an event in its batch and must not run before it is over: the next events
of its cascade, or the next roots with its key.
"""

from __future__ import annotations

from typing import NamedTuple

from evproc_pool.core.inputs_and_effects import Opened


class ChainEnds(NamedTuple):
    """What ends a chain.

    Attributes:
        by_value: An event that gives a value to `StopProcessing`.
        by_error: One that fails.
        by_follow_ups: One that has follow-ups.
    """

    by_value: bool
    by_error: bool
    by_follow_ups: bool


def chain_ends(opened: Opened, *, has_retries: bool) -> tuple[ChainEnds, ChainEnds]:
    """Say what ends a chain of a cascade's events, and one of roots with a key.

    A failed event may have to be run again before the others. It also ends its cascade, unless
    errors continue, and its run, if that goes on until the first error. The follow-ups of a
    root come before the next root with its key.
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
