"""The machine's clocks, for waits that end though time is frozen.

Tests freeze time: they put a false clock in the place of each function of `time`, in that module and in all that have
imported it by name. What waits for a thread or a socket must not wait by such a clock, for it would never end. So the
functions here are those of a copy of the module, which are equally fast, and which no other module knows. (Frozen time
for timers is `engine.testing.ManualClock`.)
"""

from collections.abc import Callable
from importlib.util import find_spec, module_from_spec

_spec = find_spec("time")
assert _spec is not None and _spec.loader is not None, "the module is built into the interpreter"
_time = module_from_spec(_spec)
_spec.loader.exec_module(_time)

monotonic: Callable[[], float] = _time.monotonic
perf_counter: Callable[[], float] = _time.perf_counter
process_time: Callable[[], float] = _time.process_time
sleep: Callable[[float], object] = _time.sleep
thread_time: Callable[[], float] = _time.thread_time
time: Callable[[], float] = _time.time
