"""Sequences of calls under starvation: are their routines entered in the order in which the calls were begun?

`python -m tests.rpc.ordering COUNT [--calls 1000] [--seed 0]`: six processes on one processor, in each a server, and
clients of all six servers. A sequence is so many calls of one client, of routines of all kinds, begun singly and in
bursts. Each routine notes the number of its call as its first step; at the end the client asks for what was noted:

    routines in general          in the order of the calls, and none missing
    `async def` routines         in their order among themselves, each after all other calls begun before it
    calls with a context handle  which may have to wait for it: in their order among themselves

Prints one line with the number of sequences, and one for each that was wrong; the seed repeats its calls.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from engine import (
    Call,
    Client,
    Context,
    Event,
    Interface,
    Server,
    ServerCall,
    blocking,
    current_call,
    current_callback,
    manager,
    operation,
)
from engine.testing import LIMIT

ROOT = Path(__file__).resolve().parents[2]
PROCESSES = 6
THREADS = 3  # Clients of a process that are busy at once.
WORKERS = 8
NAP = 0.0003  # Seconds that slow routines sleep, as what they do: more than what counts as slow. Nothing waits for it.


def contract(slot: str) -> Any:  # noqa: C901  # operations of many kinds
    """Return the contract of one client's routines."""

    class Noting(Interface, id=f"tests.Noting.{slot}"):
        """Routines that note their numbers."""

        def quick(self, number: int) -> None: ...
        def slow(self, number: int) -> None: ...
        def sometimes(self, number: int) -> None: ...
        def waits(self, number: int) -> None: ...
        def blocks(self, number: int) -> None: ...
        def long(self, number: int) -> None: ...
        def asks(self, number: int) -> None: ...
        def fails(self, number: int) -> None: ...
        def append(self, number: int) -> None: ...
        def partial(self, number: int) -> None: ...
        def object(self, number: int) -> None: ...
        def managed(self, number: int) -> None: ...
        @operation(one_way=True)
        def tells(self, number: int) -> None: ...
        def begins(self, number: int) -> None: ...
        def open(self) -> Context[list[int]]: ...
        def uses(self, state: Context[list[int]], number: int) -> None: ...
        def take(self) -> tuple[list[int], list[int], list[int]]: ...

    return Noting


class Appending:
    """An object that can be called."""

    def __init__(self, noted: list[int]) -> None:
        self.append = noted.append

    def __call__(self, number: int) -> None:
        self.append(number)


class Routines:
    """One client's routines. The first step of each is a call of a function in C: no other thread comes in between."""

    def __init__(self) -> None:  # noqa: C901  # routines of many kinds
        noted: list[int] = []
        began: list[int] = []
        used: list[int] = []

        def quick(number: int) -> None:
            noted.append(number)

        def slow(number: int) -> None:
            noted.append(number)
            time.sleep(NAP)

        def sometimes(number: int) -> None:
            noted.append(number)
            if not number & 15:
                time.sleep(2 * NAP)

        def waits(number: int) -> None:
            noted.append(number)
            with Event() as never:
                never.wait(0)

        def blocks(number: int) -> None:
            noted.append(number)
            with blocking():
                time.sleep(NAP if number & 1 else 0)

        def long(number: int) -> None:
            noted.append(number)
            current_callback().may_run_long()
            time.sleep(NAP if number & 1 else 0)

        def asks(number: int) -> None:
            noted.append(number)
            current_call().attributes()

        def fails(number: int) -> None:
            noted.append(number)
            raise ValueError(number)

        async def begins(number: int) -> None:
            began.append(number)
            noted.append(-1 - number)
            await asyncio.sleep(0)

        @manager
        def managed(call: ServerCall, number: int) -> None:
            noted.append(number)
            call.complete(None)

        def uses(state: Context[list[int]], number: int) -> None:
            used.append(number)
            if number & 1:
                time.sleep(NAP)

        def take() -> tuple[list[int], list[int], list[int]]:
            taken = noted.copy(), began.copy(), used.copy()
            for each in (noted, began, used):
                each.clear()
            return taken

        self.quick, self.slow, self.sometimes, self.waits, self.blocks = quick, slow, sometimes, waits, blocks
        self.long, self.asks, self.fails, self.begins, self.managed = long, asks, fails, begins, managed
        self.tells, self.uses, self.take = quick, uses, take
        self.append, self.partial, self.object = noted.append, partial(quick), Appending(noted)

    def open(self) -> Context[list[int]]:
        return current_call().open_context([])


ORDERED = (
    "quick", "slow", "sometimes", "waits", "blocks", "long", "asks", "fails", "append", "partial", "object", "managed",
    "tells",
)  # fmt: skip
KINDS = (*ORDERED, "begins", "uses")
# What a sequence is made of: one kind alone, or some of them, the quick ones more often.
MIXTURES: tuple[tuple[str, ...], ...] = (
    *((kind,) for kind in KINDS),
    ("quick", "slow"),
    ("quick", "quick", "quick", "quick", "slow", "begins"),
    ("quick", "append", "partial", "object", "sometimes"),
    ("append", "begins", "slow", "partial"),
    ("quick", "uses", "slow"),
    ("quick", "quick", "waits", "begins", "uses", "asks"),
    KINDS,
)


class Slot:
    """One client of one server, which calls routines of its own."""

    def __init__(self, client: Client, slot: str) -> None:
        self._client = client
        self._noting = client.bind(contract(slot))

    def run(self, choose: random.Random, number: int) -> str:
        """Begin a sequence of calls, await them; return what was wrong, "" if nothing."""
        noting: Any = self._noting
        mixture = choose.choice(MIXTURES)
        kinds = [choose.choice(mixture) for _ in range(number)]
        state = noting.open() if "uses" in mixture else None
        calls: list[Call[Any]] = []
        at = 0
        while at < number:
            burst = choose.choice((1, 1, 2, 5, 20, 200))
            for kind in kinds[at : at + burst]:
                calls.append(self._begin(noting, kind, at, state, choose))
                at += 1
            if burst == 1 and kinds[at - 1] != "tells" and choose.random() < 0.5:
                calls[-1].wait(LIMIT)
        for call in calls:
            call.wait(LIMIT)
        return verdict(kinds, *noting.take())

    def _begin(self, noting: Any, kind: str, number: int, state: Any, choose: random.Random) -> Call[Any]:
        begin = getattr(noting, kind).begin
        # With a limit a call needs a record of its own.
        options = {"timeout": LIMIT} if choose.random() < 0.1 and kind != "tells" else {}
        call: Call[Any] = begin(state, number, **options) if kind == "uses" else begin(number, **options)
        return call


def verdict(kinds: list[str], noted: list[int], began: list[int], used: list[int]) -> str:
    """Return what is wrong with what was noted, "" if nothing."""
    for what, chosen, found in (
        ("routines", ORDERED, [number for number in noted if number >= 0]),
        ("async def routines", ("begins",), began),
        ("calls with a context handle", ("uses",), used),
    ):
        expected = [number for number, kind in enumerate(kinds) if kind in chosen]
        if found != expected:
            first = next(
                (pair for pair in zip(found, expected, strict=False) if pair[0] != pair[1]), "some are missing"
            )
            return f"{what}: {first} (noted, expected) among {sorted(set(kinds))}"
    latest = -1
    for number in noted:
        if number < 0:
            latest = max(latest, -1 - number)
        elif number < latest and number >= 0:
            return f"async def routine {latest} was begun before {number} was entered, among {sorted(set(kinds))}"
    return ""


def sequences(count: int, worker: int) -> Iterator[int]:
    """Return the numbers of the sequences that are one thread's, of so many in all."""
    yield from range(worker, count, PROCESSES * THREADS)


def work(index: int, folder: str, count: int, calls: int, seed: int) -> None:
    """One of the processes: serve, and call all servers from several threads."""
    wrong: list[str] = []
    done: list[int] = []
    endpoints = [f"ipc://{folder}/{number}" for number in range(PROCESSES)]
    names = [f"{process}-{thread}" for process in range(PROCESSES) for thread in range(THREADS)]
    with ExitStack() as stack:
        inside = f"loopback://ordering-{index}"
        server = stack.enter_context(Server(endpoints[index], inside, workers=WORKERS))
        for name in names:
            server.register(contract(name), Routines())
        server.listen()
        print("ready", flush=True)
        sys.stdin.readline()  # All servers listen.

        def run(thread: int) -> None:
            name = f"{index}-{thread}"
            slots = [Slot(stack.enter_context(Client(endpoint)), name) for endpoint in [*endpoints, inside]]
            for number in sequences(count, index * THREADS + thread):
                choose = random.Random(f"{seed}-{number}")
                slot = slots[choose.randrange(len(slots))]
                try:
                    found = slot.run(choose, calls)
                except BaseException as error:
                    found = f"{type(error).__name__}: {error}"
                if found:
                    wrong.append(f"sequence {number}: {found}")
                done.append(number)

        threads = [threading.Thread(target=run, args=(thread,)) for thread in range(THREADS)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        print(json.dumps({"done": len(done), "wrong": wrong}), flush=True)
        sys.stdin.readline()  # All have called.


def main() -> int:
    """Run them all; 1 if any was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.rpc.ordering")
    parser.add_argument("count", type=int)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--process", type=int)
    parser.add_argument("--folder")
    given = parser.parse_args()
    if given.process is not None:
        work(given.process, given.folder, given.count, given.calls, given.seed)
        return 0
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    started = time.monotonic()
    with TemporaryDirectory(prefix="order-") as folder:
        program = [sys.executable, "-m", "tests.rpc.ordering", *sys.argv[1:], "--folder", folder, "--process"]
        start: Callable[..., Any] = partial(
            subprocess.Popen, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        running = [start([*program, str(number)]) for number in range(PROCESSES)]
        answers = []
        try:
            for _ in ("ready", "called"):
                answers = [child.stdout.readline() for child in running]
                for child in running:
                    print(file=child.stdin, flush=True)
        finally:
            for child in running:
                child.stdin.close()
            codes = [child.wait() for child in running]
    found = [json.loads(answer) for answer in answers]
    wrong = [text for each in found for text in each["wrong"]]
    done = sum(each["done"] for each in found)
    print(
        f"{done} sequences of {given.calls} calls, {len(wrong)} wrong, {time.monotonic() - started:.0f} s",
        *wrong,
        sep="\n",
    )
    return 1 if wrong or done < given.count or any(codes) else 0


if __name__ == "__main__":
    sys.exit(main())
