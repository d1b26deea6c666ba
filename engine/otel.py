"""OpenTelemetry: a span and a duration for each call at its client and at its server, and the trace they are in.

    from engine.otel import instrument

    instrument(client)      # at any time, as the server: calls that have begun are not traced
    instrument(server)

Needs the `otel` extra. Nothing of this is imported, and nothing is asked on the way of a call, unless `instrument` was
called for that client or server.

Theory of operation. Both are interceptors. That of a client opens a span, and puts the trace context into the call's
metadata (the texts of W3C Trace Context, with the standard propagator). That of a server opens a span with the caller's
as its parent. At the end of the span its duration is recorded in `rpc.client.call.duration`, or
`rpc.server.call.duration`, histograms in seconds with the attributes of the span.

Guarantees: a span of a call ends once, when the call has its outcome (client) or is closed (server), with its status;
its duration is recorded then, but not that of a call that nobody collects because the process ends.
It is current while the routine runs, so spans made there are its children, and so are calls that the routine makes.

Spans end where a client's blocking call was made, else on the default pool, and at a server on the thread that closes
the call: give the provider a processor that does not wait, such as `BatchSpanProcessor`. Calls that are refused before
their routine is entered have no span at the server, nor have those of the library's own interfaces, as `Health`.

Source: OpenTelemetry, "Semantic conventions for RPC spans", "... for RPC metrics"; W3C, "Trace Context".
"""

from collections.abc import Iterator
from weakref import WeakSet

from opentelemetry import context, propagate
from opentelemetry.metrics import MeterProvider, get_meter
from opentelemetry.trace import Span, SpanKind, StatusCode, TracerProvider, get_tracer, set_span_in_context

from transport import Endpoint, EndpointError
from transport.foreign import is_interrupt, loggable, type_name
from transport.log import Log
from transport.realtime import perf_counter

from . import Client, IncomingCall, OutgoingCall, Server
from .call_status import status_name
from .errors import InvalidArgumentType

log: Log = Log("engine.otel")

SYSTEM = "callport"  # The value of `rpc.system.name`.
# In seconds, as the conventions have them.
BOUNDARIES = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

# What is watched already. Single atomic operations only.
_instrumented: WeakSet[Client | Server] = WeakSet()


def instrument(
    target: Client | Server, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> None:  # fmt: skip
    """Open a span for each call of a client, or to a server, and record how long it took.

    Args: `tracer_provider` makes the spans, `meter_provider` the histogram; None: the process's own.
    The name of a span is that of the method, `interface/operation`. Its attributes: `rpc.system.name` ("callport"),
    `rpc.method`, `rpc.response.status_code` (the name of the status, "OK" for success), `error.type` (the same) if it
    failed, and at a client `server.address` and, for tcp, `server.port`: of several servers, of the one that the call
    was at last. Bindings that were made before are among it. Instrumenting a second time does nothing.
    Raises: `InvalidArgumentType` for anything else than a client or a server. Threads: any. Blocks: never.
    """
    if not isinstance(target, (Client, Server)):
        raise InvalidArgumentType(f"target must be a Client or a Server, not {type_name(target)}")
    if target in _instrumented:
        return
    _instrumented.add(target)
    target.add_interceptor(_Calls(isinstance(target, Client), tracer_provider, meter_provider).around)


class _Calls:
    """The calls of one client, or to one server."""

    def __init__(
        self, at_client: bool, tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None
    ) -> None:  # fmt: skip
        side = "client" if at_client else "server"
        self._at_client = at_client
        self._kind = SpanKind.CLIENT if at_client else SpanKind.SERVER
        self._tracer = get_tracer("callport", tracer_provider=tracer_provider)
        self._durations = get_meter("callport", meter_provider=meter_provider).create_histogram(
            f"rpc.{side}.call.duration", "s", "how long calls took",
            explicit_bucket_boundaries_advisory=BOUNDARIES,
        )  # fmt: skip

    def around(self, call: IncomingCall | OutgoingCall) -> Iterator[None]:
        """Run around a call."""
        parent = None if self._at_client else propagate.extract(call.metadata)
        method = f"{call.interface}/{call.operation}"
        attributes: dict[str, str | int] = {"rpc.system.name": SYSTEM, "rpc.method": method}
        span = self._tracer.start_span(method, parent, self._kind, attributes)
        inside = set_span_in_context(span, parent)
        if self._at_client:
            texts: dict[str, str] = {}
            propagate.inject(texts, inside)
            call.metadata = texts | call.metadata  # What the caller says itself counts.
        else:
            context.attach(inside)  # In the call's own context, which ends with it.
        began = perf_counter()
        failed: BaseException | None = None
        try:
            yield
        except BaseException as error:
            failed = error
            raise
        finally:
            took = perf_counter() - began
            if isinstance(call, OutgoingCall):
                attributes |= _server_of(call.endpoint)
            status = status_name(failed, self._at_client)
            try:
                if status is not None:
                    attributes["rpc.response.status_code"] = status
                    if failed is not None:
                        attributes["error.type"] = status
                        _record(span, failed, status)
                span.set_attributes(attributes)
                span.end()
                if status is not None:
                    self._durations.record(took, attributes, inside)
            except BaseException as error:  # Raised by what the program has put in. How the call ended is what counts.
                if is_interrupt(error):
                    raise
                log.error("the span of a call could not be ended", exc_info=error)


def _server_of(endpoint: str) -> dict[str, str | int]:
    """Return the attributes that name a server; none if it is not known yet which of several it will be."""
    try:
        parsed = Endpoint.parse(endpoint)
    except EndpointError:
        return {}
    server: dict[str, str | int] = {"server.address": parsed.host or parsed.name}
    if parsed.carrier == "tcp":
        server["server.port"] = parsed.port
    return server


def _record(span: Span, error: BaseException, status: str) -> None:
    """Say in a span what the call ended with."""
    span.set_status(StatusCode.ERROR, status)
    try:
        if span.is_recording():
            recorded = loggable(error)
            span.record_exception(recorded, None if recorded is error else {"exception.type": type_name(error)})
    except BaseException as failure:  # As in `around`; the span ends all the same.
        if is_interrupt(failure):
            raise
        log.error("the span of a call could not record what was raised", exc_info=failure)
