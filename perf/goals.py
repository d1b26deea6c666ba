"""What the engine is to reach, held against a record.

A goal is a floor, and often an aim beyond it, for a ratio, or for a figure where nothing comparable exists. Medians
are what counts, but where a goal asks for every run; the table shows how far the runs spread. Of a scenario that was
not run nothing is said; of a figure that its scenario lacks, that it is missing and why.

That the last of a thousand calls under load (`open_loop`, p99.9) does not come later than before is for `compare` to
say: it takes two records.
"""

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

from perf.record import Record
from perf.scenarios.counts import LIMITED, LIMITS


class Goal(NamedTuple):
    """A limit. `against` None: on the figure itself, otherwise on the ratio. `aim` None: the floor is all.

    `every`: each run must keep to it, not the median alone: who starves in one run of three does starve.
    """

    sign: str
    what: str
    scenario: str
    metric: str
    subject: str
    against: str | None
    sense: Literal["<=", ">="]
    floor: float
    aim: float | None = None
    every: bool = False

    def keeps(self, limit: float | None, value: float) -> bool:
        """Whether a figure is on the right side of this limit."""
        if limit is None:
            return False
        return value <= limit if self.sense == "<=" else value >= limit


class Verdict(NamedTuple):
    """A goal, and what the record has of it: median, lowest, highest; or why it has nothing."""

    goal: Goal
    median: float
    low: float
    high: float
    missing: str = ""

    @property
    def held(self) -> bool:
        """Whether the median keeps to the floor; each run, if the goal says so."""
        worst = self.high if self.goal.sense == "<=" else self.low
        return self.goal.keeps(self.goal.floor, worst if self.goal.every else self.median)

    @property
    def aim_reached(self) -> bool:
        """Whether the median reaches the aim."""
        return self.goal.keeps(self.goal.aim, self.median)

    @property
    def word(self) -> Literal["held", "missed", "missing"]:
        """What to say of it."""
        if self.missing:
            return "missing"
        return "held" if self.held else "missed"


def _ahead(peer: str, scenario: str, *floors: tuple[int, float]) -> Iterator[Goal]:
    """S12: to be ahead of a peer, by this factor with so many outstanding calls."""
    for width, floor in floors:
        yield Goal("S12", f"{width} outstanding", scenario, f"calls_per_s_{width}", "engine", peer, ">=", floor)


def _fair(what: str, metric: str, subject: str, limit: float) -> Goal:
    """T3: a client's share, and a lone call, in each run."""
    return Goal("T3", what, "fairness", metric, subject, None, "<=", limit, every=True)


RAW, TPE, LOOP = "raw-zmq", "ThreadPoolExecutor", "uvloop-stream"

GOALS = (
    Goal("S1", "one call, median", "latency", "p50_us", "engine", RAW, "<=", 1.0, 0.9),
    Goal("S1", "one call, median", "unix_peers", "p50_us", "engine", LOOP, "<=", 1.2),
    Goal("S1", "one call, 99 of 100", "latency", "p99_us", "engine", RAW, "<=", 1.3),
    Goal("S2", "4 outstanding", "throughput", "calls_per_s_4", "engine", RAW, ">=", 0.9, 1.0),
    Goal("S3", "16 outstanding", "throughput", "calls_per_s_16", "engine", RAW, ">=", 1.0, 1.2),
    Goal("S3", "16 outstanding, client's us", "throughput", "client_cpu_us_per_call_16", "engine", None, "<=", 12),
    Goal("S3", "16 outstanding, server's us", "throughput", "server_cpu_us_per_call_16", "engine", None, "<=", 7),
    Goal("S4", "64 outstanding", "throughput", "calls_per_s_64", "engine", RAW, ">=", 1.1),
    Goal("S4", "256 outstanding", "throughput", "calls_per_s_256", "engine", RAW, ">=", 1.4, 1.7),
    Goal("S4", "256 outstanding", "unix_peers", "calls_per_s_256", "engine", LOOP, ">=", 1.5),
    Goal("S5", "busy machine, one call", "busy", "calls_per_s_1", "engine", RAW, ">=", 0.35, 0.5),
    Goal("S5", "busy machine, 16 outstanding", "busy", "calls_per_s_16", "engine", RAW, ">=", 0.6, 0.8),
    Goal("S6", "loopback, nonblocking, median", "latency", "p50_us", "engine-loopback-nonblocking", RAW, "<=", 0.3),
    Goal("S6", "loopback, median", "latency", "p50_us", "engine-loopback", RAW, "<=", 0.8),
    Goal("S6", "loopback, 16 outstanding", "throughput", "calls_per_s_16", "engine-loopback", RAW, ">=", 2.5),
    Goal("S6", "loopback, 256 outstanding", "throughput", "calls_per_s_256", "engine-loopback", RAW, ">=", 1.5),
    Goal("S7", "8 threads, 32 each", "threads", "calls_per_s", "engine-8x32", "engine", ">=", 0.55),
    Goal("S7", "8 threads, 256 each", "threads", "calls_per_s", "engine-8x256", "engine", ">=", 0.85),
    Goal("S7", "8 threads, 256 each", "threads", "calls_per_s", "engine-8x256", RAW, ">=", 0.9),
    Goal("S7", "8 x 32, pinned", "threads", "calls_per_s", "engine-8x32-pinned", "engine", ">=", 0.8),
    Goal("S7", "8 x 256, pinned", "threads", "calls_per_s", "engine-8x256-pinned", "engine", ">=", 0.95),
    Goal("S8", "awaited, asyncio", "notify", "calls_per_s_256", "engine-await", RAW, ">=", 0.9),
    Goal("S8", "awaited, uvloop", "notify", "calls_per_s_256", "engine-await-uvloop", RAW, ">=", 1.1),
    Goal("P5", "notified by event", "notify", "calls_per_s_256", "engine-event", "engine", ">=", 0.5),
    Goal("P5", "notified by callback", "notify", "calls_per_s_256", "engine-callback", "engine", ">=", 0.5),
    Goal("P5", "notified by APC", "notify", "calls_per_s_256", "engine-apc", "engine", ">=", 0.5),
    Goal("P5", "not notified", "notify", "calls_per_s_256", "engine-none", "engine", ">=", 0.5),
    Goal("S9", "1 MiB there and back", "payload", "mb_per_s_1mib", "engine", RAW, ">=", 0.95),
    Goal("S9", "16 MiB there and back", "payload", "mb_per_s_16mib", "engine", RAW, ">=", 1.1),
    Goal("S10", "16 workers that sleep 1 ms", "blocking", "calls_per_s", "engine", "plain-threads", ">=", 0.92),
    Goal("S11", "10 x the outstanding calls", "growth", "calls_growth", "engine", None, "<=", 12),
    Goal("S11", "10 x the clients", "growth", "clients_growth", "engine", None, "<=", 12),
    Goal("S11", "10 x the threads", "growth", "threads_growth", "engine", None, "<=", 12),
    Goal("S11", "10 x the timers", "growth", "timers_growth", "engine", None, "<=", 12),
    Goal("S11", "10 x the waits", "growth", "waits_growth", "engine", None, "<=", 12),
    Goal("P11", "1000 clients, 64 of them busy", "clients", "calls_per_s", "engine-1000", "engine", ">=", 0.7),
    Goal("S14", "native link, one call, median", "latency", "p50_us", "engine-native", RAW, "<=", 0.65, 0.5),
    Goal("S14", "native link, 4 outstanding", "throughput", "calls_per_s_4", "engine-native", RAW, ">=", 1.5),
    Goal("S14", "native link, 16 outstanding", "throughput", "calls_per_s_16", "engine-native", RAW, ">=", 1.5),
    Goal("S14", "native link, 64 outstanding", "throughput", "calls_per_s_64", "engine-native", RAW, ">=", 1.8),
    Goal("S14", "native link, 256 outstanding", "throughput", "calls_per_s_256", "engine-native", RAW, ">=", 2.5),
    Goal("S14", "native link, 1 MiB", "payload", "mb_per_s_1mib", "engine-native", RAW, ">=", 1.2),
    Goal("S14", "TLS, one call", "tls", "calls_per_s_1", "engine-tls", "engine-native", ">=", 0.6),
    Goal("S14", "TLS, 16 outstanding", "tls", "calls_per_s_16", "engine-tls", "engine-native", ">=", 0.6),
    Goal("S14", "TLS, 256 outstanding", "tls", "calls_per_s_256", "engine-tls", "engine-native", ">=", 0.6),
    *_ahead("grpc-sync", "peers", (1, 1.0), (16, 1.0), (256, 40.0)),
    *_ahead("grpc-aio", "peers", (1, 1.0), (16, 1.0), (256, 40.0)),
    *_ahead("zerorpc-peer", "peers", (1, 1.0), (16, 1.0), (256, 40.0)),
    *_ahead("rpyc-peer", "peers", (1, 1.0), (16, 1.0), (256, 8.0)),
    *_ahead("thriftpy2-peer", "peers", (1, 1.0), (16, 1.0), (256, 8.0)),
    *_ahead("pyro5", "peers", (1, 1.0), (16, 1.0), (256, 20.0)),
    *_ahead("zero", "peers", (1, 1.0), (16, 1.0), (256, 15.0)),
    *_ahead("pycapnp-peer", "unix_peers", (1, 1.0), (16, 1.0), (256, 1.0)),
    *_ahead(LOOP, "unix_peers", (16, 1.0), (64, 1.0), (256, 1.0)),
    Goal("S13", "post and get, one thread", "port", "one_thread_ns", "engine", "queue.Queue", "<=", 0.6),
    Goal("S13", "post and get, one thread", "port", "one_thread_ns", "engine", "SimpleQueue", "<=", 12.0),
    Goal("S13", "streamed to another thread", "port", "two_threads_ns", "engine", "queue.Queue", "<=", 1 / 1.8),
    Goal("S13", "dequeued 64 at once", "port", "dequeue_64_ns", "engine", "SimpleQueue", "<=", 4.0),
    Goal("S13", "callbacks", "pool", "ops_per_s", "engine", TPE, ">=", 8.0),
    Goal("S13", "callbacks through the executor", "pool", "ops_per_s", "engine-executor", TPE, ">=", 1.5),
    Goal("S13", "submit to done", "pool", "p50_us", "engine", TPE, "<=", 1.0),
    Goal("S13", "an outstanding call, bytes", "memory", "client_bytes_per_call", "engine", None, "<=", 1024),
    Goal("S13", "idle parts, KiB", "memory", "idle_over_bare_kib", "engine", None, "<=", 6 * 1024),
    Goal("S13", "import engine", "import_time", "import_ms", "engine", "zmq+msgspec", "<=", 1.6),
    Goal("S13", "idle client and server, % of a core", "idle", "cpu_percent", "engine", None, "<=", 0.5),
    _fair("shares differ by, %", "uneven_percent", "engine", 10),
    _fair("a lone call's wait, ms", "occasional_p99_ms", "engine", 30),
    _fair("shares beside four held calls, %", "uneven_percent", "engine-held", 10),
    _fair("a lone call beside them, ms", "occasional_p99_ms", "engine-held", 30),
    Goal("load", "5 x too much: % of capacity in time", "overload", "goodput_percent", "engine", None, ">=", 90),
    Goal("fleet", "one call, 4 servers, median", "fleet", "p50_us", "engine-4", "engine", "<=", 1.1),
    Goal("fleet", "256 for each of 4 servers", "fleet", "calls_per_s_each", "engine-4", "engine", ">=", 0.8),
    Goal("fleet", "256 to 4 servers", "fleet", "calls_per_s_256", "engine-4", "engine", ">=", 0.6),
    Goal("fleet", "a slow one of three", "uneven", "calls_per_s_slow", "engine", "round-robin", ">=", 5.0),
    Goal("fleet", "a failing one of three, %", "uneven", "failed_percent", "engine", None, "<=", 5),
    Goal("drain", "calls lost, 3 servers", "drain", "lost", "engine", None, "<=", 0, every=True),
    Goal("drain", "calls lost, one server", "drain", "lost", "engine-one", None, "<=", 0, every=True),
    Goal("drain", "calls lost, native link", "drain", "lost", "engine-native", None, "<=", 0, every=True),
    Goal("processes", "2 that compute", "processes", "calls_per_s", "computing-2", "computing-1", ">=", 1.7),
    Goal("processes", "2 that sleep", "processes", "calls_per_s", "sleeping-2", "sleeping-1", ">=", 1.8, 2.0),
    Goal("processes", "4 that sleep", "processes", "calls_per_s", "sleeping-4", "sleeping-1", ">=", 3.6, 4.0),
    Goal("processes", "8 that sleep", "processes", "calls_per_s", "sleeping-8", "sleeping-1", ">=", 7.2, 8.0),
    *(
        Goal("steps", f"{kind.replace('_', ' ')}, {width} outstanding", "counts", f"{kind}_{width}", "engine", None,
             "<=", limit)
        for width, limits in LIMITS.items()
        for kind, limit in zip(LIMITED, limits, strict=True)
    ),
)  # fmt: skip


def verdicts(record: Record) -> list[Verdict]:
    """Return what a record has to say of the goals."""
    run = {result.scenario for result in record.results} | {entry.scenario for entry in record.missing}
    return [_verdict(record, goal) for goal in GOALS if goal.scenario in run]


def _verdict(record: Record, goal: Goal) -> Verdict:
    if goal.against is None:
        result = record.find(goal.scenario, goal.subject, goal.metric)
        if result is not None:
            return Verdict(goal, result.median, min(result.samples), max(result.samples))
    else:
        ratio = record.find_ratio(goal.scenario, goal.metric, goal.subject, goal.against)
        if ratio is not None:
            return Verdict(goal, ratio.median, ratio.low, ratio.high)
    for entry in record.missing:
        if entry.scenario == goal.scenario and entry.subject in (goal.subject, goal.against):
            return Verdict(goal, math.nan, math.nan, math.nan, entry.reason)
    return Verdict(goal, math.nan, math.nan, math.nan, "this run did not measure it")
