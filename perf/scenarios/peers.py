"""How does the engine compare with what one might use instead?

Unit: microseconds a round trip with one call outstanding, and calls a second by how many are, 64-byte echo over TCP,
each library in the mode that its documentation recommends for many calls (see each adapter in `perf/subjects`).

What would make it wrong: an adapter that does not know its library's best; a library that is asked for more
than it is made for. They differ in what they give for the price: Zero's workers are processes, gRPC speaks
HTTP/2 and could encrypt, Pyro5 and RPyC pass objects, NATS goes through a broker. One call at a time, any library
on ZeroMQ pays for its two further threads. What is made for Unix sockets is in `unix_peers`.
"""

from perf.lab import Lab
from perf.scenario import Against, Figures, Scenario
from perf.subject import missing

PEERS = ("grpc-sync", "grpc-aio", "zerorpc-peer", "rpyc-peer", "pyro5", "zero", "thriftpy2-peer", "nats-peer")
OUTSTANDING = (1, 4, 16, 64, 256)


def measure(lab: Lab, subject: str, transport: str, outstanding: tuple[int, ...]) -> Figures:
    """Measure one library once, over this transport, whatever the others take."""
    lab.transport = transport
    with lab.server(subject) as server:
        latency: Figures = lab.measure("perf.echo:latency", server, subject=subject)
    with lab.server(subject) as server:
        throughput: Figures = lab.measure("perf.echo:throughput", server, subject=subject, outstanding=outstanding)
    return {**latency, **throughput}


def run(lab: Lab, subject: str) -> Figures:
    """Measure one library once."""
    return measure(lab, subject, "tcp", OUTSTANDING)


SCENARIO = Scenario(
    name="peers",
    run=run,
    subjects=("engine", "engine-native", "engine-tls", "raw-zmq", *PEERS),
    ratios=(
        *(Against("engine", peer) for peer in ("raw-zmq", *PEERS)),
        *(Against(link, "engine") for link in ("engine-native", "engine-tls")),
    ),
    rounds=(1, 3, 5),
    default=(False, False, True),
    missing=missing,
    headline=("p50_us", "p99_us", *(f"calls_per_s_{width}" for width in OUTSTANDING), "cpu_us_per_call_256"),
)
