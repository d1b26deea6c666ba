"""Scenarios and goals fit together, and each scenario says what it is about."""

import pytest

from perf import goals, scenario
from perf import record as records
from perf.record import Record
from perf.scenario import Against


@pytest.mark.parametrize("name", scenario.names())
class TestEachScenario:
    def test_it_says_what_it_asks_and_what_would_make_it_wrong(self, name: str) -> None:
        """Its docstring has the question, the unit, and what would make the number wrong."""
        text = scenario.description(scenario.load(name))
        assert scenario.question(scenario.load(name)).endswith("?")
        assert "Unit: " in text
        assert "What would make it wrong: " in text

    def test_it_goes_by_its_file_name(self, name: str) -> None:
        """It is called what its file is called, and the list knows where it belongs."""
        from perf.scenarios import ORDER

        assert scenario.load(name).name == name
        assert name in ORDER

    def test_ratios_are_of_its_own_subjects(self, name: str) -> None:
        """Both sides of each ratio are subjects of the scenario."""
        found = scenario.load(name)
        for ratio in found.ratios:
            assert ratio.subject in found.subjects
            assert ratio.against in found.subjects


def test_goals_ask_for_what_is_measured() -> None:
    """Each goal names a scenario, a subject and a ratio that exist, and a metric with a unit."""
    for goal in goals.GOALS:
        found = scenario.load(goal.scenario)
        assert goal.subject in found.subjects
        assert scenario.unit_of(goal.metric)
        if goal.against is not None:
            assert any(
                (ratio.subject, ratio.against) == (goal.subject, goal.against) and ratio.metric in (None, goal.metric)
                for ratio in found.ratios
            )


def test_a_goal_is_reached_by_the_median() -> None:
    """A limit holds for the median of the pairs; what is not in the record is not judged."""
    results = records.results_of(
        "latency", {("engine", "p50_us"): [1.2, 1.1, 1.1], ("raw-zmq", "p50_us"): [1.0, 1.0, 1.0]}
    )
    record = Record({}, {}, {}, results, records.ratios_of(results, [Against("engine", "raw-zmq")]))
    (verdict,) = goals.verdicts(record)
    assert verdict.reached
    assert (verdict.median, verdict.high) == (1.1, 1.2)
