"""Which event is charged for a death, by where the worker was."""

from __future__ import annotations

import pytest

from evproc_pool.core.batches import Batch
from evproc_pool.core.crash_attribution import LastPlace, Verdict, examine
from evproc_pool.core.inputs_and_effects import Opened
from evproc_pool.core.run_state import Run
from evproc_pool.protocol.status_words import UNPICKLING, WorkerStatus


class _RootsByPosition(Batch):
    """A batch whose events are roots of their own."""

    def root_at(self, position: int) -> int:
        return position


def _examine(at: WorkerStatus | None, *, was_stuck: bool) -> Verdict:
    """What is found of a batch of ten, of which two are known to be over."""
    batch = _RootsByPosition(Run(Opened(1)))
    batch.size, batch.done = 10, 2
    return examine(
        batch,
        None if at is None else LastPlace(*at[1:]),
        is_in_batch=at is not None and at.batch == 1,
        is_unpickling=at is not None and at.position == UNPICKLING,
        was_stuck=was_stuck,
    )


def test_the_next_event_is_charged_where_nobody_knows_the_place() -> None:
    assert _examine(None, was_stuck=False) == Verdict(2, 2)


@pytest.mark.parametrize("is_reporting", [False, True])
def test_a_running_event_is_charged(is_reporting: bool) -> None:
    at = WorkerStatus(1, 6, 3, None, is_reporting=is_reporting)
    assert _examine(at, was_stuck=False) == Verdict(6, 6, 3, one_by_one=is_reporting)


def test_none_is_charged_in_another_batch_or_where_the_place_is_behind_what_arrived() -> None:
    assert _examine(WorkerStatus(0, 6, 0, None), was_stuck=False) == Verdict(2)
    assert _examine(WorkerStatus(1, 1, 0, None), was_stuck=False) == Verdict(2)


def test_none_is_charged_while_events_are_unpickled_together() -> None:
    at = WorkerStatus(1, UNPICKLING, None, None)
    assert _examine(at, was_stuck=False) == Verdict(2, one_by_one=True)
    assert _examine(at._replace(batch=0), was_stuck=False) == Verdict(2)


@pytest.mark.parametrize("packing", [0, 1])
def test_the_only_event_whose_result_was_sent_is_charged(packing: int) -> None:
    at = WorkerStatus(1, 6, None, 6, True, True, packing, 6, may_repeat=True)
    assert _examine(at, was_stuck=False) == Verdict(6, 6, one_by_one=True)


def test_a_last_place_has_the_fields_of_the_status_words() -> None:
    assert WorkerStatus._fields[1:] == LastPlace._fields


def test_a_slow_event_that_was_about_to_be_told_of_is_not_run_again() -> None:
    # also where it was the pickling of what it and others left behind that was going on
    for packing in (0, 1, 3):
        at = WorkerStatus(1, 6, 0, 4, is_over=True, is_unreported=True, packing=packing, packed=4)
        assert _examine(at, was_stuck=False) == Verdict(4, 6, 0, one_by_one=True)


@pytest.mark.parametrize("is_quick", [False, True])
def test_one_that_was_stuck_in_pickling_is_charged_to_the_event_if_it_is_known(
    is_quick: bool,
) -> None:
    at = WorkerStatus(1, 6, 0, 4, True, True, packing=1, packed=5, may_repeat=is_quick)
    assert _examine(at, was_stuck=True) == Verdict(4, 5, one_by_one=True)


@pytest.mark.parametrize("is_quick", [False, True])
def test_one_that_was_stuck_in_pickling_of_several_is_charged_to_none(is_quick: bool) -> None:
    at = WorkerStatus(1, 6, 0, 4, True, True, packing=3, packed=4, may_repeat=is_quick)
    assert _examine(at, was_stuck=True) == Verdict(4, one_by_one=True)


@pytest.mark.parametrize("packing", [0, 1, 3])
def test_a_quick_event_that_was_about_to_be_told_of_is_run_again(packing: int) -> None:
    at = WorkerStatus(1, 6, None, 4, True, True, packing, 4, may_repeat=True)
    assert _examine(at, was_stuck=False) == Verdict(4, one_by_one=True)


@pytest.mark.parametrize("packing", [0, 1, 3])
def test_one_that_left_nothing_behind_is_spared_where_others_are_run_again(packing: int) -> None:
    at = WorkerStatus(1, 6, None, 4, is_over=True, packing=packing, packed=4)
    assert _examine(at, was_stuck=False) == Verdict(4, spared=6, one_by_one=True)


def test_one_that_left_nothing_behind_is_over_where_no_other_did() -> None:
    at = WorkerStatus(1, 6, None, None, is_over=True)
    assert _examine(at, was_stuck=False) == Verdict(7)


def test_one_is_spared_behind_another_that_was_stuck_in_pickling() -> None:
    at = WorkerStatus(1, 6, None, 4, is_over=True, packing=1, packed=5)
    assert _examine(at, was_stuck=True) == Verdict(4, 5, spared=6, one_by_one=True)


# --- output is flushed before results are sent ---


@pytest.mark.parametrize("has_result", [False, True])
def test_the_only_event_whose_output_cannot_be_flushed_is_charged(has_result: bool) -> None:
    at = WorkerStatus(1, 2, None, None, is_over=True, is_flushing=True)
    if has_result:
        at = at._replace(unsent=2, is_unreported=True, may_repeat=True)
    assert _examine(at, was_stuck=True) == Verdict(2, 2)


def test_a_slow_event_whose_output_cannot_be_flushed_is_charged() -> None:
    at = WorkerStatus(1, 6, 3, 6, True, True, is_flushing=True)
    assert _examine(at, was_stuck=True) == Verdict(6, 6, 3, one_by_one=True)


@pytest.mark.parametrize("was_stuck", [False, True])
def test_none_is_charged_where_the_output_of_several_events_is_flushed(was_stuck: bool) -> None:
    at = WorkerStatus(1, 6, None, 6, True, True, may_repeat=True, is_flushing=True)
    assert _examine(at, was_stuck=was_stuck) == Verdict(6, one_by_one=True)
    at = WorkerStatus(1, 6, None, None, is_over=True, is_flushing=True)
    assert _examine(at, was_stuck=was_stuck) == Verdict(7)


def test_an_event_without_a_result_is_over_if_the_worker_dies_in_the_flush() -> None:
    at = WorkerStatus(1, 2, None, None, is_over=True, is_flushing=True)
    assert _examine(at, was_stuck=False) == Verdict(3)
