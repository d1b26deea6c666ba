"""A service whose calls are traced, in a process of its own, which tells of its spans.

python -m tests.rpc.traced_service ENDPOINT     prints the endpoint as bound
"""

import queue
import sys
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from engine import Client, Context, Interface, RemoteFault, Server, ServerCall, current_call, manager, operation
from engine.otel import instrument
from engine.testing import LIMIT


class Traced(Interface, id="test.Traced"):
    """Operations whose spans are looked at."""

    @operation
    def where(self) -> list[str]:
        """Return the trace and the span that the routine runs in."""

    @operation
    def where_async(self) -> list[str]:
        """The same by an `async def` routine."""

    @operation
    def onward(self, endpoint: str) -> list[str]:
        """Return what `where` of the service at `endpoint` says, called by a traced client."""

    @operation
    def fail(self) -> None:
        """Raise."""

    @operation
    def fail_async(self) -> None:
        """The same by an `async def` routine."""

    @operation
    def abort(self, status: int) -> None:
        """A manager routine: abort with that status."""

    @operation
    def open(self) -> Context[str]:
        """Return a context handle."""

    @operation
    def use(self, opened: Context[str]) -> str:
        """Return the state of a context handle."""

    @operation
    def keep(self, opened: Context[str]) -> None:
        """A manager routine: keeps the call, and with it the handle, until `release`."""

    @operation
    def release(self) -> None:
        """End the call that is kept, once there is one."""

    @operation
    def metadata(self) -> dict[str, str]:
        """Return the texts that came with the call."""


class Observer(Interface, id="test.Observer"):
    """Tells of spans that have ended; is not traced by the tests' clients."""

    @operation
    def ended(self, trace: str, name: str) -> dict[str, Any] | None:
        """Return the span of that name in that trace, None if it has not ended."""


def here() -> list[str]:
    """The trace and the span that the caller runs in."""
    context = trace.get_current_span().get_span_context()
    return [f"{context.trace_id:032x}", f"{context.span_id:016x}"]


def described(span: Any) -> dict[str, Any]:
    """What the tests look at of a span."""
    return {
        "name": span.name,
        "kind": span.kind.name,
        "span": f"{span.context.span_id:016x}",
        "parent": None if span.parent is None else f"{span.parent.span_id:016x}",
        "attributes": dict(span.attributes),
        "ok": span.status.is_ok,
        "events": [event.attributes["exception.type"] for event in span.events],
    }


class Recorder:
    """Spans, as they end."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def spans(self, name: str, trace: str | None = None) -> list[dict[str, Any]]:
        """The spans of that name, in that trace if it is given, that have ended."""
        return [
            described(span)
            for span in self._exporter.get_finished_spans()
            if span.name == name and trace in (None, f"{span.context.trace_id:032x}")
        ]


class Routines:
    """Implements both."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._kept: queue.SimpleQueue[ServerCall] = queue.SimpleQueue()

    def where(self) -> list[str]:
        return here()

    async def where_async(self) -> list[str]:
        return here()

    def onward(self, endpoint: str) -> list[str]:
        with Client(endpoint) as client:
            instrument(client, self._recorder.provider)
            return client.bind(Traced).where()

    def fail(self) -> None:
        raise LookupError("by name")

    async def fail_async(self) -> None:
        raise LookupError("by name")

    @manager
    def abort(self, call: ServerCall, status: int) -> None:
        call.abort(status)

    def open(self) -> Context[str]:
        return current_call().open_context("state")

    def use(self, opened: Context[str]) -> str:
        return opened.state

    @manager
    def keep(self, call: ServerCall, opened: Context[str]) -> None:
        self._kept.put(call)

    def release(self) -> None:
        self._kept.get(timeout=LIMIT).complete()

    def metadata(self) -> dict[str, str]:
        return current_call().metadata

    def ended(self, trace: str, name: str) -> dict[str, Any] | None:
        found = self._recorder.spans(name, trace)
        if len(found) > 1:
            raise RemoteFault(f"{len(found)} spans of one call")
        return found[0] if found else None


def make_server(endpoint: str, recorder: Recorder) -> Server:
    """Return a listening server of both, traced."""
    server = Server(endpoint)
    routines = Routines(recorder)
    server.register(Observer, routines)
    instrument(server, recorder.provider)
    server.register(Traced, routines)
    instrument(server, recorder.provider)  # Changes nothing.
    server.listen()
    return server


def main() -> None:
    with make_server(sys.argv[1], Recorder()) as server:
        print(server.endpoint, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
