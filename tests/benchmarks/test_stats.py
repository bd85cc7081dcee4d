import pytest

from benchmarks.stats import Summary, interquartile_range, pairwise_ratios, summarize


@pytest.mark.parametrize(
    ("values", "median", "iqr"),
    [
        ([4.0], 4.0, 0.0),
        ([1.0, 3.0], 2.0, 1.0),  # quartiles 1.5 and 2.5
        ([3.0, 1.0, 2.0], 2.0, 1.0),  # quartiles 1.5 and 2.5
        ([4.0, 1.0, 3.0, 2.0], 2.5, 1.5),  # quartiles 1.75 and 3.25
        ([10.0, 2.0, 4.0, 8.0, 6.0], 6.0, 4.0),  # quartiles 4 and 8
        ([7.0, 1.0, 5.0, 3.0, 2.0, 6.0, 4.0], 4.0, 3.0),  # quartiles 2.5 and 5.5
        ([5.0, 5.0, 5.0], 5.0, 0.0),
    ],
)
def test_median_and_interquartile_range(values: list[float], median: float, iqr: float) -> None:
    summary = summarize(values)
    assert summary == Summary(median, min(values), max(values), iqr)
    assert interquartile_range(values) == iqr


def test_one_wild_repeat_moves_neither_median_nor_interquartile_range() -> None:
    calm = summarize([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    wild = summarize([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7000.0])
    assert (calm.median, calm.iqr) == (wild.median, wild.iqr)
    assert wild.maximum == 7000.0


def test_nothing_cannot_be_summarized() -> None:
    with pytest.raises(ValueError, match="no repeat"):
        summarize([])


def test_ratios_are_taken_within_each_repeat() -> None:
    # the machine was three times slower in the second repeat
    assert pairwise_ratios([2.0, 6.0, 2.0], [1.0, 3.0, 0.5]) == (2.0, 2.0, 4.0)


def test_the_median_of_ratios_is_not_the_ratio_of_medians() -> None:
    over, under = [1.0, 20.0, 30.0], [1.0, 2.0, 60.0]
    assert summarize(over).median / summarize(under).median == 10.0
    assert summarize(pairwise_ratios(over, under)).median == 1.0


def test_ratios_of_unequally_many_repeats_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        pairwise_ratios([1.0, 2.0], [1.0])


def test_no_repeats_have_no_ratios() -> None:
    assert pairwise_ratios([], []) == ()
