"""Servers that the members of a fleet report: who knows one of them finds all (`engine/rpc/client/asking.py`)."""

from functools import partial
from typing import Unpack

from transport import TransportOptions

from ..errors import EngineError, InvalidParameter
from ..rpc.address import Address
from ..rpc.client.asking import CONNECT_TIMEOUT, HEARTBEAT, Asking
from ..rpc.client.client import Client
from ..rpc.client.resolver import Discovery


class Seed:
    """A resolver: finds a client's servers by asking one of them; those of `engine.processes.serve` know the others.

    Args:
        endpoints: of one member, or of some: whichever answers will do.
        connect_timeout, metadata, options: of the connection to it, as for `Client`, `curve` and `tls` among them;
            `heartbeat` is 1 s unless it is given.
    Raises: `EndpointError` for what is no endpoint to connect to; `InvalidParameter` if there is none.

    One object may serve several clients.
    """

    def __init__(
        self,
        *endpoints: str,
        connect_timeout: float | None = CONNECT_TIMEOUT,
        metadata: dict[str, str] | None = None,
        **options: Unpack[TransportOptions],
    ) -> None:
        if not endpoints:
            raise InvalidParameter("a Seed needs the endpoint of one member at least")
        self._seeds = [Address(endpoint).endpoint for endpoint in endpoints]
        options.setdefault("heartbeat", HEARTBEAT)
        self._connect = partial(Client, connect_timeout=connect_timeout, retries=0, metadata=metadata, **options)

    def run(self, discovery: Discovery) -> None:
        """Follow the members; see `engine.Resolver`."""
        asking = Asking(self._connect, self._seeds, discovery)
        asking.follow()
        if not discovery.closed:
            raise EngineError(f"no member of {self!r} answers") from asking.failure

    def __repr__(self) -> str:
        return f"Seed({', '.join(map(repr, self._seeds))})"
