"""A client process that `test_processes.py` starts: it connects, says its number, and goes on as the test wants.

python -m tests.transport.remote ENDPOINT HEARTBEAT forever|large|busy
"""

import os
import select
import sys
from time import monotonic

from transport import Buffer, connect


class Party:
    """What becomes of the connection."""

    up = False

    def on_message(self, peer: bytes, frames: list[Buffer]) -> None: ...

    def on_connected(self, peer: bytes) -> None:
        self.up = True

    def on_lost(self, peer: bytes, reason: str, evicted: bool = False) -> None:
        self.up = False

    def on_connect_failed(self, reason: str, vain: bool = False) -> None: ...


def main(endpoint: str, heartbeat: str, then: str) -> None:
    link = connect(endpoint, heartbeat=float(heartbeat))
    party = Party()
    poll = select.poll()
    for descriptor in link.descriptors():
        poll.register(descriptor, select.POLLIN)

    def drive() -> None:
        with link.lock:
            link.harvest(party)
        if not link.ready():
            poll.poll(50)

    while not party.up:
        drive()
    assert link.send(b"", [b"%d" % os.getpid()])
    if then == "large":
        assert link.send(b"", [b"large", bytes(range(256)) * 65536])
        return
    if then == "busy":
        until = monotonic() + 10 * float(heartbeat)
        while monotonic() < until:
            sum(range(3_000_000))  # Holds the GIL.
        assert link.send(b"", [b"done"])
    while True:
        drive()


if __name__ == "__main__":
    main(*sys.argv[1:])
