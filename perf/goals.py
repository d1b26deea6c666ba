"""What the engine is to reach, held against a record.

A goal is a limit on a ratio, or on a figure where nothing comparable exists. It says nothing where the record
does not have its scenario. Medians are what counts; a goal that the median reaches but not every pair is said
to be reached, and the table shows how far the pairs spread.
"""

from typing import Literal, NamedTuple

from perf.record import Record


class Goal(NamedTuple):
    """A limit. `against` None: on the figure itself, otherwise on the ratio."""

    what: str
    scenario: str
    metric: str
    subject: str
    against: str | None
    sense: Literal["<=", ">="]
    limit: float


class Verdict(NamedTuple):
    """A goal, and what the record has of it: median, lowest, highest."""

    goal: Goal
    median: float
    low: float
    high: float

    @property
    def reached(self) -> bool:
        """Whether the median keeps to the limit."""
        if self.goal.sense == "<=":
            return self.median <= self.goal.limit
        return self.median >= self.goal.limit


RAW, TPE = "raw-zmq", "ThreadPoolExecutor"

GOALS = (
    Goal("round trip, median", "latency", "p50_us", "engine", RAW, "<=", 1.15),
    Goal("round trip, 99 of 100", "latency", "p99_us", "engine", RAW, "<=", 1.5),
    Goal("16 outstanding", "throughput", "calls_per_s_16", "engine", RAW, ">=", 1.1),
    Goal("256 outstanding", "throughput", "calls_per_s_256", "engine", RAW, ">=", 3.0),
    Goal("8 threads, 32 outstanding each", "threads", "calls_per_s", "engine-8x32", "engine", ">=", 0.6),
    Goal("8 threads, 256 outstanding each", "threads", "calls_per_s", "engine-8x256", "engine", ">=", 0.9),
    Goal("notified by event", "notify", "calls_per_s_256", "engine-event", "engine", ">=", 0.5),
    Goal("notified by callback", "notify", "calls_per_s_256", "engine-callback", "engine", ">=", 0.5),
    Goal("notified by APC", "notify", "calls_per_s_256", "engine-apc", "engine", ">=", 0.5),
    Goal("awaited", "notify", "calls_per_s_256", "engine-await", "engine", ">=", 0.5),
    Goal("not notified", "notify", "calls_per_s_256", "engine-none", "engine", ">=", 0.5),
    Goal("1 MiB there and back", "payload", "mb_per_s_1mib", "engine", RAW, ">=", 0.95),
    Goal("16 MiB there and back", "payload", "mb_per_s_16mib", "engine", RAW, ">=", 0.95),
    Goal("16 workers that sleep 1 ms", "blocking", "calls_per_s", "engine", None, ">=", 14_400),
    Goal("idle client and server, % of a core", "idle", "cpu_percent", "engine", None, "<=", 0.5),
    Goal("post and get, one thread", "port", "one_thread_ns", "engine", "queue.Queue", "<=", 0.6),
    Goal("post and get, one thread", "port", "one_thread_ns", "engine", "SimpleQueue", "<=", 12.0),
    Goal("streamed to another thread", "port", "two_threads_ns", "engine", "queue.Queue", "<=", 1 / 1.8),
    Goal("dequeued 64 at once", "port", "dequeue_64_ns", "engine", "SimpleQueue", "<=", 4.0),
    Goal("callbacks", "pool", "ops_per_s", "engine", TPE, ">=", 8.0),
    Goal("callbacks through the executor", "pool", "ops_per_s", "engine-executor", TPE, ">=", 1.5),
    Goal("submit to done", "pool", "p50_us", "engine", TPE, "<=", 1.0),
    Goal("memory of an outstanding call, bytes", "memory", "client_bytes_per_call", "engine", None, "<=", 1024),
    Goal("memory of idle parts, KiB", "memory", "idle_over_bare_kib", "engine", None, "<=", 6 * 1024),
    Goal("1000 clients, 64 of them busy", "clients", "calls_per_s", "engine-1000", "engine", ">=", 0.7),
    Goal("10 x the outstanding calls", "growth", "calls_growth", "engine", None, "<=", 12),
    Goal("10 x the clients", "growth", "clients_growth", "engine", None, "<=", 12),
    Goal("10 x the threads", "growth", "threads_growth", "engine", None, "<=", 12),
    Goal("10 x the timers", "growth", "timers_growth", "engine", None, "<=", 12),
    Goal("10 x the waits", "growth", "waits_growth", "engine", None, "<=", 12),
    Goal("gRPC, threads", "peers", "calls_per_s_256", "engine", "grpc-sync", ">=", 40.0),
    Goal("gRPC, asyncio", "peers", "calls_per_s_256", "engine", "grpc-aio", ">=", 40.0),
    Goal("zerorpc", "peers", "calls_per_s_256", "engine", "zerorpc-peer", ">=", 40.0),
    Goal("RPyC", "peers", "calls_per_s_256", "engine", "rpyc-peer", ">=", 8.0),
    Goal("thriftpy2", "peers", "calls_per_s_256", "engine", "thriftpy2-peer", ">=", 8.0),
    Goal("Pyro5", "peers", "calls_per_s_256", "engine", "pyro5", ">=", 20.0),
    Goal("Zero", "peers", "calls_per_s_256", "engine", "zero", ">=", 15.0),
    Goal("import engine", "import_time", "import_ms", "engine", "zmq+msgspec", "<=", 1.6),
)


def verdicts(record: Record) -> list[Verdict]:
    """Return what a record has to say of the goals."""
    found = []
    for goal in GOALS:
        if goal.against is None:
            result = record.find(goal.scenario, goal.subject, goal.metric)
            if result is not None:
                found.append(Verdict(goal, result.median, min(result.samples), max(result.samples)))
        else:
            ratio = record.find_ratio(goal.scenario, goal.metric, goal.subject, goal.against)
            if ratio is not None:
                found.append(Verdict(goal, ratio.median, ratio.low, ratio.high))
    return found
