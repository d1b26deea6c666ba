"""The monotonic clock, also while a test freezes time: see the module of this name in `engine.kernel`."""

from collections.abc import Callable
from importlib.util import find_spec, module_from_spec

_spec = find_spec("time")
assert _spec is not None and _spec.loader is not None, "the module is built into the interpreter"
_time = module_from_spec(_spec)
_spec.loader.exec_module(_time)

monotonic: Callable[[], float] = _time.monotonic
