"""What the core decides in some situations is what is written down, line by line."""

from __future__ import annotations

import pytest

from tests.support.traces import FOLDER, SITUATIONS, path_of, text_of


@pytest.mark.parametrize("situation", SITUATIONS)
def test_the_core_decides_what_its_trace_says(situation: str) -> None:
    # if that is meant to change: python -m tests.support.traces
    assert text_of(situation) == path_of(situation).read_text("utf-8")


def test_there_is_no_trace_of_anything_else() -> None:
    assert set(FOLDER.iterdir()) == {path_of(situation) for situation in SITUATIONS}
