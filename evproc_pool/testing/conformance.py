"""Checks that a pool over any backend, or any executor, does what `Processor` does.

For pytest it is a class to derive from::

    from evproc_pool import PoolProcessor
    from evproc_pool.backends import promises
    from evproc_pool.testing import Conformance

    class TestMyExecutor(Conformance):
        promises = promises.CALLS_OF_FACTORY  # what a pool on it promises besides the outcomes
        may_die = True  # False: its workers are threads of this process, which must not die

        def make_pool(self, **options):
            return PoolProcessor(executor=lambda: MyExecutor(4), **options)

Elsewhere, `MyConformance().run_all()` raises the first failure. Each method is a check of its own,
makes its own pools, and ends them. An executor that is given, instead of a callable that makes it,
has `promises.CALLS`, and `close_pool` has to end it. Where a promise is not made, its check demands
that the option is refused, or that the pool says that it broke: nothing may be ignored in silence.

Each engine has its own way for workers to come and go. If `elasticity` is promised,
`replaced_workers` has to do that; on Dask it is like this::

    @contextlib.contextmanager
    def replaced_workers(self):
        old = list(self.client.nthreads())
        ...  # start as many workers, and wait for them
        self.client.retire_workers(old)
        yield  # what runs on them ends meanwhile
        ...  # wait until the scheduler has none of `old`

The checks write files into a new folder of `tempfile`, which the workers must see, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, wait
from typing import Any, Final

from evproc import Event
from evproc_pool.errors import (
    PoolBrokenError,
    PoolClosedError,
    SerializationError,
)
from evproc_pool.outcome import Outcome
from evproc_pool.pool import PoolProcessor
from evproc_pool.testing.conformance_basis import (
    PATIENCE_SECONDS,
    demand,
    elsewhere,
    equal,
    new_folder,
    raises,
    wait_until,
)
from evproc_pool.testing.conformance_handlers import (
    Job,
    NeedsArguments,
    Part,
    Stubborn,
    answer_two,
    fail_to_set_up,
    set_up,
)
from evproc_pool.testing.conformance_promises import PromiseChecks

_STUBBORN: Final = ("give_stubborn", "follow_stubborn")


class Conformance(PromiseChecks):
    """All checks; see the module's text, and `Basis` for what to set and define."""

    # --- outcomes ---

    def test_values_come_in_the_order_of_the_events(self) -> None:
        """Two thousand tiny events, in one call and by a stream."""
        values: list[Any] = [None, 0, "text", 1.5, b"bytes", {"a": [1, (2, {3})]}]
        events = [Job("give", values[number % len(values)]) for number in range(2000)]
        wanted = [values[number % len(values)] for number in range(2000)]
        with self._pool() as pool:
            equal(pool.process_many(events), wanted)
            streamed = list(pool.stream(events))
        equal([each.value for each in streamed], wanted)
        demand(all(each.stopped for each in streamed), "a value was given, but not stopped for")

    def test_cascades_end_as_with_a_processor(self) -> None:
        """Follow-ups, emitted results, stops and errors, of each event."""
        for errors in ("end", "continue"):
            self._compare(_cascades, errors=errors)

    def test_unordered_cascades_end_as_with_a_processor(self) -> None:
        """Likewise if follow-ups run in parallel."""
        self._compare(lambda: [Job("split", size, -1) for size in range(40)], ordering="unordered")

    def test_limits_of_cascades_hold(self) -> None:
        """`max_cascade_depth` and `max_cascade_events`."""
        self._compare(_cascades, max_cascade_depth=3)
        self._compare(_cascades, max_cascade_events=9)

    def test_errors_keep_their_types(self) -> None:
        """Those of Python and others, `SystemExit` and `KeyboardInterrupt` among them."""
        kinds: list[type[BaseException]] = [ValueError, OSError, SystemExit, LookupError]
        if self.is_elsewhere:  # else it is one for the caller
            kinds.append(KeyboardInterrupt)
        events: list[Event] = [Job("fail", kind, number) for number, kind in enumerate(kinds)]
        with self._pool() as pool:
            found = pool.process_many([*events, Job("nothing")], return_exceptions=True)
            for number, kind in enumerate(kinds):
                equal((type(found[number]), found[number].args), (kind, (number,)))
                demand(
                    any("'do'" in note for note in found[number].__notes__),
                    f"no note of {found[number]!r} names its handler",
                )
            equal(found[-1], None)
            raises(ValueError, lambda: pool.process_many(events))
            odd = raises(NeedsArguments, lambda: pool.process(Job("fail_oddly", 7)))
            equal((str(odd), vars(odd)["code"]), ("odd 7", 7))

    @elsewhere
    def test_what_cannot_be_pickled_fails_alone(self) -> None:
        """Events, values and follow-ups that refuse, at either end."""
        bad: list[Event] = [Stubborn("dumps"), Stubborn("loads")]
        bad += [Job(act, how) for act in _STUBBORN for how in ("dumps", "loads")]
        events = list(itertools.chain(*[(each, Job("give", 1)) for each in bad]))
        with self._pool() as pool:
            for _ in range(2):
                found = pool.process_many(events, return_exceptions=True)
                equal(found[1::2], [1] * len(bad))
                for each in found[::2]:
                    demand(isinstance(each, SerializationError), f"{each!r} instead of an error")

    def test_large_data_crosses_in_both_directions(self) -> None:
        """Megabytes, more of them on their way than any buffer holds."""
        data = [bytes([number]) * (3 << 20) for number in range(8)]
        with self._pool() as pool:
            equal(pool.process_many([Job("give", each) for each in data]), data)

    def test_events_come_back_as_handlers_left_them(self) -> None:
        """`return_events`, with the namespaces of handlers."""
        with self._pool() as pool:
            for outcome in pool.stream([Job("nothing")] * 20, return_events=True):
                left: Any = outcome.processed
                equal(left.proc.conformance.noted, "nothing")

    def test_failed_events_are_run_again(self) -> None:
        """`max_retries`, and the number of attempts."""
        with new_folder() as folder, self._pool(max_retries=3, retry_backoff=0) as pool:
            flags = [str(folder / str(number)) for number in range(10)]
            outcomes = list(pool.stream([Job("fail_at_first", flag, 3) for flag in flags]))
            equal([(each.value, each.attempts) for each in outcomes], [(3, 3)] * 10)

    def test_roots_with_a_key_run_in_order(self) -> None:
        """No two of one key at once."""
        with self._pool(key=_first_argument) as pool:
            events = [Job("time_of_key", number % 3) for number in range(60)]
            times = pool.process_many(events)
        for key in range(3):
            spans = times[key::3]
            for (_, ended), (began, _) in itertools.pairwise(spans):
                demand(ended <= began, f"two events with the key {key} ran at once")

    # --- workers ---

    def test_the_initializer_is_called_before_the_first_event(self) -> None:
        """And its arguments arrive."""
        with self._pool(initializer=set_up, initargs=({"a": 1},)) as pool:
            equal(pool.process_many([Job("give_state")] * 50), [{"a": 1}] * 50)

    @elsewhere
    def test_an_initializer_that_fails_breaks_the_pool(self) -> None:
        """With its error as the cause."""
        with self._pool(initializer=fail_to_set_up) as pool:
            error = raises(PoolBrokenError, lambda: pool.process_many([Job("nothing")] * 5))
            demand("it fails" in str(error), f"the error does not say why: {error}")

    def test_no_two_events_share_a_processor_at_once(self) -> None:
        """Workers may be threads of one process."""
        with self._pool() as pool:
            equal(pool.process_many([Job("be_alone")] * 100), [None] * 100)

    def test_handlers_may_be_registered_between_runs(self) -> None:
        """And replace others."""
        with self._pool() as pool:
            equal(pool.process(Job("give", 1)), 1)
            pool.register(answer_two, "do", replace=True)
            equal(pool.process(Job("give", 1)), 2)

    # --- calls ---

    def test_futures_end(self) -> None:
        """Those of `submit`, from several threads."""
        with self._pool() as pool:
            futures: list[Future[Any]] = []

            def submit() -> None:
                futures.extend([pool.submit(Job("give", number)) for number in range(100)])

            threads = [threading.Thread(target=submit) for _ in range(3)]
            for each in threads:
                each.start()
            for each in threads:
                each.join()
            done, left = wait(futures, timeout=PATIENCE_SECONDS)
            equal((len(done), len(left)), (300, 0))
            equal(sorted(each.result() for each in done), sorted([*range(100)] * 3))

    def test_a_stream_takes_an_endless_input(self) -> None:
        """And may be left early."""
        taken = 0

        def endless() -> Iterator[Event]:
            nonlocal taken
            for number in itertools.count():
                taken = number
                yield Job("give", number)

        with self._pool() as pool:
            with contextlib.closing(pool.stream(endless(), buffersize=100)) as stream:
                equal([next(stream).value for _ in range(300)], list(range(300)))
            demand(taken < 1000, f"{taken} events were taken for 300")
            equal(pool.process(Job("give", 5)), 5)

    def test_coroutines_can_wait(self) -> None:
        """`process_async` and `stream_async`."""

        async def play(pool: PoolProcessor) -> tuple[Any, list[Any]]:
            value = await pool.process_async(Job("give", 1))
            stream: AsyncIterator[Outcome] = pool.stream_async([Job("give", 2), Job("give", 3)])
            return value, [each.value async for each in stream]

        with self._pool() as pool:
            equal(asyncio.run(play(pool)), (1, [2, 3]))

    @elsewhere
    def test_a_call_may_give_up(self) -> None:
        """`timeout` of `process`; the pool goes on."""
        with new_folder() as folder, self._pool() as pool:
            begun, go_on = folder / "begun", folder / "go_on"
            late = Job("await_file", str(begun), str(go_on))
            raises(TimeoutError, lambda: pool.process(late, timeout=0.2))
            go_on.touch()
            equal(pool.process(Job("give", 2)), 2)

    def test_the_end_waits_for_what_was_submitted(self) -> None:
        """`close` finishes it; then the pool is closed."""
        with self._pool() as pool:
            futures = [pool.submit(Job("give", number)) for number in range(50)]
            pool.close()
            pool.close()
            equal([each.result(timeout=0) for each in futures], list(range(50)))
            raises(PoolClosedError, lambda: pool.process(Job("nothing")))

    @elsewhere
    def test_terminate_waits_for_nothing(self) -> None:
        """What is in flight fails."""
        with new_folder() as folder, self._pool() as pool:
            begun, go_on = folder / "begun", folder / "go_on"
            future = pool.submit(Job("await_file", str(begun), str(go_on)))
            wait_until(begun.exists, "a handler begins")
            pool.terminate()
            go_on.touch()  # where a handler cannot be ended
            raises(PoolClosedError, lambda: future.result(timeout=PATIENCE_SECONDS))

    def test_listeners_and_statistics_count_all(self) -> None:
        """Each event once."""
        seen: list[Any] = []
        with self._pool(listeners=[seen.append], statistics=True) as pool:
            pool.process_many([Job("nothing")] * 100)
            statistics = pool.statistics()
        equal(sum(type(each).__name__ == "CascadesDone" for each in seen) > 0, True)
        equal(statistics.events, 100)


def _cascades() -> list[Event]:
    """Cascades that end by themselves, by a value, and by an error."""
    roots: list[Event] = []
    for size in range(24):
        roots += [Part(size), Job("split", size, size // 2), Part(size, -(size // 3) - 1)]
    return roots


def _first_argument(ev: Any) -> Any:
    return ev.args[0]
