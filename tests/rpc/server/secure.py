"""A server that checks keys, and a client that has one: fails unless the client is admitted under its own name.

python -m tests.rpc.server.secure
"""

from engine import CallAttributes, Client, Server
from transport import Curve


class Routines:
    """Answers."""

    def echo(self, value: int) -> int:
        return value


def main() -> None:
    here, there = Curve.new_keys(), Curve.new_keys()
    asked: list[CallAttributes] = []

    def judge(attributes: CallAttributes) -> bool:
        asked.append(attributes)
        return True

    with Server("tcp://127.0.0.1:*", curve=Curve(*here, allowed=frozenset({there[0]}))) as server:
        server.register("r", Routines(), security=judge, secure_only=True)
        server.listen()
        with Client(server.endpoint, curve=Curve(*there, server_key=here[0])) as client:
            assert client.bind("r").echo(1) == 1
    assert [attributes.client_principal for attributes in asked] == [there[0]]
    assert [attributes.authentication_level for attributes in asked] == [6], "over tcp, but encrypted"


if __name__ == "__main__":
    main()
