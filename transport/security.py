"""CURVE keys: an encrypted link on which the server, and on demand each client, proves who it is.

Keys are Z85 text, 40 characters, as `Curve.new_keys()` makes them. A client needs the server's public key and
a pair of its own. Without `allowed` a server takes every client that knows its public key. With it, ZeroMQ's
authenticator (ZAP) is asked: it is one thread for each context, while servers are bound that have such a list.
"""

import itertools
import weakref
from collections.abc import Iterable, Set
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from transport.errors import EndpointError
from transport.foreign import type_name
from transport.lifecycle import in_child
from transport.lock import Lock

if TYPE_CHECKING:
    import zmq
    from zmq.auth.thread import ThreadAuthenticator

_Z85 = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#")


def _check_key(name: str, key: str) -> None:
    """Raise unless `key` is 40 characters of Z85. It is not shown: it may be a secret."""
    if len(key) != 40 or not _Z85.issuperset(key):
        why = f"has {len(key)} characters" if len(key) != 40 else "has others"
        raise EndpointError(f"{name} must be 40 characters of Z85 text, see Curve.new_keys(): this one {why}")


def _check_pair(public: str, secret: str) -> None:
    """Raise unless the keys belong together; libzmq says nothing of it, and no connection comes about."""
    import zmq

    try:
        belongs = zmq.curve_public(secret.encode()).decode()
    except (zmq.ZMQError, ValueError) as error:
        raise EndpointError("secret_key is no CURVE key, see Curve.new_keys()") from error
    if belongs != public:
        raise EndpointError("public_key and secret_key are not of one pair: give what Curve.new_keys() returned")


class Curve(msgspec.Struct, frozen=True):
    """The keys of one side.

    Args:
        public_key, secret_key: this side's pair.
        server_key: a client's: the public key of the server it means to talk to.
        allowed: a server's: public keys of the clients it takes; None: all that know the server's key. The
            key that a client has proved to own is its `PeerInfo.user`; without `allowed` no proof is asked for, and it
            is "". Not enforced on `loopback://` and `inproc://`, which have no keys: all are let in there.
    Raises: `EndpointError` for what is no key, or for a pair that is none.
    """

    public_key: str
    secret_key: str
    server_key: str | None = None
    allowed: Set[str] | None = None

    def __post_init__(self) -> None:
        for name in ("public_key", "secret_key", "server_key"):
            value = getattr(self, name)
            if not isinstance(value, str) and not (value is None and name == "server_key"):
                raise EndpointError(f"{name} must be a text, see Curve.new_keys(), not {type_name(value)}")
            if value is not None:
                _check_key(name, value)
        _check_pair(self.public_key, self.secret_key)
        keys = self.allowed
        if keys is None:
            return
        if isinstance(keys, (str, bytes)) or not isinstance(keys, Iterable):
            raise EndpointError(f"allowed must be a set of keys or None, not {type_name(keys)}")
        keys = frozenset(keys)
        if not all(isinstance(key, str) for key in keys):
            raise EndpointError("allowed must be a set of keys, which are texts")
        for key in keys:
            _check_key("a key of allowed", key)
        msgspec.structs.force_setattr(self, "allowed", keys)

    def __repr__(self) -> str:
        return f"<Curve {self.public_key}>"

    @staticmethod
    def new_keys() -> tuple[str, str]:
        """A new pair: public, secret."""
        import zmq

        public, secret = zmq.curve_keypair()
        return public.decode(), secret.decode()

    def apply_to_client(self, socket: Any) -> None:
        """Set the keys on a socket that is to connect."""
        if self.server_key is None:
            raise EndpointError("a client's Curve needs server_key, the public key of the server")
        import zmq

        socket.set(zmq.CURVE_SERVERKEY, self.server_key.encode())
        self._apply(socket)

    def apply_to_server(self, socket: Any) -> None:
        """Set the keys on a socket that is to bind, and start the authenticator if it is needed."""
        import zmq

        self._apply(socket)
        socket.set(zmq.CURVE_SERVER, 1)
        # Otherwise the authenticator of another server of the context is asked about this one's clients too; and if
        # none answers, every client is let in.
        socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)
        if self.allowed is not None:
            socket.set(zmq.ZAP_DOMAIN, _allow(socket, frozenset(self.allowed)).encode())

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


def _started(context: "zmq.Context[Any]") -> "ThreadAuthenticator":
    """What answers ZeroMQ's question who may connect, for all servers of one context that have a list."""
    import zmq
    from zmq.auth.thread import ThreadAuthenticator

    answering = ThreadAuthenticator(context)
    try:
        answering.start()
    except zmq.ZMQError as error:
        answering.stop()
        raise EndpointError("the context has another ZAP handler, so `allowed` cannot be asked about") from error
    return answering


def _stop(answering: "ThreadAuthenticator") -> None:
    """End the thread, so that the context can be terminated."""
    import zmq

    with suppress(zmq.ZMQError):  # The context was.
        answering.stop()


# libzmq knows one ZAP handler for each context. Each server has a domain of its own in it; those without a list have
# none, and are not asked about.
_lock = Lock()
# Guarded by _lock. By the address of the context, for which there may be many objects.
_authenticators: "dict[int, ThreadAuthenticator]" = {}
# The context and the domain of each server's socket.
_domains: "weakref.WeakKeyDictionary[zmq.Socket[Any], tuple[int, str]]" = weakref.WeakKeyDictionary()
_numbers = itertools.count(1)


def _allow(socket: "zmq.Socket[Any]", keys: frozenset[str]) -> str:
    """Have the context's authenticator take these clients. Returns the domain to set on the socket."""
    domain = f"callport-{next(_numbers)}"
    with _lock:
        address = socket.context.underlying
        authenticator = _authenticators.get(address)
        if authenticator is None:
            authenticator = _authenticators[address] = _started(socket.context)
        authenticator.configure_curve_callback(domain, _Allowed(keys))
        _domains[socket] = address, domain
    return domain


def release(socket: "zmq.Socket[Any]") -> None:
    """A server's socket is about to be closed: the authenticator ends unless another server with a list needs it."""
    with _lock:
        address, domain = _domains.get(socket, (0, ""))
        authenticator = _authenticators.get(address)
        if authenticator is not None:
            authenticator.credentials_providers.pop(domain, None)
            if not authenticator.credentials_providers:
                _stop(authenticator)
                del _authenticators[address]
        _domains.pop(socket, None)


def _disown() -> None:
    _authenticators.clear()
    _domains.clear()


in_child(_disown)
