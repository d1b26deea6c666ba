"""A link: a two-way path for whole messages, between one client and a server, or between a server and all its clients.

A link has no thread of its own. A thread that waits polls its descriptors and, when one is readable, harvests; a thread
that has something to send, sends. Both hold the link's lock, which the *caller* takes: it alone knows what else the
lock is to cover.

Rules of a link:
  1. `send`, `harvest`, `ready`, `writable`, `leave`, `close` are called with `lock` held. None of them blocks.
  2. A descriptor may show an *edge*: a `send` or `harvest` by any thread may consume it. So look at `arrived` after a
     `send`, if another thread polls, and call `ready()` before blocking in a poll, unless a `send` that was taken, or a
     `harvest` that returned False, has just asked. (If it shows a level, these need not report what it shows.)
  3. `harvest` calls the receiver, under the lock: it must be quick, and must not call the link.
  4. For each peer the receiver gets one `on_connected`, then `on_message` for each message, then one `on_lost`. On the
     client the same goes for the connection, and may begin again. Between `on_lost` and `on_connected` nothing can be
     sent.
  5. What breaks in on a `harvest`, as Ctrl-C does, may cost the message that was being delivered. Then a client's
     connection is lost, and another is made; a server's receiver gets that message again, without any frames, and
     has the peer begin anew: no peer waits for the answer to what is gone.

Three kinds exist: `zmq_link` (tcp, ipc, inproc), `native_link` (native+tcp, native+ipc, tls) and `loopback`. One suite
of tests holds all to this page.
"""

import sys
import weakref
from collections.abc import Callable
from math import inf
from typing import Any, Final, NoReturn, Protocol, TypedDict

import msgspec

from transport.errors import EndpointError, LinkClosed, LinkForked
from transport.foreign import number_of, shown, type_name
from transport.frames import MAX_MESSAGE_BYTES, Buffer
from transport.lifecycle import Uncopyable, in_child
from transport.lock import Lock

#: Longest heartbeat and the like, in seconds: three times as many milliseconds still fit ZeroMQ's option.
MAX_SECONDS: Final = 2000
#: Most connections a second that a server's options may allow: more than any takes.
MAX_RATE: Final = 1e6


class Receiver(Protocol):
    """What a link notifies, from inside `harvest`. Its methods must be quick and not raise."""

    def on_message(self, peer: bytes, frames: list[Buffer]) -> bool | None:
        """A whole message. `peer` is b"" on the client's side. Without frames: one that is lost; see rule 5.

        Returns: True ends the harvest here: what was waited for has come, and asking for more costs time that
            its receiver can spend better. The rest is left to the next harvest.
        """

    def on_connected(self, peer: bytes) -> None:
        """Client: the connection is up. Server: a new peer was heard of; its first message follows."""

    def on_lost(self, peer: bytes, reason: str, evicted: bool = False) -> None:
        """The connection is gone, and all its messages were delivered. `evicted`: this side has ended it, as the peer
        has left more unread than may wait for it.
        """

    def on_connect_failed(self, reason: str, vain: bool = False) -> None:
        """Client: an attempt to connect failed. The link goes on trying, though it may be in `vain`: one side has
        refused the other for what it says or shows. Server: a stranger's connection was closed, for what it says or
        shows; or, and then it was not in `vain`, none is accepted for now.
        """


class PeerInfo(msgspec.Struct, frozen=True):
    """What the transport knows of a peer.

    `address` is that of its host; on ipc "localhost:uid:gid:pid", as the kernel says. `user` is whom it proved to be,
    or "": under CURVE its public key, if the server asks for that (`Curve.allowed`); under TLS the name in its
    certificate, if the server's context asks for one (`native_link/tls.py` says which name); on `native+ipc://`
    "uid:1000", as the kernel says.
    """

    address: str = ""
    user: str = ""


class Keys(Protocol):
    """What a ZeroMQ link asks of its keys; `Curve` is the implementation."""

    def apply_to_client(self, socket: Any) -> None:
        """Set the keys on a socket that is to connect."""

    def apply_to_server(self, socket: Any) -> None:
        """Set the keys on a socket that is to bind."""

    def asks(self) -> Callable[[str], str | None] | None:
        """Return a function that says who the client is that has proved to own a key, None if it is not let in; or
        None: keys are not asked for.
        """


# A struct rather than a dataclass: making one of those takes a millisecond at every import.
class TransportOptions(TypedDict, total=False):
    """The options of the transport that clients and servers take; `LinkOptions` says what each is.

    All but `connect_timeout`, which for a client is something else.
    """

    max_message_bytes: int
    max_queued: int
    max_connections: int
    max_address_connections: int | None
    max_queued_bytes: int
    max_total_bytes: int
    greeting_timeout: float
    connection_rate: float
    heartbeat: float
    linger: float
    curve: Keys | None
    tls: Any  # An `ssl.SSLContext`: importing ssl takes long.
    context: Any  # A `zmq.Context`, likewise.


class LinkOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a link. Each kind of link takes from them what concerns it.

    Args:
        max_message_bytes: the largest frame taken from a peer; the connection of one who sends a larger is closed.
        max_queued: messages that a client hands over before `send` says "not now". (Within one process: in each queue.)
        max_connections: how many clients a server has at once. On `native+` and `tls` others wait in the system's
            queue; on tcp and ipc they are disconnected, and come again.
        max_address_connections: how many of them may come from one address over TCP (of IPv6: from one network of 64
            bits); the next one is disconnected. None: no bound of its own, as many may share an address behind a router
            or a proxy.
        connection_rate: how many connections a second a server on tcp and ipc lets in, on average; those of 10 s at
            once. Others wait. It is not kept in a context that was given, unless `curve` has a list of allowed keys.
        max_queued_bytes: how much may wait to be written to a peer before the next message; at a client on `native+` or
            `tls` `send` says "not now" then, a server there ends the connection. Less is left unread for 5 seconds at
            most, if it is more than an eighth of this, and the peer takes not even 64 KiB a second. A server on tcp and
            ipc hands over no more than that eighth, for 5 seconds at most.
        max_total_bytes: how much may wait to be written to all clients of a server's endpoint; past that the one for
            which most waits is disconnected. On tcp and ipc that is what was handed to ZeroMQ and is not known to have
            left, an eighth more at most, and what waits behind that.
        greeting_timeout: seconds in which a client must have sent its first message, handshakes included.
        heartbeat: seconds between ZMTP pings on tcp and ipc; a peer that answers none for three times as long
            is lost. ZeroMQ's own thread sends and answers them, so a process that is busy, or holds the GIL,
            stays alive. 0: none.
        linger: seconds for which a closed link goes on sending what was handed over.
        connect_timeout: seconds for one attempt to connect.
        curve: keys, for an encrypted and authenticated link over tcp or ipc; None: neither.
        tls: an `ssl.SSLContext`, for `tls://`: of a server with its certificate, and with `verify_mode` and the
            authorities of its clients, if they are to prove who they are; None at a client: one that trusts the
            authorities which the system does.
        context: the ZeroMQ context; None: one that the links of this process share.

    Raises: EndpointError for a number that is out of range, or an object of another type.
    """

    max_message_bytes: int = MAX_MESSAGE_BYTES
    max_queued: int = 1000
    max_connections: int = 10_000
    max_address_connections: int | None = None
    max_queued_bytes: int = 128 * 1024 * 1024
    max_total_bytes: int = 256 * 1024 * 1024
    greeting_timeout: float = 10.0
    connection_rate: float = 200.0
    heartbeat: float = 5.0
    linger: float = 1.0
    connect_timeout: float = 5.0
    curve: Keys | None = None
    tls: Any = None
    context: Any = None

    def __post_init__(self) -> None:
        for name in ("max_message_bytes", "max_queued", "max_connections"):
            self._check_count(name, (1 << 31) - 1)
        if self.max_address_connections is not None:
            self._check_count("max_address_connections", (1 << 31) - 1)
        for name in ("max_queued_bytes", "max_total_bytes"):
            self._check_count(name, sys.maxsize)
        for name in ("greeting_timeout", "heartbeat", "linger", "connect_timeout"):
            self._check_number(name, f"from 0 to {MAX_SECONDS} seconds", 0, MAX_SECONDS)
        self._check_number("connection_rate", f"from 0.001 to {MAX_RATE:g} a second", 0.001, MAX_RATE)
        # A side asks for its own half of the keys only.
        if not (self.curve is None or hasattr(self.curve, "apply_to_client") or hasattr(self.curve, "apply_to_server")):
            raise EndpointError(f"curve must be a transport.Curve or None, not {type_name(self.curve)}")
        if self.tls is not None and not _is_tls_context(self.tls):
            raise EndpointError(f"tls must be an ssl.SSLContext or None, not {type_name(self.tls)}")
        if self.context is not None and not hasattr(self.context, "underlying"):
            raise EndpointError(f"context must be a zmq.Context or None, not {type_name(self.context)}")

    def _check_count(self, name: str, most: int) -> None:
        """Make a whole number of any type one of Python's own."""
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise EndpointError(f"{name} must be a number, not {type_name(value)}")
        if not 1 <= value <= most:
            raise EndpointError(f"{name} must be from 1 to {most}, not {value}")
        # A plain one, as it may go to peers in the greeting: others do not travel.
        msgspec.structs.force_setattr(self, name, int.__int__(value))

    def _check_number(self, name: str, which: str, least: float, most: float) -> None:
        """Make a real number of any type one of Python's own."""
        value = getattr(self, name)
        try:
            number = number_of(value)
        except OverflowError:
            number = inf
        if number is None:
            raise EndpointError(f"{name} must be a number, not {type_name(value)}")
        if not least <= number <= most:
            raise EndpointError(f"{name} must be {which}, not {shown(value)}")
        msgspec.structs.force_setattr(self, name, number)


def _is_tls_context(value: object) -> bool:
    ssl = sys.modules.get("ssl")  # Who has made one has imported it, which takes its time.
    return ssl is not None and isinstance(value, ssl.SSLContext)


class Link(Protocol):
    """See the rules at the top of this file."""

    #: A plain lock, taken by the caller.
    lock: Lock
    #: What carries the messages: "zmq", "native", "tls" or "loopback".
    kind: str
    #: Text of the endpoint; of a bound link the real one, with the port that the system chose.
    endpoint: str
    #: Seconds between the pings that this link sends; 0: none.
    heartbeat: float
    #: Set by the runtime if `descriptors` is empty: called when a message was handed to this link. It runs in the
    #: sender's thread, inside its `send`, with the *sender's* link locked: it must be short and take no link's lock.
    wake: Callable[[], object] | None
    #: Set by the runtime: called inside a `harvest`, with this link locked, when `descriptors` are others than before.
    #: Where the platform allows it they stay the same.
    moved: Callable[[], None] | None
    #: Set by the runtime: called with this link locked, when it wants to be harvested again after so many seconds,
    #: whatever its descriptors show.
    later: Callable[[float], None] | None

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait here to be written to peers; 0 where that is another's business, as over ZeroMQ. Any thread,
        without the lock.
        """

    def unread_bytes(self) -> int:
        """Bytes that were handed over for all peers that are not to be disconnected, and are not known to have left, at
        another's too (server). With `lock` held; it may look at each peer.
        """

    @property
    def arrived(self) -> object:
        """True if a harvest would find something, as a `send` that has just handed a message over has seen."""

    def descriptors(self) -> list[int]:
        """File descriptors to poll for readability; when one is, harvest."""

    def send(self, peer: bytes, frames: list[Buffer]) -> bool:
        """Hand over one message.

        Returns: True: handed over. False: not now (not connected, or the queue is full), and nothing was
            sent: keep it and try again after a harvest, when `writable()`. At a server that is so for this peer only,
            and there may be nothing that shows when it is over: try again now and then.
        Raises: PeerLost (server): there is no such peer. LinkClosed, LinkForked.
        """

    def ready(self) -> bool:
        """Whether a harvest would find something."""

    def harvest(self, receiver: Receiver, limit: int = 64) -> bool:
        """Deliver what has arrived, at most `limit` messages. Returns True if more may be waiting."""

    def writable(self) -> bool:
        """Whether a send would be taken now."""

    def leave(self) -> None:
        """Close the connection, and go on with a new one (client). What has arrived is delivered before `on_lost`.

        With `lock` held, outside a harvest; there is something to harvest then. Nothing happens if there is no
        connection. On inproc a server does not notice it.
        """

    def disconnect(self, peer: bytes, reason: str) -> None:
        """End the connection of a peer (server). Its `on_lost` follows. Nothing happens if there is none.

        On inproc its client does not notice it.
        """

    def peer_info(self, peer: bytes) -> PeerInfo:
        """What is known of a peer (server)."""

    def close(self) -> None:
        """Close. What was handed over leaves within the linger time, in the background. Again: no effect."""


class BaseLink(Uncopyable):
    """What the links have in common: the lock, and refusing to be used when closed or after a fork.

    The refusal costs nothing while the link is in order: the methods are replaced on the instance.
    """

    _instead = "open another one there"

    kind: str
    queued_bytes: int = 0

    def __init__(self, endpoint: str) -> None:
        self.lock: Lock = Lock()
        self.endpoint: str = endpoint
        self.heartbeat: float = 0.0
        self.wake: Callable[[], object] | None = None
        self.moved: Callable[[], None] | None = None
        self.later: Callable[[float], None] | None = None
        _links.add(self)

    def _descriptors_changed(self) -> None:
        if self.moved is not None:
            self.moved()

    def _refuse(self, error: Callable[[], Exception]) -> None:
        """From now on every use raises `error()`; closing does nothing."""

        def raise_it(*args: object, **options: object) -> NoReturn:
            raise error()

        for name in ("send", "ready", "harvest", "leave", "writable", "descriptors", "disconnect", "peer_info"):
            setattr(self, name, raise_it)
        self.close = lambda: None  # type: ignore[method-assign]  # as above, on the instance

    def unread_bytes(self) -> int:
        """What waits here."""
        return self.queued_bytes

    def leave(self) -> None:
        """Nothing: a server ends no connection of its own accord."""

    def disconnect(self, peer: bytes, reason: str) -> None:
        """Nothing: a client has no peers but its server."""

    def peer_info(self, peer: bytes) -> PeerInfo:
        """Nothing: a client knows its server by the endpoint."""
        return PeerInfo()

    def close(self) -> None:
        """Close the link. If that is broken off by an exception of a signal handler, closing again goes on."""
        self._release()
        endpoint = self.endpoint
        _links.discard(self)
        # Last: only then does closing again do nothing.
        self._refuse(lambda: LinkClosed(f"the link to {endpoint} is closed"))

    def _release(self) -> None:
        """Give back what the link holds. Again: what is left of it."""

    def _forked(self) -> None:
        """In the child: the sockets are the parent's."""
        endpoint = self.endpoint
        self._refuse(
            lambda: LinkForked(f"the link to {endpoint} was opened by the parent process: open one in this process")
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.endpoint}>"


# Links of this process that are not closed. Guarded by nothing but the atomicity of adding and discarding.
_links: weakref.WeakSet[BaseLink] = weakref.WeakSet()


def _disown() -> None:
    for link in list(_links):
        link._forked()
    _links.clear()


in_child(_disown)
