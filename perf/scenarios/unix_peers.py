"""How does the engine compare over Unix sockets, with what one might write instead?

Unit: microseconds a round trip with one call outstanding, and calls a second by how many are, 64-byte echo between
two processes: over ipc with ZeroMQ, over a Unix stream socket with the others (see each adapter in `perf/subjects`).

What would make it wrong: a peer that is not in its best form; one that does less than it seems to.
`multiprocessing.connection` and the floor are no RPC; the loop by hand has nothing but calls and answers. None of
these has ZeroMQ's two threads between socket and caller.
"""

from perf.lab import Lab
from perf.scenario import Against, Figures, Scenario
from perf.scenarios.peers import measure
from perf.subject import missing

PEERS = ("uvloop-stream", "pycapnp-peer", "mp-connection")
OUTSTANDING = (1, 4, 16, 64, 256)


def run(lab: Lab, subject: str) -> Figures:
    """Measure one library once."""
    return measure(lab, subject, "ipc", OUTSTANDING)


SCENARIO = Scenario(
    name="unix_peers",
    run=run,
    subjects=("engine", "engine-native", "raw-zmq", *PEERS),
    ratios=(*(Against("engine", peer) for peer in ("raw-zmq", *PEERS)), Against("engine-native", "engine")),
    rounds=(1, 3, 5),
    default=(False, False, True),
    missing=missing,
    headline=("p50_us", "p99_us", *(f"calls_per_s_{width}" for width in OUTSTANDING), "cpu_us_per_call_16"),
)
