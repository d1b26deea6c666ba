"""A server for tests under load, in a process of its own: at an endpoint, and in etcd if it is told so.

It drains when its input ends, and ends without a word when it is killed.
"""

import sys
import time

from engine import Server
from engine.resolvers import Etcd

from .contract import Adder


class Numbers:
    """What is served: both add, and take a moment for it."""

    def add(self, one: int, other: int) -> int:
        time.sleep(0.001)  # What the routine does; nothing waits for it to have passed.
        return one + other


def main(endpoint: str, prefix: str = "", etcd: str = "") -> None:
    registry = Etcd(prefix, endpoints=[etcd], ttl=2) if prefix else None
    server = Server(endpoint, announce=registry, heartbeat=0.3)
    server.register(Adder, Numbers())
    server.listen()
    print(server.endpoint, flush=True)
    sys.stdin.read()
    server.drain(10)


if __name__ == "__main__":
    main(*sys.argv[1:])
