"""By hand, what a good engineer would write instead: uvloop, a Protocol and msgspec over a Unix stream socket.

What favours it: one thread a side, and none between it and the socket; what is called or answered in one turn of the
loop leaves in one message, encoded in one step. It has no limits, no time-outs, no cancelling and no pool: a routine
that takes long stops everything.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from itertools import islice
from time import perf_counter_ns
from typing import Any

import msgspec

from perf.streams import check, needs, socket_path
from perf.worker import Control

NOTE = "a future for each call, all of a turn of the loop in one message"
HEAD = struct.Struct("<I")  # The length of a message: a list of (number, operation, argument) or (number, answer).
RUN_TIMEOUT = 120.0  # Seconds that one measurement may take.


def missing() -> str | None:
    """It needs uvloop."""
    return needs("uvloop", "uvloop")


class Messages:
    """An asyncio protocol: whole messages in, each a list of what `kind` says, and whole messages out."""

    def __init__(self, kind: Any, on_message: Callable[[list[Any]], None]) -> None:
        self._on_message = on_message
        self._decode = msgspec.msgpack.Decoder(kind).decode
        self._encode = msgspec.msgpack.Encoder().encode
        self._rest = b""

    def connection_made(self, transport: Any) -> None:
        """Keep what writes."""
        self._write = transport.write

    def connection_lost(self, error: Exception | None) -> None:
        """The run ends, or a time limit will say that answers are missing."""

    def pause_writing(self) -> None:
        """How much is outstanding is bounded by whoever calls."""

    def resume_writing(self) -> None:
        """Nothing was paused."""

    def eof_received(self) -> None:
        """Nothing more comes."""

    def send(self, calls: Sequence[object]) -> None:
        """Write one message."""
        body = self._encode(calls)
        self._write(HEAD.pack(len(body)) + body)

    def data_received(self, data: bytes) -> None:
        """Take apart what has come; the beginning of a message waits for its end."""
        if self._rest:
            data = self._rest + data
        start, end = 0, len(data)
        while end - start >= 4:
            (length,) = HEAD.unpack_from(data, start)
            if end - start - 4 < length:
                break
            self._on_message(self._decode(memoryview(data)[start + 4 : start + 4 + length]))
            start += 4 + length
        self._rest = data[start:]


def serve(settings: dict[str, Any], control: Control) -> None:
    """Answer each message by one that has all its answers."""
    import uvloop

    def echo(data: bytes) -> bytes:
        return data

    routines = {"echo": echo}

    def connected() -> Messages:
        def answer(calls: list[Any]) -> None:
            protocol.send([(number, routines[name](data)) for number, name, data in calls])

        protocol = Messages(list[tuple[int, str, bytes]], answer)
        return protocol

    control.end_with_parent()
    loop = uvloop.new_event_loop()
    loop.run_until_complete(loop.create_unix_server(connected, socket_path(settings["endpoint"])))
    control.ready(settings["endpoint"])
    loop.run_forever()


class Client:
    """A connection, and a table of the futures that wait for answers."""

    def __init__(self, endpoint: str) -> None:
        import uvloop

        self._loop = uvloop.new_event_loop()
        self._calls: dict[int, asyncio.Future[bytes]] = {}
        self._number = 0
        self._unsent: list[tuple[int, str, bytes]] = []
        self._transport, self._protocol = self._loop.run_until_complete(
            self._loop.create_unix_connection(
                lambda: Messages(list[tuple[int, bytes]], self._answered), socket_path(endpoint)
            )
        )

    def _echo(self, data: bytes) -> asyncio.Future[bytes]:
        """Begin a call. It leaves with the others of this turn of the loop."""
        self._number = number = self._number + 1
        future: asyncio.Future[bytes] = self._loop.create_future()
        self._calls[number] = future
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append((number, "echo", data))
        return future

    def _flush(self) -> None:
        calls, self._unsent = self._unsent, []
        self._protocol.send(calls)

    def _answered(self, answers: list[Any]) -> None:
        take = self._calls.pop
        for number, answer in answers:
            take(number).set_result(answer)

    def one_by_one(self, payloads: Sequence[bytes]) -> list[int]:
        """Await each."""

        async def work() -> list[int]:
            times = []
            for payload in payloads:
                start = perf_counter_ns()
                answer = await self._echo(payload)
                times.append(perf_counter_ns() - start)
                check(answer, payload)
            return times

        found: list[int] = self._run(work())
        return found

    def stream(self, payloads: Sequence[bytes], outstanding: int) -> None:
        """Keep futures, and await the oldest."""

        async def work() -> None:
            echo = self._echo
            waiting = iter(payloads)
            futures = deque((echo(payload), payload) for payload in islice(waiting, outstanding))
            while futures:
                future, sent = futures.popleft()
                answer = await future
                if answer != sent:
                    check(answer, sent)
                for payload in islice(waiting, 1):
                    futures.append((echo(payload), payload))

        self._run(work())

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(asyncio.wait_for(work, RUN_TIMEOUT))

    def close(self) -> None:
        """Close the connection and the loop."""
        self._transport.close()
        self._loop.call_soon(self._loop.stop)
        self._loop.run_forever()
        self._loop.close()
