"""Hosts that are named: their addresses, looked up so that no thread that harvests waits for the resolver.

Theory of operation. A server looks up as it binds, which is in its caller's time; a client on a thread of its own, a
`Lookup`, whenever it begins to connect, also after a connection was lost: a name may mean another host by then.
"""

import socket as sockets
import threading
from collections.abc import Callable
from contextlib import suppress

from transport.endpoint import Endpoint
from transport.errors import EndpointError
from transport.log import Log
from transport.service import Service

log: Log = Log("transport")

#: Seconds before a name is looked up again that was not found; doubles up to the maximum.
AGAIN = 0.05
AGAIN_MAX = 1.0


def is_named(endpoint: Endpoint) -> bool:
    """Whether the host of an endpoint is a name, which may have several addresses."""
    host = endpoint.host
    if endpoint.carrier != "tcp" or host == "*" or host.startswith("["):
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
    return [Endpoint(endpoint.scheme, host=host, port=endpoint.port) for host in dict.fromkeys(hosts)]


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
        # Whether the thread has the socket that it writes to.
        self._started = False
        # Why the last time was in vain; "" once that was reported. Stored before the descriptor becomes readable.
        self.failure: str = ""
        self._reader, self._writer = sockets.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def start(self) -> None:
        """Begin. Raises EndpointError if there is no thread to be had; `close` is owed all the same."""
        looking = Service("transport:lookup", self._run, log.failed, depended_on=False)
        self._started = True  # First: it may be over at once.
        if not looking.ensure():
            self._started = False
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
        if not self._started:
            self._writer.close()

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
