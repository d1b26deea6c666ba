"""Hosts that are named: their addresses, and the client's side, which tries them in turn.

Theory of operation. ZeroMQ looks a name up on the thread that moves the bytes of all links, and uses one address of it.
So names are looked up here: by a server as it binds, which is to say in its caller's time, and by a client on a thread
of its own, a `Lookup`, also when the connection was lost: a name may mean another host by then. Each address gets a
socket of its own, as a socket that knows two endpoints would send to both.

    looking up --addresses--> connecting to the first --failed--> to the next ... --failed--> refused; pause; looking up
                                                      --up--> connected --lost--> looking up

Guarantees: no thread that harvests waits for the resolver.
"""

import socket as sockets
import threading
from collections.abc import Callable
from contextlib import suppress

import zmq

from transport.endpoint import Endpoint
from transport.errors import EndpointError
from transport.link import LinkOptions, Receiver
from transport.log import Log
from transport.service import Service
from transport.zmq_link.client import ZmqClient

log: Log = Log("transport.zmq_link")

#: Seconds before a name is looked up again that was not found; doubles up to the maximum.
AGAIN = 0.05
AGAIN_MAX = 1.0


def is_named(endpoint: Endpoint) -> bool:
    """Whether the host of an endpoint is a name, which may have several addresses."""
    host = endpoint.host
    if endpoint.scheme != "tcp" or host == "*" or host.startswith("["):
        return False
    try:
        sockets.inet_aton(host)
    except OSError:
        return True
    return False


def addresses_of(endpoint: Endpoint) -> list[Endpoint]:
    """Look up: the endpoint with each address of its host. Raises OSError. Blocks: as long as the system's resolver."""
    try:
        found = sockets.getaddrinfo(endpoint.host, endpoint.port, type=sockets.SOCK_STREAM)
    except UnicodeError as error:  # A label that is too long, or empty.
        raise OSError(f"{endpoint.host!r} cannot be the name of a host: {error}") from error
    hosts = [f"[{address[0]}]" if family == sockets.AF_INET6 else str(address[0]) for family, *_, address in found]
    return [Endpoint("tcp", host=host, port=endpoint.port) for host in dict.fromkeys(hosts)]


class Lookup:
    """Looks a name up, again and again until it is found, on a thread that ends then or with `close`.

    Args:
        found: called with the addresses, on that thread.
        pause: seconds to wait before the first time.
    Its descriptor is readable once `failure` has something new to say.
    """

    def __init__(self, endpoint: Endpoint, found: Callable[["Lookup", list[Endpoint]], None], pause: float) -> None:
        self._endpoint = endpoint
        self._found = found
        self._pause = pause
        self._closed = threading.Event()
        # Why the last time was in vain; "" once that was reported. Stored before the descriptor becomes readable.
        self.failure: str = ""
        self._reader, self._writer = sockets.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def start(self) -> None:
        """Begin. Raises EndpointError if there is no thread to be had."""
        looking = Service("transport:lookup", self._run, log.failed, depended_on=False)
        if not looking.ensure():
            self.close()
            self._writer.close()
            raise EndpointError(f"cannot look up {self._endpoint}: {looking}")

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._reader.fileno()

    def take_failure(self) -> str:
        """Return why it was in vain, once each time; "" if nothing is new."""
        with suppress(BlockingIOError):  # It was taken before.
            self._reader.recv(64)
        failure, self.failure = self.failure, ""
        return failure

    def close(self) -> None:
        """Look no longer. Blocks: never; a look-up that is under way ends by itself."""
        self._closed.set()
        self._reader.close()

    def _run(self) -> None:
        pause = self._pause
        with self._writer:
            while not self._closed.wait(pause):
                try:
                    addresses = addresses_of(self._endpoint)
                except OSError as error:
                    self.failure = f"its host cannot be found: {error.strerror or error}"
                    with suppress(OSError):  # Not read yet, or closed.
                        self._writer.send(b"!")
                    pause = min(max(AGAIN, 2 * pause), AGAIN_MAX)
                else:
                    self._found(self, addresses)
                    return


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

    def _attempt_failed(self, receiver: Receiver, why: str) -> None:
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
