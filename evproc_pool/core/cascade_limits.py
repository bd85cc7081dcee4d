"""The limits of a cascade: `max_cascade_depth` and `max_cascade_events`. Pure.

They are checked when the handlers of an event are over and have returned follow-ups. An event
that breaks a limit fails, and its follow-ups are dropped. An event that failed, or ended its
cascade by `StopProcessing(value)`, is not checked.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from evproc.event import describe_event
from evproc_pool.core.error_notes import path_text
from evproc_pool.errors import CascadeLimitError


class CascadeEnding(NamedTuple):
    """The limits of a cascade, and whether an error ends it."""

    errors_continue: bool = False  # whether a failed event ends only itself and its own follow-ups
    max_depth: int | None = None  # the greatest depth of an event; a root has 0. None: any.
    max_events: int | None = None  # the most events of a cascade; None: any number


#: As in a `Processor`.
PLAIN_ENDING: Final = CascadeEnding()


def broken_limit(ending: CascadeEnding, depth: int, events: int, follow_ups: int) -> str | None:
    """Return the limit that an event breaks, as in "max_cascade_depth=5"; the first, or None.

    Args:
        ending: The limits.
        depth: The event's depth; a root has 0.
        events: How many events the cascade had before, handled or not. Dropped follow-ups of a
            failed event do not count.
        follow_ups: How many its handlers returned, at least 1.
    """
    if ending.max_depth is not None and depth >= ending.max_depth:
        return f"max_cascade_depth={ending.max_depth}"
    if ending.max_events is not None and events + follow_ups > ending.max_events:
        return f"max_cascade_events={ending.max_events}"
    return None


def limit_error(
    limit: str, path: tuple[int, ...], handler: str | None, ev: Any
) -> CascadeLimitError:
    """Make the error of an event whose follow-ups break a limit; see `broken_limit`.

    `handler` is the last one that returned follow-ups, if known.
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
