"""How many steps does a call take, on either side, by how many are outstanding?

Unit: calls of Python functions, of C functions and of the system, and how often a thread went to sleep, for each
64-byte echo; client process and server process apart. A fixed number of calls, a window that is kept full, the
median of several rounds in one pair of processes.

Python and C calls are counted by a profile function, which makes the processes several times slower; switches and
system calls by the kernel, in other processes. `timed_calls` are Python and C calls that time decides and not a call:
the monitor's, and the polls of a client that stays awake. One process has both sides of loopback, and is
said to be the client.

What would make it wrong: how many calls share a message, which speed decides (so the counts with many outstanding
are held with some slack, those with one are the same everywhere); the steps of the adapter itself, which are in it
(one Python call and some ten C calls of ours); system calls that cannot be counted (the report says so).
"""

import os
import statistics
from collections.abc import Callable, Sequence
from tempfile import TemporaryDirectory
from typing import Any

from perf.counting import STEPS, Profile, SystemCalls, ask, switches, system_calls_missing
from perf.lab import Lab
from perf.measure import payloads
from perf.scenario import Figures, Scenario
from perf.subject import EchoClient, load, missing
from perf.worker import Control

# Calls of a round by how many are outstanding: enough for what a round begins and ends with not to count.
CALLS = {1: 100, 4: 500, 16: 2_000, 64: 4_000, 256: 10_240}
ROUNDS = {1: 25, 4: 10, 16: 5, 64: 5, 256: 5}
SIDES = ("client", "server")

# The most steps that a call of ours may take, by how many are outstanding; a figure for each of `LIMITED`. With one
# outstanding a single step more is too many. Who saves steps lowers this table; `tests/perf/test_counts.py` holds it.
LIMITS = {1: (23.6, 64.5, 16.2, 64.9), 16: (5.4, 17.0, 4.2, 12.5), 256: (2.3, 8.7, 1.3, 4.9)}
LIMITED = ("client_python_calls", "client_c_calls", "server_python_calls", "server_c_calls")


def profiled(settings: dict[str, Any], control: Control) -> dict[str, float]:
    """Worker function: Python and C calls of both sides, the server being `perf.counting:serve`."""
    profile = Profile()
    profile.install()
    client = load(settings["subject"]).Client(settings["endpoint"])
    read = lambda: [*profile.read(), *ask(settings["counts"])]  # noqa: E731  # a line of its own
    figures = _measure(client, STEPS, read, settings["outstanding"], min if settings["least"] else statistics.median)
    client.close()
    return figures


def by_kernel(settings: dict[str, Any], control: Control) -> dict[str, float]:
    """Worker function: switches of both sides, and system calls if settings["system_calls"]."""
    client = load(settings["subject"]).Client(settings["endpoint"])
    pids = (os.getpid(), settings["server_pid"])
    figures = _measure(client, ["switches"], lambda: [switches(pid) for pid in pids], settings["outstanding"])
    if settings["system_calls"]:
        counters = [SystemCalls(pid) for pid in pids]
        read = lambda: [counter.read() for counter in counters]  # noqa: E731  # a line of its own
        figures |= _measure(client, ["system_calls"], read, settings["outstanding"])
    client.close()
    return figures


def _measure(
    client: EchoClient,
    kinds: Sequence[str],
    read: Callable[[], list[int]],
    outstanding: Sequence[int],
    of_rounds: Callable[[Sequence[int]], float] = statistics.median,
) -> dict[str, float]:
    """Return what a call takes: `read` tells the client's figure for each of `kinds` until now, then the server's."""
    names = [f"{side}_{kind}" for side in SIDES for kind in kinds]
    figures = {}
    for width in outstanding:
        batch = payloads(CALLS[width])
        client.stream(batch, width)  # A warm-up.
        rounds = []
        for _ in range(ROUNDS[width]):
            before = read()
            client.stream(batch, width)
            rounds.append([now - then for now, then in zip(read(), before, strict=True)])
        for name, grown in zip(names, zip(*rounds, strict=True), strict=True):
            figures[f"{name}_{width}"] = of_rounds(grown) / len(batch)
    return figures


def count_steps(lab: Lab, subject: str, outstanding: Sequence[int] = tuple(CALLS), least: bool = False) -> Figures:
    """Count Python and C calls of one subject: the median of the rounds, or the least."""
    with TemporaryDirectory(prefix="perf-") as folder:
        counts = f"{folder}/counts"
        with lab.server("perf.counting:serve", served=subject, counts=counts) as server:
            figures: Figures = lab.measure(
                f"{__name__}:profiled", server, subject=subject, counts=counts, outstanding=outstanding, least=least
            )
            return figures


def run(lab: Lab, subject: str) -> Figures:
    """Count all kinds of steps of one subject."""
    reason = system_calls_missing()
    if reason is not None:
        lab.lacks("system calls", reason)
    with lab.server(subject) as server:
        by_kernel: Figures = lab.measure(
            f"{__name__}:by_kernel", server, subject=subject, outstanding=tuple(CALLS), system_calls=reason is None
        )
    figures = {**count_steps(lab, subject), **by_kernel}
    if subject.startswith(
        "engine-loopback"
    ):  # Its server is in the client's process; what was started for one does nothing.
        return {name: value for name, value in figures.items() if not name.startswith("server_")}
    return figures


SCENARIO = Scenario(
    name="counts",
    run=run,
    subjects=("engine", "engine-native", "engine-loopback", "engine-loopback-nonblocking", "raw-zmq"),
    rounds=(1, 3, 3),
    default=(True, True, True),
    missing=missing,
    by_outstanding=True,
)
