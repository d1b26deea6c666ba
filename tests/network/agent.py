"""One end of a connection, in a process of its own: `python -m tests.network.agent server|client ENDPOINT OPTIONS`.

Each line that it is told it answers with one line: a server with the number of its clients; a client

    "call"    how a call of an echo ended: "ok", or the error's class
    "hold"    "begun": a call that is never answered is begun
    "held"    how that has ended, and after how many seconds; once it has
"""

import json
import sys
import time
from typing import Any

from engine import Call, Client, EngineError, Server, ServerCall, manager
from engine.testing import LIMIT


class Routines:
    """Served as "r"."""

    def __init__(self) -> None:
        self.held: list[ServerCall] = []

    def echo(self, value: Any) -> Any:
        return value

    @manager
    def hold(self, call: ServerCall) -> None:
        self.held.append(call)


def serve(endpoint: str, options: dict[str, Any]) -> None:
    with Server(endpoint, insecure=True, **options) as server:
        server.register("r", Routines())
        server.listen()
        print(server.endpoint, flush=True)
        for _ in sys.stdin:
            print(len(server.peers), flush=True)
        server.close(0)


def outcome(call: Call[Any]) -> str:
    try:
        call.result(LIMIT)
    except EngineError as error:
        return type(error).__name__
    return "ok"


def call_it(endpoint: str, options: dict[str, Any]) -> None:
    with Client(endpoint, connect_timeout=LIMIT, **options) as client:
        probe = client.bind("r")
        print(endpoint, flush=True)
        held, began = None, 0.0
        for line in sys.stdin:
            if line.strip() == "call":
                print(outcome(probe.echo.begin("x" * 100_000)), flush=True)
            elif line.strip() == "hold":
                held, began = probe.hold.begin(), time.monotonic()
                print("begun", flush=True)
            else:
                assert held is not None
                print(outcome(held), round(time.monotonic() - began, 2), flush=True)


if __name__ == "__main__":
    (serve if sys.argv[1] == "server" else call_it)(sys.argv[2], json.loads(sys.argv[3]))
