"""Tools for tests: of timing and threads without sleeping, and of what calls and serves.

    ManualClock          time stands still until `advance`; give it as `clock=` to timers and pools
    Sequencer            steps of several threads, run in the order of their numbers
    Gate                 a place where threads stop until it is opened, and where a test sees them arrive
    wait_until_blocked   returns once so many threads sleep in waits on a port or object, or a given one does
    wait_until           returns once a condition holds

    Pair                 a server and a client in this process, over loopback
    Stub                 a service that answers from a table, for who calls it
    Faults               calls that are refused, dropped, late, or lose their connection
    no_leaks             fails if what was opened is left open

`engine.testing.plugin` is for pytest, which finds it by itself: the fixtures `callport_serve`, `callport_pair`,
`callport_stub` and `callport_no_leaks`. Nothing else here needs pytest.

timing      the first five: clock, order, gates
pair        a service under test
faults      what goes wrong with its calls
stub        a service that is played
leaks       what is left open
plugin      fixtures
"""

from .fault_injection import Faults
from .leaks import no_leaks
from .pair import Pair
from .stub import Stub
from .timing import LIMIT, Gate, ManualClock, Sequencer, wait_until, wait_until_blocked

__all__ = [
    "LIMIT", "Faults", "Gate", "ManualClock", "Pair", "Sequencer", "Stub", "no_leaks", "wait_until",
    "wait_until_blocked",
]  # fmt: skip
