"""Which places of workers an agent tells."""

from __future__ import annotations

from evproc_pool.backends.agents.activity import TICK_SECONDS, ActivityWatch
from evproc_pool.backends.agents.messages import Seen
from evproc_pool.protocol.status_words import NONE, WorkerStatus

_IDLE = WorkerStatus(0, NONE, None, None)


def _at(batch: int, position: int, handler: int | None = 0) -> WorkerStatus:
    return WorkerStatus(batch, position, handler, None)


def test_a_worker_is_slow_after_two_ticks_and_that_is_told_once() -> None:
    watch = ActivityWatch()
    watch.note_batch(1)
    assert watch.look(1, _at(1, 0), 0.0) is None
    assert watch.look(1, _at(1, 0), TICK_SECONDS) == Seen(1, _at(1, 0), is_slow=True)
    assert watch.look(1, _at(1, 0), 2 * TICK_SECONDS) is None


def test_another_handler_of_a_slow_event_is_told() -> None:
    watch = ActivityWatch()
    watch.look(1, _at(1, 0), 0.0)
    watch.look(1, _at(1, 0), TICK_SECONDS)
    at = _at(1, 0, handler=1)
    assert watch.look(1, at, 2 * TICK_SECONDS) == Seen(1, at, is_slow=True)


def test_that_a_slow_worker_has_gone_on_is_told_once() -> None:
    watch = ActivityWatch()
    watch.look(1, _at(1, 0), 0.0)
    watch.look(1, _at(1, 0), TICK_SECONDS)
    assert watch.look(1, _at(1, 1), 1.0) == Seen(1, _at(1, 1), is_slow=False)
    assert watch.look(1, _at(1, 2), 1.001) is None


def test_an_idle_worker_is_never_slow() -> None:
    watch = ActivityWatch()
    assert watch.look(1, _IDLE, 0.0) is None
    assert watch.look(1, _IDLE, 9.0) is None
    assert watch.busy == []


def test_a_worker_is_busy_from_its_batch_on_until_it_is_between_batches() -> None:
    watch = ActivityWatch()
    watch.look(1, _IDLE, 0.0)
    watch.note_batch(1)
    assert watch.busy == [1]  # also before it has begun
    watch.look(1, _IDLE, 1.0)
    assert watch.busy == [1]
    watch.look(1, _at(1, 3), 2.0)
    assert watch.busy == [1]
    watch.look(1, _IDLE._replace(batch=1), 3.0)
    assert watch.busy == []


def test_a_worker_has_more_to_do_unless_its_event_may_be_the_last_one() -> None:
    watch = ActivityWatch()
    assert not watch.has_more(1)
    watch.note_batch(1)
    watch.look(1, _at(1, 3), 0.0)
    assert watch.has_more(1)
    watch.look(1, _at(1, 3)._replace(is_over=True), 1.0)
    assert not watch.has_more(1)
    watch.note_batch(1)  # another batch waits
    assert watch.has_more(1)
    watch.forget(1)
    assert not watch.has_more(1)


def test_a_place_is_told_with_each_frame() -> None:
    watch = ActivityWatch()
    at = _at(1, 4)
    assert watch.look(1, at, 0.0, has_sent=True) == Seen(1, at, is_slow=False)
