"""Platforms that lack `select.epoll`, or `select.poll` as well: the same promises, in a process where they are gone."""

import os
import select
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.testing import LIMIT

ROOT = Path(__file__).resolve().parents[2]

PRELUDE = """
import faulthandler, select, sys
faulthandler.dump_traceback_later(100, exit=True)
for name in sys.argv[1:]:
    delattr(select, name)
import asyncio, os, subprocess, threading
import zmq
from engine import *
from engine.testing import LIMIT, wait_until, wait_until_blocked
from transport import InvalidOperation, OverlappedDescriptor, OverlappedSocket

class Echo:
    def echo(self, value):
        return value
"""


Run = Callable[[str], None]


# As macOS would be if it had no kqueue either, and as Windows is. (With kqueue poll sets nest, as with epoll.)
@pytest.fixture(params=["epoll", "epoll poll"])
def run(request: pytest.FixtureRequest) -> Run:
    """A function that runs a script where these functions are missing."""

    def run_without(body: str) -> None:
        script = PRELUDE + textwrap.dedent(body)
        command = [sys.executable, "-c", script, *request.param.split()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, cwd=ROOT, env=os.environ)
        assert done.returncode == 0, done.stdout + done.stderr

    return run_without


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="there is nothing to take away")
class TestWithoutPollSets:
    """What the driver, the links and the waits do by epoll elsewhere."""

    def test_calls(self, run: Run, tmp_path: Path) -> None:
        """Calls of several threads, calls told by packet, and calls that are awaited are answered."""
        run(f"""
        endpoint = "ipc://{tmp_path}/echo"
        with Server(endpoint, workers=2) as server:
            server.register("echo", Echo())
            server.listen()
            with Client(endpoint) as client, CompletionPort() as port:
                echo = client.bind("echo").echo
                answers = []
                threads = [
                    threading.Thread(target=lambda n: answers.append(echo(n, timeout=LIMIT)), args=(n,))
                    for n in range(8)
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(LIMIT)
                assert sorted(answers) == list(range(8)), answers
                for n in range(20):
                    echo.begin(n, notify=port.packet(key=n))
                assert {{port.get(LIMIT).overlapped.complete() for _ in range(20)}} == set(range(20))
                async def main():
                    return await asyncio.gather(*(echo.begin(n) for n in range(5)))
                assert asyncio.run(main()) == list(range(5))
        """)

    def test_a_client_whose_server_comes_back(self, run: Run, tmp_path: Path) -> None:
        """A client replaces its socket when the connection is lost; threads that poll go on with the new one."""
        run(f"""
        endpoint = "ipc://{tmp_path}/echo"
        def serve():
            server = Server(endpoint, workers=1)
            server.register("echo", Echo())
            server.listen()
            return server
        server = serve()
        with Client(endpoint) as client, Event() as event:
            waiting = threading.Thread(target=event.wait)  # It leads, and polls.
            waiting.start()
            echo = client.bind("echo").echo
            for n in range(5):
                assert echo(n, timeout=LIMIT) == n
                server.close()
                server = serve()
                def served():
                    try:
                        return echo(n, timeout=LIMIT) == n
                    except CallError:
                        return False
                wait_until(served)
            event.set()
            waiting.join(LIMIT)
        server.close()
        """)

    def test_sources_that_come(self, run: Run) -> None:
        """A thread that polls takes notice of a source that another one registers."""
        run("""
        context = zmq.Context()
        def pair(name):
            one, two = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
            one.bind(f"inproc://{name}")
            two.connect(f"inproc://{name}")
            return OverlappedSocket(one), two
        idle, other = pair("idle")
        with CompletionPort() as port, idle:
            port.associate(idle)
            idle.begin_recv()  # There is something to poll.
            packets = []
            waiting = threading.Thread(target=lambda: packets.append(port.get(LIMIT)))
            waiting.start()
            from engine.kernel.driver import driver
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
        """)

    def test_sources_that_go(self, run: Run) -> None:
        """A poll is not disturbed by a descriptor that is closed in the midst of it."""
        run("""
        from tests.kernel.helpers import interleaved
        context = zmq.Context()
        def make():
            global source, fd
            socket = context.socket(zmq.PAIR)
            source, fd = OverlappedSocket(socket), socket.fileno()
            port.associate(source)
        def is_closed():
            try:
                os.fstat(fd)
            except OSError:
                return True
        def close():
            source.close()
            wait_until(is_closed)  # ZeroMQ does it in a thread of its own.
        with CompletionPort() as port:
            make()
            for outcome in interleaved(lambda: port.get(0), close):
                assert isinstance(outcome.exception(), WaitTimeout), outcome
                make()
            source.close()
        context.term()
        """)

    def test_processes(self, run: Run) -> None:
        """The end of a process is noticed."""
        run("""
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
            try:
                wait_any([process], 0.01)
            except WaitTimeout:
                pass
            process.communicate(b"\\n")
            assert wait_any([process], LIMIT) == 0
        """)

    def test_descriptors_are_refused(self, run: Run) -> None:
        """Overlapped descriptors want a poll set that can be polled itself: 50, and the descriptor is left alone."""
        run("""
        read, write = os.pipe()
        try:
            OverlappedDescriptor(read)
        except InvalidOperation as error:
            assert error.status == 50 and os.get_blocking(read)
        else:
            raise AssertionError
        """)
