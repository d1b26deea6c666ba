"""Servers in the workers of a Dask cluster on this machine: what `test_dask.py` wants to know, in a process of its own.

Dask starts threads that stay, and warns of this and that.
"""

import os
import signal

import distributed

from engine import Client, CompletionPort, Server
from engine.dask import Dask, Serve
from engine.testing import LIMIT, wait_until
from examples.cluster import run

from .adding import Numbers
from .contract import Adder
from .following import following
from .load import load


class Words:
    """What is served."""

    def pid(self) -> int:
        return os.getpid()


def make_server(endpoint: str) -> Server:
    """What each worker calls."""
    server = Server(endpoint)
    server.register("words", Words())
    server.register(Adder, Numbers())
    return server


def pid_at(endpoint: str) -> int:
    with Client(endpoint, connect_timeout=LIMIT) as client:
        pid: int = client.bind("words").pid()
        return pid


def check(cluster: "distributed.LocalCluster", dask: "distributed.Client") -> None:
    print(run(dask))
    dask.register_plugin(Serve(make_server, "tests"))
    with following(Dask(dask, "tests", interval=0.2)) as found:
        wait_until(lambda: len(found.now()) == 2)
        print("a server in each worker")

        endpoint, other = sorted(found.now())
        with CompletionPort() as port, Client(endpoint, connect_timeout=LIMIT) as client:
            futures = [dask.submit(pow, 2, number, pure=False) for number in range(20)]
            for number, future in enumerate(futures):
                port.associate_wait(future, key=number)
            call = client.bind("words").pid.begin(notify=port.packet(key=-1))
            keys = sorted(port.get(LIMIT).key for _ in range(21))
            assert keys == list(range(-1, 20)), keys
            assert [future.result() for future in futures] == [2**number for number in range(20)]
            victim = call.complete()
        print("tasks and calls on one port")

        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: endpoint not in found.now())
        assert other in found.now()
        wait_until(lambda: len(found.now()) == 2)
        assert pid_at((found.now() - {other}).pop()) != victim
        print("another one for one that was killed")

        with load(Dask(dask, "tests", interval=0.2)) as (calls, client):
            wait_until(lambda: sum(member.calls_finished > 0 for member in client.members) == 2)
            cluster.scale(1)
            wait_until(lambda: len(found.now()) == 1)
            calls.go_on()
        print("one left, and no call failed")
    assert found.raised is None


if __name__ == "__main__":
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as dask,
    ):
        check(cluster, dask)
