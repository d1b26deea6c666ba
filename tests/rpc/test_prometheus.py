"""Calls and statistics as metrics of Prometheus."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from engine import (
    CallCancelled,
    Client,
    CompletionPort,
    InvalidArgumentType,
    InvalidParameter,
    MemberStatistics,
    RemoteFault,
    Server,
    ThreadPool,
)
from engine.prometheus import CallMetrics, Collector
from engine.testing import LIMIT, Gate, wait_until

from .helpers import Bench

Served = tuple[Server, Bench]


@pytest.fixture
def served(local: Callable[..., Server], benches: Callable[..., Bench]) -> Iterator[Served]:
    """A server in this process, and clients of it."""
    server = local()
    yield server, benches(server.endpoint)


def registered(collector: Collector) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(collector)
    return registry


class TestCollector:
    """What a scrape finds."""

    def test_a_client_and_a_server(self, served: Served) -> None:
        """Each number of their snapshots is a metric, as it is at the scrape."""
        server, bench = served
        registry = registered(Collector(service=server, words=bench.client))
        value = registry.get_sample_value
        for number in range(5):
            bench.probe.echo(number)
        assert value("callport_client_calls_begun_total", {"name": "words"}) == 5
        assert value("callport_client_calls_finished_total", {"name": "words"}) == 5
        assert value("callport_client_outstanding", {"name": "words"}) == 0
        assert value("callport_server_calls_in_total", {"name": "service"}) == 5
        bench.probe.echo("one more")
        assert value("callport_client_calls_begun_total", {"name": "words"}) == 6
        wait_until(lambda: value("callport_server_active", {"name": "service"}) == 0)

    def test_every_number(self, served: Served) -> None:
        """No field is left out: what goes up and down is a gauge, what only grows a counter."""
        server, bench = served
        with CompletionPort() as port:
            things: dict[str, Any] = {"client": bench.client, "server": server, "port": port, "pool": server.pool}
            registry = registered(Collector(**things))
            kinds = {metric.name: metric.type for metric in registry.collect()}
            for name, thing in things.items():
                snapshot = thing.statistics()
                for field in snapshot.__struct_fields__:
                    if field != "name":
                        assert kinds.pop(f"callport_{type(thing.statistics()).__name__[:-10].lower()}_{field}"), name
            for field in MemberStatistics.__struct_fields__:
                if field != "endpoint":
                    kinds.pop(f"callport_member_{field}")
            assert kinds == {}
            for metric in registry.collect():
                assert not metric.documentation.startswith("`"), f"{metric.name}: no text says what it means"
            gauges = {metric.name.removeprefix("callport_") for metric in registry.collect() if metric.type == "gauge"}
            assert gauges == {
                "client_connection", "client_link", "client_outstanding", "client_queued_bytes", "member_zone",
                "member_weight", "member_state", "member_outstanding", "member_latency", "server_phase",
                "server_active", "server_clients", "server_link", "server_queued_bytes", "server_stuck",
                "port_concurrency",
                "port_depth", "port_active", "port_waiting", "port_closed", "pool_minimum", "pool_maximum",
                "pool_closed", "pool_concurrency", "pool_workers", "pool_idle", "pool_running", "pool_off_slot",
                "pool_queued",
            }  # fmt: skip

    def test_texts(self, served: Served) -> None:
        """The state that an object is in is the label of a gauge that is 1."""
        server, bench = served
        bench.probe.nothing()
        registry = registered(Collector(service=server, words=bench.client))
        state = {"name": "words", "connection": "connected"}
        assert registry.get_sample_value("callport_client_connection", state) == 1
        phase = {"name": "service", "phase": "listening"}
        assert registry.get_sample_value("callport_server_phase", phase) == 1

    def test_two_of_a_kind(self) -> None:
        """They share metrics, and differ by name; the text of a scrape is well-formed."""
        with CompletionPort() as first, CompletionPort() as second:
            first.post(1)
            text = generate_latest(registered(Collector(first=first, second=second))).decode()
            assert 'callport_port_depth{name="first"} 1.0' in text
            assert 'callport_port_depth{name="second"} 0.0' in text
            assert text.count("# TYPE callport_port_depth gauge") == 1

    def test_what_comes_and_goes(self) -> None:
        """Objects are added and removed while a registry has the collector; a closed one still tells."""
        collector = Collector()
        registry = registered(collector)
        pool = ThreadPool(1, 1)
        collector.add("pool", pool)
        assert registry.get_sample_value("callport_pool_maximum", {"name": "pool"}) == 1
        pool.stop(LIMIT)
        assert registry.get_sample_value("callport_pool_maximum", {"name": "pool"}) == 1
        collector.remove("pool")
        assert registry.get_sample_value("callport_pool_maximum", {"name": "pool"}) is None

    def test_what_cannot_be_collected(self) -> None:
        """An object without statistics, a name that is taken, one that nobody has."""
        with pytest.raises(InvalidArgumentType, match="'?thing'?.*object"):
            Collector(thing=object())  # type: ignore[arg-type]  # wrong on purpose
        with CompletionPort() as first, CompletionPort() as second:
            collector = Collector(port=first)
            collector.add("port", first)
            with pytest.raises(InvalidParameter, match="'port'"):
                collector.add("port", second)
            with pytest.raises(InvalidParameter, match="'other'"):
                collector.remove("other")

    def test_statistics_that_raise(self, caplog: pytest.LogCaptureFixture) -> None:
        """An object whose statistics raise is left out, logged and counted; the others are told of all the same."""

        class Broken:
            def statistics(self) -> Any:
                raise OSError("gone")

        with CompletionPort() as port:
            registry = registered(Collector(broken=Broken(), port=port))
            assert registry.get_sample_value("callport_port_depth", {"name": "port"}) == 0
            counted = registry.get_sample_value("callport_collector_failures_total", {"name": "broken"})
            assert counted is not None and counted >= 1
            assert "the statistics of broken cannot be taken" in caplog.text


class Words:
    """What is served."""

    def __init__(self) -> None:
        self.gate = Gate()

    def spell(self, word: str) -> str:
        """Answer."""
        return " ".join(word)

    def fail(self) -> None:
        """Raise."""
        raise LookupError("no")

    async def fail_later(self) -> None:
        """Raise, in a loop."""
        raise LookupError("no")

    def stay(self) -> None:
        """Answer once the gate is open."""
        self.gate.pass_through()


class TestCallMetrics:
    """Each call, by its operation."""

    @pytest.fixture
    def registry(self) -> CollectorRegistry:
        """Where the metrics are."""
        return CollectorRegistry()

    @pytest.fixture
    def words(self, registry: CollectorRegistry) -> Iterator[tuple[Words, Any]]:
        """What is served, measured, and a measured client's binding to it."""
        calls, served = CallMetrics(registry), Words()
        with Server("loopback://measured-words", interceptors=[calls]) as server:
            server.register("words", served)
            server.listen()
            with Client(server.endpoint, interceptors=[calls]) as client:
                yield served, client.bind("words")

    def test_rates_faults_and_durations(self, registry: CollectorRegistry, words: tuple[Words, Any]) -> None:
        """A call is one observation at either end, under the status that it ended with."""
        _, binding = words
        for _ in range(3):
            binding.spell("word")
        for failing in (binding.fail, binding.fail_later):
            with pytest.raises(RemoteFault):
                failing()
        for side in ("client", "server"):
            metric = f"callport_{side}_call_duration_seconds"

            def value(suffix: str, operation: str, status: str, metric: str = metric) -> float | None:
                labels = {"interface": "words", "operation": operation, "status": status}
                return registry.get_sample_value(f"{metric}_{suffix}", labels)

            wait_until(lambda: value("count", "fail_later", "REMOTE_FAULT") == 1)  # called in this turn
            assert value("count", "fail", "REMOTE_FAULT") == 1 and value("count", "fail", "OK") is None
            wait_until(lambda: value("count", "spell", "OK") == 3)  # as above
            assert (value("sum", "spell", "OK") or 0) > 0

    def test_what_is_in_flight(self, registry: CollectorRegistry, words: tuple[Words, Any]) -> None:
        """A call counts at either end until it has its outcome, one that is given up, too."""
        served, binding = words
        labels = {"interface": "words", "operation": "stay"}

        def value(side: str) -> float | None:
            return registry.get_sample_value(f"callport_{side}_calls_in_flight", labels)

        stays = [binding.stay.begin() for _ in range(2)]
        wait_until(lambda: value("server") == 2)
        assert value("client") == 2
        stays[0].cancel(abort=True)
        with pytest.raises(CallCancelled):
            stays[0].complete()
        wait_until(lambda: value("client") == 1)
        assert value("server") == 2
        served.gate.open()
        assert stays[1].result(LIMIT) is None
        wait_until(lambda: value("client") == value("server") == 0)
        cancelled = {**labels, "status": "CALL_CANCELLED"}
        assert registry.get_sample_value("callport_client_call_duration_seconds_count", cancelled) == 1

    def test_once_in_a_registry(self, registry: CollectorRegistry) -> None:
        """Metrics of the same names cannot be twice in a registry, which says so."""
        CallMetrics(registry)
        with pytest.raises(ValueError, match="callport_client_call_duration_seconds"):
            CallMetrics(registry)

    def test_a_running_service(self, registry: CollectorRegistry) -> None:
        """Added later, it measures what begins from then on; `buckets` are the upper bounds of its histograms."""
        calls = CallMetrics(registry, buckets=(0.5, 1.0))
        with Server("loopback://later") as server:
            server.register("words", Words())
            server.listen()
            with Client(server.endpoint) as client:
                binding = client.bind("words")
                binding.spell("before")
                client.add_interceptor(calls)
                binding.spell("after")
        bounds = {
            sample.labels["le"]: sample.value
            for metric in registry.collect()
            for sample in metric.samples
            if sample.name == "callport_client_call_duration_seconds_bucket"
        }
        assert bounds.keys() == {"0.5", "1.0", "+Inf"} and bounds["+Inf"] == 1
