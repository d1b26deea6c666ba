"""Steps of a call, counted: they do not grow unnoticed, whatever the machine."""

from time import monotonic

import pytest

from perf.lab import EFFORTS, Lab
from perf.scenario import Figures
from perf.scenarios.counts import LIMITED, LIMITS, count_steps

# With one outstanding, a side that takes less than this of its limit shows that the limit is out of date. A client that
# sleeps until its answer comes, as on a busy machine, takes two or three Python calls less than one that stays awake.
SAVED = {"client": 0.8, "server": 0.9}
PATIENCE = 60  # Seconds.
CELLS = [(width, kind, limit) for width, limits in LIMITS.items() for kind, limit in zip(LIMITED, limits, strict=True)]


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Figures:
    """What a call takes now, at the least of many rounds: on a busy machine fewer calls share a message, and threads
    that would stay awake go to sleep. Those that are within their limits are not tried again."""
    lab = Lab(EFFORTS["quick"], tmp_path_factory.mktemp("counts"))
    least: dict[str, float] = {}
    above = set(LIMITS)
    end = monotonic() + PATIENCE
    while above and (not least or monotonic() < end):
        for name, value in count_steps(lab, "engine", tuple(above), least=True).items():
            least[name] = min(value, least.get(name, value))
        above = {width for width, kind, limit in CELLS if least[f"{kind}_{width}"] > limit}
    return least


@pytest.mark.untraced
@pytest.mark.parametrize(("outstanding", "kind", "limit"), CELLS)
def test_no_step_is_added_to_the_way_of_a_call(counted: Figures, kind: str, outstanding: int, limit: float) -> None:
    """A call takes no more Python and C calls, on either side, than the table of limits in `counts` says."""
    assert counted[f"{kind}_{outstanding}"] <= limit, "a step was added to the way of each call"


@pytest.mark.untraced
@pytest.mark.parametrize("kind", LIMITED)
def test_the_limits_are_those_of_today(counted: Figures, kind: str) -> None:
    """Who saves steps lowers the limits too: else as many could come back unnoticed."""
    limit = LIMITS[1][LIMITED.index(kind)]
    assert counted[f"{kind}_1"] >= SAVED[kind.partition("_")[0]] * limit, (
        "steps were saved: lower `LIMITS` in perf/scenarios/counts.py"
    )
