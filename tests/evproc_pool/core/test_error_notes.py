"""The notes that name an event of the input."""

from __future__ import annotations

import pytest

from evproc.exc import add_note
from evproc_pool.core.error_notes import has_several, note_place, path_text, place_note


def notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", ()))


def test_a_note_names_a_root_or_a_follow_up() -> None:
    assert place_note((777,)) == "evproc_pool: event 777 of the input"
    assert place_note((17, 2, 0)) == "evproc_pool: follow-up (17, 2, 0) of event 17 of the input"


def test_a_long_path_is_cut_in_the_middle() -> None:
    assert path_text(tuple(range(12))) == "(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)"
    assert path_text(tuple(range(10_000))) == ("(0, 1, 2, 3, 4, 5, 6, 7, 8, ..., 9997, 9998, 9999)")


@pytest.mark.parametrize(("path", "expected"), [((3,), 0), ((3, 1), 1)])
def test_the_only_root_is_not_noted(path: tuple[int, ...], expected: int) -> None:
    error = ValueError()
    note_place(error, path, has_several=False)
    assert len(notes(error)) == expected


def test_an_error_that_is_raised_again_and_again_has_one_note_for_the_latest_event() -> None:
    error = ValueError()
    for index in range(3):
        note_place(error, (index,), has_several=True)
    assert notes(error) == [place_note((2,))]


def test_the_note_of_a_pool_in_the_handler_stays() -> None:
    error = ValueError()
    note_place(error, (5,), has_several=True)
    add_note(error, "evproc: raised by handler 'h'")
    note_place(error, (1, 0), has_several=True)
    assert notes(error) == [
        place_note((5,)),
        "evproc: raised by handler 'h'",
        place_note((1, 0)),
    ]


def test_only_a_list_is_known_to_have_one_event() -> None:
    assert not has_several(iter([1]))
    assert not has_several(iter((1,)))
    assert has_several(iter([1, 2]))
    assert has_several(value for value in [1])
    assert has_several(iter({1}))
