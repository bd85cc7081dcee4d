"""What becomes of every event of a cascade, as plainly as possible: the oracle for outcomes.

A cascade is a list of events with their paths, in the order in which they are run. It knows
of nothing but `Registry.match` and what a handler may return. `told` brings real outcomes
into the same form: plain data that can be compared, whichever process they come from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from evproc import Event, Processor, StopProcessing
from evproc.event import take_emitted
from evproc.processor import collect_follow_ups
from evproc_pool import CascadeLimitError, Outcome

_BARE = StopProcessing().retval


@dataclass
class Told:
    """What there is to say of an event, or of a cascade."""

    path: tuple[int, ...]
    value: Any = None
    stopped: bool = False
    error: list[str] | None = None
    handler: str | None = None
    events: int = 1
    handlers: int = 0
    emitted: list[Any] = field(default_factory=list)
    failed: int = 0
    failed_event: str | None = None
    processed: list[Any] | None = None


def told(outcome: Outcome) -> Told:
    """Bring an outcome into this form."""
    return Told(
        outcome.path,
        outcome.value,
        outcome.stopped,
        _error(outcome.error),
        outcome.handler,
        outcome.events,
        outcome.handlers,
        outcome.emitted,
        outcome.failed,
        None if outcome.failed_event is None else repr(outcome.failed_event),
        _left(outcome.processed),
    )


def cascade(
    processor: Processor,
    root: Any,
    index: int,
    *,
    errors: str = "end",
    depth: float = float("inf"),
    most: float = float("inf"),
    whole: bool = False,
) -> list[Told]:
    """Run a cascade; give what there is to say of each event, and last of the cascade.

    Args:
        processor: Has the handlers.
        root: The event.
        index: Its place in the input.
        errors: As the pool's.
        depth: `max_cascade_depth`.
        most: `max_cascade_events`.
        whole: Nothing ends the cascade: all events that there can be are run.
    """
    found: list[Told] = []
    pending: list[tuple[Any, tuple[int, ...]]] = [(root, (index,))]
    queued = 1
    while pending:
        ev, path = pending.pop(0)
        follow_ups, this = _event(processor, ev, path)
        limit = None
        if len(path) - 1 >= depth:
            limit = f"max_cascade_depth={depth}"
        elif queued + len(follow_ups) > most:
            limit = f"max_cascade_events={most}"
        if follow_ups and limit is not None:
            # of the last handler that returned some
            this.error, this.handler = ["CascadeLimitError", limit, str(path)], follow_ups[-1][1]
            this.failed, this.failed_event = 1, repr(ev)
            this.emitted, this.processed, follow_ups = [], None, []
        queued += len(follow_ups)
        pending += [(each, (*path, place)) for place, (each, _) in enumerate(follow_ups)]
        found.append(this)
        if not whole and (this.stopped or (this.failed and errors == "end")):
            break
    return [*found[1:], _sum(found, errors)]


def _event(
    processor: Processor, ev: Any, path: tuple[int, ...]
) -> tuple[list[tuple[Event, str]], Told]:
    """Run an event; give its follow-ups, each with its handler's name, and what came of it."""
    this = Told(path)
    follow_ups: list[tuple[Event, str]] = []
    name = None
    try:
        for handler in processor.registry.match(ev).handlers:
            name = handler.name
            this.handlers += 1
            returned: list[Event] = []
            try:
                result = handler.func(processor, ev)
                if result is not None:
                    collect_follow_ups(result, handler, ev, returned)
            except StopProcessing as stop:
                if stop.retval is not _BARE:
                    this.value, this.stopped = stop.retval, True
                    follow_ups = []
                else:
                    follow_ups += [(each, name) for each in returned]
                break
            follow_ups += [(each, name) for each in returned]
    except Exception as error:
        follow_ups = []
        this.error, this.handler = _error(error), name
        this.failed, this.failed_event = 1, repr(ev)
    else:
        this.processed = _left(ev)
    emitted = take_emitted(ev)
    this.emitted = [] if this.failed else emitted
    return follow_ups, this


def _sum(found: list[Told], errors: str) -> Told:
    """What there is to say of a cascade."""
    total = Told(found[0].path, events=len(found), processed=found[0].processed)
    for this in found:
        total.handlers += this.handlers
        total.emitted = [*total.emitted, *this.emitted]
        total.failed += this.failed
        if this.stopped:
            total.value, total.stopped = this.value, True
        if this.failed and total.error is None:
            total.error, total.handler = this.error, this.handler
            total.failed_event = this.failed_event
    if total.failed and errors == "end":
        total.processed = None
    return total


def _error(error: BaseException | None) -> list[str] | None:
    if error is None:
        return None
    if isinstance(error, CascadeLimitError):
        return ["CascadeLimitError", error.limit, str(error.path)]
    return [type(error).__name__, str(error.args)]


def _left(ev: Any) -> list[Any] | None:
    """What handlers left in an event of a program."""
    if ev is None:
        return None
    return [ev.id, ev.number, getattr(ev.proc.trail, "names", [])]


# --- comparing ---


def check_ordered(expected: Iterable[list[Told]], outcomes: Iterable[Outcome]) -> None:
    """Hold the outcomes of an ordered stream, `every_event`, against those of each cascade."""
    assert [told(outcome) for outcome in outcomes] == [this for each in expected for this in each]


def check_unordered(
    expected: list[list[Told]],
    whole: list[list[Told]],
    outcomes: list[Outcome],
    *,
    errors: str = "end",
) -> None:
    """The same where follow-ups are independent.

    Where nothing ends a cascade early, all is the same. Otherwise timing decides which events
    were run; but each of these is as in the whole cascade, behind the one that returned it.

    Args:
        expected: See `cascade`.
        whole: Likewise, with `whole=True`.
        outcomes: Of a stream with `every_event`, in input order.
        errors: As the pool's.
    """
    for index, (plain, full) in enumerate(zip(expected, whole, strict=True)):
        actual = [told(outcome) for outcome in outcomes if outcome.index == index]
        assert [this.path for this in actual[-1:]] == [(index,)]
        if not (plain[-1].stopped or (plain[-1].failed and errors == "end")):
            assert actual == plain
            continue
        known = {this.path: this for this in full[:-1]}
        paths = [this.path for this in actual[:-1]]
        assert paths == sorted(set(paths), key=lambda path: (len(path), path))
        for this in actual[:-1]:
            assert this == known[this.path]
            assert len(this.path) == 2 or this.path[:-1] in paths
        # the root's own value or error is in no outcome but the cascade's
        values = [this.value for this in full if this.stopped]
        failures = [this.error for this in full if this.failed]
        assert not actual[-1].stopped or actual[-1].value in values
        assert actual[-1].error is None or actual[-1].error in failures
