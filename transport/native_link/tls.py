"""TLS over a connection: the standard `ssl` on memory, so that nothing of it blocks, and it needs no thread.

Theory of operation. What is sent is encrypted as it is given: bytes that wait to be written are encrypted ones, and all
else of `connection.py` holds for them. What has arrived is decrypted as it is read, all of it: no descriptor shows what
`ssl` keeps. Each step of the handshake is such a read; what is sent before its end waits for it.

    handshake --its last step--> open          any --what is refused, by either side--> Refused

Guarantees: as in `connection.py`. What a peer makes this side keep before the end of the handshake is what OpenSSL
takes of one, 100 kB of certificates at most. Renegotiation ends the connection; keys may be updated.

Assumes: a context that links use may be changed, as OpenSSL allows: what it is given is for connections to come.
"""

import socket as sockets
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any, Final, TypeAlias

from transport.endpoint import Endpoint
from transport.errors import EndpointError
from transport.frames import Buffer
from transport.link import PeerInfo
from transport.native_link.framing import Framing, FramingError
from transport.native_link.poll_set import PollSet
from transport.native_link.stream_connection import READ_BYTES, Ended, Refused, StreamConnection, Unwritten, why

#: Makes the state of one connection, of what it reads and of what it writes.
Wrap: TypeAlias = Callable[[ssl.MemoryBIO, ssl.MemoryBIO], ssl.SSLObject]

#: Bytes that are encrypted at once: as many as a record holds, and as many as are kept in one piece.
_RECORD_BYTES: Final = 16 * 1024
_PIECE_BYTES: Final = 1024 * 1024
#: Most that is read at once of a large frame.
_LARGE_READ_BYTES: Final = 256 * 1024

#: In which order the names of a certificate are looked at.
_NAMES: Final = ("URI", "email", "DNS", "IP Address", "commonName")
#: What OpenSSL says, in the words of who has to mend it.
_REASONS: Final = {
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
    "HTTP_REQUEST": "it does not speak TLS",
    "UNKNOWN_PROTOCOL": "it does not speak TLS",
    "PACKET_LENGTH_TOO_LONG": "it does not speak TLS",
    "RECORD_LAYER_FAILURE": "what it sent is not TLS",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it has no certificate",
    "NO_SHARED_CIPHER": "no cipher suits both sides, or the server's context has no certificate (load_cert_chain)",
}


def under_tls(endpoint: Endpoint, context: ssl.SSLContext | None, server: bool) -> "Callable[..., TlsConnection]":
    """Return what makes the connections of a link.

    Raises: EndpointError if the context is not one for this side, or a server has none.
    """
    if context is None:
        if server:
            raise EndpointError(
                f"{endpoint}: a server needs a certificate: give it tls=, an ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)"
                " with load_cert_chain(...)"
            )
        context = ssl.create_default_context()
    host = endpoint.host.strip("[]")
    try:
        wrap = partial(context.wrap_bio, server_side=server, server_hostname=None if server else host)
        wrap(ssl.MemoryBIO(), ssl.MemoryBIO())
    except (ssl.SSLError, ValueError) as error:
        side = "server" if server else "client"
        raise EndpointError(f"{endpoint}: the context in tls= is not for a {side}: {error}") from error
    return partial(TlsConnection, wrap=wrap)


def name_in(certificate: Any) -> str:
    """Return whom a certificate is for: its first URI, else its first e-mail address, host name, IP address, or its
    common name; "" without any of them.

    Args: certificate: what `SSLObject.getpeercert` returns: nothing unless it was checked.
    """
    names: dict[str, str] = {}
    for kind, name in (*(certificate or {}).get("subjectAltName", ()), *chain(*(certificate or {}).get("subject", ()))):
        names.setdefault(kind, name)
    return next((names[kind] for kind in _NAMES if kind in names), "")


def refusal_of(error: ssl.SSLError) -> str:
    """Say why the two sides do not come together, as far as OpenSSL says."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    reason = error.reason or "TLS failed"
    if reason in _REASONS:
        return _REASONS[reason]
    _, alert, words = reason.partition("_ALERT_")
    text = (words if alert else reason).lower().replace("_", " ")
    return f"it refuses this side: {text}" if alert else f"TLS failed: {text}"


class TlsConnection(StreamConnection):
    """A connection under TLS; see `StreamConnection` for the other arguments.

    Args: wrap: makes the state of its TLS.
    """

    handshakes = True

    __slots__ = ("_early", "_incoming", "_outgoing", "_tls")

    def __init__(
        self, socket: sockets.socket, poll_set: PollSet, backlog: Unwritten, framing: Framing, hello: bytes,
        *, wrap: Wrap, peer: bytes = b"", info: PeerInfo | None = None, deadline: float = 0.0,
    ) -> None:  # fmt: skip
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = wrap(self._incoming, self._outgoing)
        # What is to be sent at the end of the handshake.
        self._early: list[Buffer] = []
        super().__init__(socket, poll_set, backlog, framing, hello, peer=peer, info=info, deadline=deadline)
        self._send = self._send_encrypted
        self._shake()  # A client speaks first.

    # Reading

    def receive(self, messages: list[list[Buffer]]) -> None:
        """As `StreamConnection.receive`."""
        framing = self.framing
        try:
            data = self._recv(READ_BYTES if framing.filling is None else _LARGE_READ_BYTES)
            if not data:
                raise Ended(self.ended or "the connection was closed")
            self._incoming.write(data)
            if self.shaking:
                self._shake()
            if not self.shaking:
                self._decrypt(messages)
        except BlockingIOError:
            return
        except ssl.SSLZeroReturnError:
            raise Ended(self.ended or "the connection was closed") from None
        except ssl.SSLError as error:
            self._transmit()  # The peer hears why.
            raise Refused(refusal_of(error)) from None
        except OSError as error:
            raise Ended(self.ended or why(error)) from None
        except FramingError as error:
            self.write([framing.answers()])
            raise Refused(f"the connection was closed here: {error}") from None
        self.heard = True
        if framing.owed:
            self._answer()

    def _shake(self) -> None:
        """Go on with the handshake, as far as what has arrived allows."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._transmit()
            return
        self.shaking = False
        self.info: PeerInfo = PeerInfo(self.info.address, name_in(self._tls.getpeercert()))
        early, self._early = self._early, []
        self.write(early)

    def _decrypt(self, messages: list[list[Buffer]]) -> None:
        """Decrypt all that has arrived, and have it framed."""
        framing, read = self.framing, self._tls.read
        pieces: list[bytes] = []
        more = True
        try:
            while more:
                filling = framing.filling
                if filling is None:
                    pieces.append(read(_RECORD_BYTES))  # More comes in no case.
                    more = bool(pieces[-1])
                else:
                    count: Any = read(len(filling), filling)  # a number: it is read into memory
                    more = bool(count)
                    del filling  # Its memory is to grow.
                    if more:
                        framing.filled(count, messages)
        except ssl.SSLWantReadError:
            pass
        if pieces:
            framing.take(b"".join(pieces), messages)
        self._transmit()  # What TLS itself has to say: keys are updated, for one.
        if not more:
            raise Ended(self.ended or "the connection was closed")

    # Writing

    def _send_encrypted(self, data: bytes, flags: int) -> int:
        """As the socket's `send`, for a short message; what the system does not take now waits."""
        encrypt = self._tls.write
        count = encrypt(data)
        if count < len(data):  # A record holds no more.
            encrypt(data[count:])
        encrypted, sent = self._outgoing.read(), 0
        with suppress(BlockingIOError):
            sent = self._socket.send(encrypted, flags)
        if sent < len(encrypted):
            self._keep([encrypted], sent)
        return len(data)

    def write(self, pieces: list[Buffer]) -> None:
        """As `StreamConnection.write`."""
        if self.ended:
            return
        if self.shaking:
            self._early += pieces
            return
        try:
            super().write(self._encrypted(pieces))
        except ssl.SSLError as error:  # Renegotiation, for one.
            self._give_up(refusal_of(error))
        except BaseException:
            self._give_up("interrupted while sending")
            raise

    def _encrypted(self, pieces: list[Buffer]) -> list[Buffer]:
        """Encrypt these bytes; return what is to be written instead."""
        encrypt, taken = self._tls.write, self._outgoing.read
        done: list[Buffer] = []
        for piece in _in_records(pieces):
            rest = memoryview(piece)
            while rest:
                rest = rest[encrypt(rest[:_PIECE_BYTES]) :]
                if self._outgoing.pending >= _PIECE_BYTES:
                    done.append(taken())
        if self._outgoing.pending or not done:
            done.append(taken())
        return done

    def _transmit(self) -> None:
        """Write what TLS itself has to say."""
        if self._outgoing.pending:
            super().write([self._outgoing.read()])

    def close(self, linger: float = 0.0) -> None:
        """As `StreamConnection.close`; the peer gets a notice of it."""
        if not self.shaking and not self.closed and not self.ended:
            try:
                self._tls.unwrap()
            except ssl.SSLError:  # It does not wait for the peer's word.
                pass
            self._transmit()
        super().close(linger)
        self._send = self._socket.send  # A method of its own would keep it from being freed at once.


def _in_records(pieces: list[Buffer]) -> list[Buffer]:
    """Join what is short: each piece makes a record of its own, at least."""
    joined: list[Buffer] = []
    short: list[Buffer] = []
    size = 0
    for piece in pieces:
        if len(piece) >= _RECORD_BYTES or size + len(piece) > _RECORD_BYTES:
            joined.append(b"".join(short))
            short, size = [], 0
        if len(piece) >= _RECORD_BYTES:
            joined.append(piece)
        else:
            short.append(piece)
            size += len(piece)
    joined.append(b"".join(short))
    return joined
