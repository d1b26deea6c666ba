"""A worker thread's loop, and what happens around one callback.

Theory of operation. `work` is the body of each worker thread: it asks its port for the next callback, runs
it, and reports it as finished with the next question. How long callbacks run is measured here, and learned in their
`RunTime`.

Guarantees: whatever a callback raises, `SystemExit` included, goes to the pool's error handler and ends
neither the thread nor the pool; finalization and when-returns actions run after the body and before the
callback stops counting.
"""

import threading
from collections.abc import Callable
from contextvars import Context
from typing import Any

from transport.log import Log
from transport.realtime import monotonic, thread_time

from ..kernel.driver import driver
from ..kernel.helping import here
from ..kernel.thread import local
from .dispatch import WorkPort
from .fair_queue import Item, ObjectCallback, PlainCallback, owner_of
from .run_time import SLOW, RunTime
from .running import Runner, WorkerState, after_return, current

log: Log = Log("engine.pool")


def work(port: WorkPort) -> None:
    """Run the port's callbacks until this thread is to exit."""
    try:
        worker = WorkerState(port, local.record)
        current.runner = worker
        here.helps = False  # What it runs may be a routine, inside whose waits no other one runs.
    except BaseException:  # No memory, or raised into the thread from outside: it never was a worker.
        log.exception("a worker of the pool %r ended as it began", port.name)
        port.failed_to_start(threading.current_thread())
        return
    port.started(worker)
    try:
        if port.on_start is None or port.on_start():
            loop(port, worker)
        else:
            port.crash(worker)
    except BaseException:
        log.exception("a worker of the pool %r was ended from outside; another takes its place", port.name)
        port.crash(worker)
    finally:
        current.runner = None
        port.threads.discard(threading.current_thread())


def loop(port: WorkPort, worker: WorkerState) -> None:
    """Take and run callbacks until there are none for this worker."""
    take, prefetched, inbox, ring, done = port.next, worker.prefetched, port.inbox, port.ring, worker.done
    then = monotonic()
    # Whether to time each prefetched callback: one of the last ones may have been slow. Of several that are timed
    # together nothing is learned, because they may be callbacks of different functions.
    careful = False
    while True:
        item = take(worker)
        if item is None:
            return
        if worker.idled:
            worker.idled = False
            then = monotonic()
        number = 0
        while True:
            number += 1
            worker.item = item
            run_time = run(worker, item)
            if type(item) is ObjectCallback:
                done.append(item.counts)
            # What was fetched with it goes on without the lock, unless something else was pushed meanwhile.
            if inbox or ring or worker.disassociated or not prefetched:
                break
            if careful:
                then = timed(run_time, then)
                number = 0
            try:
                item = prefetched.popleft()
            except IndexError:  # Put back by another thread.
                break
            worker.turn += 1
        # Measured from the end of what ran before: that includes the taking, but reads the clock only once.
        now = timed(run_time if number == 1 else None, then)
        careful = number > 1 and now - then > SLOW
        then = now
        # While the worker idles, it keeps nothing of a callback alive.
        item = run_time = None


def timed(run_time: RunTime | None, then: float) -> float:
    """Learn from a callback that has run since `then`; return the time."""
    now = monotonic()
    if run_time is not None and now - then > run_time.notable:
        run_time.learn(now - then)
    return now


def run(runner: Runner, item: Item) -> RunTime | None:
    """Run one callback to its end; return where its run time is to be learned, if that is not done yet."""
    run_time = None
    special = False
    try:
        if type(item) is ObjectCallback:
            counts = item.counts
            special = counts.special
            args = counts.args + item.more if item.more else counts.args
            if counts.run_time.slow:
                run_slow(counts.run_time, item.context, counts.function, args)
            else:
                run_time = counts.run_time
                item.context.run(counts.function, *args)
        elif type(item) is PlainCallback:
            if item.run_time.slow:
                run_slow(item.run_time, item.context, item.function, item.args)
            else:
                run_time = item.run_time
                item.context.run(item.function, *item.args)
        elif callable(item):
            item()
    except BaseException as error:
        runner.port.fail(error, owner_of(item))
    if special or runner.instance is not None:
        if type(item) is ObjectCallback or type(item) is PlainCallback:
            item.context.run(after_return, runner)
        else:
            after_return(runner)
    return run_time


def run_slow(run_time: RunTime, context: Context, function: Callable[..., object], args: tuple[Any, ...]) -> None:
    """Call a function that is known to be slow, and measure what it does with the time."""
    # This thread may have been the one that would lead the driver: another one is to, while this one is busy.
    driver().ensure_led()
    begun, cpu = monotonic(), thread_time()
    try:
        context.run(function, *args)
    finally:
        run_time.learn(monotonic() - begun, thread_time() - cpu)


def run_here(port: WorkPort, item: Item) -> None:
    """Run one callback on the calling thread, in the place of a worker."""
    runner = Runner(port, local.record)
    runner.outer = current.runner
    port.begin(item)
    runner.item = item
    current.runner = runner
    try:
        run(runner, item)
    finally:
        current.runner = runner.outer
        runner.item = None
        if isinstance(item, ObjectCallback):
            runner.done.append(item.counts)
        port.finish(runner)
