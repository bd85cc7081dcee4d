"""How counts of a call read: pure functions."""

from __future__ import annotations

from typing import Final

from evproc_pool.observe.progress import ProgressCounts

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR


def line(counts: ProgressCounts) -> str:
    """Say how far a call is, as one line."""
    parts = [amount(counts), *troubles(counts), rate(counts)]
    if not counts.is_over:
        if counts.seconds_left is not None:
            parts.append(f"{duration(counts.seconds_left)} left")
    elif counts.roots_done == counts.roots_total:
        parts.append(f"done in {duration(counts.seconds)}")
    else:
        parts.append(f"ended after {duration(counts.seconds)}")
    return f"evproc: {', '.join(parts)}"


def amount(counts: ProgressCounts) -> str:
    """Say how many events are over, and of how many."""
    events, known, total = counts.events_done, counts.events_known, counts.roots_total
    if total is not None and known <= total:
        return f"{events:,} of {total:,} events ({percent(counts)} %)"
    if counts.is_over and events == known:
        return f"{events:,} events"
    text = f"{events:,} events of {known:,} so far"
    if total is None:
        return text
    return f"{counts.roots_done:,} of {total:,} roots ({percent(counts)} %), {text}"


def percent(counts: ProgressCounts) -> int:
    """Return how much of the roots is over, in percent; 100 only if it is all of them."""
    return 100 * counts.roots_done // counts.roots_total if counts.roots_total else 100


def troubles(counts: ProgressCounts) -> list[str]:
    """Say what went wrong, if anything did."""
    numbers = (("failed", counts.failed), ("retried", counts.retried))
    return [f"{number:,} {what}" for what, number in numbers if number]


def rate(counts: ProgressCounts) -> str:
    """Say how fast it is."""
    number = counts.events_per_second
    return f"{number:,.0f}/s" if number >= 10 or not number else f"{number:.2g}/s"


def duration(seconds: float) -> str:
    """Return some seconds in the one or two units that a person would use."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 2 * _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"
