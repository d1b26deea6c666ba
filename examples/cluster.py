"""A service on a Dask cluster: a server in each worker, a client that calls them directly, tasks beside the calls.

    python -m examples.cluster

Needs `callport[dask]`. The cluster is one of this machine's; `distributed.Client("tcp://scheduler:8786")` would be
another's, and nothing else would change.
"""

import os
from collections import Counter

import distributed

from engine import Client, CompletionPort, Server
from engine.dask import Dask, Serve

CALLS, TASKS = 200, 20


class Words:
    """What each worker serves."""

    def spell(self, word: str) -> tuple[str, int]:
        return " ".join(word), os.getpid()


def make_server(endpoint: str) -> Server:
    """Called in each worker."""
    server = Server(endpoint)
    server.register("words", Words())
    return server


def run(dask: distributed.Client) -> str:
    """Serve in the workers of a cluster, and call them; return what became of it."""
    dask.register_plugin(Serve(make_server))
    workers: Counter[int] = Counter()
    total = 0
    with Client(Dask(dask)) as client, CompletionPort() as port:
        words = client.bind("words", causal=False)
        for _ in range(CALLS):
            words.spell.begin("quick", notify=port.packet(key="call"))
        for number in range(TASKS):
            task = dask.submit(pow, 2, number)
            port.associate_wait(task, key="task", overlapped=task)
        for _ in range(CALLS + TASKS):  # whichever ends first
            packet = port.get(timeout=30.0)
            if packet.key == "call":
                spelled, worker = packet.overlapped.complete()
                assert spelled == "q u i c k"
                workers[worker] += 1
            else:
                total += packet.overlapped.result()
    return f"{sum(workers.values())} calls, answered by {len(workers)} workers; the tasks' results sum up to {total}"


if __name__ == "__main__":
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as dask,
    ):
        print(run(dask))
