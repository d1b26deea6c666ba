"""The client's side: one connection, which is made again whenever it breaks.

    pausing --its time--> looking up (a name only) --addresses--> racing --the first READY--> open --lost--> pausing
                                                  racing --all failed, or too late--> pausing

Theory of operation. Addresses are tried in the order of the system, families in turn: the next one when all before it
have failed, or have not come further for a quarter of a second; the first that has greeted wins, and the others are
closed. Greeting and handshakes are part of it, and `connect_timeout` covers all attempts of a round. The pause between
rounds doubles from 50 ms to 1 s, each with a quarter more or less by chance: not all clients of a server that comes
back shall come at once.

PINGs are answered when a thread harvests, but no thread may wait for long. So the link has itself harvested often
enough for what the peer's last PING said of its patience. To hear the first in time it looks sooner after READY, and
doubles the time from look to look: a peer loses who misses three.

Source: RFC 8305, "Happy Eyeballs Version 2", 4 and 5.
"""

import errno
import os
import socket as sockets
from contextlib import suppress
from itertools import chain, zip_longest
from math import inf
from typing import Any, Final

from transport.chance import about
from transport.endpoint import MAX_IPC_PATH, Endpoint
from transport.errors import EndpointError
from transport.frames import Buffer
from transport.link import LinkOptions, Receiver
from transport.lookup import Lookup, is_named
from transport.native_link.base import CONNECTED, LOOK, LOST, MESSAGE, REFUSED, NativeLink
from transport.native_link.stream_connection import Ended, Refused, StreamConnection, why
from transport.realtime import monotonic

#: Seconds between two attempts to connect; doubles up to the maximum.
RECONNECT: Final = 0.05
RECONNECT_MAX: Final = 1.0
#: The part of such a pause that it may be longer or shorter by chance.
JITTER: Final = 0.25
#: Seconds after which another address is tried beside one that has not answered; RFC 8305 recommends so many.
STAGGER: Final = 0.25
#: Seconds after READY until the first look at what came.
FIRST_LOOK: Final = 0.1


class NativeClient(NativeLink):
    """See the theory above. Fields are guarded by lock."""

    _kind = b"DEALER"

    def __init__(self, endpoint: Endpoint, options: LinkOptions) -> None:
        if endpoint.carrier == "ipc" and not endpoint.name.startswith("@"):
            # The working directory may change before it is connected to anew.
            path = os.path.abspath(endpoint.name)
            if len(os.fsencode(path)) <= MAX_IPC_PATH:
                endpoint = Endpoint(endpoint.scheme, path)
        super().__init__(endpoint, options)
        # The connection that is open.
        self._connection: StreamConnection | None = None
        # Whether the receiver was called with it, and nothing else is known of it since.
        self._up = False
        self._lookup: Lookup | None = None
        # Of a round: how many addresses there are, those that were not tried yet, and when the next one is, whatever
        # becomes of the others; the connections that are being made; when it ends.
        self._count = 0
        self._left: list[Endpoint] = []
        self._next_at = inf
        self._racing: dict[StreamConnection, Endpoint] = {}
        self._round_ends = inf
        # What became of the others, and whether to try again is in vain, as far as one of them says.
        self._failed: list[str] = []
        self._vain = False
        # Seconds before the next round; and when that is, unless one is under way.
        self._pause = RECONNECT
        self._again_at = inf
        # Seconds from look to look at an open connection.
        self._pace = FIRST_LOOK
        try:
            self._begin()
        except BaseException:
            self._release()
            raise

    # Connecting

    def _begin(self) -> None:
        """Begin a round: find the addresses, and try them."""
        self._again_at = inf
        if is_named(self._target):
            try:
                self._lookup = lookup = Lookup(self._target, self._found, 0.0)
                self._poll_set.add(lookup.fileno())
                lookup.start()  # Last: it may be over at once.
            except (EndpointError, OSError) as error:
                self._end_lookup()
                self._failed.append(str(error) if isinstance(error, EndpointError) else why(error))
                self._go_on()
        else:
            self._race([self._target])

    def _found(self, lookup: Lookup, addresses: list[Endpoint]) -> None:
        """Connect to these. On the thread of the look-up."""
        with self.lock:
            if self._lookup is lookup:
                self._end_lookup()
                try:
                    self._race(addresses)
                except BaseException:  # No memory, for one: the next harvest goes on.
                    self._look_at(monotonic())
                    raise

    def _end_lookup(self) -> None:
        if self._lookup is not None:
            with suppress(OSError, KeyError):  # It was not put in.
                self._poll_set.remove(self._lookup.fileno())
            self._lookup.close()
            self._lookup = None

    def _race(self, addresses: list[Endpoint]) -> None:
        """Try these addresses."""
        self._count = len(addresses)
        self._left = _in_turn(addresses)
        self._round_ends = monotonic() + self._options.connect_timeout
        self._go_on()

    def _go_on(self) -> None:
        """Try the next address unless others are being tried; pause if none is left."""
        while self._left and not self._racing:
            self._try(self._left.pop(0))
        if self._racing or self._connection is not None:
            return
        if self._failed:
            # The receiver hears of all of them at once.
            text = f"cannot connect to {self.endpoint}: {'; '.join(self._failed)}"
            self._queue.append((REFUSED, None, (text, self._vain)))
            self.arrived = True
            self._failed.clear()
            self._vain = False
        self._again_at = monotonic() + about(self._pause, JITTER)
        self._look_at(self._again_at)
        self._pause = min(2 * self._pause, RECONNECT_MAX)

    def _try(self, endpoint: Endpoint) -> None:
        """Begin to connect to one address."""
        socket = None
        try:
            family, address = _address_of(endpoint)
            socket = sockets.socket(family)
            socket.setblocking(False)
            if family != sockets.AF_UNIX:
                socket.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
            failed = socket.connect_ex(address)
            if failed not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK if os.name == "nt" else 0):
                raise OSError(failed, os.strerror(failed))
            self._racing[self._connection_of(socket, self._options.max_message_bytes)] = endpoint
        except OSError as error:
            if socket is not None:
                socket.close()
            self._note_failure(endpoint, why(error))
        pause = min(STAGGER, self._options.connect_timeout / self._count)
        self._next_at = monotonic() + pause if self._left else inf
        self._look_at(min(self._next_at, self._round_ends))

    def _note_failure(self, endpoint: Endpoint, reason: str) -> None:
        """This address has failed."""
        self._failed.append(f"{endpoint}: {reason}" if self._count > 1 else reason)

    def _opened(self, connection: StreamConnection) -> None:
        self._racing.pop(connection, None)
        self._connection = connection
        self._pause = RECONNECT
        self._failed.clear()
        self._vain = False
        connection.ping_at = monotonic() + self.heartbeat if self.heartbeat else inf
        self._pace = FIRST_LOOK
        self._look_at(monotonic() + self._pace)
        self._queue.append((CONNECTED, connection, None))
        self._end_race()

    def _end_race(self) -> None:
        """Close the connections that are being made, and try no other address."""
        self._left.clear()
        while self._racing:
            next(reversed(self._racing)).close()
            self._racing.popitem()

    def _lose(self, connection: StreamConnection, ended: Ended) -> None:
        if connection is self._connection:  # Not, if an interrupt kept us from the rest.
            self._connection, self._up = None, False
            self._queue.append((LOST, connection, str(ended)))
        elif connection in self._racing:
            self._vain = self._vain or isinstance(ended, Refused)
            self._note_failure(self._racing.pop(connection), str(ended))
        connection.close()
        self._go_on()

    def _look_after(self, now: float) -> None:
        connection = self._connection
        if connection is not None:
            try:
                connection.attend(now, self.heartbeat)
            except Ended as error:
                self._lose(connection, error)
            else:
                self._pace = min(2 * self._pace, LOOK)
                self._look_at(min(connection.ping_at, now + min(self._pace, connection.framing.patience / 3)))
        elif self._racing:
            if now >= self._round_ends:
                self._left.clear()
                for late in list(self._racing):
                    self._lose(late, Ended("its host does not answer"))
            elif now >= self._next_at:
                self._try(self._left.pop(0))
            else:
                self._look_at(min(self._next_at, self._round_ends))
        elif now >= self._again_at:
            self._begin()
        else:
            self._look_at(self._again_at)

    # Messages

    def writable(self) -> bool:
        """Whether the connection is up, and not too much waits."""
        connection = self._connection
        return (
            self._up and connection is not None and not connection.ended
            and connection.waiting < self._options.max_queued and connection.queued < self._options.max_queued_bytes
        )  # fmt: skip

    def send(self, peer: bytes, frames: list[Buffer]) -> bool:
        """Hand over one message; see `Link.send`."""
        connection = self._connection
        if not self._up or connection is None:
            return False
        if connection.queued and not self.writable():
            return False
        connection.send(frames)
        if connection.ended:
            self._take_last(connection, connection.ended)
            return False
        return True

    def _read(self) -> None:
        connection = self._connection
        if connection is not None:
            if self._racing:  # An interrupt kept us from ending it.
                self._end_race()
            self._take_from(connection)
        elif self._racing:
            for each in list(self._racing):
                if each in self._racing:  # Otherwise another one has won.
                    self._take_from(each)
        elif self._lookup is None:
            if self._again_at == inf:  # An interrupt kept us from going on.
                self._go_on()
        elif failure := self._lookup.take_failure():
            self._queue.append((REFUSED, None, (f"cannot connect to {self.endpoint}: {failure}", False)))

    def _deliver(self, receiver: Receiver, limit: int) -> None:
        queue = self._queue
        ended: bool | None = False
        for _ in range(limit):
            if not queue or ended:
                break
            what, connection, content = self._delivering = queue[0]
            if what == MESSAGE:
                ended = receiver.on_message(b"", content)
            elif what == CONNECTED:
                self._up = connection is self._connection
                receiver.on_connected(b"")
            elif what == LOST:
                receiver.on_lost(b"", content)
            else:
                receiver.on_connect_failed(*content)
            queue.popleft()

    def _give_up(self, receiver: Receiver, connection: StreamConnection | None) -> bool:
        """The answer to a call may be gone: have this connection count as lost."""
        if connection is not None and not connection.closed:
            self._take_last(connection, "interrupted while receiving")
        return True

    def leave(self) -> None:
        """Close the connection, and go on with a new one; see `Link.leave`."""
        if self._connection is not None and self._up:
            self._take_last(self._connection, "left")

    def _release(self) -> None:
        """Close the connection, and look for no other."""
        self._up = False
        self._end_lookup()
        self._end_race()
        if self._connection is not None:
            self._connection.close(self._options.linger)
        super()._release()


def _in_turn(addresses: list[Endpoint]) -> list[Endpoint]:
    """The addresses, those of IPv6 and of IPv4 in turn, beginning with the family of the first."""
    families: dict[bool, list[Endpoint]] = {}
    for address in addresses:
        families.setdefault(address.host.startswith("["), []).append(address)
    return [address for address in chain.from_iterable(zip_longest(*families.values())) if address is not None]


def _address_of(endpoint: Endpoint) -> tuple[int, Any]:
    """Return the family of sockets for an endpoint that has no name to be looked up, and the address there."""
    if endpoint.carrier == "ipc":
        name = endpoint.name
        return sockets.AF_UNIX, "\0" + name[1:] if name.startswith("@") else name
    found = sockets.getaddrinfo(
        endpoint.host.strip("[]"), endpoint.port, type=sockets.SOCK_STREAM, flags=sockets.AI_NUMERICHOST
    )
    return found[0][0], found[0][4]
