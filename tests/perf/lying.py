"""A subject whose server lies: it changes the last byte of every hundredth answer."""

from typing import Any

import zmq

from perf.subjects.raw_zmq import NOTE, Client, missing
from perf.worker import Control

__all__ = ["NOTE", "Client", "missing", "serve"]


def serve(settings: dict[str, Any], control: Control) -> None:
    """Echo, but for every hundredth call."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.bind(settings["endpoint"])
    control.end_with_parent()
    control.ready(settings["endpoint"])
    calls = 0
    while True:
        peer, data = socket.recv_multipart()
        calls += 1
        if calls % 100 == 0:
            data = data[:-1] + b"?"
        socket.send_multipart([peer, data])
