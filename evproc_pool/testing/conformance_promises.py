"""The checks of what a backend promises; see `conformance`."""

from __future__ import annotations

from typing import Any, Final

from evproc import Event
from evproc_pool.errors import EventTimeoutError, PoolBrokenError, WorkerLostError
from evproc_pool.testing.conformance_basis import (
    PATIENCE_SECONDS,
    Basis,
    demand,
    elsewhere,
    equal,
    new_folder,
    raises,
    wait_until,
)
from evproc_pool.testing.conformance_handlers import Buffer, Job

# Without these, nothing would check the promises that rest on them.
_RESTS_ON: Final = {
    "hard_timeout": "hang_limit",
    "attribution": "isolation",
    "restart": "isolation",
}

# More than the workers of any cluster that checks run on.
_MANY: Final = 64


class PromiseChecks(Basis):
    """A check for each promise: that it holds, or that the option which needs it is refused."""

    def test_promises_agree(self) -> None:
        """One that rests on another is not made without it."""
        for promise, needed in _RESTS_ON.items():
            made = not getattr(self.promises, promise) or getattr(self.promises, needed)
            demand(made, f"{promise} is promised, and {needed} is not, on which it rests")

    def test_a_death_costs_no_more_than_is_promised(self) -> None:
        """A handler that kills its process, among a hundred others."""
        if not self.may_die:
            return
        events: list[Event] = [Job("give", number) for number in range(100)]
        events[50] = Job("die")
        if not self.promises.isolation:
            with self._pool() as pool:
                raises(PoolBrokenError, lambda: pool.process_many(events))
            return
        with self._pool() as pool:
            found = pool.process_many(events, return_exceptions=True)
            lost = found[50]
            demand(isinstance(lost, WorkerLostError), f"{lost!r} instead of a WorkerLostError")
            equal(found[:50] + found[51:], [*range(50), *range(51, 100)])
            if self.promises.attribution:
                equal(lost.handler, "do")
            if self.promises.restart:
                equal(pool.process_many([Job("give", 1)] * 20), [1] * 20)

    @elsewhere
    def test_a_hard_timeout_ends_an_event(self) -> None:
        """`event_timeout`, or its refusal; or the pool breaks."""
        if not self.promises.hang_limit:
            self._refused(event_timeout=0.5)
            return
        with new_folder() as folder, self._pool(event_timeout=0.5) as pool:
            begun, go_on = folder / "begun", folder / "go_on"
            events: list[Event] = [Job("give", number) for number in range(20)]
            events.insert(0, Job("await_file", str(begun), str(go_on)))
            try:
                if self.promises.hard_timeout:
                    found = pool.process_many(events, return_exceptions=True)
                    demand(isinstance(found[0], EventTimeoutError), f"{found[0]!r} is no timeout")
                    equal(found[1:], list(range(20)))
                else:
                    raises(PoolBrokenError, lambda: pool.process_many(events))
            finally:
                go_on.touch()  # where a handler cannot be ended

    @elsewhere
    def test_a_caller_may_have_a_handler_ended(self) -> None:
        """`cancel_running`, or its refusal."""
        with new_folder() as folder, self._pool() as pool:
            begun, go_on = folder / "begun", folder / "go_on"
            late = Job("await_file", str(begun), str(go_on))
            kind = TimeoutError if self.promises.ends_handlers else ValueError
            try:
                raises(kind, lambda: pool.process(late, timeout=0.2, cancel_running=True))
                equal(pool.process_many([Job("give", 1)] * 20), [1] * 20)
            finally:
                go_on.touch()

    @elsewhere
    def test_a_memory_limit_ends_an_event(self) -> None:
        """`max_worker_memory_bytes`, or its refusal."""
        most = 1 << 29
        if not self.promises.memory_limit:
            self._refused(max_worker_memory_bytes=most)
            return
        with self._pool(max_worker_memory_bytes=most) as pool:
            events = [Job("hoard", 2 * most), Job("give", 1)]
            lost, value = pool.process_many(events, return_exceptions=True)
            demand(isinstance(lost, WorkerLostError), f"{lost!r} instead of a WorkerLostError")
            equal(value, 1)

    @elsewhere
    def test_workers_are_replaced(self) -> None:
        """`max_tasks_per_child`, or its refusal."""
        if not self.promises.replaces_workers:
            self._refused(max_tasks_per_child=5)
            return
        with self._pool(max_tasks_per_child=5) as pool:
            pids = pool.process_many([Job("pid")] * 40)
        demand(len(set(pids)) >= 8, f"{len(set(pids))} processes for 40 events, 5 in each")

    def test_large_buffers_cross_as_promised(self) -> None:
        """Their content arrives; by shared memory, if that is promised."""
        with self._pool() as pool:
            buffer = Buffer(bytearray(b"abc") + bytearray(8 << 20))
            values = pool.process_many([Job("look_at_buffer", buffer) for _ in range(4)])
        if self.promises.large_buffers:
            demand(False not in values, "a large buffer did not come by shared memory")

    @elsewhere
    def test_options_about_processes_are_kept_or_refused(self) -> None:
        """Those of a pool that starts processes."""
        if self.promises.starts_processes:
            with self._pool(native_threads=1, worker_output="label") as pool:
                equal(pool.process(Job("give", 1)), 1)
        else:
            for option in ({"native_threads": 1}, {"preload": True}, {"mp_context": "spawn"}):
                self._refused(**option)

    @elsewhere
    def test_workers_come_and_go(self) -> None:
        """Those that join are used; those that leave finish what runs there."""
        if not self.promises.elasticity:
            return
        with new_folder() as files, self._pool() as pool:
            go_on = files / "go_on"
            ways = [(str(files / f"begun-{number}"), str(go_on)) for number in range(_MANY)]
            futures = [pool.submit(Job("await_file", *each)) for each in ways]

            def begun() -> int:
                return len(list(files.glob("begun-*")))

            try:
                wait_until(begun, "a handler begins")
                with self.replaced_workers():
                    before = begun()
                    wait_until(lambda: begun() > before, "a worker that has joined is used")
                    go_on.touch()
                    values = [each.result(PATIENCE_SECONDS) for each in futures]
                    equal(values, ["went on"] * _MANY)
            finally:
                go_on.touch()
            # only those that have joined are left
            equal(pool.process_many([Job("give", 1)] * 50), [1] * 50)

    def _refused(self, **option: Any) -> None:
        """Demand that a pool refuses an option, and names it."""
        ((name, _),) = option.items()
        try:
            error = raises(ValueError, lambda: self.close_pool(self.make_pool(**option)))
        except AssertionError:
            raise AssertionError(f"{name} is taken, and no promise is made for it") from None
        demand(name in str(error), f"the error does not name {name}: {error}")
