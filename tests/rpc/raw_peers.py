"""A client and a server on plain pyzmq and MessagePack, some eighty lines each: what a reader of PROTOCOL.md writes.

They know nothing of this project's code. The client keeps one socket, and no monitor; the server runs one call after
the other.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import msgspec
import zmq

HELLO, WELCOME, REJECT, CALLS, REPLIES, CANCEL, BYE, PIPE, CREDIT = range(1, 10)
pack, unpack = msgspec.msgpack.encode, msgspec.msgpack.decode


class CallError(Exception):
    """A call failed; args: the status, and what the server says of it."""


class RawClient:
    """Calls one operation after the other. `limit`: seconds that a call may take."""

    def __init__(self, endpoint: str, limit: float) -> None:
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.set(zmq.LINGER, 1000)
        self._socket.set(zmq.HEARTBEAT_IVL, 5000)
        self._socket.connect(endpoint)
        self._association = os.urandom(16)
        self._limit = limit
        self._open = False
        self._last = 0

    def call(self, interface: str, operation: str, *args: Any, **options: Any) -> Any:
        """Return the result; a conversation that has ended meanwhile is begun anew, and the call may have run."""
        deadline = time.monotonic() + self._limit
        while not self._open:
            self._send(HELLO, [self._association, os.getpid()])
            kind, body, _ = self._hear(deadline)
            self._open = kind == WELCOME  # Else it is the REJECT, or the BYE, of another conversation.
        self._last += 1
        group = [0, [self._last], [args], {"t": self._limit, **options}]
        self._send(CALLS, [[group], [[interface, 0, 0, operation]]])
        while True:
            kind, body, blobs = self._hear(deadline)
            if kind in (REJECT, BYE):
                self._open = False
                raise CallError(1726, body[2 if kind == REJECT else 1])
            for ids, values, status, more in (group_of(each) for each in (body[0] if kind == REPLIES else ())):
                for number, value in zip(ids, values, strict=True):
                    if number == self._last:
                        if status:
                            raise CallError(status, value and value[0])
                        return blobs[0] if more.get("b") else value

    def close(self) -> None:
        """Say goodbye."""
        if self._open:
            self._send(BYE, [])
        self._socket.close()

    def _send(self, kind: int, body: list[Any]) -> None:
        self._socket.send(b"CP\1" + bytes([kind]) + pack(body))

    def _hear(self, deadline: float) -> tuple[int, Any, list[bytes]]:
        while not self._socket.poll(500):
            if time.monotonic() > deadline:
                raise CallError(1818, "nothing came")
            self._send(CREDIT, [[]])  # A server that does not know this conversation says so.
        head, *blobs = self._socket.recv_multipart()
        return head[3], unpack(head[4:]), blobs


def group_of(group: list[Any]) -> tuple[list[int], list[Any], int, dict[str, Any]]:
    """A group of replies, with what is left out."""
    ids, values, status, options = [*group, *(0, None)[len(group) - 2 :]][:4]
    return ids, values, status, options or {}


class RawServer:
    """Serves functions by (interface, operation); `step` takes one message."""

    def __init__(self, endpoint: str, functions: dict[tuple[str, str], Callable[..., Any]]) -> None:
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
        self._socket.set(zmq.LINGER, 1000)
        self._socket.set(zmq.HEARTBEAT_IVL, 5000)
        self._socket.bind(endpoint)
        self.endpoint: str = self._socket.get_string(zmq.LAST_ENDPOINT)
        self._functions = functions
        self._instance = os.urandom(16)
        self._open: dict[bytes, int] = {}  # Messages with calls that were taken, by peer.
        self._refused: set[bytes] = set()

    def step(self, timeout: int) -> None:
        """Take one message, if one comes within so many ms."""
        if not self._socket.poll(timeout):
            return
        peer, head, *blobs = self._socket.recv_multipart()
        try:
            kind, body = head[3], unpack(head[4:])
            if head[:3] != b"CP\1" or not isinstance(body, list):
                raise ValueError("not a message")
            if peer in self._open:
                self._take(peer, kind, body, blobs)
            elif kind == HELLO and len(body[0]) == 16:
                self._open[peer] = 0
                self._refused.discard(peer)
                self._send(peer, WELCOME, [self._instance, os.getpid(), "", "raw 1.0", 5])
            else:
                raise ValueError("a stranger")
        except Exception as error:
            if head[:2] == b"CP" and peer not in self._refused:
                self._open.pop(peer, None)
                self._refused.add(peer)
                self._send(peer, REJECT, [[1], 1728, str(error)])

    def dismiss(self) -> None:
        """End all conversations; the clients may begin others."""
        for peer, taken in self._open.items():
            self._send(peer, BYE, [0, "another one, please", taken])
        self._open.clear()

    def close(self) -> None:
        """Close for good."""
        self.dismiss()
        self._socket.close()

    def _take(self, peer: bytes, kind: int, body: list[Any], blobs: list[bytes]) -> None:
        if kind == BYE:
            del self._open[peer]
            self._refused.add(peer)
        elif kind == CALLS:
            self._open[peer] += 1
            for target, ids, args, *rest in body[0]:
                options = (rest and rest[0]) or {}
                interface, _, _, operation = body[1][target][:4]
                for number, own in zip(ids, args, strict=True):
                    for (position, *_), blob in zip(options.get("b", ()), blobs, strict=True):
                        own[position] = blob
                    reply = self._run(self._functions.get((interface, operation)), own)
                    if not options.get("w"):
                        self._send(peer, REPLIES, [[[[number], *reply]]])
        elif kind not in (HELLO, CANCEL, PIPE, CREDIT):  # What was cancelled is done; there are no pipes.
            raise ValueError("out of turn")

    @staticmethod
    def _run(function: Callable[..., Any] | None, args: list[Any]) -> tuple[list[Any], int]:
        if function is None:
            return [None], 1745
        try:
            return [function(*args)], 0
        except Exception as error:
            return [[type(error).__name__, str(error)]], 0xE0000001

    def _send(self, peer: bytes, kind: int, body: list[Any]) -> None:
        self._socket.send_multipart([peer, b"CP\1" + bytes([kind]) + pack(body)])
