"""Where one of several servers is, and what its clients ought to know of it beforehand."""

from collections.abc import Iterable
from math import isfinite

import msgspec

from transport import Curve, Endpoint, EndpointError
from transport.foreign import number_of, shown, type_name

from ..errors import InvalidArgumentType, InvalidParameter
from ..kernel.checks import NoNumber, check_text

MAX_WEIGHT = 1e6  # Of a server, against the default of 1; arbitrary.


class Address(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of the servers of a client that has several.

    Args:
        endpoint: `tcp://host:port`, as for a `Client`. It is the server's name, too: in a list each stands once.
        zone: where it is, a data centre for one. A client with that `zone` uses the servers of its own as long as one
            of them is usable; "" is nobody's own.
        weight: how much it does compared with others, more than 0: one of 2 gets twice the calls of one of 1.
        server_key: its public key, for a client with `curve=`, whose `server_key` it takes the place of; None: that one
            holds.
    Raises: `EndpointError` for what is no endpoint to connect to; `InvalidParameter` for a weight that is none.

    A value: it compares and hashes by its fields, and msgspec and pickle take it.
    """

    endpoint: str
    zone: str = ""
    weight: float = 1.0
    server_key: str | None = None

    def __post_init__(self) -> None:
        parsed = Endpoint.parse(self.endpoint)
        if (parsed.carrier == "tcp" and (parsed.host == "*" or not parsed.port)) or parsed.name == "*":
            raise EndpointError(f"{self.endpoint!r} is good to bind, not to connect to: name the host and the port")
        check_text("zone", self.zone)
        check_text("server_key", self.server_key)
        weight = number_of(self.weight)
        if weight is None:
            raise NoNumber(f"weight must be a number of more than 0, not {shown(self.weight, 100)}")
        if not (isfinite(weight) and 0 < weight <= MAX_WEIGHT):
            raise InvalidParameter(f"weight must be more than 0, at most {MAX_WEIGHT:g}, not {shown(self.weight, 100)}")

    def keys_of(self, own: Curve | None) -> Curve | None:
        """Return the keys for a connection to it, made of those that a client has for all."""
        if own is None or self.server_key is None:
            return own
        return msgspec.structs.replace(own, server_key=self.server_key)

    def seen_from(self, asked: Endpoint) -> "Address":
        """Return it as a client reaches it that has reached a server of the same machine at `asked`: every address of a
        machine is none to connect to.
        """
        endpoint = Endpoint.parse(self.endpoint)
        if not endpoint.is_wildcard():
            return self
        return msgspec.structs.replace(self, endpoint=str(msgspec.structs.replace(endpoint, host=asked.host)))


def addresses_of(addresses: Iterable[Address | str]) -> list[Address]:
    """Return addresses for endpoints and addresses; of one that stands twice the last counts."""
    if isinstance(addresses, (str, bytes)) or not isinstance(addresses, Iterable):
        raise InvalidArgumentType(f"addresses must be a list of them, not {type_name(addresses)}")
    return list({address.endpoint: address for address in map(_address_of, addresses)}.values())


def of_scheme(scheme: str, addresses: Iterable[Address]) -> list[Address]:
    """Return those that are reached by connections of that kind; "": all."""
    return [address for address in addresses if scheme in ("", Endpoint.parse(address.endpoint).scheme)]


def _address_of(address: Address | str) -> Address:
    if isinstance(address, Address):
        return address
    if isinstance(address, str):
        return Address(address)
    raise InvalidArgumentType(f"an address is an Address or the text of an endpoint, not {type_name(address)}")
