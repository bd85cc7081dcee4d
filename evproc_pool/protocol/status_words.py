"""Where a worker is, in a few words of shared memory; and how its work is taken back.

The worker writes which batch, which event of it and which handler it is at; the
coordinator reads it when the worker is dead, or slow. A write is a store of a
machine word, tens of nanoseconds, no system call. The memory has no name: it is
an unlinked file that only the two processes hold.

In the other direction, the coordinator can take back what a worker holds behind a
slow event (`StatusWords.take_back`). The worker looks for that only behind an
event that took `SLOW_SECONDS`, so that quick ones pay nothing for it. Why the two
cannot misunderstand each other: when an event begins, the worker reads the clock and
then publishes its place; when it ends, it publishes that it is over and then reads
the clock. The coordinator has seen the same event running at two times further apart
than `SLOW_SECONDS`, so the worker, too, finds that it took so long, and will look. It
publishes that the event is over before it looks; the coordinator writes before it
checks that the event is not over. So if the worker missed what was written, the
coordinator sees that the event was over, and takes nothing. Where the worker has left
something out that was not taken, it says so.

That is also how it is asked for batches that it has not begun, when others are about
to run dry (`StatusWords.ask_back`): nothing counts as taken but what it says it has
left out.

It also says there in which event the worker is to raise the soft timeout
(`StatusWords.strike`, see `soft_timeout`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, NamedTuple

# the words
BATCH: Final = 0  # which batch, from 1
PLACE: Final = 1  # position << HANDLER_BITS | index of the handler + 1, or one of the below
UNSENT: Final = 2  # the first position with a result that was not sent, or NONE
TAKEN: Final = 3  # batch << 32 | position from which on that batch is taken back
TAKEN_TO: Final = 4  # batches up to this one that have not begun are taken back as well
PACKING: Final = 5  # of which events what they left behind is being pickled, see `packing`
STRUCK: Final = 6  # batch << 32 | position of the event that took too long; 0 once it was told
TELLING: Final = 7  # 1 while what is over is packed and sent beside a running handler
#: How many words these are.
WORDS: Final = 8
#: An event that took so long is slow: what it left behind is sent at once, and behind
#: it the worker looks whether its other events were taken back.
SLOW_SECONDS: Final = 0.001

#: Bits of `PLACE` that hold the handler; 0 in them is "between handlers".
HANDLER_BITS: Final = 20

#: In the bits of the handler: the event is over, and has nothing to tell.
OVER: Final = (1 << HANDLER_BITS) - 1

#: Likewise: it is over, and is to be run again if the worker dies before it has told what
#: the event left behind: it was quick. Or it was left out.
AGAIN: Final = OVER - 1

#: Beside the last handler of an event: it is over, but what it left behind was not sent
#: yet, and if it took long is not to be done again. If not, that is said (`AGAIN`) before
#: anything is sent; until then the next event is a moment away.
UNTOLD: Final = 1 << (HANDLER_BITS - 1)

# Bits of `PACKING` that hold how many.
_PACKED_BITS: Final = 8
_MOST_PACKED: Final = (1 << _PACKED_BITS) - 1

#: `PLACE` between batches; no position in `UNSENT`.
NONE: Final = -1
#: `PLACE` while the events of a batch are being unpickled together.
UNPICKLING: Final = -2


class WorkerStatus(NamedTuple):
    """What was last written.

    Attributes:
        batch: Which batch, from 1.
        position: The event in it, or NONE or UNPICKLING.
        handler: The handler's index in the registry, or None.
        unsent: The first position whose result has not been sent, or None.
        is_over: Whether the event is over.
        is_untold: Whether it has something to tell that was not sent.
        may_repeat: Whether it is to be run again then.
        packing: Of how many events what they left behind is being pickled, which runs
            code of the user's.
        packed: The position of the first of these.
        is_telling: Whether what others left behind is being packed and sent beside it.
    """

    batch: int
    position: int
    handler: int | None
    unsent: int | None
    is_over: bool = False
    is_untold: bool = False
    packing: int = 0
    packed: int = 0
    may_repeat: bool = False
    is_telling: bool = False

    @property
    def activity(self) -> tuple[int, ...]:
        """What the worker is at: the event, or, behind it, what is being pickled."""
        return self.batch, self.position, self.packing, self.packed

    @property
    def runs_code(self) -> bool:
        """Whether code of the user's may be running, which may take for ever."""
        return self.packing > 0 or not self.is_over


class StatusWords:
    """The words, and what they say.

    Attributes:
        words: Signed words, by the constants above.
    """

    words: memoryview | list[int]

    def read(self) -> WorkerStatus:
        """What the worker wrote last; torn while it is alive."""
        batch, place, unsent, _, _, packing, _, telling = self.words
        if place < 0:
            return WorkerStatus(batch, place, None, None)
        code = place & ((1 << HANDLER_BITS) - 1)
        handler = 0 if code >= AGAIN else code & (UNTOLD - 1)
        return WorkerStatus(
            batch,
            place >> HANDLER_BITS,
            handler - 1 if handler else None,
            unsent if unsent >= 0 else None,
            code >= UNTOLD,
            UNTOLD <= code < OVER,
            packing & _MOST_PACKED,
            packing >> _PACKED_BITS,
            code == AGAIN,
            telling != 0,
        )

    def take_back(self, seen: WorkerStatus, newest: int) -> bool:
        """Take back everything behind the event that a worker is at.

        Args:
            seen: Where the worker was at least twice `SLOW_SECONDS` ago.
            newest: The number of the last batch that it was sent.

        Returns:
            Whether it will run nothing behind that event. If not, it has moved on.
        """
        self.words[TAKEN] = taken_from(seen.batch, seen.position + 1)
        self.words[TAKEN_TO] = newest
        # A system call, for the time that it takes: when it returns, a store of the
        # worker's has arrived that came before a look at the words which missed the above.
        time.sleep(0)
        now = self.read()
        return (now.batch, now.position) == (seen.batch, seen.position) and not now.is_over

    def ask_back(self, newest: int) -> None:
        """Ask for what has not begun of the batches up to this one; the worker answers."""
        self.words[TAKEN_TO] = newest

    def strike(self, seen: WorkerStatus) -> None:
        """Say that the event that a worker is at takes too long."""
        self.words[STRUCK] = event_at(seen.batch, seen.position)

    def is_struck(self, seen: WorkerStatus) -> bool:
        """Whether that was said, and the worker has not raised it yet."""
        struck: int = self.words[STRUCK]
        return struck == event_at(seen.batch, seen.position)


def packing(positions: Sequence[int]) -> int:
    """What `PACKING` has while what some events left behind is pickled, in order."""
    return positions[0] << _PACKED_BITS | min(len(positions), _MOST_PACKED)


def taken_from(batch: int, position: int) -> int:
    """What `TAKEN` has if a batch is taken back from a position on."""
    return batch << 32 | position


def event_at(batch: int, position: int) -> int:
    """What `STRUCK` has for an event; never 0, since batches are counted from 1."""
    return batch << 32 | position
