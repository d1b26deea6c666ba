"""Servers that DNS knows: by the addresses of a name, or by its SRV records.

Theory of operation. A name is looked up again and again: when the records that were found have outlived their TTL, and
soon after the client has lost a server. dnspython tells the TTL and reads SRV records; the system's resolver
(`getaddrinfo`) does neither, so it is asked every `interval` seconds, but it knows `/etc/hosts` and all else that the
system has.

Guarantees: a name that has no record for now, or a DNS server that gives no answer, changes nothing.
"""

import socket
from functools import partial
from importlib.util import find_spec
from typing import Any

from transport import Endpoint
from transport.chance import chance
from transport.realtime import monotonic

from ..errors import InvalidParameter
from ..kernel.checks import check_count, check_duration, check_text
from ..rpc.address import Address
from ..rpc.client.resolver import Discovery

INTERVAL = 5.0  # Seconds between two looks, where nothing tells how long a record lives.
LEAST, MOST = 1.0, 300.0  # Seconds between two looks, whatever a TTL says: some registries say 0.
JITTER = 0.25  # Seconds; looks are spread over them, so that clients that began together do not ask together for ever.
PATIENCE = 5.0  # Seconds for an answer of a DNS server.
DNS_PORT = 53

Found = tuple[list[Address], float]


class Dns:
    """A resolver: finds a client's servers by the records of a name, and follows them.

    Args:
        name: whose records are looked up: `words.prod.svc.cluster.local`, or `_words._tcp.example.com` for SRV.
        port: where each of its addresses (A records; AAAA, if it has none of those) has a server, 1 to 65535. None: the
            SRV records of `name` say it. Of these the ones of the best priority count; a record's weight becomes its
            server's.
        interval: seconds between two looks with the system's resolver. None: when the TTL is over, with dnspython; if
            that is not installed, every 5 seconds with the system's.
        nameserver: `host:port` of a DNS server to ask instead of the system's, the host as an address; `:port` may be
            left out.
        scheme: that of the servers' endpoints, `tcp` or `native+tcp`.
    Raises: `ImportError` if `nameserver` or SRV records are asked for without dnspython, which the extra `dns` brings;
        `InvalidParameter`, `EndpointError` for what cannot be.

    One object may serve several clients.
    """

    def __init__(
        self,
        name: str,
        port: int | None = None,
        *,
        interval: float | None = None,
        nameserver: str | None = None,
        scheme: str = "tcp",
    ) -> None:
        check_text("name", name)
        check_text("nameserver", nameserver)
        check_text("scheme", scheme)
        self._name = name
        self._port = None if port is None else check_count("port", port, 1, 65535)
        self._scheme = scheme
        self._interval = None if interval is None else check_duration("interval", interval)
        self._nameserver = None if nameserver is None else _host_and_port(nameserver)
        if scheme not in ("tcp", "native+tcp"):
            raise InvalidParameter(f"scheme must be 'tcp' or 'native+tcp', not {scheme!r}")
        Endpoint.parse(f"{scheme}://{name}:{self._port or 1}")
        installed = find_spec("dns") is not None
        needed = port is None or nameserver is not None
        if needed and not installed:
            raise ImportError("SRV records and nameserver= need dnspython: install callport[dns], or give a port alone")
        if needed and interval is not None:
            raise InvalidParameter("interval is for the system's resolver: not for nameserver=, nor for SRV records")
        self._by_ttl = installed and interval is None

    def run(self, discovery: Discovery) -> None:
        """Follow the name's records; see `engine.Resolver`."""
        look = partial(self._look_by_ttl, self._library()) if self._by_ttl else self._look
        while not discovery.closed:
            found, lasts = look()
            due = monotonic() + lasts  # From the answer on, however long the client takes to make its connections.
            discovery.update(found)
            discovery.wait(max(0.0, due - monotonic()) + JITTER * chance())

    def _addresses(self, hosts: list[str], port: int, weight: float = 1.0) -> list[Address]:
        """The address of a server on each of these hosts."""
        names = [f"[{host}]" if ":" in host else host for host in dict.fromkeys(hosts)]
        return [Address(f"{self._scheme}://{name}:{port}", weight=weight) for name in names]

    # The system's resolver

    def _look(self) -> Found:
        assert self._port is not None, "it was checked"
        hosts: list[str] = []
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                hosts = [str(each[4][0]) for each in socket.getaddrinfo(self._name, None, family, socket.SOCK_STREAM)]
                break
            except socket.gaierror as error:
                if error.errno not in _NO_RECORDS:
                    raise
        return self._addresses(hosts, self._port), self._interval or INTERVAL

    # dnspython

    def _library(self) -> Any:
        from dns.resolver import Resolver

        resolver = Resolver(configure=self._nameserver is None)
        if self._nameserver is not None:
            host, port = self._nameserver
            resolver.nameservers, resolver.port = [host], port
        return resolver

    def _look_by_ttl(self, resolver: Any) -> Found:
        if self._port is not None:
            hosts, ttl = _hosts(resolver, self._name)
            return self._addresses(hosts, self._port), ttl
        records, ttl = _records(resolver, self._name, "SRV")
        best = min((record.priority for record in records), default=0)
        found: list[Address] = []
        for record in records:
            if record.priority == best:
                hosts, lasts = _hosts(resolver, record.target)
                ttl = min(ttl, lasts)
                found += self._addresses(hosts, record.port, record.weight or 1.0)
        return found, ttl

    def __repr__(self) -> str:
        return f"Dns({self._name!r}{'' if self._port is None else f', {self._port}'})"


# What `getaddrinfo` says of a name without an address of that family.
_NO_RECORDS = frozenset(getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY")
                        if hasattr(socket, name))  # fmt: skip


def _hosts(resolver: Any, name: Any) -> tuple[list[str], float]:
    """The addresses of a host: IPv4 if it has any, so that no server is there twice."""
    records, ttl = _records(resolver, name, "A")
    if not records:
        records, ttl = _records(resolver, name, "AAAA")
    return [record.address for record in records], ttl


def _records(resolver: Any, name: Any, kind: str) -> tuple[list[Any], float]:
    """The records of a name, and for how many seconds they are good. Raises what dnspython does, but for no record."""
    from dns.resolver import NXDOMAIN, NoAnswer

    try:
        answer = resolver.resolve(name, kind, search=True, lifetime=PATIENCE)
    except (NXDOMAIN, NoAnswer):
        return [], LEAST
    return list(answer), min(max(LEAST, answer.chaining_result.minimum_ttl), MOST)


def _host_and_port(nameserver: str) -> tuple[str, int]:
    with_port = nameserver if ":" in nameserver and not nameserver.endswith("]") else f"{nameserver}:{DNS_PORT}"
    endpoint = Endpoint.parse(f"tcp://{with_port}")
    return endpoint.host.strip("[]"), endpoint.port
