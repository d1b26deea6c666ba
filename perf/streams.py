"""Ways to keep calls outstanding, for adapters: handles, threads, tasks. Each compares every answer."""

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from time import perf_counter_ns
from typing import Any

from perf.measure import ANSWER_TIMEOUT, WrongAnswer


def check(answer: object, sent: bytes) -> None:
    """Compare an answer with what was sent."""
    if answer != sent:
        raise WrongAnswer(f"{answer!r:.60} for {sent[:16]!r}")


def one_by_one(call: Callable[[bytes], object], payloads: Sequence[bytes]) -> list[int]:
    """Call with each payload; return how long each call took, in nanoseconds."""
    times = []
    for payload in payloads:
        start = perf_counter_ns()
        answer = call(payload)
        times.append(perf_counter_ns() - start)
        check(answer, payload)
    return times


def by_handles(
    begin: Callable[[bytes], Any],
    finish: Callable[[Any], object],
    payloads: Sequence[bytes],
    outstanding: int,
) -> None:
    """Begin calls, `outstanding` at a time, and finish the oldest one first."""
    waiting = iter(payloads)
    handles = deque((begin(payload), payload) for payload in islice(waiting, outstanding))
    while handles:
        handle, payload = handles.popleft()
        check(finish(handle), payload)
        for further in islice(waiting, 1):
            handles.append((begin(further), further))


def by_threads(calls: Sequence[Callable[[bytes], object]], payloads: Sequence[bytes]) -> None:
    """Share the payloads out to as many threads as there are blocking functions to call."""
    failures: list[BaseException] = []

    def work(turn: int) -> None:
        try:
            for payload in payloads[turn :: len(calls)]:
                check(calls[turn](payload), payload)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(turn,), daemon=True) for turn in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(ANSWER_TIMEOUT + len(payloads) / 1000)
        if thread.is_alive():
            raise TimeoutError("a thread is still waiting for its answers")
    if failures:
        raise failures[0]


async def by_tasks(call: Callable[[bytes], Awaitable[Any]], payloads: Sequence[bytes], outstanding: int) -> None:
    """Share the payloads out to `outstanding` tasks."""

    async def work(turn: int) -> None:
        for payload in payloads[turn::outstanding]:
            check(await call(payload), payload)

    async with asyncio.timeout(ANSWER_TIMEOUT + len(payloads) / 1000), asyncio.TaskGroup() as group:
        for turn in range(outstanding):
            group.create_task(work(turn))


class Loop:
    """An event loop for a client that can only be awaited."""

    def __init__(self, factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
        self._runner = asyncio.Runner(loop_factory=factory)

    def one_by_one(self, call: Callable[[bytes], Awaitable[Any]], payloads: Sequence[bytes]) -> list[int]:
        """As the function of that name, inside the loop: starting it is no part of a call."""

        async def work() -> list[int]:
            times = []
            for payload in payloads:
                start = perf_counter_ns()
                answer = await call(payload)
                times.append(perf_counter_ns() - start)
                check(answer, payload)
            return times

        return self._runner.run(work())

    def stream(self, call: Callable[[bytes], Awaitable[Any]], payloads: Sequence[bytes], outstanding: int) -> None:
        """As `by_tasks`."""
        self._runner.run(by_tasks(call, payloads, outstanding))

    def run(self, work: Any) -> Any:
        """Run a coroutine to its end."""
        return self._runner.run(work)

    def close(self) -> None:
        """Close the loop."""
        self._runner.close()


def host_and_port(endpoint: str) -> tuple[str, int]:
    """Split tcp://host:port."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return host, int(port)


def socket_path(endpoint: str) -> str:
    """Return the path of a Unix socket, from ipc://path; for those that have no other."""
    scheme, _, path = endpoint.partition("://")
    if scheme != "ipc":
        raise ValueError(f"{endpoint}: measured over Unix sockets only")
    return path


def free_port() -> int:
    """Return a TCP port that nobody uses now; for servers that cannot choose one and say which."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def needs(module: str, distribution: str) -> str | None:
    """Say what is missing if `module` cannot be imported here."""
    import importlib.util

    if importlib.util.find_spec(module) is None:
        return f"{distribution} is not installed: make perf-peers"
    return None
