"""How well a connection is protected, in the numbers that Windows has for it.

There are two levels here. Encrypted connections (CURVE) have privacy, and so do transports that do not leave the
machine (ipc, inproc, loopback): nobody but the two ends can read or change what passes. Plain tcp has none, from a
loopback address too. The level says nothing of who the client is: that is `CallAttributes.client_principal`.

Source: "Authentication-Level Constants".
"""

NONE = 1
PRIVACY = 6


def level_of(endpoint: str, encrypted: bool) -> int:
    """Return the level of the connections that come to `endpoint`."""
    return PRIVACY if encrypted or not endpoint.startswith("tcp:") else NONE
