"""Whose turn it is on a server: the clients whose calls wait, the threads that run them, and who has which.

Theory of operation. The calls of a connection wait in its `ClientTurns`, and a connection with calls waits in the ring
of the server's pool, with those of all endpoints. Who takes a client out of the ring *has* it: that thread alone takes
its calls and enters their routines, so they are entered in order. Quick ones run one after the other on that thread,
which may be the one that has harvested them, without a lock. Just before a routine that is known to be slow
(`pool/run_time.py`) the client goes back into the ring, and the thread gives up its seat and the leadership
(`WorkPort.leave_slot`), so that slow calls run side by side on as many workers as the pool has. From a thread that
stays inside a routine the monitor takes the client away.

A thread notes in its `ServingSlot` which routine it is about to enter. Who takes a client that another thread has just
passed on asks whether that one is inside by now (`routines.py`), and takes no call in order before.

    TRANSITIONS, below, says how a client moves between its states.

A routine that is an `async def` counts as entered when its call was handed to the server's event loop, which decodes
its arguments and begins it in order. If no thread has the client that is done at once, by the thread that found the
call, so that it needs no worker.

Calls without a place in the order, and those that begin again after waiting for a context handle, wait apart, in
`LooseTurns` of their client. They may be entered side by side, so others go on with them wherever the thread is that
has them.

Fairness. A turn is `TURN` seconds of measured time. What a client used beyond it, and the mean of each slow call as it
is entered, is its debt; while others wait it is passed over for a turn for each `TURN` that it owes. Slow calls of one
client occupy all workers but one at most while others wait. Calls in order and loose ones have one `Account`.

Guarantees: the routine of a call is entered after that of the call before it, whose first line has begun by then; they
may end in any order. No call that arrived waits behind a slow routine for longer than two ticks while a worker is free.

Assumes: stores and loads of attributes, `deque.append` and `popleft`, and `list.append` and `pop` are atomic and not
reordered.

Source: "Causal Ordering of Asynchronous Calls".
"""

from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context
from enum import Enum
from itertools import compress, starmap
from operator import not_
from typing import Any, Final

import msgspec

from transport.realtime import sleep

from ...kernel.helping import ONCE
from ...kernel.lock import Lock
from ...pool.dispatch import WorkPort
from ...pool.running import WorkerState, current
from ..serving import ServingSlot
from .open_call import Batch, OpenCall
from .routines import inside
from .watch import Watch

TURN: Final = 1e-3  # Seconds.
MOST_DEBT: Final = 10 * TURN  # What a client may owe at most: it waits for so many turns of each other one.
# Seconds until the next look at a thread that is about to enter its routine: it goes on as soon as it gets a processor.
LOOK: Final = 50e-6


class ClientState(Enum):
    """What a client's calls wait for."""

    IDLE = "idle"  # None wait; the token is in `_idle`.
    READY = "ready"  # For a thread: in the ring.
    OWNED = "owned"  # For their turn with `owner`.


# From, event, to. A client that was passed on is, besides, *entering* (`_entering`) until the thread is inside.
TRANSITIONS: Final = (
    (ClientState.IDLE, "calls arrive", ClientState.READY),
    (ClientState.READY, "calls arrive", ClientState.READY),
    (ClientState.OWNED, "calls arrive", ClientState.OWNED),
    (ClientState.READY, "taken out of the ring", ClientState.OWNED),
    (ClientState.READY, "passed over: in debt, or it has all workers but one, or not entered", ClientState.READY),
    (ClientState.OWNED, "no call is left", ClientState.IDLE),
    (ClientState.OWNED, "its turn is over", ClientState.READY),
    (ClientState.OWNED, "the next call is slow, others wait behind it", ClientState.READY),
    (ClientState.OWNED, "the next call is slow, and the last", ClientState.IDLE),
    (ClientState.OWNED, "its owner blocks, or is away, inside a routine, others wait behind it", ClientState.READY),
    (ClientState.OWNED, "its owner blocks, or is away, inside the routine of the last", ClientState.IDLE),
)


class Scheduler(msgspec.Struct, eq=False):
    """What the clients of one server share."""

    # Runs the routines.
    port: WorkPort
    # Has the event loop run a coroutine in a context; its end closes the call.
    start: Callable[[OpenCall, Coroutine[Any, Any, Any], Context], object]
    # Has the event loop begin a call of an `async def` routine, after those that it was handed before.
    hand_over: Callable[[OpenCall], object]
    # Told of each thread that is, or will be, inside a routine for long.
    watch: Watch

    def resume(self, call: OpenCall) -> None:
        """Run a call again that had to wait for a context handle."""
        turns = call.peer.loose
        turns.calls.append(call)
        turns.post()


class Account(msgspec.Struct, eq=False):
    """What a client has had of its server's workers."""

    # Seconds that it has had more than its turns. Written by who has it, a lost update is a turn more or less.
    debt: float = 0.0
    # The threads that are inside routines of it while others have it. Single operations only.
    held: set[ServingSlot] = msgspec.field(default_factory=set)

    def charge(self, seconds: float) -> None:
        """The client has had so much more."""
        self.debt = max(0.0, min(self.debt + seconds, MOST_DEBT))


class ClientTurns:
    """The calls of one client that wait, in the order in which they were begun, and whose they are now."""

    __slots__ = ("_entering", "_idle", "_lock", "_scheduler", "account", "calls", "owner")

    def __init__(self, scheduler: Scheduler, account: Account) -> None:
        self._scheduler = scheduler
        self.account: Account = account
        # Who appends calls `post` after it; taken by the owner. Invariant: a batch has calls that are not run yet.
        self.calls: deque[Batch | OpenCall] = deque()
        # The token of an idle client: who takes it out puts the client into the ring.
        # Invariant: the client is idle, or in the ring once, or owned, or being put into the ring.
        # A deque keeps the room for it: putting it back needs no memory.
        self._idle: deque[None] = deque((None,))
        # Guards what the owner and the monitor decide about each other.
        self._lock = Lock()
        # The place of the thread that has the client. Taken away under _lock; read anywhere.
        self.owner: ServingSlot | None = None
        # The thread that has passed the client on, as it was about to enter the routine of this call; None: it is
        # inside for sure. Written by who has the client.
        self._entering: tuple[ServingSlot, int, object] | None = None

    # Appending

    def post(self) -> None:
        """Have the calls run that were appended. An interrupt leaves the client idle, or in the ring."""
        try:
            self._post()
        except MemoryError:
            self._once_more()

    def _once_more(self) -> None:
        """A step on the way into the ring had no memory. All of them again: what is missing once is mostly back."""
        self._post()
        self._scheduler.port.need()

    def _post(self) -> None:
        if not self.calls:
            return
        has: list[None] = []
        try:
            try:
                has.extend(starmap(self._idle.pop, ONCE))
            except IndexError:
                return  # It is in the ring, or its owner looks again.
            self._list(has)
        except BaseException:
            if has:
                self._enlist(has)
            self._scheduler.port.need()
            raise

    def arrived(self) -> None:
        """`post`, when ordinary calls were appended: they need a worker, so nothing is looked at. Under link.lock."""
        port = self._scheduler.port
        has: list[None] = []
        try:
            try:
                has.extend(starmap(self._idle.pop, ONCE))
            except IndexError:
                return
            try:
                port.ring.extend(compress((self,), map(not_, starmap(has.pop, ONCE))))
            except MemoryError:
                self._not_listed(has)
                raise
            runner = current.runner
            # An idle worker that harvests looks into the ring before it sleeps: see `WorkPort.need`.
            if runner is None or runner.seat is None or runner.port is not port or port.awake:
                port.need()
        except MemoryError:
            if has:
                self._not_listed(has)
            self._once_more()
        except BaseException:
            if has:
                self._enlist(has)
            port.need()
            raise

    def _enlist(self, token: list[None]) -> None:
        """Move the client from where its token is into the ring, in one step."""
        try:
            self._scheduler.port.ring.extend(compress((self,), map(not_, starmap(token.pop, ONCE))))
        except MemoryError:
            self._not_listed(token)
            raise

    def _not_listed(self, token: list[Any]) -> None:
        """There was no memory for a place in the ring, whether the token was out by then or not: the client is idle."""
        token.clear()
        self._idle.append(None)

    def _relist(self) -> None:
        """Put a client into the ring, or leave it idle, that this thread alone knows of."""
        has: list[None] | None = None
        try:
            has = [None]
            self._list(has)
        except MemoryError:
            if has is None or has:
                self._idle.append(None)
            self._once_more()

    def _list(self, has: list[None]) -> None:
        """Put the client into the ring, unless the event loop can begin all its calls. `has` has the token."""
        calls = self.calls
        if calls and calls[0].entry.needs_no_worker and self._is_entered():
            self._hand_over()
            if not calls:
                self._idle.extend(starmap(has.pop, ONCE))
                self.post()  # Looked at again after that, as who appends looks for the token after it.
                return
        self._enlist(has)
        self._scheduler.port.need()

    def _hand_over(self) -> None:
        """Hand the calls of `async def` routines that come first to the event loop. For who has the client."""
        calls = self.calls
        while calls and (call := calls[0]).entry.needs_no_worker:
            assert isinstance(call, OpenCall)
            # Handed over first, so that an interrupt loses no call: the loop begins what it is handed twice once.
            self._scheduler.hand_over(call)
            calls.popleft()

    # Having. Each but `take_away` for who has the client.

    def _may_begin(self, ring: deque[Any], most: int) -> bool:
        """Whether a client that was just taken out of the ring has a turn now; else it is in the ring again."""
        account = self.account
        others = self._others_wait(ring)
        if others and account.debt >= TURN:
            account.debt -= TURN
        elif others and len(account.held) >= most:
            pass
        elif not self._is_entered():
            sleep(LOOK)  # The thread that is about to enter a routine of this client gets the time to do so.
        else:
            return True
        ring.append(self)
        return False

    def _others_wait(self, ring: deque[Any]) -> bool:
        """Whether another client is in the ring. One has two places there at most: for its loose calls, too."""
        try:
            return len(ring) > 1 or ring[0].account is not self.account
        except IndexError:
            return False

    def _is_entered(self) -> bool:
        """Whether the thread that passed the client on is inside its routine."""
        if self._entering is not None and inside(*self._entering):
            self._entering = None
        return self._entering is None

    def _pass_on(self, place: ServingSlot, call_id: int, cost: float) -> None:
        """Let others have the client: the next step of this thread is to enter a slow routine."""
        lock = self._lock
        lock.acquire()
        try:
            self.account.held.add(place)
            self._scheduler.watch.note(place)
            self.account.charge(cost)
            if self.owner is not place:
                return  # It was taken away just now.
            # Before others can have the client.
            self._note_entering(place, call_id)
            self.owner = None
            listed = self._let_go_locked()
        finally:
            lock.release()
        if listed:
            self._relist()

    def _note_entering(self, place: ServingSlot, call_id: int) -> None:
        self._entering = place, call_id, place.running

    def _let_go_locked(self) -> bool:
        """Nobody has the client any more: whether calls wait, so that it is to be listed; else it is idle."""
        if self.calls:
            return True
        self._idle.append(None)
        # Looked at again after that: who appends looks for the token after it.
        return bool(self.calls) and self._claim()

    def _claim(self) -> bool:
        """Take the token of an idle client: whether this thread is the one that has to list it."""
        try:
            self._idle.pop()
        except IndexError:
            return False
        return True

    def _end_turn(self, place: ServingSlot, over: float) -> None:
        """The turn is over, and took so many seconds more than it may; let go of the client, if this thread has it."""
        lock, account = self._lock, self.account
        lock.acquire()
        try:
            if account.held:
                account.held.discard(place)
            if self.owner is not place:
                return
            try:
                if over > 0:
                    account.charge(over)
            except MemoryError:
                pass  # A turn more or less.
            self.owner = None
            if self.calls:
                listed = True
            else:
                self._idle.append(None)  # `_let_go_locked` in line.
                listed = bool(self.calls) and self._claim()
        finally:
            lock.release()
        if listed:
            self._relist()

    def _has(self, place: ServingSlot) -> bool:
        """Whether this thread has the client: it has not while the monitor is taking a look."""
        with self._lock:
            return self.owner is place

    def _come_back(self, place: ServingSlot, more: float) -> bool:
        """A routine of the client has returned, and took so much more than was reckoned: whether it has it still."""
        with self._lock:
            if self.owner is place:
                return True  # The monitor has only looked.
            self.account.held.discard(place)
            self.account.charge(more)
        return False

    def take_away(self, ident: int, overran: bool) -> bool:
        """Take the client from a thread that is inside a routine; see `pool.running.Turns`."""
        with self._lock:
            owner = self.owner
            if owner is None or owner.ident != ident:
                return False  # It has not begun to have it.
            # Taken first, looked second: an owner that comes out of its routine says so, and then asks before it takes
            # another call, and waits for the lock to do so.
            self.owner = None
            try:
                if not self._may_take_away(owner):
                    self.owner = owner
                    return False
                self.account.held.add(owner)
                self._scheduler.watch.note(owner)
                if overran and owner.call_id is not None and (work := owner.call or owner.batch) is not None:
                    work.entry.run_time.overran()
            except MemoryError:
                self.owner = owner  # Until the next tick.
                raise
            listed = self._let_go_locked()
        if listed:
            self._relist()
        return True

    def _may_take_away(self, owner: ServingSlot) -> bool:
        return (call_id := owner.call_id) is not None and inside(owner, call_id)

    # The end

    def is_settled(self) -> bool:
        """Whether no thread is just on its way into a routine. Unguarded: for when no further ones set out."""
        owner, entering = self.owner, self._entering
        if owner is not None and ((call_id := owner.call_id) is None or not inside(owner, call_id)):
            return False
        return entering is None or inside(*entering)

    def waiting(self) -> Iterator[OpenCall]:
        """The calls among the batches that wait, while no thread runs any. (The others know it of themselves.)"""
        for work in self.calls.copy():
            if isinstance(work, Batch):
                yield from work.waiting()

    def take_turn(self, worker: WorkerState) -> None:
        """Run calls; see `pool.running.Turns`."""
        raise NotImplementedError  # In runner.py.

    def begin_in_loop(self, call: OpenCall) -> None:
        """Begin an `async def` routine. In the thread of the server's event loop."""
        raise NotImplementedError  # In runner.py.
