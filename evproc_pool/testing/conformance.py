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

Not checked is `elasticity`: each engine has its own way for workers to come and go.

The checks write files into a new folder of `tempfile`, which the workers must see, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, Final

from evproc import Event
from evproc_pool.backends.promises import Promises
from evproc_pool.errors import (
    EventTimeoutError,
    PoolBrokenError,
    PoolClosedError,
    SerializationError,
    WorkerLostError,
)
from evproc_pool.outcome import Outcome
from evproc_pool.pool import PoolProcessor
from evproc_pool.testing.comparing import difference
from evproc_pool.testing.conformance_handlers import (
    HANDLERS,
    Buffer,
    Job,
    NeedsArguments,
    Part,
    Stubborn,
    answer_two,
    fail_to_set_up,
    set_up,
)

# How long to wait for what must happen, in seconds.
_PATIENCE_SECONDS: Final = 60.0

# Without these, nothing would check the promises that rest on them.
_RESTS_ON: Final = {
    "hard_timeout": "hang_limit",
    "attribution": "isolation",
    "restart": "isolation",
}

_Check = Callable[["Conformance"], None]


def _elsewhere(check: _Check) -> _Check:
    """Leave a check out if handlers do not run beside the caller."""

    @functools.wraps(check)
    def checked(suite: Conformance) -> None:
        if suite.is_elsewhere:
            check(suite)

    return checked


class Conformance:
    """The checks; see the module's text.

    Attributes:
        promises: What the backend promises.
        may_die: Whether the check of a death may kill the process that a handler runs in; False if
            handlers run in this process.
        is_elsewhere: Whether handlers run beside the caller. False for `workers=0`: nothing is
            pickled there, a call cannot give up, and options about workers have no effect.
    """

    promises: Promises = Promises()
    may_die: bool = True
    is_elsewhere: bool = True

    def make_pool(self, **options: Any) -> PoolProcessor:
        """Make a pool with at least two workers, and with these options of `PoolProcessor`."""
        raise NotImplementedError("derive from Conformance, and make a pool of yours here")

    def close_pool(self, pool: PoolProcessor) -> None:
        """End a pool, and an executor that was made for it."""
        pool.close()

    def run_all(self) -> None:
        """Run each check; raise the first failure, with the name of the check."""
        for name in dir(self):
            if name.startswith("test_"):
                try:
                    getattr(self, name)()
                except Exception as error:
                    error.add_note(f"in the check {name}")
                    raise

    @contextlib.contextmanager
    def _pool(self, **options: Any) -> Iterator[PoolProcessor]:
        pool = self.make_pool(**options)
        try:
            _register(pool)
            yield pool
        finally:
            self.close_pool(pool)

    def _compare(self, make: Callable[[], list[Event]], **options: Any) -> list[Outcome]:
        """Run events here and in a pool, follow-ups included; demand that they end equally."""
        with self._pool(**options) as pool:
            pooled = list(pool.stream(make(), every_event=True, return_events=True))
        with PoolProcessor(0, **{**options, "retry_backoff": 0}) as serial:
            _register(serial)
            expected = list(serial.stream(make(), every_event=True, return_events=True))
        text = difference(expected, pooled, "in the pool", every_event=True, **options)
        _demand(not text, text)
        return pooled

    # --- outcomes ---

    def test_values_come_in_the_order_of_the_events(self) -> None:
        """Two thousand tiny events, in one call and by a stream."""
        values: list[Any] = [None, 0, "text", 1.5, b"bytes", {"a": [1, (2, {3})]}]
        events = [Job("give", values[number % len(values)]) for number in range(2000)]
        wanted = [values[number % len(values)] for number in range(2000)]
        with self._pool() as pool:
            _equal(pool.process_many(events), wanted)
            streamed = list(pool.stream(events))
        _equal([each.value for each in streamed], wanted)
        _demand(all(each.stopped for each in streamed), "a value was given, but not stopped for")

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
                _equal((type(found[number]), found[number].args), (kind, (number,)))
                _demand(
                    any("'do'" in note for note in found[number].__notes__),
                    f"no note of {found[number]!r} names its handler",
                )
            _equal(found[-1], None)
            _raises(ValueError, lambda: pool.process_many(events))
            odd = _raises(NeedsArguments, lambda: pool.process(Job("fail_oddly", 7)))
            _equal((str(odd), vars(odd)["code"]), ("odd 7", 7))

    @_elsewhere
    def test_what_cannot_be_pickled_fails_alone(self) -> None:
        """Events, values and follow-ups that refuse, at either end."""
        bad: list[Event] = [Stubborn("dumps"), Stubborn("loads")]
        bad += [Job(act, how) for act in _STUBBORN for how in ("dumps", "loads")]
        events = list(itertools.chain(*[(each, Job("give", 1)) for each in bad]))
        with self._pool() as pool:
            for _ in range(2):
                found = pool.process_many(events, return_exceptions=True)
                _equal(found[1::2], [1] * len(bad))
                for each in found[::2]:
                    _demand(isinstance(each, SerializationError), f"{each!r} instead of an error")

    def test_large_data_crosses_in_both_directions(self) -> None:
        """Megabytes, more of them on their way than any buffer holds."""
        data = [bytes([number]) * (3 << 20) for number in range(8)]
        with self._pool() as pool:
            _equal(pool.process_many([Job("give", each) for each in data]), data)

    def test_events_come_back_as_handlers_left_them(self) -> None:
        """`return_events`, with the namespaces of handlers."""
        with self._pool() as pool:
            for outcome in pool.stream([Job("nothing")] * 20, return_events=True):
                left: Any = outcome.processed
                _equal(left.proc.conformance.noted, "nothing")

    def test_failed_events_are_run_again(self) -> None:
        """`max_retries`, and the number of attempts."""
        with _folder() as folder, self._pool(max_retries=3, retry_backoff=0) as pool:
            flags = [str(folder / str(number)) for number in range(10)]
            outcomes = list(pool.stream([Job("fail_at_first", flag, 3) for flag in flags]))
            _equal([(each.value, each.attempts) for each in outcomes], [(3, 3)] * 10)

    def test_roots_with_a_key_run_in_order(self) -> None:
        """No two of one key at once."""
        with self._pool(key=_first_argument) as pool:
            events = [Job("time_of_key", number % 3) for number in range(60)]
            times = pool.process_many(events)
        for key in range(3):
            spans = times[key::3]
            for (_, ended), (began, _) in itertools.pairwise(spans):
                _demand(ended <= began, f"two events with the key {key} ran at once")

    # --- workers ---

    def test_the_initializer_is_called_before_the_first_event(self) -> None:
        """And its arguments arrive."""
        with self._pool(initializer=set_up, initargs=({"a": 1},)) as pool:
            _equal(pool.process_many([Job("give_state")] * 50), [{"a": 1}] * 50)

    @_elsewhere
    def test_an_initializer_that_fails_breaks_the_pool(self) -> None:
        """With its error as the cause."""
        with self._pool(initializer=fail_to_set_up) as pool:
            error = _raises(PoolBrokenError, lambda: pool.process_many([Job("nothing")] * 5))
            _demand("it fails" in str(error), f"the error does not say why: {error}")

    def test_no_two_events_share_a_processor_at_once(self) -> None:
        """Workers may be threads of one process."""
        with self._pool() as pool:
            _equal(pool.process_many([Job("be_alone")] * 100), [None] * 100)

    def test_handlers_may_be_registered_between_runs(self) -> None:
        """And replace others."""
        with self._pool() as pool:
            _equal(pool.process(Job("give", 1)), 1)
            pool.register(answer_two, "do", replace=True)
            _equal(pool.process(Job("give", 1)), 2)

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
            done, left = wait(futures, timeout=_PATIENCE_SECONDS)
            _equal((len(done), len(left)), (300, 0))
            _equal(sorted(each.result() for each in done), sorted([*range(100)] * 3))

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
                _equal([next(stream).value for _ in range(300)], list(range(300)))
            _demand(taken < 1000, f"{taken} events were taken for 300")
            _equal(pool.process(Job("give", 5)), 5)

    def test_coroutines_can_wait(self) -> None:
        """`process_async` and `stream_async`."""

        async def play(pool: PoolProcessor) -> tuple[Any, list[Any]]:
            value = await pool.process_async(Job("give", 1))
            stream: AsyncIterator[Outcome] = pool.stream_async([Job("give", 2), Job("give", 3)])
            return value, [each.value async for each in stream]

        with self._pool() as pool:
            _equal(asyncio.run(play(pool)), (1, [2, 3]))

    @_elsewhere
    def test_a_call_may_give_up(self) -> None:
        """`timeout` of `process`; the pool goes on."""
        with _folder() as folder, self._pool() as pool:
            begun, go_on = folder / "begun", folder / "go_on"
            late = Job("await_file", str(begun), str(go_on))
            _raises(TimeoutError, lambda: pool.process(late, timeout=0.2))
            go_on.touch()
            _equal(pool.process(Job("give", 2)), 2)

    def test_the_end_waits_for_what_was_submitted(self) -> None:
        """`close` finishes it; then the pool is closed."""
        with self._pool() as pool:
            futures = [pool.submit(Job("give", number)) for number in range(50)]
            pool.close()
            pool.close()
            _equal([each.result(timeout=0) for each in futures], list(range(50)))
            _raises(PoolClosedError, lambda: pool.process(Job("nothing")))

    @_elsewhere
    def test_terminate_waits_for_nothing(self) -> None:
        """What is in flight fails."""
        with _folder() as folder, self._pool() as pool:
            begun, go_on = folder / "begun", folder / "go_on"
            future = pool.submit(Job("await_file", str(begun), str(go_on)))
            _wait_until(begun.exists, "a handler begins")
            pool.terminate()
            go_on.touch()  # where a handler cannot be ended
            _raises(PoolClosedError, lambda: future.result(timeout=_PATIENCE_SECONDS))

    def test_listeners_and_statistics_count_all(self) -> None:
        """Each event once."""
        seen: list[Any] = []
        with self._pool(listeners=[seen.append], statistics=True) as pool:
            pool.process_many([Job("nothing")] * 100)
            statistics = pool.statistics()
        _equal(sum(type(each).__name__ == "CascadesDone" for each in seen) > 0, True)
        _equal(statistics.events, 100)

    # --- promises ---

    def test_promises_agree(self) -> None:
        """One that rests on another is not made without it."""
        for promise, needed in _RESTS_ON.items():
            made = not getattr(self.promises, promise) or getattr(self.promises, needed)
            _demand(made, f"{promise} is promised, and {needed} is not, on which it rests")

    def test_a_death_costs_no_more_than_is_promised(self) -> None:
        """A handler that kills its process, among a hundred others."""
        if not self.may_die:
            return
        events: list[Event] = [Job("give", number) for number in range(100)]
        events[50] = Job("die")
        if not self.promises.isolation:
            with self._pool() as pool:
                _raises(PoolBrokenError, lambda: pool.process_many(events))
            return
        with self._pool() as pool:
            found = pool.process_many(events, return_exceptions=True)
            lost = found[50]
            _demand(isinstance(lost, WorkerLostError), f"{lost!r} instead of a WorkerLostError")
            _equal(found[:50] + found[51:], [*range(50), *range(51, 100)])
            if self.promises.attribution:
                _equal(lost.handler, "do")
            if self.promises.restart:
                _equal(pool.process_many([Job("give", 1)] * 20), [1] * 20)

    @_elsewhere
    def test_a_hard_timeout_ends_an_event(self) -> None:
        """`event_timeout`, or its refusal; or the pool breaks."""
        if not self.promises.hang_limit:
            self._refused(event_timeout=0.5)
            return
        with _folder() as folder, self._pool(event_timeout=0.5) as pool:
            begun, go_on = folder / "begun", folder / "go_on"
            events: list[Event] = [Job("give", number) for number in range(20)]
            events.insert(0, Job("await_file", str(begun), str(go_on)))
            try:
                if self.promises.hard_timeout:
                    found = pool.process_many(events, return_exceptions=True)
                    _demand(isinstance(found[0], EventTimeoutError), f"{found[0]!r} is no timeout")
                    _equal(found[1:], list(range(20)))
                else:
                    _raises(PoolBrokenError, lambda: pool.process_many(events))
            finally:
                go_on.touch()  # where a handler cannot be ended

    @_elsewhere
    def test_a_caller_may_have_a_handler_ended(self) -> None:
        """`cancel_running`, or its refusal."""
        with _folder() as folder, self._pool() as pool:
            begun, go_on = folder / "begun", folder / "go_on"
            late = Job("await_file", str(begun), str(go_on))
            kind = TimeoutError if self.promises.ends_handlers else ValueError
            try:
                _raises(kind, lambda: pool.process(late, timeout=0.2, cancel_running=True))
                _equal(pool.process_many([Job("give", 1)] * 20), [1] * 20)
            finally:
                go_on.touch()

    @_elsewhere
    def test_a_memory_limit_ends_an_event(self) -> None:
        """`max_worker_memory_bytes`, or its refusal."""
        most = 1 << 29
        if not self.promises.memory_limit:
            self._refused(max_worker_memory_bytes=most)
            return
        with self._pool(max_worker_memory_bytes=most) as pool:
            events = [Job("hoard", 2 * most), Job("give", 1)]
            lost, value = pool.process_many(events, return_exceptions=True)
            _demand(isinstance(lost, WorkerLostError), f"{lost!r} instead of a WorkerLostError")
            _equal(value, 1)

    @_elsewhere
    def test_workers_are_replaced(self) -> None:
        """`max_tasks_per_child`, or its refusal."""
        if not self.promises.replaces_workers:
            self._refused(max_tasks_per_child=5)
            return
        with self._pool(max_tasks_per_child=5) as pool:
            pids = pool.process_many([Job("pid")] * 40)
        _demand(len(set(pids)) >= 8, f"{len(set(pids))} processes for 40 events, 5 in each")

    def test_large_buffers_cross_as_promised(self) -> None:
        """Their content arrives; by shared memory, if that is promised."""
        with self._pool() as pool:
            buffer = Buffer(bytearray(b"abc") + bytearray(8 << 20))
            values = pool.process_many([Job("look_at_buffer", buffer) for _ in range(4)])
        if self.promises.large_buffers:
            _demand(False not in values, "a large buffer did not come by shared memory")

    @_elsewhere
    def test_options_about_processes_are_kept_or_refused(self) -> None:
        """Those of a pool that starts processes."""
        if self.promises.starts_processes:
            with self._pool(native_threads=1, worker_output="label") as pool:
                _equal(pool.process(Job("give", 1)), 1)
        else:
            for option in ({"native_threads": 1}, {"preload": True}, {"mp_context": "spawn"}):
                self._refused(**option)

    def _refused(self, **option: Any) -> None:
        """Demand that a pool refuses an option, and names it."""
        ((name, _),) = option.items()
        try:
            error = _raises(ValueError, lambda: self.close_pool(self.make_pool(**option)))
        except AssertionError:
            raise AssertionError(f"{name} is taken, and no promise is made for it") from None
        _demand(name in str(error), f"the error does not name {name}: {error}")


_STUBBORN: Final = ("give_stubborn", "follow_stubborn")


def _cascades() -> list[Event]:
    """Cascades that end by themselves, by a value, and by an error."""
    roots: list[Event] = []
    for size in range(24):
        roots += [Part(size), Job("split", size, size // 2), Part(size, -(size // 3) - 1)]
    return roots


def _register(pool: PoolProcessor) -> None:
    for handler in HANDLERS:
        pool.register(handler)


def _first_argument(ev: Any) -> Any:
    return ev.args[0]


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def _wait_until(holds: Callable[[], object], what: str) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    while not holds():
        _demand(time.monotonic() < end, f"within {_PATIENCE_SECONDS:g} s it did not happen: {what}")
        time.sleep(0.001)


def _demand(holds: object, text: str) -> None:
    if not holds:
        raise AssertionError(text)


def _equal(found: object, wanted: object) -> None:
    _demand(found == wanted, f"found {found!r}, and not {wanted!r}")


def _raises(kind: type[BaseException], call: Callable[[], object]) -> BaseException:
    try:
        found = call()
    except kind as error:
        return error
    raise AssertionError(f"{found!r} instead of {kind.__name__}")
