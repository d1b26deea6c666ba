"""`multiprocessing.connection` over a Unix socket: bytes there and back, by the standard library.

What favours it: it is no RPC. It has no operations, no numbers, no threads: a call's answer is the next message that
comes, as with the floor. One call at a time it pays no thread between socket and caller.
"""

import threading
from collections.abc import Sequence
from itertools import islice
from multiprocessing.connection import Client as connect
from multiprocessing.connection import Connection, Listener
from time import perf_counter_ns
from typing import Any

from perf.streams import check, socket_path
from perf.worker import Control

NOTE = "bytes without pickling, a thread for each connection, answers in the order of the calls"


def missing() -> str | None:
    """It comes with Python."""
    return None


def serve(settings: dict[str, Any], control: Control) -> None:
    """Echo, with a thread for each connection."""

    def answer(connection: Any) -> None:
        send, receive = connection.send_bytes, connection.recv_bytes
        try:
            while True:
                send(receive())
        except (EOFError, OSError):
            connection.close()  # The client has gone.

    control.end_with_parent()
    with Listener(socket_path(settings["endpoint"]), "AF_UNIX") as listener:
        control.ready(settings["endpoint"])
        while True:
            threading.Thread(target=answer, args=(listener.accept(),), daemon=True).start()


class Client:
    """One connection. More than some 250 outstanding calls might not fit into the socket's buffers."""

    def __init__(self, endpoint: str) -> None:
        connection = connect(socket_path(endpoint), "AF_UNIX")
        assert isinstance(connection, Connection)
        self._connection = connection

    def one_by_one(self, payloads: Sequence[bytes]) -> list[int]:
        """Send, wait, compare."""
        send, receive, now = self._connection.send_bytes, self._connection.recv_bytes, perf_counter_ns
        times = []
        for payload in payloads:
            start = now()
            send(payload)
            answer = receive()
            times.append(now() - start)
            check(answer, payload)
        return times

    def stream(self, payloads: Sequence[bytes], outstanding: int) -> None:
        """Keep the window full: one more call for each answer."""
        send, receive = self._connection.send_bytes, self._connection.recv_bytes
        waiting = iter(payloads)
        for payload in islice(waiting, outstanding):
            send(payload)
        for payload in payloads:
            answer = receive()
            if answer != payload:
                check(answer, payload)
            for further in islice(waiting, 1):
                send(further)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
