"""Statistics as metrics of Prometheus."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from engine import CompletionPort, InvalidArgumentType, InvalidParameter, MemberStatistics, Server, ThreadPool
from engine.prometheus import Collector
from engine.testing import LIMIT, wait_until

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
