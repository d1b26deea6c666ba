"""The handle of one call being served, as users see it, over the record that the server works with (`open_call.py`).

A call may have `Subscriptions`: notifications that its client has cancelled it, or is gone. A subscriber is notified in
the ways in which a client is notified of a completion (`notify.py`): event, APC, port, callback.

    subscribe --client cancels / is lost--> queued once --> delivered       close: nothing further is delivered

A notification is handed to its target under the lock of the call's subscriptions, so that the closing of the call,
which takes the same lock, leaves none behind that is decided but not handed over. Targets only queue or wake: none runs
a program's code there. An APC or a callback looks again when it runs.

Guarantees: at most one notification of each kind for a call, also if it happened before the subscription. None begins
after the closing of the call returned; a callback or APC that began before may still be running.

Source: "Asynchronous RPC" (the server's side), "RpcAsyncCompleteCall", "RpcAsyncAbortCall", "RpcServerTestCancel",
"RpcServerInqCallAttributes", "RpcServerSubscribeForNotification", "RpcServerUnsubscribeForNotification", "Receiving
Cancellations".
"""

import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from transport.foreign import a_type, shown, type_name
from transport.log import Log

from ...errors import Forked, InvalidArgumentType, InvalidAsyncHandle, InvalidParameter, InvalidState, Misuse
from ...kernel.checks import check_count, check_flag
from ...kernel.driver import driver
from ...kernel.lock import Lock
from ...kernel.notification import Notification
from ...lifecycle import Uncopyable
from ...pool.pool import default_pool
from ...status import Status
from ..context import Context
from ..notify import EventKind, Notify, snapshot
from ..pipes.pipe import Pipe
from ..serving import current
from ..wire_types import check_metadata
from .contexts import ContextBook
from .open_call import CallAttributes, CloseReason, OpenCall

log: Log = Log("engine.rpc")

S = TypeVar("S")

KINDS = frozenset({EventKind.CLIENT_CANCEL, EventKind.CLIENT_DISCONNECT})

_subscriptions_making = Lock()  # Held to make the subscriptions of a call.
_making = Lock()  # Held to make a handle.


class Subscriptions:
    """The subscriptions of one call. Threads: any."""

    __slots__ = ("_call", "_handle", "_live", "_lock", "_over", "_queued", "_used")

    def __init__(self, call: OpenCall) -> None:
        self._call = call
        self._lock = Lock()
        # All guarded by _lock. What functions and packets get. Kept while one may still come: a subscriber may be the
        # only one to have it.
        self._handle: object = None
        self._live: dict[EventKind, Notification] = {}
        # Kinds that were subscribed to, ever, and kinds that were queued.
        self._used: set[EventKind] = set()
        self._queued: set[EventKind] = set()
        self._over = False

    def add(self, kinds: frozenset[EventKind], notify: Notification, handle: object) -> None:
        """Subscribe to `kinds`, all or none."""
        with self._lock:
            if self._over:
                raise _closed(self._call)
            if kinds & self._used:
                kind = min(kinds & self._used)
                raise InvalidState(f"{self._call!r} was subscribed to {kind.name} before: once a call is allowed")
            self._used |= kinds
            self._live.update(dict.fromkeys(kinds, notify.guarded(self._run)))
            if notify.hands_over():
                self._handle = handle

    def remove(self, kind: EventKind) -> int:
        """Unsubscribe; return how many notifications were queued."""
        with self._lock:
            if self._over:
                raise _closed(self._call)
            if self._live.pop(kind, None) is None:
                raise InvalidState(f"{self._call!r} has no subscription to {kind.name}")
            self._let_go_locked()
            return int(kind in self._queued)

    def notify(self, kind: EventKind) -> None:
        """`kind` happened. Not under link.lock."""
        with self._lock:
            notify = self._live.get(kind)
            if notify is not None and kind not in self._queued and notify.deliver((self._handle,), kind):
                self._queued.add(kind)
                self._let_go_locked()

    def _let_go_locked(self) -> None:
        """Keep the handle no longer if no subscription hands it over: then it ends as soon as its users drop it."""
        if not any(notify.hands_over() for kind, notify in self._live.items() if kind not in self._queued):
            self._handle = None

    def _run(self, function: Callable[[Any, EventKind], object], call: Any, kind: EventKind) -> None:
        """Call a subscriber's function, in its thread, unless the call was closed since it was queued."""
        with self._lock:
            if self._over:
                return
        function(call, kind)

    def close(self, how: CloseReason) -> None:
        """The call was closed: deliver nothing further."""
        with self._lock:
            self._over = True
            self._live.clear()
            self._handle = None


class ServerCall(Uncopyable):
    """One call being served. A routine marked with `manager` gets it as its first argument and may keep it for later.

    Close it exactly once, with `complete` or `abort`, from any thread, before or after the routine returned; calls may
    be closed in any order. If a manager routine's handle is dropped, so that it cannot be closed any more, the call
    ends with `CallFailed`. One that is kept and never closed keeps the client waiting until its own time limit; a
    subscription that will hand it over, to a port or a function, keeps it.

    Threads: every method may be called from any thread.
    """

    _instead = "hand over its arguments, and what comes back to it"

    __slots__ = ("__weakref__", "_call")

    def __init__(self, call: OpenCall) -> None:
        self._call = call

    def __del__(self) -> None:
        # May run anywhere, under any lock: what is to be done is left to the monitor.
        call = self._call
        if call.given and call.peer.calls.get(call.id) is call:  # `is_open` in line.
            driver().monitor.call_soon(partial(_end_dropped, call))

    def complete(self, value: Any = None) -> None:
        """Answer the call with `value`. The outputs must be final: they are encoded before this returns.

        Raises: `InvalidAsyncHandle` (1914) if the call was closed before. A value that cannot be sent closes the call
            with `BadStubData`, and raises `InvalidArgumentType` here. If the client is gone the answer goes nowhere,
            and nothing is raised. `PipeError` 1917 before all pipes are at their end, or the error that they failed
            with: the call is closed with that.
        Blocks: never. Source: "RpcAsyncCompleteCall".
        """
        if self._call.pipes is not None:
            self._call.pipes.before_complete()
        self._call.answers.answer(self._call, value)

    def abort(self, status: int, text: str = "") -> None:
        """End the call with a failure: `status`, which is not 0, reaches the client unchanged.

        Args: `text` says why, for people; of one that is too long for the client only the beginning is sent.
        Raises: `InvalidParameter` (87) for status 0 and 997 (PENDING), `InvalidArgumentType` (87) for a text that is
            none;
            `InvalidAsyncHandle` (1914) if the call was closed before.
        Blocks: never. Source: "RpcAsyncAbortCall".
        """
        check_count("status", status, 1, (1 << 32) - 1)
        if status == Status.PENDING:
            raise InvalidParameter("status must not be 997 (PENDING), which says that a call has not ended")
        if not isinstance(text, str):
            raise InvalidArgumentType(f"text must be a str, not {type_name(text)}")
        self._call.answers.answer_fault(self._call, int(status), str.__str__(text))
        if self._call.pipes is not None:
            self._call.pipes.close()

    @property
    def pipes(self) -> dict[str, Pipe[Any]]:
        """This side's ends of the call's pipes, by the names of their parameters; empty if it has none."""
        return {} if self._call.pipes is None else dict(self._call.pipes.ends)

    def pipe(self, name: str) -> Pipe[Any]:
        """Return this side's end of the pipe that stands for the parameter `name`.

        Raises: `InvalidParameter` if there is no such pipe.
        """
        if self._call.pipes is None:
            raise InvalidParameter(f"{self!r} has no pipe {shown(name)}, and no other")
        return self._call.pipes.end_of(name)  # type: ignore[no-any-return]  # Any: few calls have some

    def notify_pipes(self, notify: "Notify[ServerCall]", send_complete: bool = False) -> None:
        """Choose what is notified of sends and receives of the call's pipes, before the first push or pull.

        Args:
            notify: as for a client's call: an Event, a port or `port.packet(...)`, `apc(...)`, a callable, or None.
                An APC or a callable gets this handle, and RECEIVE_COMPLETE or SEND_COMPLETE.
            send_complete: signal SEND_COMPLETE after each push, as soon as the next one would be taken.
        Raises: `InvalidParameter` if the call has no pipes; `InvalidArgumentType` for another `notify`.
        Source: "Server-side Asynchronous Pipe Handling".
        """
        self._own_pipes().notify(notify, send_complete, self)

    def before_pipes(self, prepare: Callable[[], object]) -> None:
        """Have `prepare()` called once, just before the first push or pull of the call's pipes, by that thread.

        It may call `notify_pipes`. What it raises, the push or pull raises, and the next one calls it again.
        Raises: `InvalidParameter` if the call has no pipes.
        """
        self._own_pipes().prepare = prepare

    @property
    def event(self) -> EventKind | None:
        """The last event that was signalled for the call's pipes, None before the first."""
        return None if self._call.pipes is None else self._call.pipes.signals.event

    def _own_pipes(self) -> Any:
        if self._call.pipes is None:
            raise InvalidParameter(f"{self!r} has no pipes")
        return self._call.pipes

    def test_cancel(self) -> bool:
        """Whether the client asked to cancel the call. Cheap; the call must still be closed.

        Source: "RpcServerTestCancel". Different from Windows: a truth value, where the status 0 means "yes" there.
        """
        return self._call.cancelled

    def disconnected(self) -> bool:
        """Whether the client is gone; an answer would go nowhere. The call must still be closed."""
        return bool(self._call.peer.lost)

    def time_left(self) -> float | None:
        """Seconds until the client stops waiting, 0 or more; None if it set no limit."""
        return self._call.time_left()

    def subscribe(self, kind: EventKind | Iterable[EventKind], notify: "Notify[ServerCall]") -> None:
        """Be notified when the client cancels the call (`EventKind.CLIENT_CANCEL`), or is gone (`CLIENT_DISCONNECT`).

        Args:
            kind: one of the two, or both, for which an event does not do: it cannot tell them apart.
            notify: an `Event`, a `CompletionPort` or `port.packet(...)` (whose overlapped value is this handle unless
                given), `apc(...)`, or a callable. Functions are called with this handle and the kind; callables run on
                the default pool.
        What has happened already is notified at once. Each kind is notified once, and can be subscribed to once a
        call. Closing the call ends its subscriptions: what is queued to a port then still arrives, functions that have
        not begun are not called.
        Raises: `Misuse` 1764 (CANNOT_SUPPORT) for another kind; `InvalidParameter` (87) without `notify`, or for both
            kinds by an event; `InvalidState` (1915) the second time; `InvalidAsyncHandle` (1914) if the call was
            closed.
        Threads: any; serialised here, so two threads may subscribe and unsubscribe at once. Blocks: never.
        Source: "RpcServerSubscribeForNotification".
        """
        wanted = frozenset((kind,) if isinstance(kind, int) else kind)
        if not wanted or not wanted <= KINDS:
            raise _unsupported(kind)
        kinds = frozenset(map(EventKind, wanted))
        if notify is None:
            raise InvalidParameter("notify must say how to notify, None does not: use `test_cancel` and `disconnected`")
        target = snapshot(notify)
        assert target is not None
        if len(kinds) > 1 and not target.takes_several_kinds:
            raise InvalidParameter(f"{a_type(notify)} cannot tell kinds apart: subscribe to each with one of its own")
        subscriptions = self._subscriptions()
        subscriptions.add(kinds, target, self)
        # Subscribe, then look: what happens in between finds the subscription, which notifies once.
        if self._call.cancelled and EventKind.CLIENT_CANCEL in kinds:
            subscriptions.notify(EventKind.CLIENT_CANCEL)
        if self._call.peer.lost and EventKind.CLIENT_DISCONNECT in kinds:
            subscriptions.notify(EventKind.CLIENT_DISCONNECT)

    def unsubscribe(self, kind: EventKind) -> int:
        """End a subscription; return how many notifications of that kind were queued, 0 or 1.

        One that is queued still arrives, unless the call is closed first. To learn the number unsubscribe before
        closing; otherwise it is not needed.
        Raises: as `subscribe`; `InvalidState` (1915) if there is no subscription of that kind.
        Source: "RpcServerUnsubscribeForNotification".
        """
        if kind not in KINDS:
            raise _unsupported(kind)
        return self._subscriptions().remove(EventKind(kind))

    def _subscriptions(self) -> Subscriptions:
        """Return the call's subscriptions, made if it has none; raise if it was closed."""
        extras = self._call.extras()
        with _subscriptions_making:
            if extras.subscriptions is None:
                subscriptions = Subscriptions(self._call)
                if not self._call.add_done_callback(subscriptions.close):
                    raise _closed(self._call)
                extras.subscriptions = subscriptions
            return extras.subscriptions  # type: ignore[no-any-return]  # Any: few calls have some

    def open_context(self, state: S, rundown: Callable[[S], object] | None = None) -> Context[S]:
        """Make a context handle for `state`, to be part of this call's result; see `Context`.

        Args: `rundown(state)` is called once on a thread of the server's pool if the client goes without having closed
            the handle, or if the result cannot be sent.
        The client can use it once the call was answered. If the routine raises, or aborts the call, there is no such
        handle: the routine cleans up what it made, and `rundown` is not called.
        Raises: `InvalidAsyncHandle` (1914) if the call was closed. Source: "Context Handles".
        """
        book: ContextBook = self._call.answers.contexts
        return book.open(self._call, state, rundown)

    def lock_context(self, context: Context[Any], shared: bool = False) -> bool:
        """Change how this call uses a context handle that it was given: alone, or `shared` with others of that kind.

        For a handle that this call has made there is nothing to do. A call that leaves its routine before it is closed
        keeps what it has.
        Returns: True; False if this call gave way to another that wanted the handle alone as well (Windows'
            ERROR_MORE_WRITES, 1120): it has the handle alone now, but must look anew at all that it knew of the state.
        Raises: `InvalidState` (1915) for a handle that this call was not given, or whose lock another thread is
            changing; `Deadlock` (1131) if it would have to wait and is a coroutine, which would stop its event loop, or
            uses further handles, for which the others might wait; `InvalidAsyncHandle` (1914) if the call was closed,
            also meanwhile.
        Threads: any, one at a time. Blocks: until the others that use the handle are closed, never if `shared`.
        Source: "RpcSsContextLockExclusive", "RpcSsContextLockShared".
        """
        check_flag("shared", shared)
        book: ContextBook = self._call.answers.contexts
        return book.lock(self._call, context, shared)

    @property
    def metadata(self) -> dict[str, str]:
        """The connection's texts, overlaid with the call's own; a copy."""
        return self._call.metadata()

    def set_trailing_metadata(self, metadata: dict[str, str]) -> None:
        """Have texts travel with the answer, whatever it is; the client reads them in `Call.trailing_metadata`.

        Setting them again replaces them. A one-way call has no answer. With a failure they are left out if the client
        takes no message of that size.
        Raises: `InvalidArgumentType` if it is no dict of texts; `InvalidAsyncHandle` (1914) if the call was closed.
        """
        texts = check_metadata(metadata)
        extras = self._call.extras()
        if not self._call.is_open():
            raise InvalidAsyncHandle(f"{self!r} was closed: its answer is on its way")
        extras.metadata = texts

    def attributes(self) -> CallAttributes:
        """Return who calls, and over what. Source: "RpcServerInqCallAttributes"."""
        return self._call.attributes()

    def __repr__(self) -> str:
        return repr(self._call)


def _unsupported(kind: object) -> Misuse:
    return Misuse(
        f"kind must be EventKind.CLIENT_CANCEL or EventKind.CLIENT_DISCONNECT, not {shown(kind)}",
        status=Status.CANNOT_SUPPORT,
    )


def _closed(call: OpenCall) -> InvalidAsyncHandle:
    return InvalidAsyncHandle(f"{call!r} was closed, and its subscriptions with it")


def _end_dropped(call: OpenCall) -> None:
    """The last reference to the handle of `call` is gone, so that no user can close it. On the monitor's thread."""
    if call.extra is None or call.extra.around is None:
        _close_dropped(call)
    else:  # Its interceptors are not for the monitor to run.
        default_pool().post(partial(_close_dropped, call))


def _close_dropped(call: OpenCall) -> None:
    text = "its manager routine dropped the handle without an answer"
    try:
        call.answers.answer_fault(call, Status.CALL_FAILED, text)
    except (InvalidAsyncHandle, Forked):
        return
    if call.pipes is not None:
        call.pipes.close()
    if not (call.entry.warned or call.peer.lost):
        call.entry.warned = True
        log.warning("%r: %s: it ends with status 1726 (CALL_FAILED)", call, text, later=True)


def handle_of(call: OpenCall) -> ServerCall:
    """Return the handle of a call, always the same one as long as a user has it."""
    with _making:
        handle: ServerCall | None = None if call.handle is None else call.handle()
        if handle is None:
            handle = ServerCall(call)
            call.handle = weakref.ref(handle)
        return handle


def current_call() -> ServerCall:
    """Return the call that the running routine serves.

    Works on the thread, or in the task and those it starts, that runs the routine; a routine that hands over to
    another thread takes the handle with it.
    Raises: `InvalidState` with status 1725 (NO_CALL_ACTIVE) where no call is being served.
    Source: "RpcServerTestCancel" with a binding of zero.
    """
    call = current.get()
    if call is None:
        raise InvalidState("no call is being served here", status=Status.NO_CALL_ACTIVE)
    assert isinstance(call, OpenCall)
    handle = handle_of(call)
    slot = current.slot
    if slot.call_id == call.id or slot.call is call:
        # The thread keeps it for as long as it serves the call, so that it is always the same one. A task has it
        # already, and its thread serves others, too.
        slot.handle = handle
    return handle


def log_unanswered(call: OpenCall, value: object, error: Exception) -> None:
    """What a routine returned could not answer its call. A routine that has closed it mostly returns nothing."""
    if isinstance(error, InvalidAsyncHandle):  # It names the call.
        (log.debug if value is None else log.error)("%s; what its routine returned after that is lost", error)
    else:
        log.error("%r: %s", call, error)
