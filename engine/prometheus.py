"""Prometheus: the `statistics()` of clients, servers, ports and pools as metrics.

    from engine.prometheus import Collector

    collector = Collector(service=server, words=client, workers=server.pool)
    prometheus_client.REGISTRY.register(collector)

Needs the `prometheus` extra. Nothing is counted twice, and nothing happens between scrapes: each takes a snapshot of
each object.

A number of a snapshot becomes the metric `callport_<kind>_<field>`, with the object's name as the label `name`: a
counter if it only grows, else a gauge. A text, such as a server's phase, becomes a gauge of 1 with the text as a label.
Those of each server of a client are `callport_member_<field>`, with its endpoint as the label `endpoint`, too.

Source: Prometheus, "Writing exporters", "Metric and label naming".
"""

from collections.abc import Iterator
from typing import Any, Protocol

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector as Registered

from transport.foreign import a_type, is_interrupt, shown, type_name
from transport.log import Log

from .errors import InvalidArgumentType, InvalidParameter

log: Log = Log("engine.prometheus")

# Fields of snapshots that may go down, or say how something is set up; all other numbers only grow.
_GAUGES = frozenset((
    "active", "clients", "closed", "concurrency", "crash_looping", "depth", "idle", "latency", "maximum", "minimum",
    "off_slot", "outstanding", "processes", "queued", "queued_bytes", "running", "serving", "signaled",
    "stuck", "waiting",
    "weight", "workers",
))  # fmt: skip


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
        text = f"`{field}` of {type_name(snapshot)}"
        if isinstance(value, str):
            family = metrics.setdefault(metric, GaugeMetricFamily(metric, text, labels=(*labels, field)))
            family.add_metric((*values, value), 1)
        else:
            family_of = GaugeMetricFamily if field in _GAUGES else CounterMetricFamily
            family = metrics.setdefault(metric, family_of(metric, text, labels=labels))
            family.add_metric(values, value)
