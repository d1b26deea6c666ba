"""How many connections come from each remote address.

Theory of operation. One who has an address of IPv6 has some 2^64 of them, mostly: what is counted is the network of the
first 64 bits. Connections within the machine have no address, and are not counted.
"""

import socket

_MAPPED = bytes(10) + b"\xff\xff"  # What an address of IPv4 begins with, at a socket for both.


class Addresses:
    """See the theory above. Guarded by its owner.

    Args: `most` of them may have one address; None: as many as there are.
    """

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._counts: dict[bytes, int] = {}

    def enter(self, host: str) -> str:
        """Another one comes: return "", or why it is one too many. `leave` is owed in either case."""
        if self._most is None or not (network := _network(host)):
            return ""
        count = self._counts[network] = self._counts.get(network, 0) + 1
        if count <= self._most:
            return ""
        return f"{self._most} connections from its address are open, max_address_connections allows no more"

    def leave(self, host: str) -> None:
        """One has gone that had come."""
        if self._most is None or not (network := _network(host)):
            return
        count = self._counts.pop(network) - 1
        if count:
            self._counts[network] = count


def _network(host: str) -> bytes:
    """What is counted as one; b"" if it is no address."""
    try:
        if ":" not in host:
            return socket.inet_aton(host) if host else b""
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except OSError:
        return b""
    return packed[12:] if packed.startswith(_MAPPED) else packed[:8]
