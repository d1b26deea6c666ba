"""Servers that the members of a fleet tell of: whoever knows one of them finds all.

Theory of operation. One member after another is asked, in random order, the one that answers again and again: it
answers when its list has changed (`members.py`). When it is gone the next one is asked, of those that were last heard
of, then of the seeds. Members that listen on every address of their machine are reached where the one that tells of
them was.
"""

import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Unpack

import msgspec

from transport import Endpoint, TransportOptions

from ..errors import EngineError, InvalidAsyncHandle, InvalidParameter
from ..rpc.address import Address
from ..rpc.call import Call
from ..rpc.client.client import Client
from ..rpc.client.resolver import Discovery
from .members import Listing, Members

# Of the connection to a member, in seconds: one that is gone or frozen tells of nobody, so another one is asked soon.
HEARTBEAT, CONNECT_TIMEOUT = 1.0, 2.0
PATIENCE = 30.0  # Seconds for an answer: members answer within 10, whatever has changed.


class Seed:
    """A resolver: finds a client's servers by asking one of them, as `engine.processes.serve` has them tell.

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
        asking = _Asking(discovery)
        while not discovery.closed:
            told = False
            for endpoint in [*_shuffled(asking.known), *_shuffled(self._seeds)]:
                try:
                    told = asking.ask(endpoint, self._connect) or told
                except EngineError as error:
                    asking.failure = error
                if told or discovery.closed:
                    break
            if not told and not discovery.closed:
                raise EngineError(f"no member of {self!r} answers") from asking.failure

    def __repr__(self) -> str:
        return f"Seed({', '.join(map(repr, self._seeds))})"


class _Asking:
    """What is known from the members, and the call that asks one of them."""

    def __init__(self, discovery: Discovery) -> None:
        self._discovery = discovery
        self._listing = Listing()
        # Stored by the thread that asks, read by the one that closes.
        self._call: Call[Listing] | None = None
        self.known: list[str] = []
        self.failure: Exception | None = None
        discovery.on_close(self._end)

    def _end(self) -> None:
        if (call := self._call) is not None:
            with suppress(InvalidAsyncHandle):  # It was answered meanwhile.
                call.cancel(abort=True)

    def ask(self, endpoint: str, connect: Callable[[str], Client]) -> bool:
        """Ask this member for as long as it answers; return whether it ever did."""
        told = False
        with connect(endpoint) as client:
            members = client.bind(Members)
            while not self._discovery.closed:
                self._call = members.after.begin(self._listing.version, timeout=PATIENCE)
                if self._discovery.closed:
                    self._end()
                try:
                    listing = self._call.result()
                except EngineError:
                    if not told:
                        raise
                    return True
                told = True
                if listing.version != self._listing.version:
                    self._listing = listing
                    addresses = _reachable(listing.addresses, Endpoint.parse(endpoint))
                    self.known = [address.endpoint for address in addresses]
                    self._discovery.update(addresses)
        return told


def _reachable(addresses: Iterable[Address], asked: Endpoint) -> list[Address]:
    """These addresses as seen by who has reached the member at `asked`."""
    found = []
    for address in addresses:
        endpoint = Endpoint.parse(address.endpoint)
        if endpoint.is_wildcard():
            there = msgspec.structs.replace(endpoint, host=asked.host)
            address = msgspec.structs.replace(address, endpoint=str(there))
        found.append(address)
    return found


def _shuffled(endpoints: list[str]) -> list[str]:
    return random.sample(endpoints, len(endpoints))
