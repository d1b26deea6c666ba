"""What the driver, the links and the waits do by epoll where there is one: `test_portability.py` has it done without.

Each function is given a folder for its endpoints.
"""

import asyncio
import os
import subprocess
import sys
import threading
from functools import partial
from typing import Any

import zmq

from engine import CallError, Client, CompletionPort, Event, Server, WaitTimeout, wait_any
from engine.kernel.driver import driver
from engine.testing import LIMIT, wait_until
from tests.kernel.helpers import interleaved
from transport import InvalidOperation, OverlappedDescriptor, OverlappedSocket


class Echo:
    """What the servers serve."""

    def echo(self, value: Any) -> Any:
        return value


def serve(endpoint: str, workers: int) -> Server:
    """A server that listens."""
    server = Server(endpoint, workers=workers)
    server.register("echo", Echo())
    server.listen()
    return server


def calls(folder: str) -> None:
    """Calls of several threads, calls told by packet, and calls that are awaited."""
    endpoint = f"ipc://{folder}/echo"
    with serve(endpoint, 2), Client(endpoint) as client, CompletionPort() as port:
        echo = client.bind("echo").echo
        answers: list[int] = []
        threads = [
            threading.Thread(target=lambda number: answers.append(echo(number, timeout=LIMIT)), args=(number,))
            for number in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        assert sorted(answers) == list(range(8)), answers
        for number in range(20):
            echo.begin(number, notify=port.packet(key=number))
        assert {port.get(LIMIT).overlapped.complete() for _ in range(20)} == set(range(20))

        async def main() -> list[Any]:
            return list(await asyncio.gather(*(echo.begin(number) for number in range(5))))

        assert asyncio.run(main()) == list(range(5))


def a_server_that_comes_back(folder: str) -> None:
    """A client that replaces its socket while a thread polls."""
    endpoint = f"ipc://{folder}/echo"
    server = serve(endpoint, 1)
    with Client(endpoint) as client, Event() as event:
        waiting = threading.Thread(target=event.wait)  # It leads, and polls.
        waiting.start()
        echo = client.bind("echo").echo

        def served(number: int) -> bool:
            try:
                return bool(echo(number, timeout=LIMIT) == number)
            except CallError:
                return False

        for number in range(5):
            assert echo(number, timeout=LIMIT) == number
            server.close()
            server = serve(endpoint, 1)
            wait_until(partial(served, number))
        event.set()
        waiting.join(LIMIT)
    server.close()


def sources_that_come(folder: str) -> None:
    """A source that another thread registers while one polls."""
    context: zmq.Context[Any] = zmq.Context()

    def pair(name: str) -> tuple[OverlappedSocket, Any]:
        one, two = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        one.bind(f"inproc://{name}")
        two.connect(f"inproc://{name}")
        return OverlappedSocket(one), two

    idle, other = pair("idle")
    with CompletionPort() as port, idle:
        port.associate(idle)
        idle.begin_recv()  # There is something to poll.
        packets: list[Any] = []
        waiting = threading.Thread(target=lambda: packets.append(port.get(LIMIT)))
        waiting.start()
        wait_until(lambda: driver()._polling and driver().leader_ident == waiting.ident)
        source, two = pair("late")
        with source:
            port.associate(source, "late")
            source.begin_recv()
            two.send(b"x")
            waiting.join(LIMIT)
        assert [packet.key for packet in packets] == ["late"]
    two.close()
    other.close()
    context.term()


def sources_that_go(folder: str) -> None:
    """A descriptor that is closed in the midst of a poll."""
    context: zmq.Context[Any] = zmq.Context()
    with CompletionPort() as port:

        def make() -> tuple[OverlappedSocket, int]:
            socket = context.socket(zmq.PAIR)
            source = OverlappedSocket(socket)
            port.associate(source)
            return source, socket.fileno()

        def is_closed() -> bool:
            try:
                os.fstat(descriptor)
            except OSError:
                return True
            return False

        def close() -> None:
            source.close()
            wait_until(is_closed)  # ZeroMQ does it in a thread of its own.

        source, descriptor = make()
        for outcome in interleaved(lambda: port.get(0), close):
            assert isinstance(outcome.exception(), WaitTimeout), outcome
            source, descriptor = make()
        source.close()
    context.term()


def processes(folder: str) -> None:
    """The end of a process."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        try:
            wait_any([process], 0.01)
        except WaitTimeout:
            pass
        process.communicate(b"\n")
        assert wait_any([process], LIMIT) == 0


def descriptors(folder: str) -> None:
    """An overlapped descriptor, which wants a poll set that can be polled itself."""
    read, _ = os.pipe()
    try:
        OverlappedDescriptor(read)
    except InvalidOperation as error:
        assert error.status == 50 and os.get_blocking(read)
    else:
        raise AssertionError("it was made")
