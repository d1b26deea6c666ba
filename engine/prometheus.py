"""Prometheus: the calls of clients and servers, and the `statistics()` of those, of ports and of pools, as metrics.

    from engine.prometheus import CallMetrics, Collector

    calls = CallMetrics()
    server.add_interceptor(calls)
    client.add_interceptor(calls)
    collector = Collector(service=server, words=client, workers=server.pool)
    prometheus_client.REGISTRY.register(collector)

Needs the `prometheus` extra. `CallMetrics` measures each call, by operation. A `Collector` counts nothing twice, and
does nothing between scrapes: each takes a snapshot of each object.

A number of a snapshot becomes the metric `callport_<kind>_<field>`, with the object's name as the label `name`: a
counter if it only grows, else a gauge. A text, such as a server's phase, becomes a gauge of 1 with the text as a label.
Those of each server of a client are `callport_member_<field>`, with its endpoint as the label `endpoint`, too.

Source: Prometheus, "Writing exporters", "Metric and label naming".
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import msgspec
from prometheus_client import REGISTRY, CollectorRegistry, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector as Registered

from transport.foreign import a_type, is_interrupt, shown, type_name
from transport.log import Log
from transport.realtime import perf_counter

from . import IncomingCall, OutgoingCall
from .call_status import status_name
from .errors import InvalidArgumentType, InvalidParameter

log: Log = Log("engine.prometheus")

# Fields of snapshots that may go down, or say how something is set up; all other numbers only grow.
_GAUGES = frozenset((
    "active", "clients", "closed", "concurrency", "crash_looping", "depth", "idle", "latency", "maximum", "minimum",
    "off_slot", "outstanding", "processes", "queued", "queued_bytes", "running", "serving", "signaled",
    "stuck", "waiting",
    "weight", "workers",
))  # fmt: skip

_PROCESS = {  # Of a server, and of all the servers of a supervisor.
    "active": "calls that arrived and are not closed",
    "calls_in": "calls that arrived",
    "calls_out": "calls that routines have begun",
    "messages_in": "messages that arrived",
    "messages_out": "messages that were sent",
    "faults": "calls that ended with a fault",
    "refused": "calls that were refused, as a limit was reached or the server took none",
    "garbage_received": "messages that could not be read",
    "failures": "messages that could not be dealt with, as there was no memory",
    "clients": "clients that are connected",
    "queued_bytes": "bytes that wait to be written (0 over ZeroMQ, which does not tell)",
    "strangers_refused": "connections that were closed for what came, or did not come in time",
    "clients_evicted": "clients that were disconnected for what they left unread",
}
_POOL = {
    "closed": "1 if it is closed",
    "concurrency": "threads that may run at once",
    "queued": "callbacks that are not started yet",
    "started": "callbacks that were started",
    "discarded": "callbacks that were never started",
    "running": "callbacks that run, and hold a slot",
    "waiting": "threads and tasks that wait",
}
# What the numbers and texts of each kind of snapshot say.
_TEXTS = {
    "client": {
        "connection": "1 for the state that the connection is in",
        "outstanding": "calls that have begun and have no outcome yet",
        "calls_begun": "calls that have begun",
        "calls_finished": "calls that have their outcome",
        "replies_late": "replies to calls that had their outcome already",
        "messages_sent": "messages that were sent",
        "messages_received": "messages that arrived",
        "garbage_received": "messages that could not be read",
        "connections": "how often a connection was made",
        "retries": "how often calls of idempotent operations were queued again",
        "retries_refused": "how often the retry budget forbade that",
        "link": "1 for what carries the messages",
        "queued_bytes": "bytes that wait to be written (0 over ZeroMQ, which does not tell)",
        "moves": "how often calls went from one server of several to another",
    },
    "member": {
        "zone": "1 for the zone that the server is in",
        "weight": "the share of the calls that the server is to have",
        "state": "1 for the state that the server is in",
        "outstanding": "calls that the server has",
        "latency": "seconds that lone calls took lately; 0 if none was measured",
        "faults": "calls that the server answered with a failure",
        "calls_finished": "calls of the server that have their outcome",
        "connections": "how often the server was connected to",
    },
    "server": _PROCESS | {
        "phase": "1 for the phase that the server is in",
        "link": "1 for what carries the messages of the endpoints",
        "bytes_in": "bytes that came in messages",
        "stuck": "routines that do not return",
        "late": "how often the interpreter was not to be had for a second",
    },
    "supervisor": _PROCESS | {
        "processes": "processes that are wanted",
        "serving": "processes that serve",
        "restarts": "processes that were started for such as had ended by themselves",
        "crash_looping": "places whose process fails again and again",
    },
    "port": _POOL | {
        "depth": "packets that are queued",
        "active": "threads that deal with a packet",
        "waiting": "threads and tasks that wait for a packet",
        "posted": "packets that were queued",
        "taken": "packets that were taken",
    },
    "pool": _POOL | {
        "minimum": "threads that there are at least",
        "maximum": "threads that there are at most",
        "workers": "threads, those being started included",
        "idle": "threads that wait for work",
        "off_slot": "callbacks that run without a slot, being long",
        "submitted": "callbacks that were queued",
        "failures": "exceptions that left a callback",
    },
    "callback": _POOL | {"total": "callbacks that were queued", "running": "callbacks that have not returned"},
    "io": {
        "started": "operations that were announced to be started",
        "announced": "operations that are still awaited",
        "completed": "operations whose callback was queued",
        "cancelled": "operations that were not started after all",
        "forgotten": "operations that nobody awaits any longer, as the object was closed",
        "dropped": "completions that were not announced",
    },
    "waitable": _POOL | {"signaled": "1 if it is signaled"},
}  # fmt: skip


class CallMetrics:
    """An interceptor that measures calls, for any number of clients and servers (`add_interceptor`, `interceptors=`).

    `callport_client_call_duration_seconds` and `callport_server_call_duration_seconds` are histograms with the labels
    `interface`, `operation` and `status` ("OK", or the name of the status that the call ended with), which so count
    calls and faults, too; `callport_client_calls_in_flight` and `callport_server_calls_in_flight` are gauges with the
    first two of the labels. A client's call takes from its beginning to its outcome, a server's as long as its routine.
    Calls that a server refuses have no routine: see `callport_server_refused_total`.

    Args: `registry` has the metrics; a registry can have them once. `buckets` are upper bounds in seconds.
    Raises: `ValueError` of the registry that has such metrics already.
    Threads: any. Blocks: never.
    """

    def __init__(
        self, registry: CollectorRegistry = REGISTRY, buckets: Sequence[float] = Histogram.DEFAULT_BUCKETS
    ) -> None:  # fmt: skip
        self._client = _Side(
            "client",
            "from their beginning to their outcome",
            "that have begun and have no outcome yet",
            registry,
            buckets,
        )
        self._server = _Side("server", "while their routine ran", "whose routine runs", registry, buckets)

    def __call__(self, call: IncomingCall | OutgoingCall) -> Iterator[None]:
        """Measure a call; it is run around each."""
        at_client = isinstance(call, OutgoingCall)
        side = self._client if at_client else self._server
        labels = (call.interface, call.operation)
        in_flight = side.in_flight.labels(*labels)
        in_flight.inc()
        began = perf_counter()
        failed: BaseException | None = None
        try:
            yield
        except BaseException as error:
            failed = error
            raise
        finally:
            in_flight.dec()
            status = status_name(failed, at_client)
            if status is not None:
                side.durations.labels(*labels, status).observe(perf_counter() - began)


class _Side:
    """The metrics of clients, or of servers."""

    def __init__(self, side: str, span: str, which: str, registry: CollectorRegistry, buckets: Sequence[float]) -> None:
        self.durations = Histogram(
            f"callport_{side}_call_duration_seconds", f"seconds that calls took, {span}",
            ("interface", "operation", "status"), registry=registry, buckets=buckets,
        )  # fmt: skip
        self.in_flight = Gauge(
            f"callport_{side}_calls_in_flight", f"calls {which}",
            ("interface", "operation"), registry=registry,
        )  # fmt: skip


class Observable(Protocol):
    """What has statistics: a `Client`, `Server`, `CompletionPort`, `ThreadPool`, or an object of a pool."""

    def statistics(self) -> msgspec.Struct:
        """Return a snapshot."""


class Collector(Registered):
    """Collects the statistics of named objects; register it with a `prometheus_client` registry.

    Args: objects by the names that they are to have. They are kept alive by this; `remove` lets go.
    Threads: any.
    """

    def __init__(self, **objects: Observable) -> None:
        # Single atomic operations only.
        self._objects: dict[str, Observable] = {}
        # How often the statistics of each could not be taken. As above; a lost update costs a count.
        self._failures: dict[str, int] = {}
        for name, thing in objects.items():
            self.add(name, thing)

    def add(self, name: str, thing: Observable) -> None:
        """Collect `thing` from now on.

        Raises: `InvalidArgumentType` if it has no statistics; `InvalidParameter` if the name is taken.
        """
        if not callable(getattr(thing, "statistics", None)):
            raise InvalidArgumentType(f"{name}: {a_type(thing)} has no statistics")
        if self._objects.setdefault(name, thing) is not thing:
            raise InvalidParameter(f"there is another object named {shown(name)}: remove it, or choose another name")

    def remove(self, name: str) -> None:
        """Collect the object of that name no longer. Raises: `InvalidParameter` if there is none."""
        if self._objects.pop(name, None) is None:
            raise InvalidParameter(f"there is no object named {shown(name)}")

    def describe(self) -> list[Metric]:
        """Nothing: which metrics there are depends on the objects, and registering takes no snapshots."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Take a snapshot of each object. Blocks: never.

        An object whose `statistics()` raises is left out, logged, and counted in `callport_collector_failures_total`.
        """
        failures = CounterMetricFamily(
            "callport_collector_failures", "how often the statistics of an object could not be taken", labels=("name",)
        )
        metrics: dict[str, Any] = {}
        for name, thing in list(self._objects.items()):
            try:
                snapshots = [thing.statistics(), *getattr(thing, "members", ())]
            except BaseException as error:
                if is_interrupt(error):
                    raise
                self._failures[name] = self._failures.get(name, 0) + 1
                log.error("the statistics of %s cannot be taken", name, exc_info=error)
                continue
            finally:
                if name in self._failures:
                    failures.add_metric((name,), self._failures[name])
            for snapshot in snapshots:
                _add(metrics, name, snapshot)
        if failures.samples:
            yield failures
        yield from metrics.values()


def _add(metrics: dict[str, Any], name: str, snapshot: msgspec.Struct) -> None:
    """Add the numbers and texts of a snapshot of the object of that name."""
    kind = type_name(snapshot).removesuffix("Statistics").lower()
    labels, values = ("name",), (name,)
    if kind == "member":
        labels, values = ("name", "endpoint"), (name, snapshot.endpoint)  # type: ignore[attr-defined,assignment]  # it has one
    for field in snapshot.__struct_fields__:
        value = getattr(snapshot, field)
        if field in labels:  # A pool's own name, too; the collector's is what tells objects apart.
            continue
        metric = f"callport_{kind}_{field}"
        text = _TEXTS.get(kind, {}).get(field, f"`{field}` of {type_name(snapshot)}")
        if isinstance(value, str):
            family = metrics.setdefault(metric, GaugeMetricFamily(metric, text, labels=(*labels, field)))
            family.add_metric((*values, value), 1)
        else:
            family_of = GaugeMetricFamily if field in _GAUGES else CounterMetricFamily
            family = metrics.setdefault(metric, family_of(metric, text, labels=labels))
            family.add_metric(values, value)
