"""Scenarios and goals fit together, and each scenario says what it is about."""

from pathlib import Path

import pytest

from perf import goals, scenario
from perf import record as records
from perf.best import best_peers
from perf.goals import Verdict
from perf.lab import Effort, Lab
from perf.record import Missing, Record
from perf.scenario import NATIVE, TLS, Against, Figures, over_links


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


@pytest.mark.parametrize(("subject", "scheme"), [("engine", "ipc"), (NATIVE, "native+ipc"), (TLS, "tls")])
def test_our_links(tmp_path: Path, subject: str, scheme: str) -> None:
    """What a scenario measures of `engine` it measures over the native link and under TLS, too."""
    pytest.importorskip("trustme", reason="trustme is not installed, which makes the certificate")
    endpoints: list[str] = []

    def measure(lab: Lab, name: str) -> Figures:
        with lab.server(name) as server:
            endpoints.append(server.endpoint)
            figures: Figures = lab.measure("perf.echo:latency", server, subject=name)
            return figures

    figures = over_links(measure)(Lab(Effort("quick", 0.01, 1), tmp_path), subject)
    assert figures["p50_us"] > 0
    assert endpoints[0].startswith(f"{scheme}://")


def made(ours: float, missing: tuple[Missing, ...] = ()) -> dict[tuple[str, str], Verdict]:
    """What is said of a record with a median round trip of `ours` by the floor's, by metric and subject."""
    results = records.results_of(
        "latency", {("engine", "p50_us"): [1.2, ours, ours], ("raw-zmq", "p50_us"): [1.0, 1.0, 1.0]}
    )
    record = Record({}, {}, {}, results, records.ratios_of(results, [Against("engine", "raw-zmq")]), [*missing])
    return {(verdict.goal.metric, verdict.goal.subject): verdict for verdict in goals.verdicts(record)}


class TestVerdicts:
    @pytest.mark.parametrize(("ours", "held", "aim"), [(1.1, False, False), (0.95, True, False), (0.8, True, True)])
    def test_a_goal_is_held_by_the_median(self, ours: float, held: bool, aim: bool) -> None:
        """Floor and aim hold for the median of the pairs."""
        verdict = made(ours)["p50_us", "engine"]
        assert (verdict.held, verdict.aim_reached) == (held, aim)
        assert verdict.word == ("held" if held else "missed")
        assert (verdict.median, verdict.high) == (ours, 1.2)

    def test_where_each_run_counts_one_is_enough_to_miss_it(self) -> None:
        """A client that starves in one run of three is not outvoted by the others."""
        results = records.results_of("fairness", {("engine", "uneven_percent"): [1.0, 60.0, 2.0]})
        found = {v.goal.metric: v for v in goals.verdicts(Record({}, {}, {}, results)) if v.goal.subject == "engine"}
        assert found["uneven_percent"].median == 2.0
        assert found["uneven_percent"].word == "missed"

    def test_a_figure_that_is_missing_is_said_to_be(self) -> None:
        """A goal whose scenario ran without its figure is neither held nor missed, and says why."""
        why = made(1.0, (Missing("latency", "engine-loopback", "it is not installed"),))
        assert (why["p50_us", "engine-loopback"].word, why["p50_us", "engine-loopback"].missing) == (
            "missing", "it is not installed",
        )  # fmt: skip
        assert why["p99_us", "engine"].word == "missing"

    def test_of_what_was_not_run_nothing_is_said(self) -> None:
        """Goals of other scenarios are not judged."""
        assert {goal.scenario for goal, *_ in made(1.0).values()} == {"latency"}


def test_the_best_peer_is_the_one_that_we_are_least_ahead_of() -> None:
    """At each number of outstanding calls it is the peer with the lowest paired ratio; the floor is no peer."""
    results = records.results_of(
        "peers",
        {
            (who, f"calls_per_s_{width}"): [rate * width, rate * width]
            for who, rate in (("engine", 4.0), ("raw-zmq", 9.0), ("slow", 1.0), ("quick", 5.0))
            for width in (1, 16)
        },
    )
    ratios = records.ratios_of(results, [Against("engine", other) for other in ("raw-zmq", "slow", "quick")])
    found = best_peers(Record({}, {}, {}, results, ratios))
    assert [(row.scenario, row.outstanding, row.ratio.against, row.ratio.median) for row in found] == [
        ("peers", 1, "quick", 0.8), ("peers", 16, "quick", 0.8),
    ]  # fmt: skip
    assert found[1].ours == 64.0 and found[1].theirs == 80.0
    assert found[0].floor is not None and found[0].floor.against == "raw-zmq"
