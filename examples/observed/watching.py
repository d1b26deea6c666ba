"""What both programs do to be watched: metrics over HTTP, and spans to wherever the environment says.

Needs `callport[otel,prometheus]` and `opentelemetry-sdk`. To send spans, `opentelemetry-exporter-otlp-proto-http`, and
`OTEL_EXPORTER_OTLP_ENDPOINT` in the environment; without that variable they go nowhere.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import CollectorRegistry, start_http_server

from engine import Client, Server
from engine.otel import instrument
from engine.prometheus import CallMetrics, Collector, Observable


@contextmanager
def watched(target: Client | Server, port: int, **objects: Observable) -> Iterator[None]:
    """Show the calls of `target`, and the statistics of these objects, at `port` (0: a free one), and open spans.

    Before anything is bound or served. Prints where the metrics are.
    """
    provider = TracerProvider()
    if "OTEL_EXPORTER_OTLP_ENDPOINT" in os.environ:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    instrument(target, provider)
    registry = CollectorRegistry()
    registry.register(Collector(**objects))
    target.add_interceptor(CallMetrics(registry))
    http, thread = start_http_server(port, registry=registry)
    print(f"metrics at http://127.0.0.1:{http.server_port}/metrics", flush=True)
    try:
        yield
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
        provider.shutdown()  # What was not sent yet leaves.
