"""Clients and servers under random faults: does each call have exactly one outcome, and is it a true one?

`python -m tests.long.chaos SECONDS [--seed N] [--link tcp]`: three servers and two processes of clients, in each of
which threads call one server or all three, by operations of all kinds, and cancel, abort and leave as they like. One
more kills, stops, drains and restarts the servers, disconnects their clients, and kills the processes of clients. Each
routine notes the name of its call in a file as its first step, which outlasts its process; each client notes what
became of its calls. At the end the two are compared:

    every call         has an outcome, and its notification came once
    success            the result is the right one; it ran once (idempotent: at least once)
    "did not run"      it did not
    any other failure  it ran once at most (idempotent: any number of times)

Prints one line with the numbers, and one for each call that was wrong. The seed repeats who does what in which order;
when, the machine decides.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from engine import (
    Call,
    Client,
    CompletionPort,
    EngineError,
    Interface,
    RemoteFault,
    Server,
    ServerCall,
    WaitTimeout,
    manager,
    operation,
)
from engine.testing import LIMIT

from .options import Given, endpoint, for_client, for_server, parse

ROOT = Path(__file__).resolve().parents[2]
MODULE = "tests.long.chaos"
SERVERS, PROCESSES, THREADS = 3, 2, 3
HEARTBEAT = 0.5  # Seconds: so that a server that stands still for a second or two is lost now and then.


class Chaos(Interface, id="tests.Chaos"):
    """Routines that note that they run; the first letter of a call's name says which it is."""

    def quick(self, name: str, data: bytes) -> bytes: ...
    def slow(self, name: str, data: bytes) -> bytes: ...
    def fails(self, name: str, data: bytes) -> bytes: ...
    def begins(self, name: str, data: bytes) -> bytes: ...
    def later(self, name: str, data: bytes) -> bytes: ...
    @operation(idempotent=True)
    def again(self, name: str, data: bytes) -> bytes: ...


OPERATIONS = ("quick", "quick", "quick", "slow", "fails", "begins", "later", "again", "again")
SIZES = (0, 10, 10, 1000, 5000, 100_000, 700_000)


def answer_to(name: str, data: bytes) -> bytes:
    """The right result."""
    return name.encode() + data[::-1]


class Routines:
    """The routines of `Chaos`."""

    def __init__(self, notes: str) -> None:
        self._notes = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def _note(self, name: str) -> None:
        os.write(self._notes, f"{name}\n".encode())  # In one step, and the system has it then.

    def quick(self, name: str, data: bytes) -> bytes:
        self._note(name)
        return answer_to(name, data)

    again = quick

    def slow(self, name: str, data: bytes) -> bytes:
        self._note(name)
        time.sleep(0.01)  # What it does; nothing waits for it to have passed.
        return answer_to(name, data)

    def fails(self, name: str, data: bytes) -> bytes:
        self._note(name)
        raise RemoteFault(name, status=9000)

    async def begins(self, name: str, data: bytes) -> bytes:
        self._note(name)
        return answer_to(name, data)

    @manager
    def later(self, call: ServerCall, name: str, data: bytes) -> None:
        self._note(name)

        def complete() -> None:
            with suppress(EngineError):  # It was aborted, or its server has closed.
                call.complete(answer_to(name, data))

        threading.Timer(0.005, complete).start()


def serve(where: str, notes: str) -> None:
    """The part of a server: serve until told to end. Told by lines: "drain", "disconnect"."""
    server = Server(where, workers=4, heartbeat=HEARTBEAT, fault_details=False, insecure=True, **for_server(where))
    server.register(Chaos, Routines(notes))

    def obey() -> None:
        for line in sys.stdin:
            if line.strip() == "disconnect":
                for peer in server.peers:
                    server.disconnect(peer)
            else:
                server.drain(1.0)
        server.close(0)

    with server:
        signal.signal(signal.SIGTERM, lambda *_: server.request_stop())
        server.listen()
        print(server.endpoint, flush=True)
        threading.Thread(target=obey, daemon=True).start()
        server.wait()


class Caller:
    """One thread of a process of clients: what it calls, and what became of that."""

    def __init__(self, name: str, choose: random.Random, servers: list[str], until: float) -> None:
        self._name = name
        self._choose = choose
        self._servers = servers
        self._until = until
        self._number = 0
        #: (name, "ok" or what is wrong or the error's class, whether it may have run).
        self.outcomes: list[tuple[str, str, bool]] = []

    def run(self) -> None:
        while time.monotonic() < self._until:
            several = self._choose.random() < 0.3
            where: Any = self._servers if several else self._choose.choice(self._servers)
            options = for_client(self._servers[0])
            with Client(where, heartbeat=HEARTBEAT, connect_timeout=5.0, retries=2, **options) as client:
                with CompletionPort() as port:
                    probe = client.bind(Chaos, causal=not several)
                    for _ in range(self._choose.randrange(1, 20)):
                        calls = self._begin(probe, port)
                        if leaves := self._choose.random() < 0.02:
                            client.close()
                        self._collect(calls, port)
                        if leaves or time.monotonic() >= self._until:
                            break

    def _begin(self, probe: Any, port: CompletionPort) -> dict[int, tuple[str, bytes, Call[Any]]]:
        """Begin a burst of calls, by number."""
        choose = self._choose
        begun = {}
        for _ in range(choose.choice((1, 1, 1, 3, 10, 100))):
            self._number += 1
            operation = choose.choice(OPERATIONS)
            name = f"{operation}-{self._name}-{self._number}"
            data = choose.randbytes(8) * (choose.choice(SIZES) // 8)
            timeout = choose.choice((None, None, None, 20.0, 0.5, 0.01))
            packet = port.packet(key=self._number)
            try:
                call = getattr(probe, operation).begin(name, data, notify=packet, timeout=timeout)
            except EngineError as error:
                self._note(name, f"refused by {type(error).__name__}", False)
                continue
            begun[self._number] = name, data, call
            if choose.random() < 0.05:
                with suppress(EngineError):  # It is over.
                    call.cancel(abort=choose.random() < 0.5)
        return begun

    def _collect(self, calls: dict[int, tuple[str, bytes, Call[Any]]], port: CompletionPort) -> None:
        """Take the packets of these calls, one each, and see what became of them."""
        deadline = time.monotonic() + LIMIT
        left = dict(calls)
        while left:
            try:
                packet = port.get(max(0.0, deadline - time.monotonic()))
            except WaitTimeout:
                break
            name, data, call = left.pop(packet.key, ("", b"", None))
            if call is None:
                self._note(f"{packet.key}-{self._name}", "WRONG: it was told of twice, or is another's", True)
                continue
            try:
                right = call.complete() == answer_to(name, data)
                self._note(name, "ok" if right else "WRONG: the result is another's", True)
            except EngineError as error:
                self._note(name, type(error).__name__, bool(getattr(error, "may_have_run", True)))
        for name, _, call in left.values():
            self._note(name, f"WRONG: nobody was told of it, and it is {call.status()}", True)
        with suppress(WaitTimeout):
            packet = port.get(0)
            self._note(f"{packet.key}-{self._name}", "WRONG: it was told of once more", True)

    def _note(self, name: str, outcome: str, may_have_run: bool) -> None:
        self.outcomes.append((name, outcome, may_have_run))


def call_them(name: str, seed: str, servers: list[str], seconds: float, notes: str) -> None:
    """The part of a process of clients: call for a while, and note what became of it."""
    until = time.monotonic() + seconds
    callers = [
        Caller(f"{name}.{number}", random.Random(f"{seed}-{number}"), servers, until) for number in range(THREADS)
    ]

    def run(caller: Caller) -> None:
        try:
            caller.run()
        except BaseException as error:
            caller.outcomes.append((f"?-{name}", f"WRONG: {error!r} left its thread", True))

    threads = [threading.Thread(target=run, args=(caller,)) for caller in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    Path(notes).write_text(json.dumps([each for caller in callers for each in caller.outcomes]))


class House:
    """All the processes, and what befalls them."""

    def __init__(self, given: Given, folder: str) -> None:
        self._given = given
        self._folder = folder
        self._choose = random.Random(f"{given.seed}-faults")
        self._endpoints = [endpoint(given.link, folder, f"s{number}") for number in range(SERVERS)]
        self._servers = [self._start_server(number) for number in range(SERVERS)]
        #: Those that were started, and were not seen to listen yet.
        self._starting = set(range(SERVERS))
        self.wrong: list[str] = []
        for number in range(SERVERS):
            self._listens(number)
        self._until = time.monotonic() + given.seconds
        self._lives = Counter[int]()
        self._clients = [self._client(number) for number in range(PROCESSES)]
        self.faults: Counter[str] = Counter()

    def _start(self, part: str, **arguments: Any) -> "subprocess.Popen[str]":
        given = self._given
        program = [sys.executable, "-m", MODULE, str(given.seconds), f"--seed={given.seed}", f"--link={given.link}"]
        program += [f"--part={part}", f"--arguments={json.dumps(arguments)}"]
        return subprocess.Popen(program, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _start_server(self, number: int) -> "subprocess.Popen[str]":
        return self._start("server", where=self._endpoints[number], notes=f"{self._folder}/ran")

    def _listens(self, number: int) -> None:
        """Wait until a server that was started listens; it runs then."""
        server = self._servers[number]
        if number in self._starting:
            self._starting.remove(number)
            assert server.stdout is not None
            self._endpoints[number] = server.stdout.readline().strip() or self._endpoints[number]
        if server.poll() is not None:
            self.wrong.append(f"a server that nobody had ended has ended with {server.returncode}")

    def _choose_server(self) -> int:
        number = self._choose.randrange(SERVERS)
        self._listens(number)
        return number

    def _client(self, number: int) -> "subprocess.Popen[str]":
        self._lives[number] += 1
        name = f"{number}.{self._lives[number]}"
        left = max(0.1, self._until - time.monotonic())
        return self._start(
            "clients", name=name, seed=f"{self._given.seed}-{name}", servers=self._endpoints, seconds=left,
            notes=f"{self._folder}/{name}.json",
        )  # fmt: skip

    def run(self) -> None:
        """Let things happen until the time is over."""
        happenings = (self.kill, self.stop, self.drain, self.pause, self.disconnect, self.kill_clients)
        while time.monotonic() < self._until:
            time.sleep(min(self._choose.expovariate(3.0), max(0.0, self._until - time.monotonic())))  # Faults in time.
            happen = self._choose.choices(happenings, (4, 3, 3, 2, 3, 1))[0]
            self.faults[happen.__name__] += 1
            happen()

    def kill(self) -> None:
        number = self._choose_server()
        self._servers[number].kill()
        self._again(number, -signal.SIGKILL)

    def stop(self) -> None:
        number = self._choose_server()
        self._servers[number].terminate()
        self._again(number)

    def drain(self) -> None:
        number = self._choose_server()
        self._tell(number, "drain")
        self._again(number)

    def pause(self) -> None:
        server = self._servers[self._choose_server()]
        server.send_signal(signal.SIGSTOP)
        time.sleep(self._choose.choice((0.1, 0.3, 2.0)))  # That is what it is.
        server.send_signal(signal.SIGCONT)

    def disconnect(self) -> None:
        self._tell(self._choose_server(), "disconnect")

    def kill_clients(self) -> None:
        number = self._choose.randrange(PROCESSES)
        self._clients[number].kill()
        _end(self._clients[number])
        self._clients[number] = self._client(number)

    def _tell(self, number: int, what: str) -> None:
        with suppress(OSError):  # It has ended.
            print(what, file=self._servers[number].stdin, flush=True)

    def _again(self, number: int, right: int = 0) -> None:
        """A server was told to end: have another one there, sometimes after a pause."""
        if (code := _end(self._servers[number])) != right:
            self.wrong.append(f"a server ended with {code}, not {right}")
        time.sleep(self._choose.choice((0.0, 0.0, 0.5)))  # Nobody listens there meanwhile.
        self._servers[number] = self._start_server(number)
        self._starting.add(number)

    def close(self) -> None:
        """Wait for the clients, and end the servers."""
        for client in self._clients:
            try:
                if client.wait(2 * LIMIT):
                    self.wrong.append(f"a process of clients ended with {client.returncode}")
            except subprocess.TimeoutExpired:
                self.wrong.append("a process of clients does not end")
                client.kill()
            _end(client)
        for number, server in enumerate(self._servers):
            self._listens(number)
            server.terminate()
            if code := _end(server):
                self.wrong.append(f"a server ended with {code}, not 0")

    def kill_all(self) -> None:
        """End what is left."""
        for process in (*self._clients, *self._servers):
            process.kill()
            _end(process)


def _end(process: "subprocess.Popen[str]") -> int:
    """Wait for the end of a process; return its code."""
    try:
        code = process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):
                stream.close()
    return code


def verdicts(outcomes: list[tuple[str, str, bool]], ran: Counter[str]) -> Iterator[str]:
    """What is wrong with these outcomes of calls of which so many runs were noted."""
    seen: Counter[str] = Counter()
    for name, outcome, may_have_run in outcomes:
        seen[name] += 1
        runs = ran[name]
        idempotent = name.startswith("again")
        if outcome.startswith("WRONG"):
            yield f"{name}: {outcome}"
        elif not may_have_run and runs:
            yield f"{name}: {outcome} says that it did not run, and it ran {runs} times"
        elif outcome == "ok" and not runs:
            yield f"{name}: it succeeded, and did not run"
        elif outcome == "ok" and name.startswith("fails"):
            yield f"{name}: it succeeded, and its routine raised"
        elif runs > 1 and not idempotent:
            yield f"{name}: it ran {runs} times, and ended with {outcome}"
    yield from (f"{name}: it has {count} outcomes" for name, count in seen.items() if count > 1)
    # Those of processes that were killed have none.
    yield from (
        f"{name}: it ran {runs} times, and its client was killed"
        for name, runs in ran.items()
        if runs > 1 and name not in seen and not name.startswith("again")
    )


def main() -> int:
    """Run it; 1 if anything was wrong."""
    given = parse(MODULE, "clients and servers under random faults")
    arguments = json.loads(given.arguments or "{}")
    if given.part == "server":
        serve(**arguments)
        return 0
    if given.part == "clients":
        call_them(**arguments)
        return 0
    with TemporaryDirectory(prefix="chaos-") as folder, ExitStack() as stack:
        for_client(endpoint(given.link, folder, ""))  # Certificates are made once, for all.
        house = House(given, folder)
        stack.callback(house.kill_all)
        house.run()
        house.close()
        outcomes = [tuple(each) for notes in Path(folder).glob("*.json") for each in json.loads(notes.read_text())]
        ran = Counter(Path(folder, "ran").read_text().split())
    wrong = house.wrong + list(verdicts(outcomes, ran))
    ended = ", ".join(f"{count} {what}" for what, count in Counter(outcome for _, outcome, _ in outcomes).most_common())
    faults = ", ".join(f"{count} {what}" for what, count in house.faults.most_common())
    print(f"chaos over {given.link}, seed {given.seed}, {given.seconds:g} s: {faults}")
    print(f"{len(outcomes)} calls, {ran.total()} runs: {ended}")
    print(f"{len(wrong)} wrong", *wrong[:50], sep="\n")
    return 1 if wrong or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
