"""How long does one call take, with nothing else going on?

Unit: microseconds from before `begin` to after `complete`, 64-byte echo, one call outstanding, server in
another process.

What would make it wrong: an answer that is not looked at; a first call that pays for connecting (there is a
warm-up); a server that spins and so robs the client of its core; a machine whose clock speed or load drifts
(pairs are interleaved). The percentiles are those of one busy client that waits for each answer, so a stall
delays later calls without being counted for them: for latency under load see `open_loop`.
"""

from perf.lab import Lab
from perf.scenario import Against, Figures, Scenario
from perf.subject import missing

OURS = ("engine", "engine-native", "engine-tls", "engine-loopback", "engine-loopback-nonblocking")


def run(lab: Lab, subject: str) -> Figures:
    """Measure one subject once."""
    with lab.server(subject) as server:
        figures: Figures = lab.measure("perf.echo:latency", server, subject=subject)
        return figures


SCENARIO = Scenario(
    name="latency",
    run=run,
    subjects=(*OURS, "raw-zmq"),
    ratios=tuple(Against(ours, "raw-zmq") for ours in OURS),
    default=(True, True, True),
    missing=missing,
    headline=("p50_us", "p99_us", "cpu_us_per_call"),
)
