"""Steps of a call, counted: they do not grow unnoticed, whatever the machine."""

import pytest

from perf.lab import EFFORTS, Lab
from perf.scenario import Figures
from perf.scenarios.counts import LIMITED, LIMITS, count_steps

# A call that takes less than this of its limit, with one outstanding: the limit is out of date. A client that sleeps
# until its answer comes, as on a busy machine, takes three steps less than one that stays awake.
SAVED = 0.85


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Figures:
    """What a call takes now."""
    return count_steps(Lab(EFFORTS["quick"], tmp_path_factory.mktemp("counts")), "engine", tuple(LIMITS))


@pytest.mark.untraced
@pytest.mark.parametrize("outstanding", LIMITS)
@pytest.mark.parametrize("kind", LIMITED)
def test_no_step_is_added_to_the_way_of_a_call(counted: Figures, kind: str, outstanding: int) -> None:
    """A call takes no more Python and C calls, on either side, than the table of limits in `counts` says."""
    limit = LIMITS[outstanding][LIMITED.index(kind)]
    assert counted[f"{kind}_{outstanding}"] <= limit, "a step was added to the way of each call"


@pytest.mark.untraced
@pytest.mark.parametrize("kind", LIMITED)
def test_the_limits_are_those_of_today(counted: Figures, kind: str) -> None:
    """Who saves steps lowers the limits too: else as many could come back unnoticed."""
    limit = LIMITS[1][LIMITED.index(kind)]
    assert counted[f"{kind}_1"] >= SAVED * limit, "steps were saved: lower `LIMITS` in perf/scenarios/counts.py"
