"""How notifications get to listeners."""

from __future__ import annotations

import threading

import pytest

from evproc_pool.observe import Drained, Notification
from evproc_pool.observe.notifier import Notifier

PATIENCE_SECONDS = 30.0


def items(count: int, begin: int = 0) -> list[Notification]:
    return [Drained(float(number)) for number in range(begin, begin + count)]


def test_each_listener_gets_each_notification_in_order() -> None:
    told: list[tuple[str, Notification]] = []
    notifier = Notifier(
        [lambda item: told.append(("a", item)), lambda item: told.append(("b", item))], float
    )
    notifier.notify(*items(3))
    assert told == [(name, item) for item in items(3) for name in "ab"]


def test_a_notification_from_within_a_listener_comes_after_the_current_one() -> None:
    told: list[str] = []

    def outer(item: Notification) -> None:
        told.append(f"begin {item.at:g}")
        if item.at == 0:
            notifier.notify(*items(1, begin=7))
        told.append(f"end {item.at:g}")

    notifier = Notifier([outer], float)
    notifier.notify(*items(2))
    assert told == ["begin 0", "end 0", "begin 1", "end 1", "begin 7", "end 7"]


def test_nobody_waits_for_a_listener_in_another_thread() -> None:
    told: list[float] = []
    may_go_on, has_begun = threading.Event(), threading.Event()

    def slow(item: Notification) -> None:
        has_begun.set()
        assert may_go_on.wait(PATIENCE_SECONDS)
        told.append(item.at)

    notifier = Notifier([slow], float)
    thread = threading.Thread(target=notifier.notify, args=items(1))
    thread.start()
    assert has_begun.wait(PATIENCE_SECONDS)
    notifier.notify(*items(2, begin=1))  # returns at once
    assert told == []
    may_go_on.set()
    thread.join(PATIENCE_SECONDS)
    assert told == [0, 1, 2]  # the other thread has handed on these, too


def test_many_threads_lose_and_double_nothing() -> None:
    told: list[float] = []
    running: list[int] = []
    most = 0

    def listener(item: Notification) -> None:
        nonlocal most
        running.append(1)
        most = max(most, len(running))
        told.append(item.at)
        running.pop()

    notifier = Notifier([listener], float)

    def notify(begin: int) -> None:
        for number in range(500):
            notifier.notify(*items(1, begin + number))

    threads = [threading.Thread(target=notify, args=(1000 * place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    notifier.notify()
    assert most == 1
    assert sorted(told) == [1000 * place + number for place in range(4) for number in range(500)]


def test_the_rest_comes_after_an_interrupt() -> None:
    told: list[float] = []

    def listener(item: Notification) -> None:
        if item.at == 1:
            raise KeyboardInterrupt
        told.append(item.at)

    notifier = Notifier([listener], float)
    with pytest.raises(KeyboardInterrupt):
        notifier.notify(*items(4))
    assert told == [0]
    notifier.notify(*items(1, begin=9))
    assert told == [0, 2, 3, 9]


def test_a_listener_that_raises_is_logged_once_and_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[float] = []

    def bad(item: Notification) -> None:
        raise SystemExit

    notifier = Notifier([bad, lambda item: told.append(item.at)], float)
    notifier.notify(*items(3))
    assert told == [0, 1, 2]
    (record,) = caplog.records
    assert record.name == "evproc_pool"
    assert "bad raised an error for Drained" in record.getMessage()
