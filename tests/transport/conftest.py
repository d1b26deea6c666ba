"""pyzmq's thread that frees large buffers is the process's: it starts before tests count threads."""

import pytest

from tests.transport.helpers import Party, exchange
from transport import bind, connect


@pytest.fixture(scope="session", autouse=True)
def sent_buffers_thread() -> None:
    server = Party(bind("inproc://start-the-thread"))
    client = Party(connect("inproc://start-the-thread"))
    exchange([server, client], lambda: client.ups)
    client.send(b"", [bytes(1 << 20)])
    exchange([server, client], lambda: server.messages)
    client.close()
    server.close()
