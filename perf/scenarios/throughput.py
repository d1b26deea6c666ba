"""How many calls a second go through, by how many are outstanding?

Unit: calls a second, 64-byte echo, one client thread, a window that is kept full, server in another process;
and microseconds of processor time a call, client and server together and each alone.

What would make it wrong: answers that are not compared, or counted twice; a window that is not full (a client
that sends all, then takes all, measures a burst); a run too short to outlast the warm-up; processor time that
somebody else uses, which is why it is counted by process.
"""

from perf.lab import Lab
from perf.scenario import Against, Figures, Scenario
from perf.subject import missing

SOME = (4, 16, 64, 256)
SWEEP = (1, 4, 16, 64, 256, 1024, 4096)
OURS = ("engine", "engine-native", "engine-tls", "engine-loopback", "engine-loopback-nonblocking")


def run(lab: Lab, subject: str) -> Figures:
    """Measure one subject once, at each width."""
    with lab.server(subject) as server:
        outstanding = lab.effort.pick(SOME, SOME, SWEEP)
        figures: Figures = lab.measure("perf.echo:throughput", server, subject=subject, outstanding=outstanding)
        return figures


SCENARIO = Scenario(
    name="throughput",
    run=run,
    subjects=(*OURS, "raw-zmq"),
    ratios=tuple(Against(ours, "raw-zmq") for ours in OURS),
    default=(True, True, True),
    missing=missing,
    headline=[f"{what}_{width}" for width in SWEEP for what in ("calls_per_s", "cpu_us_per_call")],
)
