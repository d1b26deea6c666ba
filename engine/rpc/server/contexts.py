"""The context handles of a server: which client has which, who uses them now, and their rundown.

Theory of operation. The connections of one client share an association. While an association has a connection, the
tokens of its open handles are in its dictionary. A call that takes handles gets all of them at once or waits in the
queue of one that is busy, so no two calls can wait for each other; a call that leaves a handle lets in those that can
go on.

    open_context --call answered--> open --call closes it--> closed
                                      `--last connection gone, no call uses it any more--> run down, once

A call that shares a handle may want it alone. The first to ask waits until the others have left, and keeps new ones
out. If one of the others asks too, it is put aside until the first is closed, and hears that it gave way.

A handle made by a call belongs to no client until the call is answered. If the answer is a failure, the routine has
cleaned up; if there was an answer but it cannot reach the client, the handle is run down.

Guarantees: each handle is either closed or run down, once; it is run down after the calls that use it were closed.

Source: "Server Context Rundown Routine", "Failure Semantics for Context Handles", "Multi-threaded Clients and Context
Handles", "RpcSsContextLockExclusive", "RpcServerUnregisterIfEx".
"""

import contextvars
import os
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from itertools import chain
from operator import attrgetter
from typing import Any, TypeVar

import msgspec

from transport.foreign import shown
from transport.log import Log

from ...errors import Deadlock, InvalidAsyncHandle, InvalidHandle, InvalidState
from ...kernel.checks import check_callback
from ...kernel.event import Event
from ...kernel.lock import Lock, index_of
from ...pool.pool import ThreadPool
from ..context import Context
from ..errors import ContextMismatch
from .open_call import CloseReason, OpenCall

log: Log = Log("engine.rpc")

S = TypeVar("S")

TOKEN_BYTES = 16  # Random, so that no client guesses another's; as long as an association's name.


class Opened(msgspec.Struct, eq=False):
    """The server's side of one handle; guarded by the book's lock, but for `closing`."""

    token: bytes
    # Name and major version of the interface whose operation opened it.
    interface: tuple[str, int]
    state: Any
    rundown: Callable[[Any], object] | None
    # A routine closes it with the end of its call. Set by the routine.
    closing: bool = False
    # Its token leads nowhere any more. `doomed`: it is to be run down when the last call has left it.
    gone: bool = False
    doomed: bool = False
    # Calls that use it, those put aside included. Invariant: users <= 1 if exclusive.
    holders: int = 0
    exclusive: bool = False
    # The one among them that waits to have it alone; and those that waited when they came second.
    # Invariants, whenever the lock is free: upgrading => users > 1; aside => users > 0.
    upgrading: "Upgrade | None" = None
    aside: "deque[Upgrade]" = msgspec.field(default_factory=deque)
    waiting: "deque[Waiting]" = msgspec.field(default_factory=deque)

    @property
    def users(self) -> int:
        """How many calls may touch the state now."""
        return self.holders - len(self.aside)

    def free_for(self, shared: bool) -> bool:
        """Whether a call may go in now."""
        if self.upgrading is not None or self.aside:
            return False  # They have been in longer.
        return self.holders == 0 or (shared and not self.exclusive)


class ClientIdentity(msgspec.Struct, eq=False):
    """What a server knows of one client: its connections, and its open handles."""

    # Guarded by the book's lock. Invariant: in the book exactly while there are connections.
    connections: set[object] = set()
    contexts: dict[bytes, Context[Any]] = {}


class Waiting(msgspec.Struct, eq=False):
    """A call that waits for its handles."""

    call: OpenCall
    needs: list[Opened]
    shared: bool


class Use(msgspec.Struct, eq=False):
    """The handles that one call has made, and those that it uses; guarded by the book's lock."""

    made: list[Context[Any]] = []
    held: list[Opened] = []
    granted: bool = False
    # Set while the call waits to have a handle alone.
    upgrade: "Upgrade | None" = None


class Upgrade(msgspec.Struct, eq=False):
    """A call that waits to have a handle alone, which it shares; guarded by the book's lock."""

    use: Use
    opened: Opened
    # Set when it has it; or, and then `closed` says so, when the call was closed.
    over: Event = msgspec.field(default_factory=Event)
    closed: bool = False


Waiter = OpenCall | Upgrade


class ContextBook:
    """The context handles of one server. Threads: any."""

    def __init__(self, pool: ThreadPool, resume: Callable[[OpenCall], object]) -> None:
        self._pool = pool
        # Runs a call again that had to wait.
        self._resume = resume
        self._lock = Lock()
        # Guarded by _lock. By what the client calls itself and who it proved to be.
        self._identities: dict[tuple[bytes, str], ClientIdentity] = {}

    def join(self, key: tuple[bytes, str], connection: object) -> None:
        """A connection of the association `key` has come."""
        with self._lock:
            self._identities.setdefault(key, ClientIdentity()).connections.add(connection)

    def leave(self, key: tuple[bytes, str], connection: object) -> list[Callable[[], object]]:
        """A connection has gone; return what is to be done, outside all locks: rundown, if it was the last one.

        Nothing happens if it had not joined, or has left.
        """
        with self._lock:
            association = self._identities.get(key)
            if association is None or connection not in association.connections:
                return []
            association.connections.discard(connection)
            if association.connections:
                return []
            del self._identities[key]
            over, resumed = _end_locked(map(_opened, association.contexts.values()))
        return [
            *(partial(self._run_down, opened) for opened in over),
            *(partial(self._go_on, waiter) for waiter in resumed),
        ]

    def run_down(self, interfaces: Collection[tuple[str, int]]) -> None:
        """End the handles that operations of these interfaces have opened. Rundown routines run on this thread."""
        with self._lock:
            # All are taken out before the first one ends.
            taken = [*chain.from_iterable(map(partial(_take_locked, interfaces), self._identities.values()))]
            over, resumed = _end_locked(taken)
        for opened in over:
            _call_rundown(opened)
        for waiter in resumed:
            self._go_on(waiter)

    def open(self, call: OpenCall, state: S, rundown: Callable[[S], object] | None) -> Context[S]:
        """Make a handle that becomes the client's when `call` is answered."""
        token = os.urandom(TOKEN_BYTES)
        target = call.entry.spec.target
        context: Context[S] = Context(token)
        check_callback("rundown", rundown, optional=True)
        context.__dict__["opened"] = Opened(token, (target.interface, target.major), state, rundown)
        use = self._use_of(call)
        with self._lock:
            use.made.append(context)
        return context

    def find(self, call: OpenCall, token: bytes) -> Context[Any]:
        """Return the handle of that token; raises `ContextMismatch`."""
        with self._lock:
            association = self._identities.get(call.peer.key)
            context = None if association is None else association.contexts.get(token)
        if context is None:
            raise ContextMismatch("the context handle is closed, or another client's, or another server's")
        return context

    def enter(self, call: OpenCall, contexts: Sequence[Context[Any]], shared: bool) -> bool:
        """Let `call` use these handles until it is closed. False: it has to wait, and will be run again."""
        use = self._use_of(call)
        needs = list(dict.fromkeys(map(_opened, contexts)))
        with self._lock:
            if use.granted:
                return True
            if any(map(attrgetter("gone"), needs)):
                raise ContextMismatch("the context handle was closed while the call waited for it")
            busy = _busy_locked(needs, shared)
            if busy is not None:
                call.begun = False  # First, for who finds it there may run it at once.
                busy.waiting.append(Waiting(call, needs, shared))
                return False
            _hold_locked(use, needs, shared)
            return True

    def lock(self, call: OpenCall, context: Context[Any], shared: bool) -> bool:
        """Change how `call` uses a handle; see `ServerCall.lock_context`."""
        opened: Opened | None = context.__dict__.get("opened")
        use: Use | None = call.extras().contexts
        resumed: list[Waiter] = []
        upgrade: Upgrade | None = None
        gives_way = False
        with self._lock:
            if not call.is_open():
                raise InvalidAsyncHandle(f"{call!r} was closed: it uses no context handles any more")
            if use is not None and index_of(context, use.made) is not None:
                return True
            if use is None or opened is None or opened not in use.held:
                raise InvalidState(f"{call!r} was not given {shown(context)}")
            if use.upgrade is not None:
                raise InvalidState(f"another thread is just changing what {call!r} has locked")
            if opened.exclusive or opened.users == 1:
                opened.exclusive = not shared
                _admit_locked(opened, resumed)
            elif not shared:
                _check_may_wait(use)
                use.upgrade = upgrade = Upgrade(use, opened)
                gives_way = opened.upgrading is not None
                if gives_way:
                    opened.aside.append(upgrade)
                    _admit_locked(opened, resumed)  # The first one may have waited for this one only.
                else:
                    opened.upgrading = upgrade
        for waiter in resumed:
            self._go_on(waiter)
        if upgrade is None:
            return True
        # An exception in this wait leaves the call as it is: waiting, and then having the handle, until it is closed.
        upgrade.over.wait()
        upgrade.over.close()
        if upgrade.closed:
            raise InvalidAsyncHandle(f"{call!r} was closed while it waited to have {shown(context)} alone")
        return not gives_way

    def _use_of(self, call: OpenCall) -> Use:
        extras = call.extras()
        with self._lock:
            use: Use | None = extras.contexts
            if use is None:
                use = Use()
                if not call.add_done_callback(partial(self._finish, call, use)):
                    raise InvalidAsyncHandle(f"{call!r} was closed: it can have no context handles any more")
                extras.contexts = use
        return use

    def _finish(self, call: OpenCall, use: Use, how: CloseReason) -> None:
        """`call` was closed: what it did to handles takes effect, and others may use them."""
        with self._lock:
            over, resumed = self._finish_locked(call, use, how)
        for opened in over:
            self._run_down(opened)
        for waiter in resumed:
            self._go_on(waiter)

    def _finish_locked(self, call: OpenCall, use: Use, how: CloseReason) -> tuple[list[Opened], list[Waiter]]:
        """Return what is to be run down now, and who can go on."""
        over: list[Opened] = []
        resumed: list[Waiter] = []
        if use.upgrade is not None:
            upgrading = use.upgrade.opened
            if upgrading.upgrading is use.upgrade:
                upgrading.upgrading = None
            else:
                upgrading.aside.remove(use.upgrade)
            use.upgrade.closed = True
            resumed.append(use.upgrade)
        association = self._identities.get(call.peer.key)
        for context in use.made:
            opened = _opened(context)
            if how is CloseReason.ANSWERED and association is not None and not opened.closing:
                association.contexts[opened.token] = context
            else:
                opened.gone = True
                if how is not CloseReason.FAILED and not opened.closing:
                    over.append(opened)
        for opened in use.held:
            opened.holders -= 1
            if opened.closing and not opened.gone:
                opened.gone = True
                assert association is not None, "a handle that is not gone has its association"
                del association.contexts[opened.token]
            if opened.doomed and not opened.holders:
                opened.doomed = False
                if not opened.closing:
                    over.append(opened)
            _admit_locked(opened, resumed)
        use.made, use.held = [], []
        return over, resumed

    def _go_on(self, waiter: Waiter) -> None:
        """Wake a call that has waited."""
        if isinstance(waiter, Upgrade):
            waiter.over.set()
        else:
            self._resume(waiter)

    def _run_down(self, opened: Opened) -> None:
        """Have the rundown routine of a handle run; no other thread reaches the handle any more."""
        try:
            self._pool.post(partial(_call_rundown, opened))
        except InvalidHandle:
            _call_rundown(opened)  # The server is closing, and its workers have gone.


def _opened(context: Context[Any]) -> Opened:
    opened: Opened = context.__dict__["opened"]
    return opened


def _take_locked(interfaces: Collection[tuple[str, int]], association: ClientIdentity) -> list[Opened]:
    """Take out, and return, the handles that operations of these interfaces have opened."""
    taken = [opened for opened in map(_opened, association.contexts.values()) if opened.interface in interfaces]
    for opened in taken:
        del association.contexts[opened.token]
    return taken


def _busy_locked(needs: list[Opened], shared: bool) -> Opened | None:
    """The first that cannot be had now: those who wait already go first."""
    return next((opened for opened in needs if opened.waiting or not opened.free_for(shared)), None)


def _hold_locked(use: Use, needs: list[Opened], shared: bool) -> None:
    for opened in needs:
        opened.holders += 1
        opened.exclusive = not shared
    use.held = needs


def _end_locked(handles: Iterable[Opened]) -> tuple[list[Opened], list[Waiter]]:
    """Make handles unknown; return those to be run down now, and who can go on. The others wait for their users."""
    over: list[Opened] = []
    resumed: list[Waiter] = []
    for opened in handles:
        opened.gone = True
        if opened.holders:
            opened.doomed = True
        else:
            over.append(opened)
        _admit_locked(opened, resumed)
    return over, resumed


def _check_may_wait(use: Use) -> None:
    """Raise `Deadlock` where waiting to have a handle alone could keep those from leaving for whom it waits."""
    if len(use.held) > 1:
        raise Deadlock("a call that uses several context handles cannot wait to have one alone")
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and asyncio._get_running_loop() is not None:
        raise Deadlock("a coroutine cannot wait to have a context handle alone: it would stop its event loop")


def _admit_locked(opened: Opened, resumed: list[Waiter]) -> None:
    """Let in who waits for `opened` and can go on now: who is in already, then the others, oldest first."""
    upgrade: Upgrade | None = None
    if opened.upgrading is not None and opened.users == 1:
        upgrade, opened.upgrading = opened.upgrading, None
    elif opened.aside and opened.users == 0:
        upgrade = opened.aside.popleft()
    if upgrade is not None:
        opened.exclusive = True
        upgrade.use.upgrade = None
        resumed.append(upgrade)
    queue = opened.waiting
    while queue:
        first = queue[0]
        if any(needed.gone for needed in first.needs):
            # It will find that out by itself.
            resumed.append(queue.popleft().call)
            continue
        busy = next((needed for needed in first.needs if not needed.free_for(first.shared)), None)
        if busy is opened:
            return
        queue.popleft()
        if busy is not None:
            busy.waiting.append(first)  # The call that leaves that one looks again.
            continue
        use: Use = first.call.extras().contexts
        use.granted = True
        _hold_locked(use, first.needs, first.shared)
        resumed.append(first.call)


def _call_rundown(opened: Opened) -> None:
    if opened.rundown is None:
        return
    try:
        contextvars.Context().run(opened.rundown, opened.state)
    except BaseException as error:
        log.error("the rundown routine of a context handle failed", exc_info=error)
