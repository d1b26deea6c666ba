"""A Dask cluster as a registry, and its futures on a port."""

import subprocess
import sys

import pytest

from engine.testing import LIMIT

pytest.importorskip("distributed", reason="distributed is not installed")


def test_a_cluster() -> None:
    """Each worker of a cluster, present and future, has a server that is found; one that is killed or scaled away is
    gone from the list; tasks and calls complete on one port.
    """
    ran = subprocess.run(
        [sys.executable, "-m", "tests.resolvers.on_dask"], capture_output=True, text=True, timeout=LIMIT
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        "a server in each worker", "tasks and calls on one port", "another one for one that was killed", "one left"
    ]  # fmt: skip
