"""A client goes on trying, whatever has answered before: the next one there may be the server."""

import socket
from contextlib import suppress

import pytest

from engine.testing import LIMIT
from tests.transport.helpers import Party, exchange
from transport import EndpointError, bind, connect
from transport.native_link.framing import GREETING_BYTES, command, hello

GREETING = hello(b"ROUTER")
SAYS = {
    "nothing": b"",
    "noise": b"\xff" * 100,
    "noise after the greeting": GREETING[:GREETING_BYTES] + b"\xff" * 100,
    "noise after the handshake": GREETING + b"\xff" * 100,
    "another kind of socket": GREETING[:GREETING_BYTES] + command(b"READY", b"\x0bSocket-Type\0\0\0\3PUB"),
    "a refusal": GREETING[:GREETING_BYTES] + command(b"ERROR", b"\x03400"),
}


@pytest.mark.parametrize("scheme", ["tcp", "native+tcp"])
@pytest.mark.parametrize("says", SAYS.values(), ids=list(SAYS))
def test_after_what_is_no_server(scheme: str, says: bytes) -> None:
    """What sends nonsense, or refuses it, is not the last that it connects to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LIMIT)
        endpoint = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
        client = Party(connect(endpoint))
        other, _ = listener.accept()
        with other:
            other.sendall(says)
        if says:
            exchange([client], lambda: client.refusals or client.losses)
    servers: list[Party] = []

    def bound() -> bool:
        with suppress(EndpointError):  # A connection to the listener may still be there.
            servers.append(Party(bind(endpoint)))
        return bool(servers)

    try:
        exchange([client], bound)
        exchange([client, *servers], lambda: client.send(b"", [b"hello"]))
        exchange([client, *servers], lambda: servers[0].messages)
    finally:
        for party in (client, *servers):
            party.close()
