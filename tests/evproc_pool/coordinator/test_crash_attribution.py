"""Which event is charged for a death, by where the worker was."""

from __future__ import annotations

from collections import deque

import pytest

import evproc
from evproc_pool.coordinator.codec import Codec
from evproc_pool.coordinator.crash_attribution import CrashAttribution, Verdict
from evproc_pool.coordinator.worker_record import Sent
from evproc_pool.core.batches import Batch
from evproc_pool.core.inputs_and_effects import Opened
from evproc_pool.core.run_state import Run
from evproc_pool.protocol.backend import Gone
from evproc_pool.protocol.status_words import WorkerStatus


def _examine(at: WorkerStatus, *, was_stuck: bool) -> Verdict:
    """What is found of a batch of ten, of which two are known to be over."""
    processor = evproc.Processor()
    processor.register(lambda proc, ev: None, "slow")
    batch = Batch(Run(Opened(1)))
    batch.size, batch.done = 10, 2
    gone = Gone(1, 1234, -9, at)
    postmortem = CrashAttribution(Codec(processor.registry), processor.registry)
    return postmortem.examine(gone, deque([Sent(batch, 1)]), was_stuck=was_stuck)


def test_a_slow_event_that_was_about_to_be_told_of_is_not_run_again() -> None:
    # also where it was the pickling of what it and others left behind that was going on
    for packing in (0, 1, 3):
        at = WorkerStatus(1, 6, 0, 4, is_over=True, is_unreported=True, packing=packing, packed=4)
        assert _examine(at, was_stuck=False) == Verdict(4, 6, "slow")


@pytest.mark.parametrize("is_quick", [False, True])
def test_one_that_was_stuck_in_pickling_is_charged_to_the_event_if_it_is_known(
    is_quick: bool,
) -> None:
    at = WorkerStatus(1, 6, 0, 4, True, True, packing=1, packed=5, may_repeat=is_quick)
    assert _examine(at, was_stuck=True) == Verdict(4, 5)


@pytest.mark.parametrize("is_quick", [False, True])
def test_one_that_was_stuck_in_pickling_of_several_is_charged_to_none(is_quick: bool) -> None:
    at = WorkerStatus(1, 6, 0, 4, True, True, packing=3, packed=4, may_repeat=is_quick)
    assert _examine(at, was_stuck=True) == Verdict(4, None)


@pytest.mark.parametrize("packing", [0, 1, 3])
def test_a_quick_event_that_was_about_to_be_told_of_is_run_again(packing: int) -> None:
    at = WorkerStatus(1, 6, None, 4, True, True, packing, 4, may_repeat=True)
    assert _examine(at, was_stuck=False) == Verdict(4)


@pytest.mark.parametrize("packing", [0, 1, 3])
def test_one_that_left_nothing_behind_is_spared_where_others_are_run_again(packing: int) -> None:
    at = WorkerStatus(1, 6, None, 4, is_over=True, packing=packing, packed=4)
    assert _examine(at, was_stuck=False) == Verdict(4, spared=6)


def test_one_that_left_nothing_behind_is_over_where_no_other_did() -> None:
    at = WorkerStatus(1, 6, None, None, is_over=True)
    assert _examine(at, was_stuck=False) == Verdict(7)


def test_one_is_spared_behind_another_that_was_stuck_in_pickling() -> None:
    at = WorkerStatus(1, 6, None, 4, is_over=True, packing=1, packed=5)
    assert _examine(at, was_stuck=True) == Verdict(4, 5, spared=6)
