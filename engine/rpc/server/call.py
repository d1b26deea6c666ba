"""The handle of one call being served, as users see it, over the record that the server works with (`open_call.py`).

Source: "Asynchronous RPC" (the server's side), "RpcAsyncCompleteCall", "RpcAsyncAbortCall", "RpcServerTestCancel",
"RpcServerInqCallAttributes".
"""

import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from transport.foreign import shown, type_name
from transport.log import Log

from ...errors import EngineError, Forked, InvalidArgumentType, InvalidAsyncHandle, InvalidParameter, InvalidState
from ...kernel.checks import check_count, check_flag
from ...kernel.driver import driver
from ...kernel.lock import Lock
from ...lifecycle import Uncopyable
from ...status import Status
from ..context import Context
from ..notify import EventKind
from ..pipes.pipe import Pipe
from ..serving import current
from ..wire_types import check_metadata
from .contexts import ContextBook
from .open_call import CallAttributes, OpenCall
from .subscription import subscribe, unsubscribe

log: Log = Log("engine.rpc")

S = TypeVar("S")
T = TypeVar("T")


class ServerCall(Uncopyable):
    """One call being served. A routine marked with `manager` gets it as its first argument and may keep it for later.

    Close it exactly once, with `complete` or `abort`, from any thread, before or after the routine returned; calls may
    be closed in any order. If a manager routine's handle is dropped, so that it cannot be closed any more, the call
    ends with `CallFailed`. One that is kept and never closed keeps the client waiting until its own time limit.

    Threads: every method may be called from any thread.
    """

    _instead = "hand over its arguments, and what comes back to it"

    __slots__ = ("__weakref__", "_call")

    def __init__(self, call: OpenCall) -> None:
        self._call = call

    def __del__(self) -> None:
        # May run anywhere, under any lock: what is to be done is left to the monitor.
        call = self._call
        if call.entry.takes_handle and call.peer.calls.get(call.id) is call:  # `is_open` in line.
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
        return self._call.pipes.end_of(name)  # type: ignore[no-any-return]  # `_pipes` is Any: few calls have some

    def notify_pipes(self, notify: Any, send_complete: bool = False) -> None:
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

    def subscribe(self, kind: EventKind | Iterable[EventKind], notify: Any) -> None:
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
        subscribe(self._call, kind, notify, self)

    def unsubscribe(self, kind: EventKind) -> int:
        """End a subscription; return how many notifications of that kind were queued, 0 or 1.

        One that is queued still arrives, unless the call is closed first. To learn the number unsubscribe before
        closing; otherwise it is not needed.
        Raises: as `subscribe`; `InvalidState` (1915) if there is no subscription of that kind.
        Source: "RpcServerUnsubscribeForNotification".
        """
        return unsubscribe(self._call, kind, self)

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


def _end_dropped(call: OpenCall) -> None:
    """Close `call`: the last reference to its handle is gone, so that no user can. On the monitor's thread."""
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


_making = Lock()  # Held to make a handle.


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
    # The thread keeps it for as long as it serves the call, so that it is always the same one. A task has it already.
    current.slot.handle = handle
    return handle


def log_unanswered(call: OpenCall, value: object, error: EngineError) -> None:
    """What a routine returned could not answer its call. A routine that has closed it mostly returns nothing."""
    level = log.debug if value is None and isinstance(error, InvalidAsyncHandle) else log.error
    level("%r: %s", call, error)
