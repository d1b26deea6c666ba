"""The service that the tests run in several processes, and a program that runs it under a supervisor.

What a file named by `SERVICE_ORDERS` says is done by each process as it starts: "fail", "hang", or nothing.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from engine import Server
from engine.processes import serve

from ..resolvers.contract import Adder

ORDERS = "SERVICE_ORDERS"


class Numbers:
    """What is served."""

    def pid(self) -> int:
        return os.getpid()

    def add(self, one: int, other: int) -> int:
        return one + other


def make_server(*endpoints: str) -> Server:
    """What each process calls."""
    orders = os.environ.get(ORDERS)
    order = Path(orders).read_text() if orders else ""
    if order == "fail":
        raise SystemExit(3)
    if order == "hang":
        threading.Event().wait()
    server = Server(*endpoints, workers=2)
    server.register("numbers", Numbers())
    server.register(Adder, Numbers())
    return server


def no_server(*endpoints: str) -> str:
    """What no process can serve with."""
    return "a server"


if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # Who runs the tests may ignore it (`nohup`), which is inherited.
    serve(make_server, sys.argv[1], processes=2)
