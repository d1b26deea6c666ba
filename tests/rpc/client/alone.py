"""Clients in a process of their own, which has no other thread that might do their work.

    python -m tests.rpc.client.alone SCENARIO ENDPOINT

Each scenario is a function below; it prints what a test expects to read.
"""

import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

from engine import (
    Call,
    Client,
    CompletionPort,
    EngineError,
    Event,
    EventKind,
    Forked,
    InPipe,
    Interface,
    InvalidAsyncHandle,
    Pipe,
    Server,
    ServerCall,
    manager,
    operation,
)
from engine.testing import LIMIT, wait_until, wait_until_blocked

from ..interfaces import Control, Probe
from ..service import make_server


def one_way(endpoint: str) -> None:
    """A note is sent though the client never waits for anything, and was not connected when it was begun."""
    with Client(endpoint) as client:
        client.bind(Probe).note.begin("alone")
        # Until the service says so, by ending this process's input.
        sys.stdin.read()
    print("ended")


def begun_and_left(endpoint: str) -> None:
    """A call that was begun leaves though its thread does something else than wait."""
    with Client(endpoint) as client:
        call = client.bind(Probe).note.begin("left")
        held = client.bind(Probe).hold.begin("left")
        sys.stdin.read()
        print(call.status(), held.status())


def callback(endpoint: str) -> None:
    """A callback comes though no thread waits in the library."""
    come = threading.Event()

    def on_reply(call: "Call[Any]", kind: EventKind) -> None:
        print(call.complete(), flush=True)
        come.set()

    with Client(endpoint) as client:
        client.bind(Probe).echo.begin("called back", notify=on_reply)
        assert come.wait(LIMIT)


def polling(endpoint: str) -> None:
    """Polling a call, and then a port, is enough."""
    with Client(endpoint) as client, CompletionPort() as port:
        call = client.bind(Probe).echo.begin("polled")
        while call.status() == 997:
            pass
        client.bind(Probe).echo.begin("polled", notify=port)
        packet = None
        while packet is None:
            try:
                packet = port.get(0)
            except TimeoutError:
                pass
        print(call.complete(), packet.overlapped.complete())


def many(endpoint: str) -> None:
    """Calls that wait to be batched leave when the thread waits, however it waits."""
    with Client(endpoint) as client, CompletionPort() as port, Event() as event:
        probe = client.bind(Probe)
        for number in range(1000):
            probe.echo.begin(number, notify=port)
        total = sum(port.get(LIMIT).overlapped.complete() for _ in range(1000))
        calls = [probe.echo.begin(number) for number in range(100)]
        total += sum(call.result(LIMIT) for call in calls)
        calls = [probe.echo.begin(number, notify=event) for number in range(100)]
        while not all(call.done() for call in calls):
            event.wait(LIMIT)
        print(total + sum(call.complete() for call in calls))


def unreachable(endpoint: str) -> None:
    """A call to nobody ends in time though no thread waits in the library, and says how it ended."""
    told = threading.Event()
    with Client(endpoint, connect_timeout=0.1) as client:
        call = client.bind(Probe).echo.begin(1, notify=lambda call, kind: told.set())
        assert told.wait(LIMIT)
        try:
            call.complete()
        except EngineError as error:
            print(int(error.status))


def interrupted(endpoint: str) -> None:
    """Ctrl-C ends a blocking call; the server is told, and the client stays in order."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell may have it ignored in what it runs behind.
    with Client(endpoint) as client:
        probe = client.bind(Probe)
        control = client.bind(Control)
        main = threading.main_thread()
        noticed = threading.Event()

        def interrupt() -> None:
            control.arrived("interrupted")
            wait_until_blocked(main)
            # A signal that comes just before a system call is noticed only after it, so one may not be enough.
            while not noticed.wait(0.1):
                signal.pthread_kill(main.ident or 0, signal.SIGINT)

        other = threading.Thread(target=interrupt)
        other.start()
        try:
            probe.hold("interrupted")
        except KeyboardInterrupt:
            noticed.set()
            print("interrupted")
        other.join(LIMIT)
        control.seen_cancelled("interrupted")
        print(probe.echo("in order"), client.statistics().outstanding)


def forked(endpoint: str) -> None:
    """In a forked child the client refuses, at once; a new one works, and the parent's goes on."""
    warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forks in a process with threads.
    with Client(endpoint) as client, CompletionPort() as port:
        probe = client.bind(Probe)
        held = probe.hold.begin("forked", notify=port)
        client.bind(Control).arrived("forked")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = in_child(endpoint, client, held)
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        client.bind(Control).complete("forked", "parent")
        print(os.waitstatus_to_exitcode(status), port.get(LIMIT).overlapped.complete(), probe.echo("parent"))


def in_child(endpoint: str, client: Client, held: "Call[Any]") -> int:
    """What the forked child does; returns 0 if all was as it should be."""
    try:
        client.bind(Probe).echo.begin(1)
    except Forked:
        pass
    else:
        return 2
    try:
        held.result(LIMIT)
    except EngineError:
        pass
    else:
        return 3
    client.close()
    with Client(endpoint) as mine:
        return 0 if mine.bind(Probe).echo("child") == "child" else 4


def forked_server(endpoint: str) -> None:
    """In a forked child the server refuses; a new one works there, and the parent's goes on."""
    warnings.simplefilter("ignore", DeprecationWarning)
    server, board = make_server(endpoint)
    pulled: list[ServerCall] = []

    class Pulling:
        """Keeps its calls."""

        @manager
        def pull(self, call: ServerCall, numbers: "Pipe[int]") -> None:
            pulled.append(call)

    with server:
        server.register(Pulls, Pulling())
        server.listen()
        with Client(endpoint) as client:
            held = client.bind(Probe).hold.begin("forked")
            piped = client.bind(Pulls).pull.begin()
            client.bind(Control).arrived("forked")
            wait_until(lambda: pulled)
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    code = server_in_child(endpoint, server, board.get("forked"), pulled[0])
                finally:
                    os._exit(code)
            _, status = os.waitpid(child, 0)
            board.get("forked").complete("parent")
            pulled[0].abort(4711)
            assert piped.wait(LIMIT)
            print(os.waitstatus_to_exitcode(status), held.result(LIMIT), piped.status())


class Pulls(Interface):
    """An operation with a pipe."""

    @operation
    def pull(self, numbers: InPipe[int] = ...) -> int:
        """Kept until the process ends it."""


def server_in_child(endpoint: str, server: Server, held: ServerCall, piped: ServerCall) -> int:
    """What the forked child does; returns 0 if all was as it should be."""
    uses: list[Callable[[], object]] = [
        server.listen,
        server.stop,
        lambda: server.wait(LIMIT),
        lambda: server.register("more", Pulls),
        lambda: server.unregister(Probe, wait=True),
        held.complete,
        lambda: held.abort(4711),
        piped.complete,
        lambda: piped.abort(4711),
    ]
    for number, use in enumerate(uses, 10):
        try:
            use()
        except Forked:
            pass
        else:
            return number
    try:
        piped.pipe("numbers").pull()
    except InvalidAsyncHandle:
        pass
    else:
        return 9
    server.close()
    mine, _ = make_server(endpoint + "-child")
    with mine:
        mine.listen()
        with Client(endpoint + "-child") as client:
            return 0 if client.bind(Probe).echo("child") == "child" else 3


def never_closed(endpoint: str) -> None:
    """A client that is still open as the process ends is reported, and the process ends."""
    warnings.simplefilter("always")
    client = Client(endpoint)
    print(client.bind(Probe).echo("used"))


def never_closed_strictly(endpoint: str) -> None:
    """Leave a server and a client open, warnings being errors."""
    warnings.simplefilter("error")
    Server(endpoint).listen()
    Client(endpoint)
    print("left", flush=True)


def busy_elsewhere(endpoint: str) -> None:
    """A deferred call leaves within a tick though the process computes."""
    with Client(endpoint) as client:
        probe = client.bind(Probe)
        probe.nothing()
        calls = [probe.hold.begin(f"busy-{number}") for number in range(40)]
        calls.append(probe.note.begin("busy"))
        deadline = time.monotonic() + LIMIT
        arrived = threading.Event()
        threading.Thread(target=lambda: (sys.stdin.read(), arrived.set())).start()
        while not arrived.is_set() and time.monotonic() < deadline:
            pass
        print("arrived" if arrived.is_set() else "never")


def exits_with_calls(endpoint: str) -> None:
    """A process may end with calls outstanding and nothing closed."""
    client = Client(endpoint)
    client.bind(Probe).hold.begin("exits", notify=lambda call, kind: None)
    client.bind(Control).arrived("exits")
    print("exits")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    globals()[sys.argv[1]](sys.argv[2])
