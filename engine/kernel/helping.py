"""Help: what a thread that waits runs meanwhile in the place of a worker.

Theory of operation. What a waiting thread may run without danger to its own wait, because it was promised to be short
and never to block, stands in one `ring` for the process. A thread whose waiter is a `HelpingWaiter` looks into it
before it sleeps, and takes out what is first; it does not lead the driver meanwhile. Who takes something out *has* it:
the entry moves from the ring to a list of that thread's, in one atomic step, and from there to wherever it is to be
next, in another; so an interrupt at any point finds it in one of them.

Only waits that a program makes for a call, a port or an object help (`HelpingWaiter`), and of those none inside another
wait (in a signal handler), inside what a thread runs as help, on a worker, or in the thread of an event loop (`helps`).
What no thread has taken for a tick of the monitor is declined: it goes to the workers.

Assumes: single operations of a deque and of a list are atomic, `extend` from an iterator of C code included; a lost
update of `taken` or `watched` costs a tick.
"""

import threading
from _thread import LockType, allocate_lock
from collections import deque
from collections.abc import Callable, Collection
from itertools import starmap
from sys import modules
from typing import Any, Final, Protocol

from ..lifecycle import in_child
from .loops import running_loop
from .waiter import NO_RING, Waiter

#: The arguments of one call without any: `extend(starmap(take, ONCE))` moves one entry in one step.
ONCE: Final[tuple[tuple[()], ...]] = ((),)


class Helped(Protocol):
    """What waits in the ring. `has` holds it, and nothing else; it leaves that list in one step."""

    def help(self, has: list[Any]) -> None:
        """Run for a while, on a thread that waits. Raises what a signal handler has raised."""

    def decline(self, has: list[Any]) -> None:
        """Let workers run it. Any thread."""

    def part(self, has: list[Any]) -> None:
        """The thread that runs it is about to wait inside it, against the promise: let others go on with the rest."""


ring: deque[Helped] = deque()


class _Here(threading.local):
    """What the calling thread does."""

    # False on threads that never help.
    helps: bool = True
    # The innermost wait that it is in, and what it helps with in an outer one.
    waiter: Waiter | None = None
    has: "list[Helped] | None" = None


here: _Here = _Here()


def may_help() -> bool:
    """Whether the calling thread is one that helps in the wait that it is in, or may come to."""
    waiter = here.waiter
    if not here.helps or here.has is not None or (waiter is not None and waiter.ring is not ring):
        return False
    return "asyncio.runners" not in modules or running_loop() is None


class HelpingWaiter(Waiter):
    """A waiter whose thread helps meanwhile."""

    __slots__ = ()

    def __init__(self) -> None:
        # As `Waiter.__init__`, which would cost another call for each wait.
        self.gate: LockType = allocate_lock()
        self.gate.acquire()
        self.signalled = False
        self.result: object = None
        self.interrupt: Callable[[], None] | None = None
        self.ring = ring if here.helps and here.waiter is None else NO_RING

    def work(self) -> bool:
        """Run what is first in the ring; False if there is nothing, or this thread must not."""
        if "asyncio.runners" in modules and running_loop() is not None:
            self.ring: Collection[Any] = NO_RING
            return False
        has: list[Helped] = []
        try:
            here.has = has
            try:
                has.extend(starmap(ring.popleft, ONCE))
            except IndexError:
                return False
            relief.taken += 1
            has[0].help(has)
        except BaseException:
            if has:  # Broken off before it was run.
                has[0].decline(has)
            raise
        finally:
            here.has = None
        return True


class _Relief:
    """Has workers run what no waiting thread takes. The monitor asks it on each tick."""

    def __init__(self) -> None:
        # How often something was taken out; that, and what was first in the ring, at the last tick.
        self.taken: int = 0
        self._seen: tuple[int, Helped | None] = 0, None
        # Whether the monitor asks. Cleared before the last look at the ring.
        self.watched: bool = False

    def tick(self) -> bool:
        """Have the workers run what is in the ring, if it was there at the last tick and no thread has helped since."""
        now = self.taken, next(iter(ring.copy()), None)
        before, self._seen = self._seen, now
        if now != before:
            return True
        if ring:
            while ring:
                _decline_one()
            return True
        self.watched = False
        if ring:
            self.watched = True
        return self.watched


def _decline_one() -> None:
    has: list[Helped] = []
    try:
        try:
            has.extend(starmap(ring.popleft, ONCE))
        except IndexError:
            return  # A thread has just taken it.
        has[0].decline(has)
    except BaseException:  # The main thread stands in for the monitor, and a signal handler has raised.
        if has:
            has[0].decline(has)
        raise


relief: _Relief = _Relief()


@in_child
def _forget() -> None:
    # The clients are the parent's; the thread that has forked may be in the midst of a wait.
    ring.clear()
    relief.watched = False
