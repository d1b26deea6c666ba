"""The client's side, to a host that is named: tries its addresses in turn.

Theory of operation. ZeroMQ looks a name up on the thread that moves the bytes of all links, and uses one address of it.
So names are looked up here (`transport/lookup.py`). Each address gets a socket of its own, as a socket that knows two
endpoints would send to both.

    looking up --addresses--> connecting to the first --failed--> to the next ... --failed--> refused; pause; looking up
                                                      --up--> connected --lost--> looking up

Guarantees: no thread that harvests waits for the resolver.
"""

from contextlib import suppress

import zmq

from transport.endpoint import Endpoint
from transport.link import LinkOptions, Receiver
from transport.lookup import AGAIN, AGAIN_MAX, Lookup
from transport.zmq_link.client import ZmqClient


class NamedClient(ZmqClient):
    """The client's side, to a host that is named."""

    def __init__(self, endpoint: Endpoint, options: LinkOptions) -> None:
        # All guarded by lock. The name is being looked up; None: it was found.
        self._lookup: Lookup | None = None
        # Addresses that are left of those that were found, and what became of the others.
        self._left: list[Endpoint] = []
        self._found_count = 1
        self._failed: list[str] = []
        # Seconds before the name is looked up again.
        self._delay = 0.0
        super().__init__(endpoint, options)

    def _attach(self, socket: "zmq.Socket[bytes]") -> None:
        super()._attach(socket)
        if self._lookup is not None:
            try:
                self._lookup.start()  # Last, and not before: it may be over at once.
            except BaseException:
                self._poll.replace(())
                self._end_lookup()
                raise

    def _connect(self, socket: "zmq.Socket[bytes]") -> None:
        self._end_lookup()
        if not self._left:
            self._lookup = Lookup(self._target, self._found, self._delay)
            return
        self._at = self._left.pop(0)
        socket.set(zmq.IPV6, int(self._at.host.startswith("[")))
        # All of them together may take as long as one would.
        socket.set(zmq.CONNECT_TIMEOUT, int(self._options.connect_timeout * 1000 / self._found_count))
        socket.connect(str(self._at))

    def _found(self, lookup: Lookup, addresses: list[Endpoint]) -> None:
        """Connect to the first of these. On the thread of the look-up."""
        with self.lock:
            if self._lookup is not lookup:
                return
            self._left = addresses
            self._found_count = len(addresses)
            self._lookup = None
            self._poll.replace(self._inner_descriptors())
            lookup.close()
            with suppress(zmq.ContextTerminated):  # The next harvest reports it.
                self._connect(self._socket)

    def _end_lookup(self) -> None:
        if self._lookup is not None:
            self._lookup.close()
            self._lookup = None

    def _inner_descriptors(self) -> list[int]:
        found = super()._inner_descriptors()
        if self._lookup is not None:
            found.append(self._lookup.fileno())
        return found

    def ready(self) -> bool:
        """Whether a message waits, or something else is to be reported."""
        return super().ready() or (self._lookup is not None and bool(self._lookup.failure))

    def _look(self, receiver: Receiver) -> None:
        if self._lookup is not None and (failure := self._lookup.take_failure()):
            receiver.on_connect_failed(f"cannot connect to {self.endpoint}: {failure}")
        super()._look(receiver)
        if self._up:
            self._delay = 0.0
            self._left.clear()
            self._failed.clear()

    def _attempt_failed(self, receiver: Receiver, why: str, goes_on: bool) -> None:
        """This address has failed: go on with the next one, or report all of them and look the name up again."""
        self._failed.append(f"{self._at}: {why}" if self._found_count > 1 else why)
        if not self._left:
            receiver.on_connect_failed(f"cannot connect to {self.endpoint}: {'; '.join(self._failed)}")
            self._failed.clear()
            self._delay = min(max(AGAIN, 2 * self._delay), AGAIN_MAX)
        self._replace()

    def _release(self) -> None:
        super()._release()
        self._end_lookup()
