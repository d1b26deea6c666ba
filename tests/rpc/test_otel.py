"""Tracing by OpenTelemetry: spans at both ends, joined by what travels with the call."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from opentelemetry import trace
from opentelemetry.metrics import Meter, NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from engine import (
    CallCancelled,
    CallTimeout,
    Client,
    CompletionPort,
    EngineError,
    InvalidArgumentType,
    RemoteFault,
    Server,
    Status,
)
from engine.otel import instrument
from engine.testing import LIMIT, Gate, wait_until

from .helpers import ROOT, new_endpoint, untyped
from .traced_service import Observer, Recorder, Traced, here, make_server


@pytest.fixture(scope="module")
def traced(folder: Path) -> Iterator[str]:
    """The endpoint of the traced service, in a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.rpc.traced_service", new_endpoint("tcp", folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        try:
            yield process.stdout.readline().strip()
            process.stdin.close()
            assert process.wait(LIMIT) == 0
        finally:
            process.kill()


class Bench:
    """A traced client, one that is not, and the spans of this process."""

    def __init__(self, endpoint: str) -> None:
        self.recorder = Recorder()
        self.tracer = self.recorder.provider.get_tracer("tests")
        self.client = Client(endpoint)
        instrument(self.client, self.recorder.provider)
        self.binding = self.client.bind(Traced)
        self._aside = Client(endpoint)
        self.plain = self._aside.bind(Traced)
        self._observer = self._aside.bind(Observer)

    def span(self, name: str) -> dict[str, Any]:
        """The one span of that name of this process."""
        wait_until(lambda: self.recorder.spans(name))
        (found,) = self.recorder.spans(name)
        return found

    def server_span(self, trace_id: str, name: str) -> dict[str, Any]:
        """The one span of that name in that trace at the service."""
        found: list[Any] = []
        wait_until(lambda: bool(found.append(self._observer.ended(trace_id, name)) or found[-1]))
        span: dict[str, Any] = found[-1]
        return span

    def close(self) -> None:
        self.client.close()
        self._aside.close()


@pytest.fixture
def bench(traced: str) -> Iterator[Bench]:
    """Clients of the traced service."""
    made = Bench(traced)
    yield made
    made.close()


class Staying:
    """A routine that a gate holds."""

    def __init__(self) -> None:
        self.gate = Gate()

    async def stay(self) -> int:
        """Answer once the gate is open."""
        await asyncio.to_thread(self.gate.pass_through)
        return 7


def test_switched_on_while_a_routine_runs() -> None:
    """A call that runs when its server is instrumented is answered, and has no span; those that follow have one."""
    recorder, staying = Recorder(), Staying()
    with Server("loopback://switched-on") as server:
        server.register("staying", staying)
        server.listen()
        with Client(server.endpoint) as client:
            stay = client.bind("staying").stay
            call = stay.begin()
            staying.gate.wait_for_arrivals()
            instrument(server, recorder.provider)
            instrument(server, recorder.provider)
            staying.gate.open()
            assert call.result(LIMIT) == 7
            assert recorder.spans("staying/stay") == []
            assert stay() == 7
            wait_until(lambda: len(recorder.spans("staying/stay")) == 1)


class TestSpans:
    """One span at each end of a call, in one trace."""

    @pytest.mark.parametrize("name", ["where", "where_async"])
    def test_a_trace_across_processes(self, bench: Bench, name: str) -> None:
        """The routine runs in a span whose parent is the client's span, whose parent is the caller's."""
        with bench.tracer.start_as_current_span("caller"):
            mine = here()
            theirs = getattr(bench.binding, name)()
        assert theirs[0] == mine[0], "one trace"
        client = bench.span(f"test.Traced/{name}")
        server = bench.server_span(mine[0], f"test.Traced/{name}")
        assert client["parent"] == mine[1]
        assert server["parent"] == client["span"] and server["span"] == theirs[1]
        assert (client["kind"], server["kind"]) == ("CLIENT", "SERVER")

    def test_attributes(self, bench: Bench) -> None:
        """They are those of the conventions for RPC."""
        bench.binding.where()
        span = bench.span("test.Traced/where")
        port = int(bench.client.endpoint.rpartition(":")[2])
        common = {
            "rpc.system.name": "callport", "rpc.method": "test.Traced/where", "rpc.response.status_code": "OK",
        }  # fmt: skip
        assert span["attributes"] == common | {"server.address": "127.0.0.1", "server.port": port}
        assert span["ok"] and span["parent"] is None

    def test_an_asynchronous_call(self, bench: Bench) -> None:
        """The span of a call ends with its outcome, not with its completing; what is current comes from `begin`."""
        with CompletionPort() as port:
            with bench.tracer.start_as_current_span("caller"):
                mine = here()
                call = bench.binding.where.begin(notify=port)
            assert port.get(LIMIT).overlapped is call
        span = bench.span("test.Traced/where")
        assert span["parent"] == mine[1] and span["attributes"]["rpc.response.status_code"] == "OK"
        assert call.complete()[0] == mine[0]

    def test_many_at_once(self, bench: Bench) -> None:
        """Each call has a span of its own, told as successful."""
        calls = [bench.binding.where.begin() for _ in range(100)]
        results = [call.result(LIMIT) for call in calls]
        wait_until(lambda: len(bench.recorder.spans("test.Traced/where")) == 100)
        assert all(span["ok"] for span in bench.recorder.spans("test.Traced/where"))
        assert len({span for _, span in results}) == len({trace for trace, _ in results}) == 100

    def test_calls_made_by_a_routine(self, bench: Bench, traced: str) -> None:
        """They are children of the routine's span: one trace across three processes' worth of calls."""
        with bench.tracer.start_as_current_span("caller"):
            mine = here()
            theirs = bench.binding.onward(traced)
        assert theirs[0] == mine[0]
        outer = bench.span("test.Traced/onward")
        assert bench.server_span(mine[0], "test.Traced/onward")["parent"] == outer["span"]

    def test_a_callback(self, bench: Bench) -> None:
        """A callback runs in the context of the `begin` that it belongs to."""
        told: list[Any] = []
        with bench.tracer.start_as_current_span("caller"):
            mine = here()
            bench.binding.where.begin(notify=lambda call, kind: told.append((here(), call.complete()[0])))
        wait_until(lambda: told)
        assert told == [(mine, mine[0])]

    def test_context_handles(self, bench: Bench) -> None:
        """A call that waits for a context handle, and then runs from its beginning, has one span."""
        handle = bench.binding.open()
        kept = bench.binding.keep.begin(handle)
        with bench.tracer.start_as_current_span("caller"):
            mine = here()
            waiting = bench.binding.use.begin(handle)
        bench.plain.where()  # Behind it: it was looked at, and waits.
        assert not waiting.done()
        bench.binding.release()
        assert kept.result(LIMIT) is None and waiting.result(LIMIT) == "state"
        assert bench.server_span(mine[0], "test.Traced/use")["parent"] == bench.span("test.Traced/use")["span"]


class TestFailures:
    """How a span tells of a call that failed."""

    @pytest.mark.parametrize("name", ["fail", "fail_async"])
    def test_a_routine_that_raises(self, bench: Bench, name: str) -> None:
        """Both spans fail; the server's has the exception."""
        with bench.tracer.start_as_current_span("caller"):
            mine = here()
            with pytest.raises(RemoteFault):
                getattr(bench.binding, name)()
        client = bench.span(f"test.Traced/{name}")
        server = bench.server_span(mine[0], f"test.Traced/{name}")
        assert not client["ok"] and not server["ok"]
        assert server["events"] == ["LookupError"]
        for span in (client, server):
            assert span["attributes"]["rpc.response.status_code"] == "REMOTE_FAULT"
            assert span["attributes"]["error.type"] == "REMOTE_FAULT"

    def test_an_abort(self, bench: Bench) -> None:
        """The status is the number that the routine chose."""
        with bench.tracer.start_as_current_span("caller"):
            mine = here()
            with pytest.raises(RemoteFault):
                bench.binding.abort(4711)
        for span in (bench.span("test.Traced/abort"), bench.server_span(mine[0], "test.Traced/abort")):
            assert span["attributes"]["rpc.response.status_code"] == "4711" and not span["ok"]
            assert span["attributes"]["error.type"] == "4711"

    def test_a_call_that_is_refused(self, bench: Bench) -> None:
        """A call that raises in `begin` has a span that failed, and no trace at the server."""
        with pytest.raises(InvalidArgumentType):
            untyped(bench.binding.abort)("text")
        span = bench.span("test.Traced/abort")
        assert not span["ok"] and span["attributes"]["error.type"] == Status.name_of(InvalidArgumentType.status)

    def test_nobody_there(self, endpoint: str) -> None:
        """A call that is cancelled, or runs out of time, says so."""
        recorder = Recorder()
        with Client(endpoint) as client:
            instrument(client, recorder.provider)
            call = client.bind(Traced).where.begin()
            call.cancel(abort=True)
            with pytest.raises(CallCancelled):
                call.complete()
            (span,) = recorder.spans("test.Traced/where")
            assert span["attributes"]["error.type"] == "CALL_CANCELLED"
            with pytest.raises((CallTimeout, EngineError)):
                client.bind(Traced).fail(timeout=0.01)
            (span,) = recorder.spans("test.Traced/fail")
            assert not span["ok"]


class TestDurations:
    """The histograms of how long calls took."""

    def test_at_both_ends(self) -> None:
        """Each call is recorded once at its client and once at its server, with the attributes of its span."""
        reader = InMemoryMetricReader()
        meters, recorder = MeterProvider([reader]), Recorder()
        with Server("loopback://measured") as server:
            server.register("echo", Nothing())
            server.listen()
            with Client(server.endpoint) as client:
                for target in (server, client):
                    instrument(target, recorder.provider, meters)
                echo = client.bind("echo")
                for _ in range(3):
                    echo.nothing()
                with pytest.raises(RemoteFault):
                    echo.fail()
                wait_until(lambda: sum(recorded(reader).values()) == 8)
        names = {name for name, *_ in recorded(reader)}
        assert names == {"rpc.client.call.duration", "rpc.server.call.duration"}
        for name in names:
            assert recorded(reader)[name, "echo/nothing", "OK"] == 3
            assert recorded(reader)[name, "echo/fail", "REMOTE_FAULT"] == 1

    def test_an_instrument_that_raises(self, caplog: pytest.LogCaptureFixture) -> None:
        """The call has its outcome and its span all the same, and the log says why it was not recorded."""
        recorder = Recorder()
        with Server("loopback://unmeasured") as server:
            server.register("echo", Nothing())
            server.listen()
            with Client(server.endpoint) as client:
                instrument(client, recorder.provider, Failing())
                assert client.bind("echo").nothing() is None
        assert len(recorder.spans("echo/nothing")) == 1
        assert "the span of a call could not be ended" in caplog.text


class Failing(NoOpMeterProvider):
    """What it makes cannot record."""

    def get_meter(self, *arguments: Any, **options: Any) -> Meter:
        meter: Any = super().get_meter(*arguments, **options)
        histogram = meter.create_histogram("failing")
        histogram.record = lambda *_, **__: 1 / 0
        meter.create_histogram = lambda *_, **__: histogram
        return cast(Meter, meter)


def recorded(reader: InMemoryMetricReader) -> dict[tuple[str, str, str], int]:
    """How often each instrument was told of each method and status."""
    found: dict[tuple[str, str, str], int] = {}
    data = reader.get_metrics_data()
    for metric in [] if data is None else data.resource_metrics[0].scope_metrics[0].metrics:
        assert metric.unit == "s"
        for point in metric.data.data_points:
            attributes: Any = point.attributes
            found[metric.name, attributes["rpc.method"], attributes["rpc.response.status_code"]] = cast(
                Any, point
            ).count
    return found


def test_several_servers(endpoint: str) -> None:
    """The span of a call to one of several servers names the one that it was at last, also of one that had to wait."""
    recorder = Recorder()
    with Client([endpoint, "ipc:///nowhere/at/all"], connect_timeout=LIMIT) as client:
        instrument(client, recorder.provider)
        call = client.bind("echo", causal=False).nothing.begin()
        with Server(endpoint) as server:
            server.register("echo", Nothing())
            server.listen()
            assert call.result(LIMIT) is None
            assert client.bind("echo", causal=False).nothing() is None
        names = [span["attributes"]["server.address"] for span in recorder.spans("echo/nothing")]
        assert names == [endpoint.removeprefix("ipc://")] * 2


class Nothing:
    """What is served there."""

    def nothing(self) -> None:
        """Answer."""

    def fail(self) -> None:
        """Raise."""
        raise LookupError("no")


class TestOnTheWire:
    """W3C Trace Context, in the call's metadata."""

    def test_the_texts(self, bench: Bench) -> None:
        """The metadata have a `traceparent`; the caller's own texts travel beside it, and count more."""
        with bench.tracer.start_as_current_span("caller"):
            mine = here()
            texts = bench.binding.metadata(metadata={"who": "me"})
        span = bench.span("test.Traced/metadata")
        assert texts.keys() == {"who", "traceparent"} and texts["who"] == "me"
        assert texts["traceparent"].startswith(f"00-{mine[0]}-{span['span']}-")
        assert bench.binding.metadata(metadata={"traceparent": "mine"}) == {"traceparent": "mine"}
        with pytest.raises(InvalidArgumentType, match="metadata"):
            untyped(bench.binding.metadata)(metadata="text")

    def test_a_caller_that_is_not_traced(self, bench: Bench) -> None:
        """It begins no trace here; at a traced server its calls begin traces of their own."""
        with bench.tracer.start_as_current_span("caller"):
            mine = here()
            theirs = bench.plain.where()
            assert bench.plain.metadata() == {}
        assert theirs[0] != mine[0]
        assert bench.server_span(theirs[0], "test.Traced/where")["parent"] is None

    def test_a_trace_begun_by_somebody_else(self, bench: Bench) -> None:
        """A trace context that the caller writes itself is taken up."""
        texts = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        assert bench.plain.where(metadata=texts)[0] == "0af7651916cd43dd8448eb211c80319c"
        wrong = {"traceparent": "00-nonsense"}
        assert len(bench.plain.where(metadata=wrong)[0]) == 32


class TestInstrumenting:
    """What is instrumented, and what is not."""

    def test_what_cannot_be(self) -> None:
        """Only clients and servers."""
        with pytest.raises(InvalidArgumentType, match="CompletionPort"), CompletionPort() as port:
            instrument(port)  # type: ignore[arg-type]  # wrong on purpose

    def test_twice(self, bench: Bench) -> None:
        """It is once."""
        instrument(bench.client, bench.recorder.provider)
        bench.client.bind(Traced).where()
        assert bench.span("test.Traced/where")["ok"]

    def test_the_process_wide_provider(self, folder: Path) -> None:
        """Without a provider the process's own is used; if that is none, calls go on without spans."""
        server = make_server(new_endpoint("ipc", folder), Recorder())
        with server, Client(server.endpoint) as client:
            instrument(client)
            assert len(client.bind(Traced).where()[0]) == 32
        assert not trace.get_current_span().is_recording()

    def test_nothing_is_imported(self) -> None:
        """Who does not ask for it does not import it."""
        script = "import sys, engine; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
        assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=LIMIT, check=False).returncode == 0
