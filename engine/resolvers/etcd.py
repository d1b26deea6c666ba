"""Servers that have announced themselves in etcd, each by a key that lives as long as the server renews its lease.

Theory of operation. A server puts its address, as JSON, at `prefix` + endpoint, under a lease. When it leaves, it
revokes the lease; when it dies, etcd lets the key go as the lease is over. A client opens a watch, reads all keys with
the prefix, and from then on applies what the watch says. A watch that says nothing for a while is opened again, with a
look at all keys: so a connection that is dead without a word is found.

Both are asked over etcd's JSON gateway (`etcd3gw`): there is no other library for etcd that is kept. Its own watcher
does not tell when it has ended, so the stream is read here.

Guarantees: etcd's death changes nothing for a client, and costs a server that outlives it nothing but a new
registration.
"""

import os
import random
import socket
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

import msgspec

from transport.chance import chance
from transport.foreign import shown
from transport.log import Log

from ..errors import EngineError, InvalidParameter
from ..kernel.checks import check_count, check_text
from ..rpc.address import Address
from ..rpc.client.resolver import Discovery
from ..rpc.server.announcing import Presence

log: Log = Log("engine.resolvers")

TTL = 10  # Seconds for which a server that has died is still announced, at most.
PATIENCE = 5.0  # Seconds for an answer of etcd's.
IDLE = 20.0  # Seconds without a word after which a watch is opened again; so much it varies, for each to do so alone.
PAUSE = 1.0  # Seconds at most, whichever, before a watch that has ended is opened again.


class Etcd:
    """A registry in etcd: finds a client's servers, and announces servers.

        Server("tcp://*:5555", announce=Etcd("/services/words/"), advertise="tcp://10.0.0.7:5555")
        Client(Etcd("/services/words/"))

    Args:
        prefix: what the keys of this service begin with. Others may put keys there, too: an endpoint's text, or JSON
            with the fields of `Address`; what is neither is logged and passed over.
        endpoints: of the cluster: `http://host:port` or `https://...`; one is taken at random, another one when that
            fails.
        user, password: where etcd has authentication switched on.
        ca, certificate, key: paths of PEM files, for TLS: who signed the cluster's certificates (None: whom the system
            trusts), and what this side shows of itself.
        ttl: seconds after which a server that has died is gone from the registry, 2 or more.
    Raises: `ImportError` without etcd3gw, which the extra `etcd` brings; `InvalidParameter` for what cannot be.

    One object may serve several clients and servers.
    """

    def __init__(
        self,
        prefix: str,
        *,
        endpoints: Sequence[str] = ("http://127.0.0.1:2379",),
        user: str | None = None,
        password: str | None = None,
        ca: str | None = None,
        certificate: str | None = None,
        key: str | None = None,
        ttl: int = TTL,
    ) -> None:
        for name, text in (("prefix", prefix), ("user", user), ("password", password), ("ca", ca),
                           ("certificate", certificate), ("key", key)):  # fmt: skip
            check_text(name, text)
        if find_spec("etcd3gw") is None:
            raise ImportError("etcd needs the library etcd3gw: install callport[etcd]")
        if not prefix:
            raise InvalidParameter("prefix must not be empty: all that etcd has would be taken for addresses")
        if (user is None) != (password is None) or (certificate is None) != (key is None):
            raise InvalidParameter("user and password, and certificate and key, are given both or neither")
        self._prefix = prefix
        self._endpoints = [_checked(endpoint) for endpoint in endpoints]
        if not self._endpoints:
            raise InvalidParameter("endpoints must name one of the cluster at least")
        self._credentials = None if user is None else {"name": user, "password": password}
        self._tls: dict[str, Any] = {"ca_cert": ca, "cert_cert": certificate, "cert_key": key}
        self._ttl = check_count("ttl", ttl, 2, 1 << 30)

    def run(self, discovery: Discovery) -> None:
        """Follow the servers that are announced; see `engine.Resolver`."""
        with self._client() as client:
            watch = _Watch(client, self._prefix)
            discovery.on_close(watch.end)
            while not discovery.closed:
                for addresses in watch.follow():
                    discovery.update(addresses)
                discovery.wait(PAUSE * chance())  # A cluster that restarts ends all streams at once.

    def announce(self, presence: Presence) -> None:
        """Announce a server for as long as it is there; see `engine.Announcer`."""
        address = presence.address
        with self._client() as client:
            lease = client.lease(self._ttl)
            client.put(self._prefix + address.endpoint, msgspec.json.encode(address), lease)
            while not presence.wait(self._ttl / 3):
                if lease.refresh() < 0:
                    raise EngineError(f"the lease of {address.endpoint} was over before it was renewed")
            lease.revoke()

    @contextmanager
    def _client(self) -> Iterator[Any]:
        """A session with one of the cluster."""
        from etcd3gw import Etcd3Client

        url = urlsplit(random.choice(self._endpoints))
        port = url.port or 2379
        client = Etcd3Client(str(url.hostname), port, url.scheme, timeout=PATIENCE, **self._tls)
        with client.session as session:
            # Otherwise a bundle named by the environment would take the place of `ca`.
            session.trust_env = self._tls["ca_cert"] is None
            if self._credentials is not None:
                answer = client.post(client.get_url("/auth/authenticate"), json=self._credentials)
                session.headers["Authorization"] = answer["token"]
            yield client

    def __repr__(self) -> str:
        return f"Etcd({self._prefix!r}, {', '.join(self._endpoints)})"


class _Watch:
    """What is said of the keys with a prefix."""

    def __init__(self, client: Any, prefix: str) -> None:
        self._client = client
        self._prefix = prefix
        # By key; None for what is no address.
        self._known: dict[bytes, Address | None] = {}
        # The answer that is being read. Stored by the thread that reads, read by the one that ends it.
        self._answer: Any = None
        self._ended = False

    def end(self) -> None:
        """End what `follow` waits for. Any thread."""
        self._ended = True
        answer = self._answer
        if answer is not None:
            # What `fileno` raises says that the stream has ended by itself, meanwhile.
            with suppress(OSError, ValueError), socket.socket(fileno=os.dup(answer.raw.fileno())) as connection:
                connection.shutdown(socket.SHUT_RDWR)

    def follow(self) -> Iterator[list[Address]]:
        """Yield all addresses, now and whenever they change, until nothing has changed for long or `end` was called."""
        from requests.exceptions import RequestException
        from urllib3.exceptions import ReadTimeoutError

        prefix = self._prefix.encode()
        after = prefix[:-1] + bytes((prefix[-1] + 1,))  # No byte of a text is 255.
        answer = self._answer = self._client.session.post(
            self._client.get_url("/watch"),
            json={"create_request": {"key": _base64(prefix), "range_end": _base64(after)}},
            stream=True,
            timeout=(PATIENCE, IDLE * (1 + chance())),
        )
        with answer:
            answer.raise_for_status()
            try:
                for line in answer.iter_lines(chunk_size=None):
                    if self._ended:
                        return
                    if line.strip():
                        self._apply(msgspec.json.decode(line))
                        yield [address for address in self._known.values() if address is not None]
            except RequestException as error:
                silent = bool(error.args) and isinstance(error.args[0], ReadTimeoutError)
                if not (silent or self._ended):
                    raise
        # Otherwise etcd has ended the stream, or said nothing for long: it is opened again.

    def _apply(self, said: dict[str, Any]) -> None:
        result = said.get("result", {})
        if "error" in said or result.get("canceled"):
            raise EngineError(f"etcd does not watch {self._prefix}: {said.get('error') or result.get('cancel_reason')}")
        if result.get("created"):  # Whatever changes from here on is said.
            found = self._client.get_prefix(self._prefix)
            self._known = {each["key"]: _address(each["key"], value) for value, each in found}
        for event in result.get("events", ()):
            entry = event["kv"]
            name = b64decode(entry["key"])
            if event.get("type") == "DELETE":
                self._known.pop(name, None)
            else:
                self._known[name] = _address(name, b64decode(entry.get("value", "")))


def _address(name: bytes, value: bytes) -> Address | None:
    """The address that is announced under a key; None if it is none."""
    try:
        if value.startswith(b"{"):
            return msgspec.json.decode(value, type=Address)
        return Address(value.decode())
    except (ValueError, msgspec.MsgspecError) as error:
        log.warning("what etcd has at %s is no address of a server, and is passed over: %s", shown(name), error)
        return None


def _base64(text: bytes) -> str:
    return b64encode(text).decode()


def _checked(endpoint: str) -> str:
    """An endpoint of etcd's, if it is one."""
    check_text("endpoints", endpoint)
    try:
        url = urlsplit(endpoint)
        good = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        good = False
    if not good:
        raise InvalidParameter(f"an endpoint of etcd's is http://host:port or https://host:port, not {shown(endpoint)}")
    return endpoint
