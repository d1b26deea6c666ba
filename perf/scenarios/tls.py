"""What does TLS cost?

Unit: microseconds a round trip with one call outstanding, and calls a second by how many are, 64-byte echo between two
processes over a loopback address: the native link under TLS, and the same in clear text.

What would make it wrong: comparing it with a Unix socket, which costs less than TCP; counting the handshake, which
comes once.
"""

from perf.lab import Lab
from perf.scenario import Against, Figures, Scenario
from perf.scenarios.peers import measure
from perf.subject import missing

OUTSTANDING = (1, 16, 256)


def run(lab: Lab, subject: str) -> Figures:
    """Measure one of the two once."""
    return measure(lab, subject, "tcp", OUTSTANDING)


SCENARIO = Scenario(
    name="tls",
    run=run,
    subjects=("engine-tls", "engine-native"),
    ratios=(Against("engine-tls", "engine-native"),),
    rounds=(1, 3, 5),
    default=(False, False, True),
    missing=missing,
    headline=("p50_us", *(f"calls_per_s_{width}" for width in OUTSTANDING), "cpu_us_per_call_16"),
)
