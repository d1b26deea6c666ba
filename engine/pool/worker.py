"""A worker thread's loop, and what happens around one callback.

Theory of operation. `work` is the body of each worker thread: it asks its port for the next callback, runs
it, and reports it as finished with the next question. How long callbacks run is measured here, and learned by
their profile.

Guarantees: whatever a callback raises, `SystemExit` included, goes to the pool's error handler and ends
neither the thread nor the pool; finalization and when-returns actions run after the body and before the
callback stops counting.
"""

import logging
import threading
from collections.abc import Callable
from time import monotonic, thread_time

from ..kernel.driver import driver
from ..kernel.thread import local
from .backlog import LONG, Callback, Item
from .dispatch import WorkPort
from .instance import after_return
from .runner import Runner, WorkerState, current

log = logging.getLogger("engine.pool")


def work(port: WorkPort) -> None:
    """Run the port's callbacks until it has no more use for this thread."""
    worker = WorkerState(port, local.record)
    current.runner = worker
    port.arrive(worker)
    try:
        if port.on_start is None or port.on_start():
            loop(worker, port.next)
        else:
            port.crash(worker)
    except BaseException:
        log.exception("a worker of the pool %r was ended from outside; another takes its place", port.name)
        port.crash(worker)
    finally:
        current.runner = None
        port.threads.discard(threading.current_thread())


def loop(worker: WorkerState, take: Callable[[WorkerState], Item | None]) -> None:
    """Take and run callbacks until there are none for this worker."""
    while True:
        item = take(worker)
        if item is None:
            return
        run(worker, item)
        item = None  # Nothing of a callback outlives it while the worker idles.


def run(runner: Runner, item: Item) -> None:
    """Run one callback to its end."""
    runner.item = item
    if not isinstance(item, Callback):
        try:
            item()
        except BaseException as error:
            runner.port.fail(error, item)
        if runner.instance is not None:
            after_return(runner)
        return
    profile = item.profile
    long = profile.long
    if long:
        # Nobody may be waiting elsewhere to lead the driver while this thread is away.
        driver().ensure_led()
        cpu = thread_time()
    ledger = item.ledger
    begun = monotonic()
    try:
        context = item.context
        if context is None:
            item.function(*item.args)
        else:
            context.run(item.function, *item.args)
    except BaseException as error:
        runner.port.fail(error, item.function if ledger is None else ledger)
    elapsed = monotonic() - begun
    if elapsed > LONG or profile.mean:
        profile.learn(elapsed, thread_time() - cpu if long else None)
    if runner.instance is not None or (ledger is not None and ledger._finalization is not None):
        after_return(runner)


def run_here(port: WorkPort, item: Item) -> None:
    """Run one callback on the calling thread, in the place of a worker."""
    runner = Runner(port, local.record)
    runner.outer = current.runner
    port.begin(item)
    current.runner = runner
    try:
        run(runner, item)
    finally:
        current.runner = runner.outer
        port.finish(runner)
