"""CURVE keys: an encrypted link on which the server, and on demand each client, proves who it is.

Keys are Z85 text, 40 characters, as `Curve.new_keys()` makes them. A client needs the server's public key and
a pair of its own. Without `allowed` a server takes every client that knows its public key. With it, ZeroMQ's
authenticator (ZAP) is asked: it is one thread for each context, started when the first such server is bound.
"""

import atexit
import itertools
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from transport.errors import EndpointError
from transport.lock import Lock

if TYPE_CHECKING:
    import zmq
    from zmq.auth.thread import ThreadAuthenticator


class Curve(msgspec.Struct, frozen=True):
    """The keys of one side.

    Args:
        public_key, secret_key: this side's pair.
        server_key: a client's: the public key of the server it means to talk to.
        allowed: a server's: public keys of the clients it takes; None: whoever knows the server's key. The
            key that a client has proved to own is its `PeerInfo.user`; without `allowed` nobody asks, and it
            is "".
    """

    public_key: str
    secret_key: str
    server_key: str | None = None
    allowed: frozenset[str] | None = None

    def __repr__(self) -> str:
        return f"<Curve {self.public_key}>"

    @staticmethod
    def new_keys() -> tuple[str, str]:
        """A new pair: public, secret."""
        import zmq

        public, secret = zmq.curve_keypair()
        return public.decode(), secret.decode()

    def apply_to_client(self, socket: "zmq.Socket[Any]") -> None:
        """Set the keys on a socket that is to connect."""
        if self.server_key is None:
            raise EndpointError("a client's Curve needs server_key, the public key of the server")
        import zmq

        socket.set(zmq.CURVE_SERVERKEY, self.server_key.encode())
        self._apply(socket)

    def apply_to_server(self, socket: "zmq.Socket[Any]") -> None:
        """Set the keys on a socket that is to bind, and start the authenticator if it is needed."""
        import zmq

        self._apply(socket)
        socket.set(zmq.CURVE_SERVER, 1)
        if self.allowed is not None:
            socket.set(zmq.ZAP_DOMAIN, _allow(socket.context, self.allowed).encode())

    def _apply(self, socket: "zmq.Socket[Any]") -> None:
        import zmq

        try:
            socket.set(zmq.CURVE_PUBLICKEY, self.public_key.encode())
            socket.set(zmq.CURVE_SECRETKEY, self.secret_key.encode())
        except zmq.ZMQError as error:
            raise EndpointError("a CURVE key is 40 characters of Z85 text, see Curve.new_keys()") from error


class _Allowed:
    """What the authenticator asks, for one server."""

    def __init__(self, keys: frozenset[str]) -> None:
        self._keys = keys

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether the client with this public key may connect."""
        return key.decode() in self._keys


# One authenticator for each context (libzmq knows one ZAP handler), each server a domain of its own in it.
_lock = Lock()
_authenticators: "dict[zmq.Context[Any], ThreadAuthenticator]" = {}
_domains = itertools.count(1)


def _allow(context: "zmq.Context[Any]", keys: Iterable[str]) -> str:
    """Have the context's authenticator take these clients. Returns the domain to set on the socket."""
    from zmq.auth.thread import ThreadAuthenticator

    domain = f"callport-{next(_domains)}"
    with _lock:
        authenticator = _authenticators.get(context)
        if authenticator is None:
            authenticator = ThreadAuthenticator(context)
            authenticator.start()
            if not _authenticators:
                # Runs before the hook that terminates the links' context, which would wait for this one's
                # socket.
                atexit.register(_stop_authenticators)
            _authenticators[context] = authenticator
        authenticator.configure_curve_callback(domain, _Allowed(frozenset(keys)))
    return domain


def _stop_authenticators() -> None:
    for authenticator in _authenticators.values():
        authenticator.stop()
    _authenticators.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_authenticators.clear)
