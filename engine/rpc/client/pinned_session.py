"""A session: calls of a client of several servers that stay with one of them.

    with client.session() as one:
        files = one.bind(Files)
        handle = files.open("a")    # all calls of the session go to that server, in the order in which they are begun
        files.read(handle)

A session is a view of the client's connection to that server. If the connection is lost, its calls end as those of a
client of one server do, and are never moved; sessions are cheap, so begin another one.
"""

from collections.abc import Callable
from typing import Any, TypeVar, overload

from ...errors import InvalidHandle
from ...lifecycle import AsyncCloseable
from ..contract.interface import Interface
from .binding import Binding

I = TypeVar("I", bound=Interface)  # noqa: E741  # the interface


class PinnedSession(AsyncCloseable):
    """Calls that stay with one server; `Client.session` makes one.

    Close it, or use it as a context manager: as long as it is open, the connection to its server stays, even if that is
    in the list of servers no more. Threads: any. Blocks: never.
    """

    def __init__(self, endpoint: str, bind: Callable[[Any, bool], Any], release: Callable[[], object]) -> None:
        self._endpoint = endpoint
        self._bind = bind
        self._release = release
        # Written once; closing at once from two threads is harmless.
        self._open = [True]

    @property
    def endpoint(self) -> str:
        """The endpoint of its server."""
        return self._endpoint

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return not self._open

    @overload
    def bind(self, interface: type[I], *, causal: bool = True) -> I: ...
    @overload
    def bind(self, interface: str, *, causal: bool = True) -> Binding: ...
    def bind(self, interface: type[I] | str, *, causal: bool = True) -> Any:
        """Return a binding whose calls go to the server of the session: see `Client.bind`.

        Raises: `InvalidHandle` if the session is closed; else as `Client.bind`.
        """
        if not self._open:
            raise InvalidHandle("the session is closed")
        return self._bind(interface, causal)

    def close(self) -> None:
        """End the session: its bindings begin no more calls that are sure to have a connection; those that run go on.

        What the server keeps for the client, context handles, stays until the client's connection to it ends. Closing
        twice does nothing.
        """
        try:
            self._open.pop()
        except IndexError:
            return
        self._release()

    def __repr__(self) -> str:
        return f"<PinnedSession {self._endpoint}{'' if self._open else ' closed'}>"
