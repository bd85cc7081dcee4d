"""Status words: where a worker is, in a few words of shared memory.

The worker writes its batch, event and handler. The coordinator reads them when the worker is dead
or slow. A write is a store of a machine word: tens of nanoseconds, no system call. The memory has
no name: it is an anonymous file that only the two processes hold.

**Take-back.** The coordinator can take back what a worker holds behind a slow event
(`StatusWords.take_back`). The worker checks for this only behind an event that took `SLOW_SECONDS`,
so fast events pay nothing. Why the two never misunderstand each other:

- When an event begins, the worker reads the clock, then publishes its place. When the event ends,
  the worker publishes that it is over, then reads the clock.
- The coordinator has seen the same event run at two times further apart than `SLOW_SECONDS`. So
  the worker also finds that the event took so long, and checks.
- The worker publishes that the event is over before it checks. The coordinator writes before it
  checks that the event is not over. So if the worker missed the write, the coordinator sees that
  the event was over, and takes nothing.
- If the worker skips something that was not taken, it says so.

**Asking back.** If others are about to run dry, the coordinator asks for batches that the worker
has not begun (`StatusWords.ask_back`). Only batches that the worker says it has skipped are taken.

**Soft timeout.** The coordinator writes in which event the worker is to raise it
(`StatusWords.strike`, see `soft_timeout`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, NamedTuple

# the words
BATCH: Final = 0  # the number of the batch, from 1
PLACE: Final = 1  # position << HANDLER_BITS | handler's index + 1, or NONE or UNPICKLING
UNSENT: Final = 2  # the first position with an unsent result, or NONE
TAKEN: Final = 3  # `event_at`: the first position that is taken back
TAKEN_TO: Final = 4  # batches up to this one are taken back, unless they have begun
PACKING: Final = 5  # the events whose results are being pickled, see `packing`
STRUCK: Final = 6  # `event_at`: the event that took too long; 0 once raised
REPORTING: Final = 7  # 1 while a thread packs and sends results beside a running handler
FLUSHING: Final = 8  # 1 while the output of what is over is flushed, which may block
WORDS: Final = 9  # the number of words
#: From this on an event is slow: the worker sends its result at once, and checks whether its other
#: events were taken back. A report costs the coordinator some 50 us: with 1 ms here, 20 workers at
#: events of 1 ms kept it busy. `core.supervisor.STUCK_SECONDS` is more than twice as long.
SLOW_SECONDS: Final = 0.002

#: The number of bits of `PLACE` that hold the handler; 0 there: between handlers.
HANDLER_BITS: Final = 20

#: In the handler's bits: the event is over and has nothing to report.
OVER: Final = (1 << HANDLER_BITS) - 1

#: Likewise: the event is over, but must run again if the worker dies before it reports. It was
#: fast, or it was skipped.
AGAIN: Final = OVER - 1

#: Beside the last handler of an event: the event is over, but its result was not sent. If the event
#: was slow, it must not run again. If it was fast, `AGAIN` replaces this before anything is sent;
#: until then the next event begins in a moment.
UNREPORTED: Final = 1 << (HANDLER_BITS - 1)

# The number of bits of `PACKING` that hold how many events.
_PACKED_BITS: Final = 8
_MOST_PACKED: Final = (1 << _PACKED_BITS) - 1

#: In `PLACE`: between batches. In `UNSENT`: no position.
NONE: Final = -1
#: In `PLACE`: the events of a batch are being unpickled together.
UNPICKLING: Final = -2


class WorkerStatus(NamedTuple):
    """The content of a worker's status words."""

    batch: int  # from 1
    position: int  # the event in it, or NONE or UNPICKLING
    handler: int | None  # the index in the registry
    unsent: int | None  # the first position whose result was not sent
    is_over: bool = False  # the event is over
    is_unreported: bool = False  # it is over, and its result was not sent
    packing: int = 0  # how many events have their results pickled now, which runs user code
    packed: int = 0  # the position of the first of these
    may_repeat: bool = False  # an unreported event must run again
    is_reporting: bool = False  # a thread packs and sends other results beside the event
    is_flushing: bool = False  # the output of events that are over is being flushed

    @property
    def activity(self) -> tuple[int, ...]:
        """The worker's current work: the event, or, behind it, the pickling of results."""
        return self.batch, self.position, self.packing, self.packed

    @property
    def runs_code(self) -> bool:
        """Whether user code may be running, or output is flushed: both may take for ever."""
        return self.packing > 0 or self.is_flushing or not self.is_over


class StatusWords:
    """The status words of one worker."""

    words: memoryview | list[int]  # signed, indexed by the constants above

    def read(self) -> WorkerStatus:
        """The last written state; may be torn while it is alive."""
        batch, place, unsent, _, _, packing, _, reporting, flushing = self.words
        if place < 0:
            return WorkerStatus(batch, place, None, None)
        code = place & ((1 << HANDLER_BITS) - 1)
        handler = 0 if code >= AGAIN else code & (UNREPORTED - 1)
        return WorkerStatus(
            batch,
            place >> HANDLER_BITS,
            handler - 1 if handler else None,
            unsent if unsent >= 0 else None,
            code >= UNREPORTED,
            UNREPORTED <= code < OVER,
            packing & _MOST_PACKED,
            packing >> _PACKED_BITS,
            code == AGAIN,
            reporting != 0,
            flushing != 0,
        )

    def take_back(self, seen: WorkerStatus, newest: int) -> bool:
        """Take back everything behind the event that a worker is at; False: it has moved on.

        `seen` is where the worker was at least twice `SLOW_SECONDS` ago. `newest` is the number of
        the last batch that it was sent.
        """
        self.words[TAKEN] = event_at(seen.batch, seen.position + 1)
        self.words[TAKEN_TO] = newest
        # A system call takes long enough: afterwards this process sees every store of the worker
        # that preceded a check which missed the words above.
        time.sleep(0)
        now = self.read()
        return (now.batch, now.position) == (seen.batch, seen.position) and not now.is_over

    def ask_back(self, newest: int) -> None:
        """Ask for the batches up to this one that have not begun; the worker answers."""
        self.words[TAKEN_TO] = newest

    def strike(self, seen: WorkerStatus) -> None:
        """Say that the worker's current event takes too long."""
        self.words[STRUCK] = event_at(seen.batch, seen.position)

    def is_struck(self, seen: WorkerStatus) -> bool:
        """Whether that was said, and the worker has not raised the timeout yet."""
        struck: int = self.words[STRUCK]
        return struck == event_at(seen.batch, seen.position)


def packing(positions: Sequence[int]) -> int:
    """The value of `PACKING` while results of these events are pickled; in order."""
    return positions[0] << _PACKED_BITS | min(len(positions), _MOST_PACKED)


def event_at(batch: int, position: int) -> int:
    """A position in a batch, in one word; never 0, since batches count from 1."""
    return batch << 32 | position
