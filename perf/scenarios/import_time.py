"""What does `import engine` cost a program when it starts, beside the two libraries that it stands on?

Unit: milliseconds in a fresh interpreter, the median of several.

What would make it wrong: modules that something else has imported already (each import has an interpreter of
its own, started without site packages' hooks where that is possible); compiled files that are not there yet
(one start is made first, apart, and is told to keep them: a checkout has none where Python is told not to).
"""

import os
import statistics
import subprocess
import sys

from perf.lab import Lab
from perf.scenario import Against, Figures, Scenario

STARTS = (5, 10, 20)
START_TIMEOUT = 30.0  # Seconds.

IMPORTS = {"engine": "engine", "zmq+msgspec": "zmq, msgspec"}
PROGRAM = """
from time import perf_counter
start = perf_counter()
import {}
print(perf_counter() - start)
"""


def start(modules: str) -> float:
    """Return the milliseconds that one import took."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(modules)],
        capture_output=True, text=True, timeout=START_TIMEOUT, check=True,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": ""},
    )  # fmt: skip
    return float(done.stdout) * 1000


def run(lab: Lab, subject: str) -> Figures:
    """Start some interpreters."""
    start(IMPORTS[subject])
    return {"import_ms": statistics.median(start(IMPORTS[subject]) for _ in range(lab.effort.pick(*STARTS)))}


SCENARIO = Scenario(name="import_time", run=run, subjects=tuple(IMPORTS), ratios=(Against("engine", "zmq+msgspec"),))
