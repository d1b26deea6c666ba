"""A process that forks while another thread holds every lock of the library at once.

    python -m tests.lifecycle.holding

Open objects of each kind exist, and are in use. It prints how many locks were held, and how the child ended: 0 if it
could use new objects, and if what it inherited refused without a hang.
"""

import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable
from contextlib import ExitStack

import transport.lifecycle
from engine import (
    CleanupGroup,
    Client,
    CompletionPort,
    Environment,
    Event,
    Executor,
    Forked,
    Mutex,
    Semaphore,
    ThreadPool,
    Timer,
    Wait,
    WaitableTimer,
    Work,
    default_pool,
    register_wait,
)
from transport import OverlappedDescriptor, SourceForked

from .forking import LIMIT, Echo, in_child, serving


def main() -> None:
    """Hold all, fork, and tell how the child ended."""
    warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forks in a process with threads.
    held, done = threading.Event(), threading.Event()
    ours, theirs = socket.socketpair()
    with ExitStack() as stack:
        enter = stack.enter_context
        event, port, pool = enter(Event()), enter(CompletionPort()), enter(ThreadPool(1))
        executor = enter(Executor(1))
        executor.submit(int).result()
        environment = Environment(pool=pool, cleanup_group=CleanupGroup())
        work, timer = enter(Work(int, environment=environment)), enter(Timer(int, environment=environment))
        wait = enter(Wait(int, pool=pool))
        source = enter(OverlappedDescriptor(enter(ours)))
        enter(theirs)
        port.associate(source)
        registered = register_wait(event, lambda status: None)
        clients = [enter(Client(enter(serving(scheme)))) for scheme in ("ipc", "loopback")]
        for client in clients:
            client.bind(Echo).echo(1, timeout=LIMIT)
        semaphore, mutex, due = Semaphore(0, 1), Mutex(), WaitableTimer()
        default_pool().submit(int)

        uses: list[Callable[[], object]] = [
            event.set, event.reset, event.is_set, event.statistics, event.close, port.post, port.statistics,
            lambda: port.get(0), port.close, lambda: pool.submit(int), pool.statistics, work.submit, work.close,
            lambda: timer.set(1), timer.close, lambda: wait.set(event), wait.close, registered.cancel,
            lambda: executor.submit(int), executor.shutdown, lambda: source.begin_read(1), source.statistics,
            source.close, semaphore.release, lambda: mutex.wait(0), lambda: due.set(1),
            *[lambda client=client: client.bind(Echo).echo(1) for client in clients],
            *[client.statistics for client in clients], *[client.close for client in clients],
            lambda: pool.stop(1),
        ]  # fmt: skip

        locks = list(transport.lifecycle._locks)

        def hold() -> None:
            for lock in locks:
                lock.acquire()
            held.set()
            done.wait()
            for lock in locks:
                lock.release()

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait()
        child = os.fork()
        if child == 0:
            signal.alarm(int(2 * LIMIT))
            for use in uses:
                try:
                    use()
                except (Forked, SourceForked):
                    pass
            in_child()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        done.set()
        holder.join()
    print(len(locks), code)


if __name__ == "__main__":
    main()
