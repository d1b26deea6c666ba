"""A process with open objects and busy threads that starts others by `multiprocessing`.

    python -m tests.lifecycle.processes fork|spawn|forkserver

Each uses new objects of every kind and ends as `multiprocessing` has it. Prints their exit codes.
"""

import multiprocessing
import sys
import threading
import warnings
from typing import Any

from engine import Client, Executor, ThreadPool, default_pool, queue_apc

from .forking import KINDS, Echo, serving

CHILDREN = 4


def child() -> None:
    """Use new objects of every kind, and leave a pool and an executor open."""
    for kind in KINDS:
        kind()
    ThreadPool(1).submit(int)
    Executor(1).submit(int)


def main(method: str) -> None:
    """Start them, one after the other."""
    warnings.simplefilter("ignore")
    context: Any = multiprocessing.get_context(method)
    stop = threading.Event()
    with serving("ipc") as endpoint, Client(endpoint) as client, Executor(1) as executor:
        echo = client.bind(Echo).echo

        def loop() -> None:
            while not stop.is_set():
                echo(1)
                executor.submit(int).result()
                default_pool().submit(int)
                queue_apc(int)

        threads = [threading.Thread(target=loop) for _ in range(2)]
        for thread in threads:
            thread.start()
        codes = []
        for _ in range(CHILDREN):
            process = context.Process(target=child)
            process.start()
            process.join()
            codes.append(process.exitcode)
        stop.set()
        for thread in threads:
            thread.join()
    print(*codes)


if __name__ == "__main__":
    main(sys.argv[1])
