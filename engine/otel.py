"""OpenTelemetry: a span for each call at its client and at its server, and the trace context that joins them.

    from engine.otel import instrument

    instrument(client)      # before `client.bind`
    instrument(server)      # at any time; calls that are running are not traced

Needs the `otel` extra. Nothing of this is imported, and nothing is asked on the way of a call, unless `instrument` was
called for that client or server.

Theory of operation. A client that is instrumented begins its calls in another way, which its bindings take when they
are made: it opens a span, puts the trace context into the call's metadata (the texts of W3C Trace Context, with the
standard propagator), and waits for the outcome as an observer of the call table. A server has one more preparer
at each entry, which opens a span with the caller's as its parent before the routine; closing the call ends it.

Guarantees: a span of a call ends once, when the call has its outcome (client) or was closed (server), with its status.
It is current while the routine runs, so spans made there are its children, and so are calls that the routine makes.

Spans end on the threads that bring replies and send answers: give the provider a processor that does not wait, such as
`BatchSpanProcessor`. Calls that are refused before their routine is entered have no span at the server.

Source: OpenTelemetry, "Semantic conventions for RPC spans"; W3C, "Trace Context".
"""

from typing import Any

from opentelemetry import context, propagate
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, TracerProvider, get_tracer, set_span_in_context

from transport import Endpoint, EndpointError
from transport.foreign import is_interrupt, loggable, type_name
from transport.log import Log

from .errors import EngineError, InvalidArgumentType
from .rpc.call import Call, carrier_of, number_of, outcome_of
from .rpc.client.carrier import Begin
from .rpc.client.client import Client, decorate
from .rpc.client.connection import Connection
from .rpc.contract.spec import OperationSpec
from .rpc.server.open_call import CloseReason, OpenCall
from .rpc.server.server import Server, prepare_calls
from .rpc.state import Observer, status_of
from .status import Status

log: Log = Log("engine.otel")

SYSTEM = "callport"  # The value of `rpc.system`.


def instrument(target: Client | Server, tracer_provider: TracerProvider | None = None) -> None:
    """Open a span for each call of a client, or to a server.

    Args: `tracer_provider` makes the spans; None: the process's own.
    The name of a span is `interface/operation`. Its attributes: `rpc.system`, `rpc.service`, `rpc.method`,
    `rpc.callport.status_code` (the Windows number, 0 for success), `error.type` (the status's name) if it failed, and
    at a client `server.address` and, for tcp, `server.port`: of several servers, of the one that the call was at last.
    Bindings that were made before keep calling without spans. Instrumenting a second time does nothing.
    Raises: `InvalidArgumentType` for anything else than a client or a server. Threads: any. Blocks: never.
    """
    if not isinstance(target, (Client, Server)):
        raise InvalidArgumentType(f"target must be a Client or a Server, not {type_name(target)}")
    tracer = get_tracer("callport", tracer_provider=tracer_provider)
    if isinstance(target, Client):
        decorate(target, lambda connection, begin: _traced(connection, begin, tracer))
    else:
        prepare_calls(target, _Tracing(tracer))


def _attributes(spec: OperationSpec) -> dict[str, str]:
    return {"rpc.system": SYSTEM, "rpc.service": spec.target.interface, "rpc.method": spec.target.operation}


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
    except BaseException as error:  # Raised by a processor of the program's: the call has ended all the same.
        if is_interrupt(error):
            raise
        log.error("the span of a call could not be ended", exc_info=error)


def _record(span: Span, error: BaseException) -> None:
    """Note in a span what a routine, or beginning a call, has raised."""
    try:
        if span.is_recording():
            told = loggable(error)
            span.record_exception(told, None if told is error else {"exception.type": type_name(error)})
    except BaseException as failure:  # As above. What was raised is what counts.
        if is_interrupt(failure):
            raise
        log.error("the span of a call could not record what was raised", exc_info=failure)


def _traced(connection: Connection, begin: Begin, tracer: Tracer) -> Begin:
    return begin if isinstance(begin, _TracedBegin) else _TracedBegin(connection, begin, tracer)


class _TracedBegin:
    """Begins the calls of a client, with a span for each."""

    def __init__(self, connection: Connection, begin: Begin, tracer: Tracer) -> None:
        self._begin = begin
        self._table = connection.table
        self._server = _server_of(connection.endpoint)
        self._endpoint = connection.endpoint
        self._tracer = tracer

    def __call__(
        self, spec: OperationSpec, args: tuple[Any, ...], kwargs: dict[str, Any] | None, notify: Any,
        timeout: float | None, metadata: dict[str, str] | None, *more: Any,
    ) -> Call[Any]:  # fmt: skip
        name = f"{spec.target.interface}/{spec.target.operation}"
        span = self._tracer.start_span(name, None, SpanKind.CLIENT, {**_attributes(spec), **self._server})
        carrier: dict[str, str] = {}
        propagate.inject(carrier, set_span_in_context(span))
        try:
            # What the caller says itself counts, and is checked as any.
            told = metadata if metadata is not None and not isinstance(metadata, dict) else carrier | (metadata or {})
            call = self._begin(spec, args, kwargs, notify, timeout, told, *more)
        except BaseException as error:
            _record(span, error)
            _end(span, error.status if issubclass(type(error), EngineError) else None)  # type: ignore[attr-defined]  # it is one then
            raise
        observer = _SpanObserver(span, call, self._endpoint)
        if not self._table.await_outcome(number_of(call), call, observer):
            # It ended before it could be observed; a thread that was notified may have collected the outcome, too.
            observer.outcome = outcome_of(call)
            observer.wake()
        return call


class _SpanObserver(Observer):
    """Ends a client's span. Args: the `endpoint` at which the call was begun: it may have moved to another server."""

    def __init__(self, span: Span, call: Call[Any], endpoint: str) -> None:
        self._span = span
        self._call = call
        self._number = number_of(call)
        self._endpoint = endpoint

    def wake(self) -> None:
        """The call has its outcome."""
        carrier = carrier_of(self._call)
        if carrier is not None and number_of(self._call) == self._number:  # Else the handle carries another call.
            endpoint = carrier.connection.endpoint
            if endpoint != self._endpoint:
                self._span.set_attributes(_server_of(endpoint))
        _end(self._span, None if self.outcome is None else status_of(self.outcome))


class _Tracing:
    """Opens the span of each call of a server, before its arguments are prepared.

    It is current in the call's own context, which nothing else runs in, and which ends with the call.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def __call__(self, call: OpenCall, args: list[Any]) -> bool:
        parent = propagate.extract(call.metadata())
        extras = call.extras()
        if extras.span is None:  # Else the call had to wait, and runs again from its beginning.
            spec = call.entry.spec
            name = f"{spec.target.interface}/{spec.target.operation}"
            span = extras.span = self._tracer.start_span(name, parent, SpanKind.SERVER, _attributes(spec))

            def closed(how: CloseReason) -> None:
                if extras.error is not None:
                    _record(span, extras.error)
                _end(span, extras.status if how is CloseReason.FAILED else 0)

            if not call.add_done_callback(closed):
                _end(span, None)
        context.attach(set_span_in_context(extras.span, parent))
        return True
