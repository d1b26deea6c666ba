"""Us inside one process, calling an operation that is declared `nonblocking`: the thread that waits may run it itself.

What favours it: as over loopback, and no thread need be woken.
"""

from functools import cache
from typing import Any

from engine import Interface, operation
from perf.subjects import engine_loopback

NOTE = "client and server in one process, the operation declared nonblocking"
serve = engine_loopback.serve


@cache
def contract() -> type[Interface]:
    """Return the contract, whose operation never waits."""
    options: dict[str, Any] = {"nonblocking": True}

    class EchoNow(Interface, id="perf.EchoNow"):
        @operation(**options)
        def echo(self, data: bytes) -> bytes:
            """Return `data`."""

    return EchoNow


def missing() -> str | None:
    """It needs that option of operations."""
    try:
        contract()
    except TypeError:
        return "operations cannot be declared nonblocking yet"
    return None


class Client(engine_loopback.Client):
    """The same, with that contract."""

    def __init__(self, endpoint: str) -> None:
        self.contract = contract()
        super().__init__(endpoint)
