"""One blocked wait of one thread.

Theory of operation. A thread that must block makes a fresh `Waiter`, registers it with the object it waits
for, and hands it to `Driver.wait`. The thread that satisfies the wait stores the `result` under the object's guard,
releases that guard and then calls `wake`, once. A fresh waiter for each wait means that a wake which arrives
late (the waiter timed out and accepted the result meanwhile) lands on an object no thread looks at any more.

A parked thread sleeps on `gate`; a leading thread sleeps in the driver's poll instead, so `wake` also
interrupts the poll. `nudge` wakes the thread without satisfying its wait, to offer it the leadership or because its
`ring` has something.

A thread may have something to do while it waits: when its `ring` is not empty, it calls `work` between two polls, or
before it parks. The idle workers of a pool have a ring (`pool/running.py`), and threads that help in their waits
(`helping.py`).

Assumes: a store to `signalled` before `gate.release()` is seen after the matching `gate.acquire()` (a lock is
a full fence), and a release of an already released gate is harmless because the thread it was meant for has
yet to look.
"""

from _thread import LockType, allocate_lock
from collections.abc import Callable, Collection, Iterable
from typing import Any, Protocol

NO_RING: Collection[Any] = ()


class Wakeable(Protocol):
    """A thread or a task that waits, as the thread that satisfies the wait sees it."""

    def wake(self) -> None: ...


class Waiter:
    """A thread blocked in a library wait; used once."""

    __slots__ = ("gate", "interrupt", "result", "ring", "signalled")

    def __init__(self) -> None:
        self.gate: LockType = allocate_lock()
        self.gate.acquire()
        # Written once, by the thread that satisfies the wait, before the gate opens.
        self.signalled: bool = False
        # Guarded by the object waited for, until `signalled`. What the wait yields.
        self.result: object = None
        # Set by the leading thread before it looks at `signalled` for the last time before polling, cleared
        # after it.
        self.interrupt: Callable[[], None] | None = None
        # What the thread runs while it waits, by `work`. Set by its own thread.
        self.ring: Collection[Any] = NO_RING

    def work(self) -> bool:
        """Run what is in the ring, on the thread that waits; False if there is nothing to be run."""
        return False

    def wake(self) -> None:
        """Satisfy the wait: the thread returns from `Driver.wait`. Call it outside all guards."""
        self.signalled = True
        try:
            self.gate.release()
        except RuntimeError:
            pass  # As in `nudge`.
        interrupt = self.interrupt
        if interrupt is not None:
            interrupt()

    def nudge(self) -> None:
        """Let the thread look around again without satisfying its wait."""
        try:
            self.gate.release()
        except RuntimeError:
            pass  # Open already: the thread has yet to pass it, and will see what was stored before.
        interrupt = self.interrupt
        if interrupt is not None:
            interrupt()


def wake(waiters: Iterable[Waiter]) -> None:
    """Wake each of them."""
    for waiter in waiters:
        waiter.wake()
