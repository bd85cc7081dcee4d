"""Runs the events of a lost batch one at a time, and answers as if they had run together.

So if the executor breaks again, it is known which event did it. Each event has a batch of its own;
its frames are changed to be about the place that it has in the lost batch. An event that ends its
chain leaves the rest of that unrun, as in a worker.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import inf

from evproc_pool.protocol import messages
from evproc_pool.worker.plain_calls import Answer, Batch


class OneAtATime:
    """See the module's text.

    Attributes:
        position: The event whose turn it is.
        is_over: Whether all have run.

    Args:
        number: That of the batch.
        frame: The batch.
        blobs: Its events, pickled one by one.
    """

    def __init__(self, number: int, frame: messages.BatchFrame, blobs: Sequence[bytes]) -> None:
        self._number = number
        self._frame = frame
        self._blobs = blobs
        self._ends = [(0, 0)] * frame.size  # where the chain of each ends, and by what
        for first, stop, code in frame.chains:
            self._ends[first:stop] = [(stop, code)] * (stop - first)
        self._returned = frozenset(frame.return_events)
        self._unrun: set[int] = set()
        self._reported = 0  # how many events the frames so far are about
        for position in range(frame.size):
            if self._plan(position) == messages.OMITTED:
                self._unrun.add(position)
                self._end_chain(position, messages.ENDS_BY_ERROR)
        self.position = 0
        self._move_on(0)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to run."""
        return self.position == self._frame.size

    def _plan(self, position: int) -> int:
        plans = self._frame.plans
        return plans if isinstance(plans, int) else plans[position]

    def _end_chain(self, position: int, how: int) -> None:
        stop, code = self._ends[position]
        if code & how:
            self._unrun.update(range(position + 1, stop))

    def _move_on(self, position: int) -> None:
        while position in self._unrun:
            position += 1
        self.position = position

    def call(self) -> Batch:
        """The batch of the event whose turn it is."""
        number, position = self._plan(self.position), self.position
        frame = messages.BatchFrame(
            [each for each in self._frame.new_plans if each[0] == number],
            number,
            1,
            (),
            (0,) if position in self._returned else (),
            inf,
            self._frame.events._replace(data=[self._blobs[position]]),
            self._frame.is_prompt,
            self._frame.names_handlers,
        )
        return Batch(self._number, messages.dump_batch(frame))

    def take(self, answer: Answer) -> Answer:
        """Take the answer to `call`, and go on; return what the batch answers with."""
        frames: Answer = []
        for tag, payload in answer:
            if tag == messages.QUIET:
                frames.append(self._moved(messages.load_quiet(payload)))
            elif tag == messages.PROGRESS:
                frames.append(self._moved(messages.load_progress(payload)))
            else:
                frames.append((tag, payload))
        self._move_on(self.position + 1)
        if self.is_over:
            frames += self.rest()
        return frames

    def rest(self) -> Answer:
        """The frame about events at the end that have not run, if there are any."""
        size = self._frame.size
        if self._reported == size:
            return []
        ends = array("d", [0.0] * (size - self._reported)).tobytes()
        frame = messages.ProgressFrame(size, 0.0, ends, (), False, None, number=self._number)
        return [(messages.PROGRESS, messages.dump_progress(frame))]

    def _moved(self, frame: messages.ProgressFrame) -> tuple[int, bytes]:
        """A frame about the event, as if it were at its place in the batch."""
        times = memoryview(frame.ends).cast("d")
        took = times[-1] - frame.begun
        # those before it that have not run took no time
        ends = array("d", [frame.begun] * (self.position - self._reported)).tobytes()
        self._reported = self.position + 1
        results = frame.results
        if results is not None:
            results = self._moved_results(results)
            self._end_chain(self.position, _how(results))
        moved = frame._replace(
            done=self._reported,
            ends=ends + bytes(frame.ends),
            timings=[(self._plan(self.position), 1, took)],
            results=results,
            begins=bytes(frame.begins),
        )
        return messages.PROGRESS, messages.dump_progress(moved)

    def _moved_results(self, results: messages.BatchResults) -> messages.BatchResults:
        here = [self.position]
        values, emitted, processed = [
            None if column is None else column._replace(positions=here)
            for column in (results.values, results.emitted, results.processed)
        ]
        return results._replace(
            givers=here if results.givers else (),
            values=values,
            emitted=emitted,
            processed=processed,
            errors=[(self.position, record) for _, record in results.errors],
            short=[self.position, results.short[1]] if results.short else (),
        )


def _how(results: messages.BatchResults) -> int:
    """How an event ended; see `messages.chain_code`."""
    return messages.chain_code(
        results.values is not None, bool(results.errors), bool(results.givers)
    )
