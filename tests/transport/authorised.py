"""A server that admits some clients only, in a process of its own: `test_processes.py` runs it, and it must end."""

from tests.transport.helpers import Party, exchange
from transport import Curve, bind, connect


def main() -> None:
    server_keys, friend, stranger = Curve.new_keys(), Curve.new_keys(), Curve.new_keys()
    server = Party(bind("tcp://127.0.0.1:*", curve=Curve(*server_keys, allowed=frozenset([friend[0]]))))
    one = Party(connect(server.link.endpoint, curve=Curve(*friend, server_key=server_keys[0])))
    other = Party(connect(server.link.endpoint, curve=Curve(*stranger, server_key=server_keys[0])))
    exchange([server, one, other], lambda: one.ups and other.refusals)
    assert one.send(b"", [b"hello"])
    exchange([server, one], lambda: server.messages)
    assert server.info(server.messages[0][0]).user == friend[0]
    assert not other.ups


if __name__ == "__main__":
    main()
