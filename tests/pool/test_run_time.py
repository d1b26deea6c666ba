"""How long a function runs: learned from its runs."""

import pytest

from engine.pool.run_time import NOTABLE, SLOW, RunTime


def learned(*runs: float, run_time: RunTime | None = None) -> RunTime:
    """What is known of a function after runs that took so many times the limit."""
    run_time = run_time or RunTime()
    for run in runs:
        if run * SLOW > run_time.notable:  # As all do who use it.
            run_time.learn(run * SLOW)
    return run_time


def test_one_long_run() -> None:
    """One long run makes no function slow: it may have been the processor's doing, which others had meanwhile."""
    assert not learned(500).slow
    assert not learned(0.01, 500, 0.01).slow
    assert not learned(0.5, 500, 0.5).slow
    assert not learned(0.01, 500, 0.01, 500, 0.01, 500).slow


@pytest.mark.parametrize("run", [8, 500])
def test_two_long_runs(run: float) -> None:
    """Two in a row do, whatever was before."""
    assert learned(run, run).slow
    assert learned(*[0.01] * 100, run, run).slow


def test_runs_that_are_just_too_long() -> None:
    """Runs a little above the limit are found out in the end, runs below it never make a function slow."""
    assert learned(*[1.5] * 20).slow
    assert not learned(*[0.9] * 100).slow


def test_quick_runs() -> None:
    """However long its runs were, a few quick ones make a function quick again, and forget the others."""
    for before in (learned(*[10_000] * 100), learned(*[0.01, 10_000] * 2)):
        after = learned(*[0.01] * 8, run_time=before)
        assert not after.slow
        assert learned(*[0.01] * 20, run_time=after) == RunTime()


def test_a_slow_function_with_a_quick_run() -> None:
    """A function that is slow stays so if it is quick now and then: each of its long runs counts."""
    assert learned(500, 500, *[0.01, 500] * 50).slow


def test_what_is_not_notable() -> None:
    """Most functions are quick, and nothing is noted of them: then a quick run teaches nothing."""
    assert learned(*[0.09] * 100) == RunTime()
    assert RunTime().notable == NOTABLE
    assert learned(0.5).notable == learned(500).notable == RunTime(slow=True).notable == 0.0


def test_overran() -> None:
    """A function in which a thread was found away is slow for its next runs, and quick again after a few quick ones."""
    run_time = RunTime()
    run_time.overran()
    for _ in range(5):
        assert run_time.slow
        run_time.learn(0.0)
    assert not learned(0.01, 0.01, 0.01, run_time=run_time).slow


def test_the_first_run_decides() -> None:
    """What is taken for slow before its first run is quick if that was."""
    assert RunTime(slow=True).slow
    assert not learned(0.01, run_time=RunTime(slow=True)).slow
    assert learned(500, run_time=RunTime(slow=True)).slow


def test_declared() -> None:
    """What was declared to be slow stays so, and nothing is learned of it."""
    run_time = learned(*[0.01] * 100, run_time=RunTime(slow=True, fixed=True))
    assert run_time.slow
    run_time.overran()
    run_time.learn(1.0, 1.0)
    assert run_time == RunTime(slow=True, fixed=True)


def test_what_computes() -> None:
    """A function that is slow computes if the processor was in use all the while, and not if it waits."""
    busy, waiting = RunTime(), RunTime()
    for _ in range(4):
        busy.learn(0.01, 0.01)
        waiting.learn(0.01, 0.0)
    assert busy.computes()
    assert not waiting.computes()
