"""OpenTelemetry: a span for each call at its client and at its server, and the trace context that joins them.

    from engine.otel import instrument

    instrument(client)      # at any time, as the server: calls that have begun are not traced
    instrument(server)

Needs the `otel` extra. Nothing of this is imported, and nothing is asked on the way of a call, unless `instrument` was
called for that client or server.

Theory of operation. Both are interceptors. That of a client opens a span, and puts the trace context into the call's
metadata (the texts of W3C Trace Context, with the standard propagator). That of a server opens a span with the caller's
as its parent.

Guarantees: a span of a call ends once, when the call has its outcome (client) or is closed (server), with its status.
It is current while the routine runs, so spans made there are its children, and so are calls that the routine makes.

Spans end where a client's blocking call was made, else on the default pool, and at a server on the thread that closes
the call: give the provider a processor that does not wait, such as `BatchSpanProcessor`. Calls that are refused before
their routine is entered have no span at the server, nor have those of the library's own interfaces, as `Health`.

Source: OpenTelemetry, "Semantic conventions for RPC spans"; W3C, "Trace Context".
"""

from collections.abc import Iterator
from functools import partial
from weakref import WeakSet

from opentelemetry import context, propagate
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, TracerProvider, get_tracer, set_span_in_context

from transport import Endpoint, EndpointError
from transport.foreign import is_interrupt, loggable, type_name
from transport.log import Log

from . import Client, IncomingCall, OutgoingCall, RemoteFault, Server
from .errors import EngineError, InvalidArgumentType
from .status import Status

log: Log = Log("engine.otel")

SYSTEM = "callport"  # The value of `rpc.system`.

# What has spans already. Single atomic operations only.
_instrumented: WeakSet[Client | Server] = WeakSet()


def instrument(target: Client | Server, tracer_provider: TracerProvider | None = None) -> None:
    """Open a span for each call of a client, or to a server.

    Args: `tracer_provider` makes the spans; None: the process's own.
    The name of a span is `interface/operation`. Its attributes: `rpc.system`, `rpc.service`, `rpc.method`,
    `rpc.callport.status_code` (the Windows number, 0 for success), `error.type` (the status's name) if it failed, and
    at a client `server.address` and, for tcp, `server.port`: of several servers, of the one that the call was at last.
    Bindings that were made before are among it. Instrumenting a second time does nothing.
    Raises: `InvalidArgumentType` for anything else than a client or a server. Threads: any. Blocks: never.
    """
    if not isinstance(target, (Client, Server)):
        raise InvalidArgumentType(f"target must be a Client or a Server, not {type_name(target)}")
    if target in _instrumented:
        return
    _instrumented.add(target)
    tracer = get_tracer("callport", tracer_provider=tracer_provider)
    target.add_interceptor(partial(_client_span if isinstance(target, Client) else _server_span, tracer))


def _begin(tracer: Tracer, call: IncomingCall | OutgoingCall, parent: context.Context | None, kind: SpanKind) -> Span:
    attributes = {"rpc.system": SYSTEM, "rpc.service": call.interface, "rpc.method": call.operation}
    return tracer.start_span(f"{call.interface}/{call.operation}", parent, kind, attributes)


def _client_span(tracer: Tracer, call: OutgoingCall) -> Iterator[None]:
    span = _begin(tracer, call, None, SpanKind.CLIENT)
    texts: dict[str, str] = {}
    propagate.inject(texts, set_span_in_context(span))
    call.metadata = texts | call.metadata  # What the caller says itself counts.
    try:
        yield
    except BaseException as error:
        span.set_attributes(_server_of(call.endpoint))
        _fail(span, error, error.status if isinstance(error, EngineError) else RemoteFault.status)
        raise
    span.set_attributes(_server_of(call.endpoint))
    _end(span, 0)


def _server_span(tracer: Tracer, call: IncomingCall) -> Iterator[None]:
    parent = propagate.extract(call.metadata)
    span = _begin(tracer, call, parent, SpanKind.SERVER)
    context.attach(set_span_in_context(span, parent))  # In the call's own context, which ends with it.
    try:
        yield
    except BaseException as error:
        # The outcome of a call that the routine made says what became of that one.
        own = isinstance(error, EngineError) and not getattr(error, "collected", False)
        _fail(span, error, error.status if own else RemoteFault.status)  # type: ignore[attr-defined]  # it has one then
        raise
    _end(span, 0)


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


def _fail(span: Span, error: BaseException, status: int) -> None:
    """End the span of a call that has failed; one that nobody will collect, as the process ends, has no outcome."""
    if isinstance(error, GeneratorExit):
        _end(span, None)
        return
    try:
        if span.is_recording():
            told = loggable(error)
            span.record_exception(told, None if told is error else {"exception.type": type_name(error)})
    except BaseException as failure:  # Raised by a processor of the program's. What was raised before is what counts.
        if is_interrupt(failure):
            raise
        log.error("the span of a call could not record what was raised", exc_info=failure)
    _end(span, status)


def _end(span: Span, status: int | None) -> None:
    """End a span; `status` None: how the call ended is not known."""
    try:
        if status is not None:
            span.set_attribute("rpc.callport.status_code", int(status))
            if status:
                name = Status.name_of(status)
                name = str(int(status)) if name == "STATUS" else name
                span.set_attribute("error.type", name)
                span.set_status(StatusCode.ERROR, name)
        span.end()
    except BaseException as error:  # As above: the call has ended all the same.
        if is_interrupt(error):
            raise
        log.error("the span of a call could not be ended", exc_info=error)
