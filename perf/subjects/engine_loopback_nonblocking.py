"""Us inside one process, calling an operation that is declared `nonblocking`: the thread that waits may run it itself.

What favours it: as over loopback, and no thread need be woken.
"""

from engine import Interface, operation
from perf.subjects import engine_loopback

NOTE = "client and server in one process, the operation declared nonblocking"
missing = engine_loopback.missing
serve = engine_loopback.serve


class EchoNow(Interface, id="perf.EchoNow"):
    """The same service, whose operation never waits."""

    @operation(nonblocking=True)
    def echo(self, data: bytes) -> bytes:
        """Return `data`."""


class Client(engine_loopback.Client):
    """The same, with that contract."""

    contract = EchoNow
