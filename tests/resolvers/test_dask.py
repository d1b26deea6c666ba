"""A Dask cluster as a registry, and its futures on a port."""

import re
import subprocess
import sys

import pytest

from engine.testing import LIMIT

pytest.importorskip("distributed", reason="distributed is not installed")


@pytest.mark.timeout(10 * LIMIT)  # It starts some processes.
def test_a_cluster() -> None:
    """Each worker of a cluster, present and future, has a server that is found; one that is killed or scaled away is
    gone from the list, the latter without a failed call; tasks and calls complete on one port. The example runs there.
    """
    ran = subprocess.run(
        [sys.executable, "-m", "tests.resolvers.on_dask"], capture_output=True, text=True, timeout=5 * LIMIT
    )
    assert ran.returncode == 0, ran.stderr
    example, *said = ran.stdout.splitlines()
    assert re.fullmatch(r"200 calls, answered by [12] workers; the tasks' results sum up to 1048575", example)
    assert said == [
        "a server in each worker", "tasks and calls on one port", "another one for one that was killed",
        "one left, and no call failed",
    ]  # fmt: skip
