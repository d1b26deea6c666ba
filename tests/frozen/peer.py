"""A server, or a client that calls all that it has: run in two versions of the project, against each other.

    python -m tests.frozen.peer serve tcp://127.0.0.1:*     says its endpoint, and ends with its input
    python -m tests.frozen.peer call tcp://127.0.0.1:5555   says "checked"

The commit that brought this file is the frozen one: `test_frozen.py` runs it as it was there, too. So nothing is added
to it: what is new has tests of its own.
"""

import hashlib
import sys
from typing import Any

import msgspec

from engine import (
    CallTimeout,
    Client,
    Context,
    InOut,
    InOutPipe,
    InPipe,
    Interface,
    Management,
    Out,
    OutPipe,
    RemoteFault,
    Server,
    current_call,
    operation,
)
from engine.testing import wait_until

LIMIT = 60.0  # Seconds that a call may take.


class Point(msgspec.Struct):
    """A structure to send."""

    x: int
    y: float = 0.0


class Frozen(Interface, id="frozen.Peer", version=(1, 0)):
    """Operations of every sort that shows on the wire."""

    def echo(self, value: Any) -> Any: ...
    def move(self, point: Point, by: int = 1) -> Point: ...
    def digest(self, data: bytes) -> bytes: ...
    def fail(self, text: str) -> None: ...
    def metadata(self) -> dict[str, str]: ...
    @operation(one_way=True)
    def note(self, text: str) -> None: ...
    @operation(idempotent=True)
    def notes(self) -> list[str]: ...
    def hold(self) -> None: ...
    def total(self, texts: InPipe[str]) -> int: ...
    def count(self, limit: int, texts: OutPipe[str]) -> int: ...
    def double(self, numbers: InOutPipe[int]) -> None: ...
    def open(self, name: str) -> Context[str]: ...
    def name(self, opened: Context[str]) -> str: ...
    def fill(self, data: Out[bytearray], more: InOut[bytearray]) -> int: ...


class Routines:
    """Implements `Frozen`."""

    def __init__(self) -> None:
        self.noted: list[str] = []

    def echo(self, value: Any) -> Any:
        return value

    def move(self, point: Point, by: int = 1) -> Point:
        return Point(point.x + by, point.y)

    def digest(self, data: bytes) -> bytes:
        return hashlib.sha256(data).digest()

    def fail(self, text: str) -> None:
        raise KeyError(text)

    def metadata(self) -> dict[str, str]:
        call = current_call()
        call.set_trailing_metadata({"served": "yes"})
        return dict(call.metadata)

    def note(self, text: str) -> None:
        self.noted.append(text)

    def notes(self) -> list[str]:
        return self.noted

    def hold(self) -> None:
        call = current_call()
        wait_until(lambda: call.test_cancel() or call.disconnected())  # The client's own limit is to be the first.

    def total(self, texts: Any) -> int:
        return sum(map(int, texts))

    def count(self, limit: int, texts: Any) -> int:
        for number in range(limit):
            texts.push_wait([f"{number:0200}"])
        texts.push([])
        return limit

    def double(self, numbers: Any) -> None:
        doubled = [number * 2 for number in numbers]
        numbers.push_wait(doubled)
        numbers.push([])

    def open(self, name: str) -> Any:
        return current_call().open_context(name)

    def name(self, opened: Any) -> str:
        return str(opened.state)

    def fill(self, data: bytearray, more: bytearray) -> int:
        data[:] = b"d" * len(data)
        more.reverse()
        return len(data)


def serve(endpoint: str) -> None:
    """Serve until the input ends."""
    with Server(endpoint) as server:
        server.register(Frozen, Routines())
        server.listen()
        print(server.endpoint, flush=True)
        sys.stdin.read()


def call(endpoint: str) -> None:
    """Call all that there is."""
    with Client(endpoint, metadata={"of": "the client"}, timeout=LIMIT) as client:
        peer: Any = client.bind(Frozen)
        for value in (None, True, -1, 1 << 63, 2.5, "é", b"b", [1, [2]], {"a": {"b": 1}}, {1: "one"}):
            assert peer.echo(value) == value, value
        calls = [peer.move.begin(Point(number)) for number in range(2000)]
        assert [each.result(LIMIT) for each in calls] == [Point(number + 1) for number in range(2000)]
        large = bytes(range(256)) * 20_000
        assert peer.digest(large) == hashlib.sha256(large).digest() and peer.echo(large) == large
        try:
            peer.fail("text")
        except RemoteFault as error:
            assert (error.type_name, error.status) == ("KeyError", 0xE0000001)
        else:
            raise AssertionError("it did not fail")
        begun = peer.metadata.begin(metadata={"call": "its own"})
        assert begun.result(LIMIT) == {"of": "the client", "call": "its own"}
        assert begun.trailing_metadata == {"served": "yes"}
        peer.note("one way")
        assert peer.notes()[-1] == "one way"
        for _ in range(100):  # A server that is told of the limit may answer just before this side looks.
            try:
                peer.hold(timeout=0.1)
            except CallTimeout:
                break
        else:
            raise AssertionError("it did not time out")
        held = peer.hold.begin()
        held.cancel(abort=False)
        assert held.result(LIMIT) is None
        texts = [f"{number:0200}" for number in range(3000)]  # More than fits into a window.
        assert peer.total(texts) == sum(range(3000))
        assert list(peer.count.stream(3000)) == texts
        both = peer.double.begin([1, 2, 3])
        assert list(both.pipe("numbers")) == [2, 4, 6] and both.result(LIMIT) is None
        opened = peer.open("state")
        assert peer.name(opened) == "state"
        data, more = bytearray(3), bytearray(b"abc")
        assert peer.fill(data, more) == 3 and (data, more) == (b"ddd", b"cba")
        assert client.bind(Management).listening() is True
        arrays(peer)
        statistics = client.statistics()
        assert (statistics.connections, statistics.garbage_received) == (1, 0)
    print("checked", flush=True)


def arrays(peer: Any) -> None:
    """Send arrays, if NumPy is there."""
    try:
        import numpy
    except ImportError:
        return
    array = numpy.arange(24, dtype="<f4").reshape(2, 3, 4)
    assert (peer.echo(array) == array).all()


if __name__ == "__main__":
    {"serve": serve, "call": call}[sys.argv[1]](sys.argv[2])
