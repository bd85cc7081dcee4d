"""Hypothesis strategies for handler programs; see `tests.support.programs`."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.support.programs import Program, random_cascades, random_program


def programs(*, total_order: bool = False) -> st.SearchStrategy[Program]:
    """Programs of the shape that `random_program` makes, which Hypothesis can shrink.

    Every choice of the generator is a draw, so a failing program shrinks choice
    by choice, and there is one generator to keep right, not two.
    """
    return st.builds(
        random_program,
        st.randoms(use_true_random=False, note_method_calls=False),
        total_order=st.just(total_order),
    )


def cascades() -> st.SearchStrategy[Program]:
    """Programs of the shape that `random_cascades` makes."""
    return st.builds(random_cascades, st.randoms(use_true_random=False, note_method_calls=False))
