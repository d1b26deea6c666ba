"""Everything, again and again: is anything left of it?

`python -m tests.long.leaks SECONDS [--seed N] [--link tcp]`: rounds of what programs do, in an order of chance: servers
that start and end, clients that come and go, calls that succeed, fail, run out of time, are cancelled and dropped,
pipes, contexts, timers, waits, pools, ports, connections of strangers, refused keys. After some rounds, so that what
a process opens once is open, it is looked what there is: memory, descriptors, threads, objects of the library. At the
end there is no more.

Prints one line with the numbers, and one for what has grown. The seed repeats the order.
"""

import asyncio
import gc
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from tempfile import TemporaryDirectory
from typing import Any

from engine import (
    Client,
    CompletionPort,
    Context,
    EngineError,
    Event,
    InPipe,
    Interface,
    OutPipe,
    Server,
    ThreadPool,
    Timer,
    WaitableTimer,
    current_call,
    operation,
    register_wait,
)
from engine.testing import LIMIT, wait_until
from transport import Curve

from .fuzz import connected
from .options import Given, endpoint, for_client, for_server, parse

MODULE = "tests.long.leaks"
WARM_UP = 0.35  # The part of the time after which it is looked first,
TURNS = 3  # and how often everything was done by then.
GROWTH = 12  # MiB of memory that may have come since: allocators do not give all back.
OBJECTS = 200  # So may objects of the library: some that wait to be collected by others' threads.


class Leaks(Interface, id="tests.Leaks"):
    """What is called."""

    def echo(self, data: bytes) -> bytes: ...
    def fails(self) -> None: ...
    def begins(self) -> int: ...
    def never(self) -> None: ...
    @operation(one_way=True)
    def tells(self, data: bytes) -> None: ...
    def total(self, numbers: InPipe[int]) -> int: ...
    def count(self, most: int, numbers: OutPipe[int]) -> None: ...
    def open(self) -> Context[list[int]]: ...
    def use(self, state: Context[list[int]]) -> int: ...


class Routines:
    """The routines of `Leaks`."""

    def echo(self, data: bytes) -> bytes:
        return data

    def fails(self) -> None:
        current_call().abort(9000, "as agreed")

    async def begins(self) -> int:
        await asyncio.sleep(0)
        return 1

    async def never(self) -> None:
        await asyncio.sleep(3600)  # Until it is cancelled.

    def tells(self, data: bytes) -> None:
        pass

    def total(self, numbers: Any) -> int:
        return sum(numbers)

    def count(self, most: int, numbers: Any) -> Iterator[int]:
        yield from range(most)

    def open(self) -> Context[list[int]]:
        return current_call().open_context([])

    def use(self, state: Context[list[int]]) -> int:
        state.state.append(1)
        return len(state.state)


class Rounds:
    """What is done, by names."""

    def __init__(self, given: Given, folder: str) -> None:
        self._link = given.link
        self._folder = folder
        self._choose = random.Random(given.seed)
        self.done: Counter[str] = Counter()
        self.warm = False

    def server(self, **options: Any) -> Server:
        where = endpoint(self._link, self._folder, "s")
        server = Server(where, workers=2, insecure=True, **for_server(where), **options)
        server.register(Leaks, Routines())
        server.listen()
        return server

    def run(self, server: Server) -> None:
        """One of them: each in turn at first, so that what is opened once is open; then by chance."""
        kinds: tuple[Callable[[Server], None], ...] = (
            self.calls, self.calls, self.cancels, self.time_outs, self.drops, self.pipes, self.contexts, self.awaits,
            self.strangers, self.restart, self.pools, self.waits, self.several, self.keys,
        )  # fmt: skip
        number = self.done.total()
        self.warm = number >= TURNS * len(kinds)
        kind = self._choose.choice(kinds) if self.warm else kinds[number % len(kinds)]
        kind(server)
        self.done[kind.__name__] += 1

    def client(self, server: Server, **options: Any) -> Client:
        return Client(server.endpoint, connect_timeout=LIMIT, **for_client(server.endpoint), **options)

    def calls(self, server: Server) -> None:
        with self.client(server) as client, CompletionPort() as port:
            probe: Any = client.bind(Leaks)
            data = bytes(self._choose.choice((0, 100, 100_000, 1 << 20)))
            calls = [probe.echo.begin(data, notify=port) for _ in range(20)]
            for _ in calls:
                port.get(LIMIT).overlapped.complete()
            probe.tells(data)
            with suppress(EngineError):
                probe.fails()

    def cancels(self, server: Server) -> None:
        with self.client(server) as client:
            probe: Any = client.bind(Leaks)
            for abort in (True, False) * 5:
                call = probe.echo.begin(b"x")
                with suppress(EngineError):
                    call.cancel(abort=abort)
                    call.result(LIMIT)
            for call in [probe.never.begin() for _ in range(5)]:
                call.cancel(abort=True)

    def time_outs(self, server: Server) -> None:
        with self.client(server) as client:
            probe: Any = client.bind(Leaks)
            for call in [probe.never.begin(timeout=0.001) for _ in range(10)]:
                with suppress(EngineError):
                    call.result(LIMIT)

    def drops(self, server: Server) -> None:
        with self.client(server) as client:
            probe: Any = client.bind(Leaks)
            probe.echo(b"")
            for _ in range(10):
                probe.echo.begin(b"dropped")
            probe.never.begin()  # Open as the client goes.

    def pipes(self, server: Server) -> None:
        with self.client(server) as client:
            probe: Any = client.bind(Leaks)
            probe.total([1, 2, 3])
            list(probe.count.stream(100))
            for number in probe.count.stream(1_000_000):
                if number > 10:
                    break  # And the rest is not wanted.

    def contexts(self, server: Server) -> None:
        with self.client(server) as client:
            probe: Any = client.bind(Leaks)
            state = probe.open()
            probe.use(state)
            probe.open()  # Run down with the connection.

    def awaits(self, server: Server) -> None:
        async def main() -> None:
            async with self.client(server) as client:
                probe: Any = client.bind(Leaks)
                await asyncio.gather(*(probe.echo.begin(b"x") for _ in range(5)), probe.begins.begin())
                waiting = asyncio.ensure_future(probe.never.begin())
                await asyncio.sleep(0)
                waiting.cancel()
                with suppress(asyncio.CancelledError):
                    await waiting

        asyncio.run(main())

    def strangers(self, server: Server) -> None:
        for _ in range(3):
            with connected(server.endpoint) as connection, suppress(OSError):
                connection.sendall(self._choose.randbytes(self._choose.choice((0, 10, 100))))

    def restart(self, server: Server) -> None:
        other = self.server()
        with self.client(other) as client:
            probe: Any = client.bind(Leaks)
            probe.begins()  # It has a loop of its own.
            probe.never.begin()
            if self._choose.random() < 0.5:
                other.drain(0.0)
            else:
                other.close(0.0)

    def pools(self, server: Server) -> None:
        with ThreadPool(1, maximum=3) as pool:
            for _ in range(10):
                pool.submit(int)
            with Event() as fired:
                timer = Timer(fired.set, pool=pool)
                timer.set(0.0)
                fired.wait(LIMIT)
                timer.close()

    def waits(self, server: Server) -> None:
        with Event() as event, WaitableTimer() as timer, CompletionPort() as port:
            timer.set(0.0)
            timer.wait(LIMIT)
            register_wait(event, lambda status: None, LIMIT)
            port.associate_wait(timer, key=1)
            timer.set(0.0)
            port.get(LIMIT)
            event.set()
            for _ in range(20):
                port.post(1, 2, "x")
            port.get_many(20, timeout=LIMIT)

    def several(self, server: Server) -> None:
        other = self.server()
        with other, Client([server.endpoint, other.endpoint], **for_client(server.endpoint)) as client:
            probe: Any = client.bind(Leaks, causal=False)
            for call in [probe.echo.begin(b"x") for _ in range(10)]:
                call.result(LIMIT)

    def keys(self, server: Server) -> None:
        own, mine, others = (Curve.new_keys() for _ in range(3))
        with Server("tcp://127.0.0.1:*", workers=1, curve=Curve(*own, allowed=lambda key: key == mine[0])) as locked:
            locked.register(Leaks, Routines())
            locked.listen()
            with Client(locked.endpoint, curve=Curve(*mine, server_key=own[0])) as client:
                client.bind(Leaks).echo(b"x")
            with Client(locked.endpoint, curve=Curve(*others, server_key=own[0]), connect_timeout=0.1) as client:
                with suppress(EngineError):
                    client.bind(Leaks).echo(b"x")


class Look:
    """What there is in the process."""

    def __init__(self) -> None:
        for _ in range(3):
            gc.collect()
        self.memory = next(
            int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmRSS")
        )
        self.descriptors = len(os.listdir("/proc/self/fd"))
        self.threads = Counter(thread.name.rstrip("0123456789") for thread in threading.enumerate())
        self.objects = Counter(
            kind.__qualname__
            for kind in map(type, gc.get_objects())
            if str(kind.__module__).partition(".")[0] in ("engine", "transport")
        )

    def grown(self, before: "Look") -> Iterator[str]:
        """What has come since."""
        if self.memory > before.memory + GROWTH:
            yield f"memory: from {before.memory:.0f} to {self.memory:.0f} MiB"
        if self.descriptors > before.descriptors:
            yield f"descriptors: from {before.descriptors} to {self.descriptors}"
        if more := self.threads - before.threads:
            yield f"threads: {dict(more)}"
        if (more := self.objects - before.objects).total() > OBJECTS:
            yield f"objects: {dict(more.most_common(10))}"


def settled(before: Look | None) -> Look:
    """What there is once what ends in the background has ended."""
    found = Look()
    for _ in range(50):
        if before is None or not any(found.grown(before)):
            break
        time.sleep(0.1)  # Connections end in threads of ZeroMQ's.
        found = Look()
    return found


def main() -> int:
    """Run it; 1 if anything has grown."""
    given = parse(MODULE, "everything, again and again")
    began = time.monotonic()
    first: Look | None = None
    with TemporaryDirectory(prefix="leaks-") as folder:
        rounds = Rounds(given, folder)
        with rounds.server() as server:
            while (passed := time.monotonic() - began) < given.seconds or first is None:
                if first is None and passed > given.seconds * WARM_UP and rounds.warm:
                    wait_until(lambda: not server.peers)
                    first = settled(None)
                rounds.run(server)
            wait_until(lambda: not server.peers)
            last = settled(first)
    wrong = list(last.grown(first))
    done = ", ".join(f"{count} {what}" for what, count in rounds.done.most_common())
    print(f"leaks over {given.link}, seed {given.seed}, {given.seconds:g} s: {done}")
    print(
        f"from {first.memory:.0f} to {last.memory:.0f} MiB, {first.descriptors} to {last.descriptors} descriptors, "
        f"{first.threads.total()} to {last.threads.total()} threads, "
        f"{first.objects.total()} to {last.objects.total()} objects"
    )
    print(f"{len(wrong)} wrong", *wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
