"""How far a cascade may go: `max_cascade_depth` and `max_cascade_events`. Pure.

A limit is checked when the handlers of an event are over and have returned follow-ups. What
breaks it is the failure of that event, and its follow-ups are dropped. Nothing is checked
for an event that failed, or ended its cascade by `StopProcessing(value)`.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from evproc.event import describe_event
from evproc_pool.core.error_notes import path_text
from evproc_pool.errors import CascadeLimitError


class CascadeEnding(NamedTuple):
    """What ends a cascade, or a part of it, before its time.

    Attributes:
        errors_continue: Whether a failed event ends only itself and its own follow-ups.
        max_depth: The greatest depth of an event, of which the root has 0; None: any.
        max_events: How many events a cascade may come to; None: any number.
    """

    errors_continue: bool = False
    max_depth: int | None = None
    max_events: int | None = None


#: As in a `Processor`.
PLAIN_ENDING: Final = CascadeEnding()


def broken_limit(ending: CascadeEnding, depth: int, events: int, follow_ups: int) -> str | None:
    """Say which limit an event breaks by its follow-ups, or None.

    Args:
        ending: The limits.
        depth: The event's; a root's is 0.
        events: How many events the cascade had before, handled or not. Those that were
            dropped, since the event that returned them failed, do not count.
        follow_ups: How many its handlers returned, at least 1.

    Returns:
        As in "max_cascade_depth=5". The depth's, if both are broken.
    """
    if ending.max_depth is not None and depth >= ending.max_depth:
        return f"max_cascade_depth={ending.max_depth}"
    if ending.max_events is not None and events + follow_ups > ending.max_events:
        return f"max_cascade_events={ending.max_events}"
    return None


def limit_error(
    limit: str, path: tuple[int, ...], handler: str | None, ev: Any
) -> CascadeLimitError:
    """Make the error of an event whose follow-ups break a limit.

    Args:
        limit: See `broken_limit`.
        path: The event's.
        handler: The last one that returned follow-ups, if that is known.
        ev: The event.
    """
    event = describe_event(ev)
    who = "its handlers" if handler is None else f"handler {handler!r}"
    return CascadeLimitError(
        f"{limit}: {who} returned follow-ups beyond it, for event {event} with path"
        f" {path_text(path)}: raise the limit, or mend the handler",
        limit,
        path,
        handler,
        event,
    )
