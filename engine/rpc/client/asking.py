"""Asking the members of a fleet who the others are: a client that knows one of them finds all.

Theory of operation. One member after another is asked, in random order, the one that answers again and again: it
answers when its list has changed. When it is gone the next one is asked, of those that were last heard of, then of the
seeds. Members that listen on every address of their machine are reached where the one that listed them was.

The connections are clients, of the caller's making: this file is below them.
"""

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Protocol, TypeVar

from transport import Endpoint
from transport.chance import chance

from ...errors import EngineError, InvalidAsyncHandle
from ..address import of_scheme
from ..call import Call
from ..contract.members import Listing, Members
from .resolver import Discovery

B = TypeVar("B", bound=Members)

# Of the connection to a member, in seconds: one that is gone or frozen never answers, so another one is asked soon.
HEARTBEAT, CONNECT_TIMEOUT = 1.0, 2.0
PATIENCE = 30.0  # Seconds for an answer: members answer within 10, whatever has changed.
# Seconds at most, whichever, before a member is asked anew that had nothing new, or another one because one is gone:
# all clients of that one look for another.
PAUSE = 0.5


class Asker(Protocol):
    """A client, as far as it is needed here."""

    def bind(self, interface: type[B]) -> B:
        """Return a binding."""


Connect = Callable[[str], AbstractContextManager[Asker]]


class Asking:
    """What is known from the members, and the call that asks one of them.

    Args: `connect(endpoint)` makes a client of a member; `seeds` are members that are known beforehand; `scheme`: that
    of the members that count, "" if all do.
    """

    def __init__(self, connect: Connect, seeds: Sequence[str], discovery: Discovery, scheme: str = "") -> None:
        self._connect = connect
        self._seeds = seeds
        self._discovery = discovery
        self._scheme = scheme
        self._listing = Listing()
        self._known: list[str] = []
        # Stored by the thread that asks, read by the one that closes.
        self._call: Call[Listing] | None = None
        #: Why none has answered.
        self.failure: Exception | None = None
        discovery.on_close(self._end)

    def _end(self) -> None:
        if (call := self._call) is not None:
            with suppress(InvalidAsyncHandle):  # It was answered meanwhile.
                call.cancel(abort=True)

    def follow(self) -> None:
        """Tell the discovery of the members, until it is closed, or none of them answers."""
        while not self._discovery.closed:
            answered = False
            for endpoint in [*_shuffled(self._known), *_shuffled(self._seeds)]:
                try:
                    answered = self._ask(endpoint) or answered
                except EngineError as error:
                    self.failure = error
                if answered or self._discovery.closed:
                    break
            if not answered:
                return
            self._discovery.wait(PAUSE * chance())

    def _ask(self, endpoint: str) -> bool:
        """Ask this member for as long as it answers; return whether it ever did."""
        answered = False
        with self._connect(endpoint) as client:
            members = client.bind(Members)
            while not self._discovery.closed:
                self._call = members.after.begin(self._listing.version, timeout=PATIENCE)
                if self._discovery.closed:
                    self._end()
                try:
                    listing = self._call.result()
                except EngineError:
                    if not answered:
                        raise
                    return True
                answered = True
                if listing.version == self._listing.version:
                    self._discovery.wait(PAUSE * chance())
                else:
                    self._listing = listing
                    asked = Endpoint.parse(endpoint)
                    addresses = of_scheme(self._scheme, (address.seen_from(asked) for address in listing.addresses))
                    self._known = [address.endpoint for address in addresses]
                    self._discovery.update(addresses)
        return answered


def _shuffled(endpoints: Sequence[str]) -> list[str]:
    return random.sample(endpoints, len(endpoints))
