"""When a worker is asked to report what is over, and that no outcome waits for another event."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import inf

import pytest

from evproc_pool.core.estimates import REPORT_SECONDS
from evproc_pool.core.report_requests import SILENT_SECONDS, STILL_SECONDS, ReportRequests
from tests.support.model import Violation
from tests.support.promptness import PROMPT_SECONDS, Promptness
from tests.support.sizes import BARS


def test_the_position_of_a_silent_worker_is_read() -> None:
    requests = ReportRequests()
    requests.heard(1, 10.0)
    assert requests.silent([1], 10.0 + SILENT_SECONDS / 2) == []
    assert requests.left([1], 10.0) == pytest.approx(SILENT_SECONDS)
    assert requests.left([1], 10.0 + SILENT_SECONDS / 2) == pytest.approx(SILENT_SECONDS / 2)
    assert requests.silent([1], 10.001 + SILENT_SECONDS) == [1]
    requests.heard(1, 11.0)
    assert requests.silent([1], 11.0) == []


def test_a_worker_that_stays_behind_unreported_events_is_asked_and_again_after_twice_as_long() -> (
    None
):
    requests = ReportRequests()
    requests.heard(1, 10.0)
    assert not requests.look(1, 11.0, 7, 5)
    assert requests.left([1], 11.0) == pytest.approx(STILL_SECONDS)
    now, waits = 11.0 + STILL_SECONDS + 1e-9, []
    for _ in range(4):
        assert requests.silent([1], now) == [1]
        assert requests.look(1, now, 7, 5)
        assert requests.silent([1], now) == []
        wait = requests.left([1], now)
        assert wait is not None
        waits.append(wait / SILENT_SECONDS)
        now += wait + 1e-9
    assert waits == pytest.approx([1, 2, 4, 8])
    # until it answers
    requests.heard(1, now)
    assert requests.left([1], now) == pytest.approx(SILENT_SECONDS)
    assert not requests.look(1, now + 1.0, 7, 5)
    assert requests.look(1, now + 1.1, 7, 5)
    assert requests.left([1], now + 1.1) == pytest.approx(SILENT_SECONDS)


def test_a_worker_of_quick_events_has_time_to_report_by_itself() -> None:
    requests = ReportRequests()
    requests.heard(1, 10.0)
    assert not requests.look(1, 11.0, 6, 5)
    assert not requests.look(1, 11.0 + STILL_SECONDS, 9, 5)
    assert requests.left([1], 11.0 + STILL_SECONDS) == pytest.approx(STILL_SECONDS)
    # its next event may be a slow one, and began before it had to report
    assert requests.look(1, 11.0 + 2 * STILL_SECONDS, 12, 5)
    # if it does not answer, it is asked again wherever it is
    assert requests.look(1, 12.0, 20, 5)


def test_a_worker_that_stays_at_its_event_reports_by_itself() -> None:
    requests = ReportRequests()
    requests.heard(1, 10.0)
    assert not requests.look(1, 11.0, 5, 5)
    # it may have begun a moment ago, and then be over soon, with nothing sent
    left = requests.left([1], 11.0)
    assert left is not None
    assert REPORT_SECONDS < left < 0.01
    assert not requests.look(1, 11.01, 5, 5)
    assert requests.left([1], 11.01) is None
    assert requests.silent([1], 1000.0) == []
    requests.heard(1, 1000.0)
    assert requests.silent([1], 1001.0) == [1]


def test_a_worker_that_has_left_its_first_event_is_asked() -> None:
    requests = ReportRequests()
    requests.heard(1, 10.0)
    requests.look(1, 11.0, 5, 5)
    assert requests.look(1, 11.01, 6, 5)


def test_an_unknown_position_is_read_again() -> None:
    requests = ReportRequests()
    requests.heard(1, 10.0)
    requests.look(1, 11.0, 5, 5)
    for now in (12.0, 13.0, 14.0):
        assert not requests.look(1, now, None, 5)
        assert requests.left([1], now) == pytest.approx(SILENT_SECONDS)
    # what was seen before that does not count
    assert not requests.look(1, 15.0, 5, 5)
    assert requests.left([1], 15.0) is not None


def test_only_positions_of_the_given_workers_are_read() -> None:
    requests = ReportRequests()
    for worker in (1, 2, 3):
        requests.heard(worker, 10.0 + worker)
    assert requests.silent([2], 20.0) == [2]
    assert requests.silent([], 30.0) == []
    assert requests.left([], 30.0) is None


def test_the_next_look_is_for_the_worker_that_is_due_first() -> None:
    requests = ReportRequests()
    requests.heard(1, 10.0)
    requests.heard(2, 10.001)
    assert requests.left([1, 2], 10.001) == pytest.approx(SILENT_SECONDS - 0.001)
    assert requests.left([1, 2], 20.0) == 0.0


def test_the_position_of_a_worker_that_never_reported_is_not_read() -> None:
    requests = ReportRequests()
    assert requests.silent([7], 10.0) == []
    assert requests.left([7], 10.0) == pytest.approx(SILENT_SECONDS)
    assert requests.since(7, 10.0) == 10.0


def test_a_worker_that_is_gone_is_forgotten() -> None:
    requests = ReportRequests()
    requests.heard(1, 10.0)
    assert requests.since(1, 11.0) == 10.0
    requests.look(1, 11.0, 7, 5)
    requests.forget(1)
    assert requests.since(1, 12.0) == 12.0
    assert requests.rest([1], 11.0) == pytest.approx(SILENT_SECONDS)
    requests.forget(9)


@pytest.mark.parametrize("position", [7, None])
def test_the_coordinator_rests_neither_past_a_look_nor_while_a_report_may_come(
    position: int | None,
) -> None:
    requests = ReportRequests()
    assert requests.rest([], 10.0) is None
    requests.heard(1, 10.0)
    requests.heard(2, 10.001)
    assert requests.rest([1, 2], 10.001) == pytest.approx(SILENT_SECONDS - 0.001)
    requests.look(1, 11.0, position, 5)
    requests.heard(2, 11.0)
    assert requests.rest([1, 2], 11.0) == 0.0
    # one that has nothing more to tell is not waited for
    assert requests.rest([2], 11.0) == pytest.approx(SILENT_SECONDS)
    requests.heard(1, 11.001)
    assert requests.rest([1, 2], 11.001) == pytest.approx(SILENT_SECONDS - 0.001)


def test_a_worker_that_does_not_answer_does_not_keep_the_coordinator_awake() -> None:
    requests = ReportRequests()
    requests.heard(1, 10.0)
    for now in (10.9, 11.0, 12.0, 13.0):
        requests.look(1, now, 7, 5)
    assert requests.rest([1], 13.0 + 2 * SILENT_SECONDS) == pytest.approx(2 * SILENT_SECONDS)


# --- all of it ---

_SEEDS = 400 if BARS else 20
_MOMENTS = 5_000 if BARS else 1_000


def test_an_outcome_is_delivered_soon_however_long_the_next_event_takes() -> None:
    seen: Counter[str] = Counter()
    longest = 0.0
    for seed in range(_SEEDS):
        play = Promptness(seed).play(_MOMENTS)
        seen += play.seen
        longest = max(longest, play.longest)
    assert REPORT_SECONDS < longest <= PROMPT_SECONDS
    everything = ["asked", "asked for", "bulk", "prompt", "rests", "surprises", "taken back"]
    assert min(seen[what] for what in everything) > (10 if BARS else 5)


class _AsksNobody(ReportRequests):
    def look(self, worker: int, now: float, position: int | None, done: int) -> bool:
        super().look(worker, now, position, done)
        return False


class _LooksOnce(ReportRequests):
    def look(self, worker: int, now: float, position: int | None, done: int) -> bool:
        asks = super().look(worker, now, position, done)
        self._look[worker] = inf
        return asks


class _TrustsTheFirstLook(ReportRequests):
    def look(self, worker: int, now: float, position: int | None, done: int) -> bool:
        if position is not None:
            self._seen.setdefault(worker, (position, now - 1.0))
        return super().look(worker, now, position, done)


class _TakesNotKnowingForBeingThere(ReportRequests):
    def look(self, worker: int, now: float, position: int | None, done: int) -> bool:
        return super().look(worker, now, done if position is None else position, done)


class _AsksLate(ReportRequests):
    def _left(self, worker: int, now: float) -> float:
        return super()._left(worker, now) + REPORT_SECONDS


class _LooksAtOne(ReportRequests):
    def silent(self, workers: Iterable[int], now: float) -> list[int]:
        return super().silent(list(workers)[:1], now)


class _RestsPastTheTime(ReportRequests):
    def rest(self, workers: Iterable[int], now: float) -> float | None:
        return None


class _RestsWhileAnAnswerComes(ReportRequests):
    def rest(self, workers: Iterable[int], now: float) -> float | None:
        return self.left(workers, now)


@pytest.mark.parametrize(
    "mutant",
    [
        _AsksLate,
        _AsksNobody,
        _LooksAtOne,
        _LooksOnce,
        _RestsPastTheTime,
        _RestsWhileAnAnswerComes,
        _TakesNotKnowingForBeingThere,
        _TrustsTheFirstLook,
    ],
)
def test_the_simulation_notices_late_requests(mutant: type[ReportRequests]) -> None:
    with pytest.raises(Violation):  # noqa: PT012 - by one of the seeds
        for seed in range(100):
            Promptness(seed, mutant).play(2_000)
