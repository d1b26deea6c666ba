"""What does it cost to have a callback run by the thread pool, beside `ThreadPoolExecutor`?

Unit: callbacks a second, 50,000 submitted in a row and waited for; and microseconds from submitting one
callback to knowing that it is done, nothing else being submitted. Four workers each.

What would make it wrong: callbacks that did not run (each counts itself, and the count is compared); a pool
whose threads are still being started (there is a warm-up); a way of waiting that costs more than need be (the
executors are shut down, which waits for all; a work object is waited for).
"""

import itertools
from collections.abc import Callable
from concurrent.futures import Executor as AnyExecutor
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter, perf_counter_ns
from typing import Any

import engine
from perf.lab import Lab
from perf.measure import ANSWER_TIMEOUT, WrongAnswer, percentile
from perf.scenario import Against, Figures, Scenario
from perf.worker import Control

WORKERS = 4
CALLBACKS = 50_000
WARM_UP = 2_000
ROUND_TRIPS = 5_000


def counted(counter: "itertools.count[int]", wanted: int) -> None:
    """Compare how often a counter was asked with how often it should have been."""
    ran = next(counter)
    if ran != wanted:
        raise WrongAnswer(f"{ran} callbacks ran instead of {wanted}")


def work_objects(count: int, trips: int) -> tuple[float, list[int]]:
    """Seconds for `count` submissions of one work object, and nanoseconds for each round trip."""
    counter = itertools.count()
    now = perf_counter_ns
    times = []
    with engine.ThreadPool(WORKERS, WORKERS) as pool, engine.Work(counter.__next__, pool=pool) as work:
        for _ in range(WARM_UP):
            work.submit()
        work.wait()
        start = perf_counter()
        for _ in range(count):
            work.submit()
        work.wait()
        took = perf_counter() - start
        for _ in range(trips):
            begun = now()
            work.submit()
            work.wait()
            times.append(now() - begun)
    counted(counter, WARM_UP + count + trips)
    return took, times


def futures(make: Callable[[], AnyExecutor], count: int, trips: int) -> tuple[float, list[int]]:
    """The same through an executor."""
    counter = itertools.count()
    function = counter.__next__
    now = perf_counter_ns
    times = []
    with make() as executor:
        for future in [executor.submit(function) for _ in range(WARM_UP)]:
            future.result(ANSWER_TIMEOUT)
        for _ in range(trips):
            begun = now()
            executor.submit(function).result(ANSWER_TIMEOUT)
            times.append(now() - begun)
        start = perf_counter()
        for _ in range(count):
            executor.submit(function)
        executor.shutdown(wait=True)
        took = perf_counter() - start
    counted(counter, WARM_UP + count + trips)
    return took, times


SUBJECTS: dict[str, Callable[[int, int], tuple[float, list[int]]]] = {
    "engine": work_objects,
    "engine-executor": lambda count, trips: futures(lambda: engine.Executor(WORKERS), count, trips),
    "ThreadPoolExecutor": lambda count, trips: futures(lambda: ThreadPoolExecutor(WORKERS), count, trips),
}


def measure(settings: dict[str, Any], control: Control) -> dict[str, float]:
    """Worker function: both figures of one pool."""
    took, times = SUBJECTS[settings["subject"]](CALLBACKS, ROUND_TRIPS)
    times.sort()
    return {
        "ops_per_s": CALLBACKS / took,
        "p50_us": percentile(times, 50) / 1000,
        "p99_us": percentile(times, 99) / 1000,
    }


def run(lab: Lab, subject: str) -> Figures:
    """Measure one pool once."""
    measured: Figures = lab.measure(f"{__name__}:measure", subject=subject)
    return measured


SCENARIO = Scenario(
    name="pool",
    run=run,
    subjects=tuple(SUBJECTS),
    ratios=(Against("engine", "ThreadPoolExecutor"), Against("engine-executor", "ThreadPoolExecutor")),
)
