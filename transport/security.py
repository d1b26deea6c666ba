"""CURVE keys: an encrypted link on which the server, and on demand each client, proves who it is.

Keys are Z85 text, 40 characters, as `Curve.new_keys()` makes them. A client needs the server's public key and
a pair of its own. Without `allowed` a server takes every client that knows its public key. With it, each client is
looked up as it connects (`zmq_link/door.py`), so what is allowed may change while the server runs.
"""

import os
from collections.abc import Callable, Iterable, Set
from typing import TYPE_CHECKING, Any

import msgspec

from transport.errors import EndpointError
from transport.foreign import text_of, type_name
from transport.importing import load
from transport.lock import Lock

if TYPE_CHECKING:
    import zmq

_Z85 = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#")


def _check_key(name: str, key: str) -> None:
    """Raise unless `key` is 40 characters of Z85. It is not shown: it may be a secret."""
    if len(key) != 40 or not _Z85.issuperset(key):
        why = f"has {len(key)} characters" if len(key) != 40 else "has others"
        raise EndpointError(f"{name} must be 40 characters of Z85 text, see Curve.new_keys(): this one {why}")


def _check_pair(public: str, secret: str) -> None:
    """Raise unless the keys belong together; libzmq says nothing of it, and no connection comes about."""
    if _public_of(secret) != public:
        raise EndpointError("public_key and secret_key are not of one pair: give what Curve.new_keys() returned")


def _public_of(secret: str) -> str:
    zmq = load("zmq")

    try:
        return str(zmq.curve_public(secret.encode()).decode())
    except (zmq.ZMQError, ValueError) as error:
        raise EndpointError("secret_key is no CURVE key, see Curve.new_keys()") from error


class Curve(msgspec.Struct, frozen=True):
    """The keys of one side.

    Args:
        public_key, secret_key: this side's pair.
        server_key: a client's: the public key of the server it means to talk to.
        allowed: a server's: public keys of the clients it takes; None: all that know the server's key. It may change
            while the server runs if it is a path, of a file with a key at the beginning of each line (comments begin
            with "# "), which is read again once it has changed; or a function, `allowed(key)`, which is called for each
            client that connects, one after the other, on a thread of this list's own: only True admits. While it blocks
            the next clients of this server wait, for its `greeting_timeout` at most, and nobody else. Who is
            not allowed comes again by itself, about once a second, if it is one of this library's; if the function
            raises so does every client, after the `greeting_timeout`. Who is connected stays so: see
            `Server.disconnect`. The key that a client has proved to own is its
            `PeerInfo.user`; without `allowed` no proof is asked for, and it is "". Not enforced on `loopback://` and
            `inproc://`, which have no keys: all are let in there.
    Raises: `EndpointError` for what is no key, or for a pair that is none.
    """

    public_key: str
    secret_key: str
    server_key: str | None = None
    allowed: "Set[str] | os.PathLike[str] | Callable[[str], object] | None" = None

    def __post_init__(self) -> None:
        for name in ("public_key", "secret_key", "server_key"):
            value = getattr(self, name)
            if not isinstance(value, str) and not (value is None and name == "server_key"):
                raise EndpointError(f"{name} must be a text, see Curve.new_keys(), not {type_name(value)}")
            if value is not None:
                _check_key(name, value)
        _check_pair(self.public_key, self.secret_key)
        keys: Any = self.allowed
        if isinstance(keys, os.PathLike):
            msgspec.structs.force_setattr(self, "allowed", AllowedFile(keys))
            return
        if keys is None or (callable(keys) and not isinstance(keys, Iterable)):
            return
        if isinstance(keys, (str, bytes)) or not isinstance(keys, Iterable):
            raise EndpointError(f"allowed must be a set of keys, a path, a function or None, not {type_name(keys)}")
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
        zmq = load("zmq")
        public, secret = zmq.curve_keypair()
        return public.decode(), secret.decode()

    @staticmethod
    def public_key_of(secret_key: str) -> str:
        """The public key of a pair, of its secret one. Raises: `EndpointError` for what is none. Blocks: never."""
        _check_key("secret_key", secret_key)
        return _public_of(secret_key)

    def apply_to_client(self, socket: Any) -> None:
        """Set the keys on a socket that is to connect."""
        if self.server_key is None:
            raise EndpointError("a client's Curve needs server_key, the public key of the server")
        import zmq

        socket.set(zmq.CURVE_SERVERKEY, self.server_key.encode())
        self._apply(socket)

    def apply_to_server(self, socket: Any) -> None:
        """Set the keys on a socket that is to bind."""
        import zmq

        self._apply(socket)
        socket.set(zmq.CURVE_SERVER, 1)

    def asks(self) -> Callable[[str], str | None] | None:
        """Return a function that says who the client is that has proved to own a key, None if it is not let in; or
        None: keys are not asked for.
        """
        return None if self.allowed is None else self._known

    def _known(self, key: str) -> str | None:
        allowed = self.allowed
        admitted = key in allowed if isinstance(allowed, Set) else allowed is not None and allowed(key) is True  # type: ignore[operator]  # a path was replaced
        return key if admitted else None

    def _apply(self, socket: "zmq.Socket[Any]") -> None:
        import zmq

        try:
            socket.set(zmq.CURVE_PUBLICKEY, self.public_key.encode())
            socket.set(zmq.CURVE_SECRETKEY, self.secret_key.encode())
        except zmq.ZMQError as error:
            raise EndpointError("a CURVE key is 40 characters of Z85 text, see Curve.new_keys()") from error


class AllowedFile:
    """The keys in a file, read again whenever it has changed. Threads: any."""

    def __init__(self, path: "os.PathLike[str]") -> None:
        self._path = os.path.abspath(path)  # The working directory may change.
        self._lock = Lock()
        # As of which version of the file, and its keys. Guarded by _lock.
        self._version: tuple[int, ...] = ()
        self._keys: frozenset[str] = frozenset()
        self(" ")  # A file that cannot be read raises now.

    def __call__(self, key: str) -> bool:
        """Whether this key is in the file. Raises: EndpointError if it cannot be read."""
        with self._lock:
            try:
                found = os.stat(self._path)
                version = found.st_mtime_ns, found.st_size, found.st_ino
                if version != self._version:
                    self._keys = self._read()
                    self._version = version
            except (OSError, ValueError) as error:
                raise EndpointError(
                    f"the file of allowed keys {self._path} cannot be read: {text_of(error)}"
                ) from error
            return key in self._keys

    def _read(self) -> frozenset[str]:
        with open(self._path, encoding="ascii") as lines:
            keys = frozenset(line.split()[0] for line in lines if line.strip() and not line.startswith("# "))
        for key in keys:
            _check_key("a key of allowed", key)
        return keys

    def __repr__(self) -> str:
        return f"AllowedFile({self._path!r})"
