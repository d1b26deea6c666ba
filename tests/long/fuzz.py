"""Random and mutated messages at a server and at a client: does anybody else notice?

`python -m tests.long.fuzz SECONDS [--seed N] [--link tcp]`. What is sent is made of the messages of
`transport/vectors.json`, of garbage, and of bytes: cut, spliced, repeated, with bits turned and lengths that lie, as
messages of a peer of ZMTP, or as bytes on its connection.

    at a server    a process of its own: strangers and clients send; a neighbour's calls are answered all the while
    at a client    a process of its own, which calls two servers: what one of them answers is made up; each of its calls
                   ends, and those to the other are answered

Prints one line with the numbers, and one for what was wrong. The seed repeats what is sent, in its order.
"""

import json
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from engine import Client, EngineError, Server
from engine.testing import LIMIT
from transport.frames import Hello
from transport.native_link.framing import hello, in_frames
from transport.wire.codec import encode

from ..certificates import client_context, server_context
from ..garbage import GARBAGE
from .options import Given, endpoint, for_client, for_server, parse

ROOT = Path(__file__).resolve().parents[2]
MODULE = "tests.long.fuzz"
VECTORS: list[dict[str, Any]] = json.loads((ROOT / "transport" / "vectors.json").read_text())["vectors"]
MEMORY = 300  # MiB that the fuzzed process may take in all.
SLOWEST = LIMIT / 2  # Seconds that a neighbour's call may take, on a machine that does much else.


class Echo:
    """Served as "echo"."""

    def echo(self, value: Any) -> Any:
        return value


def messages_to(side: str) -> list[list[bytes]]:
    """What a peer may send to this side, and what it may not."""
    found = [[bytes.fromhex(frame) for frame in each["frames"]] for each in VECTORS if each["to"] == side]
    return found + [frames for frames in GARBAGE.values() if len(frames) < 100]


class Maker:
    """Makes messages, and what a connection carries, by chance."""

    def __init__(self, choose: random.Random, side: str) -> None:
        self._choose = choose
        self._known = messages_to(side)

    def message(self) -> list[bytes]:
        """The frames of a message."""
        choose = self._choose
        frames = list(choose.choice(self._known))
        for _ in range(choose.choice((0, 1, 1, 2, 5))):
            where = choose.randrange(len(frames))
            frames[where] = self._mutated(frames[where])
        if choose.random() < 0.1:
            frames.insert(choose.randrange(len(frames) + 1), choose.randbytes(choose.choice((0, 1, 100, 70_000))))
        return frames

    def _mutated(self, frame: bytes) -> bytes:
        choose = self._choose
        data = bytearray(frame or b"\0")
        where = choose.randrange(len(data))
        how = choose.randrange(7)
        if how == 0:
            data[where] ^= 1 << choose.randrange(8)
        elif how == 1:
            data[where] = choose.choice((0, 0x7F, 0x80, 0x8F, 0x91, 0xC0, 0xC1, 0xC4, 0xD9, 0xDD, 0xDF, 0xFF))
        elif how == 2:
            del data[where:]
        elif how == 3:
            data[where:where] = choose.randbytes(choose.choice((1, 4, 100)))
        elif how == 4:  # A head that promises more than there is.
            data[where:where] = choose.choice((b"\xc6", b"\xdb", b"\xdd", b"\xdf")) + struct.pack(
                ">I", choose.choice((0, 1, 1 << 16, 1 << 31, (1 << 32) - 1))
            )
        elif how == 5:
            other = choose.choice(choose.choice(self._known))
            data[where:] = other[choose.randrange(len(other) + 1) :]
        else:
            data += data[where:] * choose.choice((1, 10, 1000))
            del data[1 << 20 :]
        return bytes(data)

    def stream(self, kind: bytes, greeting: bytes) -> list[bytes]:
        """What is sent on a connection, in pieces: mostly a greeting and messages, sometimes less of both."""
        choose = self._choose
        pieces = [hello(kind)]
        if choose.random() < 0.9:
            pieces += map(bytes, in_frames([greeting]))
        for _ in range(choose.choice((1, 3, 20))):
            pieces += map(bytes, in_frames(list(self.message())))
        if choose.random() < 0.3:
            where = choose.randrange(len(pieces))
            pieces[where] = self._mutated(pieces[where])
        if choose.random() < 0.2:
            pieces[choose.randrange(len(pieces))] = choose.randbytes(choose.choice((1, 9, 64, 5000)))
        return pieces


def served(where: str) -> Server:
    """A server there, in this process, that listens."""
    server = Server(where, workers=2, insecure=True, greeting_timeout=2.0, fault_details=False, **for_server(where))
    server.register("echo", Echo())
    server.listen()
    return server


def memory_of(process: int | str = "self") -> int:
    """MiB of memory that a process has; 0 where that cannot be read."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) // 1024
    return 0


# At a server.


@contextmanager
def part(given: Given, name: str, **arguments: Any) -> Iterator["subprocess.Popen[str]"]:
    """A process of its own, which ends with its input, or is made to."""
    program = [sys.executable, "-m", MODULE, str(given.seconds), f"--seed={given.seed}", f"--link={given.link}"]
    program += [f"--part={name}", f"--arguments={json.dumps(arguments)}"]
    with subprocess.Popen(program, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()


def connected(where: str) -> socket.socket:
    """A connection to that endpoint by hand, under TLS if that is asked for."""
    scheme, _, place = where.partition("://")
    if scheme.endswith("ipc"):
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(LIMIT)
        made.connect(place)
        return made
    host, _, port = place.rpartition(":")
    made = socket.create_connection((host, int(port)), LIMIT)
    return client_context().wrap_socket(made, server_hostname=host) if scheme == "tls" else made


def send_all(connection: socket.socket, pieces: list[bytes]) -> None:
    """Send these, and read what is there; the other side may close it at any time."""
    with suppress(OSError):
        for piece in pieces:
            connection.sendall(piece)
        connection.settimeout(0.05)
        for _ in range(3):
            if not connection.recv(1 << 16):
                return


def at_a_server(given: Given, folder: str) -> tuple[str, list[str]]:
    """Fuzz a server; return what was done, and what was wrong."""
    greeting = bytes(encode(Hello(b"\1" * 16, host="fuzz"))[0])
    wrong: list[str] = []
    sent, slowest = Counter[str](), 0.0
    with part(given, "server", where=endpoint(given.link, folder, "fuzzed")) as process, ExitStack() as stack:
        assert process.stdout is not None and process.stdin is not None
        where = process.stdout.readline().strip()
        neighbour = stack.enter_context(Client(where, connect_timeout=LIMIT, **for_client(where)))
        echo = neighbour.bind("echo").echo
        until, number = time.monotonic() + given.seconds, 0
        while time.monotonic() < until and not wrong:
            number += 1
            maker = Maker(random.Random(f"{given.seed}-server-{number}"), "server")
            call, began = echo.begin(number), time.monotonic()
            with suppress(OSError), connected(where) as connection:
                send_all(connection, maker.stream(b"DEALER", greeting))
            sent["connections"] += 1
            try:
                if (found := call.result(LIMIT)) != number:
                    wrong.append(f"connection {number}: the neighbour got {found}")
            except EngineError as error:
                wrong.append(f"connection {number}: the neighbour's call ended with {error}")
            slowest = max(slowest, time.monotonic() - began)
            if process.poll() is not None:
                wrong.append(f"connection {number}: the server has ended with {process.returncode}")
        if neighbour.statistics().connections != 1:
            wrong.append("the neighbour has lost its connection")
        if (memory := memory_of(process.pid)) > MEMORY:
            wrong.append(f"the server has {memory} MiB")
        if not wrong:
            print("statistics", file=process.stdin, flush=True)
            statistics = json.loads(process.stdout.readline())
            sent["garbage messages"], sent["refused strangers"] = statistics
    if slowest > SLOWEST:
        wrong.append(f"a neighbour's call took {slowest:.1f} s")
    if process.returncode:
        wrong.append(f"the server ended with {process.returncode}")
    return f"{dict(sent)}, {memory} MiB, the neighbour's slowest call {slowest * 1000:.0f} ms", wrong


def be_fuzzed(where: str) -> None:
    """The part of that server."""
    with served(where) as server:
        print(server.endpoint, flush=True)
        for _ in sys.stdin:
            found = server.statistics()
            print(json.dumps([found.garbage_received, found.strangers_refused]), flush=True)


# At a client.


def at_a_client(given: Given, folder: str) -> tuple[str, list[str]]:
    """Fuzz a client; return what was done, and what was wrong."""
    welcome = bytes.fromhex(next(each["frames"][0] for each in VECTORS if each["name"] == "welcome"))
    wrong: list[str] = []
    with ExitStack() as stack:
        if given.link.endswith("ipc"):
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(f"{folder}/liar")
            where = f"{given.link}://{folder}/liar"
        else:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            where = f"{given.link}://127.0.0.1:{listener.getsockname()[1]}"
        listener.listen()
        listener.settimeout(1.0)
        honest = stack.enter_context(served(endpoint(given.link, folder, "honest")))
        process = stack.enter_context(part(given, "client", liar=where, honest=honest.endpoint))
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()  # It calls.
        until, number = time.monotonic() + given.seconds, 0
        while time.monotonic() < until and process.poll() is None:
            with suppress(OSError):
                connection, _ = listener.accept()
                connection.settimeout(LIMIT)
                if given.link == "tls":
                    connection = server_context().wrap_socket(connection, server_side=True)
                with connection:
                    number += 1
                    maker = Maker(random.Random(f"{given.seed}-client-{number}"), "client")
                    send_all(connection, maker.stream(b"ROUTER", welcome))
        if process.poll() is not None:
            wrong.append(f"after connection {number}: the client has ended with {process.returncode}")
        process.stdin.close()
        said = process.stdout.read().strip()
        wrong += [] if said.startswith("{") else [f"the client says: {said}"]
    return f"{number} connections: {said}", wrong


def call_both(liar: str, honest: str) -> None:
    """The part of that client: call both until the input ends."""
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    outcomes: Counter[str] = Counter()
    slowest, number = 0.0, 0
    # A busy machine may leave the honest one, which shares its process with the liar, without a word for long.
    with Client(honest, connect_timeout=LIMIT, heartbeat=LIMIT, **for_client(honest)) as one:
        with Client(liar, connect_timeout=1.0, retries=0, **for_client(liar)) as other:
            good, bad = one.bind("echo").echo, other.bind("echo").echo
            good(0)
            print("ready", flush=True)
            while not ended.is_set():
                number += 1
                calls = [bad.begin(number, timeout=0.2) for _ in range(3)]
                began = time.monotonic()
                found = good(number)
                slowest = max(slowest, time.monotonic() - began)
                if found != number:
                    print(f"the honest one answered {found} to {number}")
                    return
                for call in calls:
                    if not call.wait(LIMIT):
                        print(f"call {number} has not ended: {call.status()}")
                        return
                    try:
                        call.complete()
                        outcomes["answered"] += 1
                    except EngineError as error:
                        outcomes[type(error).__name__] += 1
        if one.statistics().connections > 1:
            print("the connection to the honest one was lost")
            return
    memory = memory_of()
    if memory > MEMORY or slowest > SLOWEST:
        print(f"{memory} MiB, and a call to the honest one took {slowest:.1f} s")
        return
    print(f"{dict(outcomes)}, {memory} MiB, the slowest call to the honest one {slowest * 1000:.0f} ms")


def main() -> int:
    """Run it; 1 if anything was wrong."""
    given = parse(MODULE, "random and mutated messages")
    arguments = json.loads(given.arguments or "{}")
    if given.part:
        if given.part == "server":
            be_fuzzed(**arguments)
        else:
            call_both(**arguments)
        return 0
    given.seconds /= 2
    failed = False
    with TemporaryDirectory(prefix="fuzz-") as folder:
        for fuzz in (at_a_server, at_a_client):
            done, wrong = fuzz(given, folder)
            print(f"{fuzz.__name__} over {given.link}, seed {given.seed}, {given.seconds:g} s: {done}")
            print(f"{len(wrong)} wrong", *wrong, sep="\n")
            failed = failed or bool(wrong)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
