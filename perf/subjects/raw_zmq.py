"""The floor: pyzmq's DEALER and ROUTER, one message a call, and nothing else.

What favours it: no call table, no encoding, no thread but the one that answers, answers in the order of the
calls. What any library on ZeroMQ does comes on top of this.
"""

from collections.abc import Sequence
from itertools import islice
from time import perf_counter_ns
from typing import Any

import zmq

from perf.measure import ANSWER_TIMEOUT, WrongAnswer
from perf.worker import Control

NOTE = "DEALER/ROUTER, single-threaded server"


def missing() -> str | None:
    """pyzmq is always there: the engine needs it."""
    return None


def serve(settings: dict[str, Any], control: Control) -> None:
    """Answer each message with itself."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.set_hwm(0)
    socket.bind(settings["endpoint"])
    control.end_with_parent()
    control.ready(socket.getsockopt_string(zmq.LAST_ENDPOINT))
    recv, send = socket.recv, socket.send
    more = zmq.SNDMORE
    copy = settings.get("copy", True)
    while True:
        send(recv(), more)
        send(recv(copy=copy), copy=copy)


class Client:
    """One DEALER; the answers come in the order of the calls, so the oldest call is the one answered."""

    def __init__(self, endpoint: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.set_hwm(0)
        self._socket.rcvtimeo = int(ANSWER_TIMEOUT * 1000)
        self._socket.connect(endpoint)

    def one_by_one(self, payloads: Sequence[bytes]) -> list[int]:
        """Send, wait, compare."""
        send, recv, now = self._socket.send, self._socket.recv, perf_counter_ns
        times = []
        for payload in payloads:
            start = now()
            send(payload)
            answer = recv()
            times.append(now() - start)
            if answer != payload:
                raise WrongAnswer(f"{answer[:16]!r} for {payload[:16]!r}")
        return times

    def stream(self, payloads: Sequence[bytes], outstanding: int) -> None:
        """Keep the window full: one more call for each answer."""
        send, recv = self._socket.send, self._socket.recv
        waiting = iter(payloads)
        for payload in islice(waiting, outstanding):
            send(payload)
        for payload in payloads:
            answer = recv()
            if answer != payload:
                raise WrongAnswer(f"{answer[:16]!r} for {payload[:16]!r}")
            for further in islice(waiting, 1):
                send(further)

    def close(self) -> None:
        """Drop the socket."""
        self._context.destroy(linger=0)
