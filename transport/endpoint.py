"""Endpoint text <-> value.

tcp://host:port     host a name, an IPv4 address or a bracketed IPv6 address; `*` for every interface (bind
                    only; IPv4, `[::]` for both); port `*` or 0 lets the system choose one (bind only). Of a
                    name every address is bound, on one port, and a client tries one after another
ipc://path          a Unix socket; a leading `@` names one in Linux's abstract space; `*` lets the system
                    choose a path (bind only)
native+tcp://...    the same two without ZeroMQ's library; peers that have it understand it. Names of network interfaces
native+ipc://...    are not known there
tls://host:port     as native+tcp://, encrypted, and with certificates that say who each side is
inproc://name       a ZeroMQ pair of queues inside this process
loopback://name     plain memory inside this process, without ZeroMQ: the fastest
"""

import os
from typing import Self

import msgspec

from transport.errors import EndpointError
from transport.foreign import shown, type_name

SCHEMES = ("tcp", "ipc", "native+tcp", "native+ipc", "tls", "inproc", "loopback")
_SCHEMES = ", ".join(f"{scheme}://" for scheme in SCHEMES)

#: sizeof(sockaddr_un.sun_path) less its closing zero; Linux has the larger one, 107 is good there.
MAX_IPC_PATH = 107


class Endpoint(msgspec.Struct, frozen=True):
    """Where a server listens. Build it with `Endpoint.parse`; `str()` gives the text back.

    `host` and `port` are set for tcp only; `name` is the path of an ipc endpoint and the name of the
    in-process ones. `port` 0 means that the system chooses.
    """

    scheme: str
    name: str = ""
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: "str | Endpoint") -> "Endpoint":
        """Read an endpoint.

        Args: text: one of the forms above; an `Endpoint` is returned as it is.
        Raises: EndpointError: says which part is wrong and what it should look like.
        """
        if isinstance(text, Endpoint):
            texts = (text.scheme, text.name, text.host)
            if not all(isinstance(each, str) for each in texts) or type(text.port) is not int:
                raise EndpointError(f"{shown(text)}: scheme, name and host are texts, and the port is an int")
            cls.parse(str(text))
            return text
        if not isinstance(text, str):
            raise EndpointError(f"an endpoint is a text such as 'tcp://127.0.0.1:5555', not {type_name(text)}")
        scheme, separator, rest = text.partition("://")
        if not separator:
            raise EndpointError(f"{text!r} has no scheme: write one of {_SCHEMES} before it")
        if scheme not in SCHEMES:
            raise EndpointError(f"{text!r}: scheme {scheme!r} is not one of {_SCHEMES}")
        if not rest:
            raise EndpointError(f"{text!r}: nothing follows the scheme")
        if "\0" in rest:
            raise EndpointError(f"{text!r} contains a zero byte")
        try:
            encoded = os.fsencode(rest)
        except UnicodeEncodeError:  # Half a character.
            raise EndpointError(f"{text!r} is not a text that can be sent") from None
        carrier = _carrier_of(scheme)
        if carrier == "tcp":
            return cls._parse_tcp(text, scheme, rest)
        if carrier == "ipc" and rest == "@":
            raise EndpointError(f"{text!r}: write a name behind the @")
        if carrier == "ipc" and len(encoded) > MAX_IPC_PATH:
            raise EndpointError(f"{text!r}: the path is longer than the {MAX_IPC_PATH} bytes a Unix socket may have")
        return cls(scheme, rest)

    @classmethod
    def _parse_tcp(cls, text: str, scheme: str, rest: str) -> Self:
        if "," in rest:
            raise EndpointError(
                f"{text!r}: this is one endpoint, and has no comma: a client of several servers takes a list, "
                "`Client([one, other])`, and a server several arguments"
            )
        host, separator, port = rest.rpartition(":")
        if not separator or not host or (host.startswith("[") != host.endswith("]")):
            raise EndpointError(f"{text!r}: write {scheme}://host:port, an IPv6 host in brackets")
        if ":" in host and not host.startswith("["):
            raise EndpointError(f"{text!r}: put the IPv6 address in brackets")
        if "/" in host or any(character.isspace() for character in host):
            raise EndpointError(f"{text!r}: {host!r} is not a host")
        if port == "*":
            return cls(scheme, host=host, port=0)
        if not (port.isascii() and port.isdigit() and len(port) <= 20 and int(port) <= 65535):
            raise EndpointError(f"{text!r}: port {port!r} is not a number from 0 to 65535, nor `*`")
        return cls(scheme, host=host, port=int(port))

    def __str__(self) -> str:
        if self.carrier == "tcp":
            return f"{self.scheme}://{self.host}:{self.port or '*'}"
        return f"{self.scheme}://{self.name}"

    @property
    def carrier(self) -> str:
        """What takes the bytes there: "tcp" or "ipc", whichever link it is; else as `scheme`."""
        return _carrier_of(self.scheme)

    @property
    def native(self) -> bool:
        """Whether the native link serves it."""
        return self.scheme == "tls" or self.scheme.startswith("native+")

    @property
    def local(self) -> bool:
        """Whether both ends are in one process."""
        return self.scheme in ("inproc", "loopback")

    def is_wildcard(self) -> bool:
        """Whether it is every address of a machine, which is good to bind to and says not where to connect to."""
        return self.carrier == "tcp" and self.host in ("*", "0.0.0.0", "[::]")

    def is_exposed(self) -> bool:
        """Whether other machines may reach it: over TCP, at anything but a loopback address. May ask for a name."""
        if self.carrier != "tcp":
            return False
        # Here: ipaddress takes its time, and is needed only now.
        import socket
        from ipaddress import ip_address

        try:
            found = socket.getaddrinfo(self.host.strip("[]"), None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):  # `*`, or the name of a network interface.
            return True
        addresses = [ip_address(address[0]) for *_, address in found]
        return not all((getattr(each, "ipv4_mapped", None) or each).is_loopback for each in addresses)

    def require_connectable(self) -> None:
        """Raise EndpointError if only a server can use this endpoint."""
        if self.carrier == "tcp" and (self.port == 0 or self.host == "*"):
            raise EndpointError(
                f"{self}: a client needs the host and the port of the server, which knows the port once it listens"
            )
        if self.carrier == "ipc" and self.name == "*":
            raise EndpointError(f"{self}: a client needs the path of the server, which knows it once it listens")


def _carrier_of(scheme: str) -> str:
    return "tcp" if scheme == "tls" else scheme.rpartition("+")[2]
