"""Starting a service of which nobody asks again whether it runs: it is tried until there is a thread to be had.

The monitor tries, after the pause that a `Service` makes between two attempts; without a monitor those who wait do.
"""

from collections.abc import Callable
from functools import partial

from transport.realtime import monotonic
from transport.service import FIRST, Service

from .driver import driver


def start(service: Service, wanted: Callable[[], bool]) -> None:
    """Have a thread run a service, now or, while the system refuses threads, later; nothing happens once it is not
    `wanted` any more. Any thread; never blocks.
    """
    if wanted() and not service.ensure():
        again = monotonic() + max(service.pause_left(), FIRST)
        driver().monitor.call_at(again, partial(start, service, wanted))
