"""A worker thread's loop, and what happens around one callback.

Theory of operation. `work` is the body of each worker thread: it asks its port for the next callback, runs
it, and reports it as finished with the next question. How long callbacks run is measured here, and learned by
their profile.

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
from ..kernel.thread import local
from .backlog import LONG, Item, ObjectCallback, PlainCallback, Profile, owner_of
from .dispatch import WorkPort
from .running import Runner, WorkerState, after_return, current

log: Log = Log("engine.pool")


def work(port: WorkPort) -> None:
    """Run the port's callbacks until it has no more use for this thread."""
    try:
        worker = WorkerState(port, local.record)
        current.runner = worker
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
    take, train, inbox, ring, done = port.next, worker.train, port.inbox, port.ring, worker.done
    then = monotonic()
    # Whether to time each callback of a train: one of the last train may have been slow.
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
            profile = run(worker, item)
            if type(item) is ObjectCallback:
                done.append(item.counts)
            # What was fetched with it goes on without the lock, unless something else was pushed meanwhile.
            if inbox or ring or worker.disassociated or not train:
                break
            if careful:
                then = timed(profile, then, 1)
            try:
                item = train.popleft()
            except IndexError:  # Put back by another thread.
                break
            worker.turn += 1
        # From the end of what ran before: taking is counted in, but the clock is read only once.
        now = timed(profile, then, number)
        careful = number > 1 and now - then > LONG
        then = now
        # Nothing of a callback outlives it while the worker idles.
        item = profile = None


def timed(profile: Profile | None, then: float, number: int) -> float:
    """Learn from `number` callbacks that ran since `then`, the last with `profile`; return the time."""
    now = monotonic()
    if profile is not None and not profile.long:
        mean = (now - then) / number
        if mean > LONG or (profile.mean and number == 1):
            profile.learn(mean, None)
    return now


def run(runner: Runner, item: Item) -> Profile | None:
    """Run one callback to its end; return what is known of its run time, if anything ever is."""
    profile = None
    special = False
    try:
        if type(item) is ObjectCallback:
            counts = item.counts
            profile = counts.profile
            special = counts.special
            args = counts.args + item.more if item.more else counts.args
            if profile.long:
                run_long(profile, item.context, counts.function, args)
            else:
                item.context.run(counts.function, *args)
        elif type(item) is PlainCallback:
            profile = item.profile
            if profile.long:
                run_long(profile, item.context, item.function, item.args)
            else:
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
    return profile


def run_long(profile: Profile, context: Context, function: Callable[..., object], args: tuple[Any, ...]) -> None:
    """Call a function that is known to take long, and measure what it does with the time."""
    # Perhaps no thread waits elsewhere, that would lead the driver while this one is busy.
    driver().ensure_led()
    begun, cpu = monotonic(), thread_time()
    try:
        context.run(function, *args)
    finally:
        profile.learn(monotonic() - begun, thread_time() - cpu)


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
