"""A service under test, and a client of it, in one process."""

from collections.abc import Mapping
from contextlib import ExitStack
from itertools import count
from typing import Any, Generic, TypeVar, overload

from ..lifecycle import AsyncCloseable
from ..rpc.client.binding import Binding
from ..rpc.client.client import Client
from ..rpc.contract.interface import Interface
from ..rpc.server.server import Server
from .fault_injection import Faults

B = TypeVar("B")
I = TypeVar("I", bound=Interface)  # noqa: E741  # the interface

_numbers = count(1)
WORKERS = 16  # So that calls which are held up do not hold up others; arbitrary.


class Pair(AsyncCloseable, Generic[B]):
    """A server and a client of it, over `loopback://`: no port, no socket, the same rules.

        with Pair(Thesaurus, Words()) as pair:
            assert pair.binding.synonyms("quick") == ["fast", "swift"]

    Args:
        interface: an `Interface` class, or the name that the implementation is served by.
        implementation: what serves it, see `Server.register`.
        server, client: options of the two, as `server={"reflection": False}`.
    Fields:
        binding: what calls the implementation.
        server, client: both are open. faults: what goes wrong with the next calls.

    Closing waits for no call: those that run end with `CallCancelled` at the client, and their routines are left alone.
    Threads: any. Blocks: closing, for some tenths of a second at the most.
    """

    _instead = "make another one"

    @overload
    def __init__(
        self: "Pair[I]", interface: type[I], implementation: object, *, server: Mapping[str, Any] = {},
        client: Mapping[str, Any] = {},
    ) -> None: ...  # fmt: skip
    @overload
    def __init__(
        self: "Pair[Binding]", interface: str, implementation: object, *, server: Mapping[str, Any] = {},
        client: Mapping[str, Any] = {},
    ) -> None: ...  # fmt: skip
    def __init__(
        self, interface: Any, implementation: object, *, server: Mapping[str, Any] = {}, client: Mapping[str, Any] = {}
    ) -> None:
        with ExitStack() as undo:
            self.server: Server = Server(f"loopback://callport-pair-{next(_numbers)}", **{"workers": WORKERS, **server})
            undo.callback(self.server.close, 0.0)
            self.faults: Faults = Faults(self.server)
            self.server.register(interface, implementation)
            self.server.listen()
            self.client: Client = Client(self.server.endpoint, **client)
            undo.callback(self.client.close)
            self.binding: B = self.client.bind(interface)
            undo.pop_all()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self.client.closed

    def close(self) -> None:
        """Close both. Closing twice does nothing."""
        self.client.close()
        self.server.close(0.0)

    def __repr__(self) -> str:
        what = f"{self.server!r} {self.client!r}" if hasattr(self, "client") else "that could not be made"
        return f"<{type(self).__name__} {what}>"
