"""Comparing: a difference is one only if it is beyond doubt."""

import itertools

import pytest

from perf import record as records
from perf.compare import compare, lowest_p, rank_sum
from perf.record import Record
from perf.scenario import Against


def made(ours: list[float], theirs: list[float] | None = None, metric: str = "p50_us") -> Record:
    """Return a record of one metric, with a ratio if there is another side."""
    samples = {("engine", metric): ours} | ({("raw", metric): theirs} if theirs else {})
    results = records.results_of("x", samples)
    return Record({}, {}, {}, results, records.ratios_of(results, [Against("engine", "raw")]))


def word(before: Record, after: Record) -> str:
    """Return what is said of the only change."""
    (change,) = compare(before, after)
    return change.word


class TestWords:
    def test_noise_is_not_a_difference(self) -> None:
        """Samples that overlap differ by nothing that can be seen."""
        assert word(made([10, 11, 12, 13, 14]), made([12, 10, 15, 11, 13])) == "no difference to be seen"

    def test_the_same_record_does_not_differ(self) -> None:
        """A record does not differ from itself."""
        assert word(made([10, 11, 12, 13, 14]), made([10, 11, 12, 13, 14])) == "no difference to be seen"

    def test_less_time_is_faster(self) -> None:
        """Clearly lower times are faster, clearly higher ones slower."""
        low, high = made([10, 11, 12, 13, 14]), made([20, 21, 22, 23, 24])
        assert word(high, low) == "faster"
        assert word(low, high) == "slower"

    def test_a_higher_rate_is_faster(self) -> None:
        """Of rates, more is faster."""
        low = made([10, 11, 12, 13, 14], metric="calls_per_s_16")
        high = made([20, 21, 22, 23, 24], metric="calls_per_s_16")
        assert word(low, high) == "faster"

    def test_memory_is_not_fast(self) -> None:
        """Of bytes one has less or more."""
        low = made([10, 11, 12, 13, 14], metric="client_bytes_per_call")
        high = made([20, 21, 22, 23, 24], metric="client_bytes_per_call")
        assert word(low, high) == "more"
        assert word(high, low) == "less"

    def test_three_samples_say_nothing(self) -> None:
        """Three samples a side are too few, however far apart."""
        assert word(made([1, 2, 3]), made([100, 200, 300])) == "too few samples"

    def test_a_tiny_difference_does_not_count(self) -> None:
        """One per cent is nothing to speak of, even if it is certain."""
        before = made([100.0, 100.1, 100.2, 100.3, 100.4])
        assert word(before, made([value * 0.99 for value in (100.0, 100.1, 100.2, 100.3, 100.4)])) != "faster"

    def test_what_the_machine_does_to_both_cancels_out(self) -> None:
        """Twice as slow a machine changes figures, and no ratio."""
        quick = made([10, 11, 12, 13, 14], [5, 6, 6, 6, 7])
        slow = made([20, 22, 24, 26, 28], [10, 12, 12, 12, 14])
        assert word(quick, slow) == "no difference to be seen"


class TestRankSum:
    def test_the_lowest_p_is_that_of_no_overlap(self) -> None:
        """Five and five that do not overlap have p = 2 / 252."""
        assert rank_sum([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == pytest.approx(2 / 252)
        assert lowest_p(5, 5) == pytest.approx(2 / 252)

    @pytest.mark.parametrize("values", [(1, 2, 3, 4, 5, 6, 7), (1, 1, 2, 2, 2, 3, 5)])
    def test_p_is_the_share_of_splits_that_are_as_uneven(self, values: tuple[int, ...]) -> None:
        """p agrees with trying all ways to split the values, ties included."""
        ranks = {value: sum(other < value for other in values) + (values.count(value) + 1) / 2 for value in values}
        middle = sum(ranks[value] for value in values) * 3 / 7

        def uneven(split: tuple[int, ...]) -> float:
            return abs(sum(ranks[values[place]] for place in split) - middle)

        splits = list(itertools.combinations(range(7), 3))
        for split in splits:
            wanted = sum(uneven(other) >= uneven(split) - 1e-9 for other in splits) / len(splits)
            rest = [values[place] for place in range(7) if place not in split]
            assert rank_sum([values[place] for place in split], rest) == pytest.approx(wanted)
