"""The service that the tests run in several processes, and a program that runs it under a supervisor.

What a file named by `SERVICE_ORDERS` says is done by each process as it starts: "fail", "hang", or nothing.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from engine import Interface, Server, operation
from engine.processes import serve

from ..resolvers.contract import Adder

ORDERS = "SERVICE_ORDERS"


class Work(Interface, id="tests.Work", version=(1, 0)):
    """What is served, as a contract."""

    @operation(idempotent=True)
    def pid(self) -> int:
        """Return the process that answers."""

    @operation(idempotent=True)
    def add(self, one: int, other: int) -> int:
        """Return the sum."""


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
    server.register(Work, Numbers())
    return server


def no_server(*endpoints: str) -> str:
    """What no process can serve with."""
    return "a server"


if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # Who runs the tests may ignore it (`nohup`), which is inherited.
    serve(make_server, sys.argv[1], processes=2)
