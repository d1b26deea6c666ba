"""The server's handle of one call: who calls, how long there is, and the one way to answer.

Theory of operation. A call is in its peer's table from its arrival until it is closed; closing it (complete, abort, the
routine's return or exception) takes it out, which is one atomic operation, and whoever takes it out sends the answer.
So the first closing wins, and every later one is told that the handle is over. Ordinary calls have no handle before
somebody asks for it: see `batch.py`.

Source: "Asynchronous RPC" (the server's side), "RpcAsyncCompleteCall", "RpcAsyncAbortCall", "RpcServerTestCancel",
"RpcServerInqCallAttributes".
"""

import contextvars
import threading
from _thread import get_ident
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

import msgspec

from transport import Buffer
from transport.foreign import shown, type_name
from transport.frames import CallOptions
from transport.log import Log
from transport.realtime import monotonic

from ...errors import EngineError, InvalidArgumentType, InvalidAsyncHandle, InvalidParameter, InvalidState
from ...kernel.checks import check_count, check_flag
from ...lifecycle import Uncopyable
from ...status import Status
from ..channel import Channel
from ..client.binding import check_metadata
from ..context import Context
from ..notify import EventKind
from ..pipes.pipe import Pipe
from .contexts import ContextBook
from .extras import Attachment, attachment_of, is_open
from .subscription import subscribe, unsubscribe

log: Log = Log("engine.rpc")

S = TypeVar("S")
T = TypeVar("T")


class Peer(Protocol):
    """A connected client, as its calls see it."""

    lost: bool
    association: bytes
    metadata: dict[str, str]
    process: int
    host: str
    address: str
    user: str


class Admission(Protocol):
    """What counts the calls of a server."""

    def called_out(self) -> None:
        """A routine has begun a call of its own."""


class Answerer(Protocol):
    """What sends answers to the endpoint that the call came in by."""

    @property
    def admission(self) -> Admission:
        """What counts the calls of its server."""

    @property
    def contexts(self) -> ContextBook:
        """The context handles of its server."""

    @property
    def authentication_level(self) -> int:
        """How well its connections are protected."""

    @property
    def channel(self) -> Channel:
        """What moves the messages of its endpoint."""

    def answer(self, call: "ServerCall", value: object) -> None: ...
    def answer_fault(self, call: "ServerCall", status: int, text: str) -> None: ...
    def answer_error(self, call: "ServerCall", error: BaseException) -> None: ...
    def give_up(self, call: "ServerCall") -> bool: ...


class CallAttributes(msgspec.Struct, frozen=True):
    """Who calls, and over what: a snapshot.

    Fields:
        interface, version, operation: what is called.
        client_process, client_host: what the client says of itself; not verified.
        client_address: where the connection comes from, as far as the transport tells; "" if it does not.
        client_principal: who the client proved to be; "" for an anonymous one.
        authentication_level: how well the connection is protected, in Windows' numbers: 6 (privacy) with CURVE, and on
            ipc, inproc and loopback, which do not leave the machine; 1 (none) on plain tcp.
        metadata: the connection's texts, overlaid with the call's own.
        status: 1 in progress, 2 cancelled, 3 disconnected. Compare for equality: it is no bit field.
    """

    interface: str
    version: tuple[int, int]
    operation: str
    client_process: int
    client_host: str
    client_address: str
    client_principal: str
    authentication_level: int
    metadata: dict[str, str]
    status: int


class ServerCall(Uncopyable, msgspec.Struct, eq=False, weakref=True):
    """One call being served. A routine marked with `manager` gets it as its first argument and may keep it for later.

    Close it exactly once, with `complete` or `abort`, from any thread, before or after the routine returned; calls may
    be closed in any order. One that is never closed keeps the client waiting until its own time limit.

    Threads: every method may be called from any thread.
    """

    _instead = "hand over its arguments, and what comes back to it"

    _answers: Answerer
    _peer: Any
    _id: int
    _entry: Any
    _args: Any
    _options: CallOptions | None = None
    _blobs: list[Buffer] | None = None
    # Monotonic time at which the client stops waiting; None: it does not say.
    _deadline: float | None = None
    # Whether its routine is being entered, or was: False while it waits for that, wherever it does. Written by who has
    # the call; see `Answers.give_up` for who reads it.
    _begun: bool = True
    # Set once, under the server's lock; read anywhere. Aborted: cancelled, and nobody waits for the answer.
    _cancelled: bool = False
    _aborted: bool = False
    # The server's ends of the call's pipes, if it has any.
    _pipes: Any = None
    # What few calls have beside all this.
    _extra: Attachment | None = None

    def complete(self, value: Any = None) -> None:
        """Answer the call with `value`. The outputs must be final: they are encoded before this returns.

        Raises: `InvalidAsyncHandle` (1914) if the call was closed before. A value that cannot be sent closes the call
            with `BadStubData`, and raises `InvalidArgumentType` here. If the client is gone the answer goes nowhere,
            and nothing is raised. `PipeError` 1917 before all pipes are at their end, or the error that they failed
            with: the call is closed with that.
        Blocks: never. Source: "RpcAsyncCompleteCall".
        """
        if self._pipes is not None:
            self._pipes.before_complete()
        self._answers.answer(self, value)

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
        self._answers.answer_fault(self, int(status), str.__str__(text))
        if self._pipes is not None:
            self._pipes.close()

    @property
    def pipes(self) -> dict[str, Pipe[Any]]:
        """This side's ends of the call's pipes, by the names of their parameters; empty if it has none."""
        return {} if self._pipes is None else dict(self._pipes.ends)

    def pipe(self, name: str) -> Pipe[Any]:
        """Return this side's end of the pipe that stands for the parameter `name`.

        Raises: `InvalidParameter` if there is no such pipe.
        """
        if self._pipes is None:
            raise InvalidParameter(f"{self!r} has no pipe {shown(name)}, and no other")
        return self._pipes.end_of(name)  # type: ignore[no-any-return]  # `_pipes` is Any: few calls have some

    def notify_pipes(self, notify: Any, send_complete: bool = False) -> None:
        """Choose how sends and receives of the call's pipes are told, before the first push or pull.

        Args:
            notify: as for a client's call: an Event, a port or `port.packet(...)`, `apc(...)`, a callable, or None.
                An APC or a callable gets this handle, and RECEIVE_COMPLETE or SEND_COMPLETE.
            send_complete: signal SEND_COMPLETE after each push, as soon as the next one would be taken.
        Raises: `InvalidParameter` if the call has no pipes; `InvalidArgumentType` for another `notify`.
        Source: "Server-side Asynchronous Pipe Handling".
        """
        self._own_pipes().notify(notify, send_complete)

    def before_pipes(self, prepare: Callable[[], object]) -> None:
        """Have `prepare()` called once, by whoever makes the first push or pull of the call's pipes, just before it.

        It may call `notify_pipes`. What it raises, the push or pull raises, and the next one calls it again.
        Raises: `InvalidParameter` if the call has no pipes.
        """
        self._own_pipes().prepare = prepare

    @property
    def event(self) -> EventKind | None:
        """The last event that was signalled for the call's pipes, None before the first."""
        return None if self._pipes is None else self._pipes.signals.event

    def _own_pipes(self) -> Any:
        if self._pipes is None:
            raise InvalidParameter(f"{self!r} has no pipes")
        return self._pipes

    def test_cancel(self) -> bool:
        """Whether the client asked to cancel the call. Cheap; the call must still be closed.

        Source: "RpcServerTestCancel". Different from Windows: a truth value, where the status 0 means "yes" there.
        """
        return self._cancelled

    def disconnected(self) -> bool:
        """Whether the client is gone; an answer would go nowhere. The call must still be closed."""
        return bool(self._peer.lost)

    def time_left(self) -> float | None:
        """Seconds until the client stops waiting, 0 or more; None if it set no limit."""
        return None if self._deadline is None else max(0.0, self._deadline - monotonic())

    def subscribe(self, kind: EventKind | Iterable[EventKind], notify: Any) -> None:
        """Be told when the client cancels the call (`EventKind.CLIENT_CANCEL`), or is gone (`CLIENT_DISCONNECT`).

        Args:
            kind: one of the two, or both, for which an event does not do: it cannot tell them apart.
            notify: an `Event`, a `CompletionPort` or `port.packet(...)` (whose overlapped value is this handle unless
                given), `apc(...)`, or a callable. Functions are called with this handle and the kind; callables run on
                the default pool.
        What has happened already is told at once. Each kind is told once, and can be subscribed to once a call. Closing
        the call ends its subscriptions: what is queued to a port then still arrives, functions that have not begun are
        not called.
        Raises: `Misuse` 1764 (CANNOT_SUPPORT) for another kind; `InvalidParameter` (87) without `notify`, or for both
            kinds by an event; `InvalidState` (1915) the second time; `InvalidAsyncHandle` (1914) if the call was
            closed.
        Threads: any; serialised here, so two threads may subscribe and unsubscribe at once. Blocks: never.
        Source: "RpcServerSubscribeForNotification".
        """
        subscribe(self, kind, notify)

    def unsubscribe(self, kind: EventKind) -> int:
        """End a subscription; return how many notifications of that kind were queued, 0 or 1.

        One that is queued still arrives, unless the call is closed first. To learn the number unsubscribe before
        closing; otherwise it is not needed.
        Raises: as `subscribe`; `InvalidState` (1915) if there is no subscription of that kind.
        Source: "RpcServerUnsubscribeForNotification".
        """
        return unsubscribe(self, kind)

    def open_context(self, state: S, rundown: Callable[[S], object] | None = None) -> Context[S]:
        """Make a context handle for `state`, to be part of this call's result; see `Context`.

        Args: `rundown(state)` is called once on a thread of the server's pool if the client goes without having closed
            the handle, or if the result cannot be sent.
        The client can use it once the call was answered. If the routine raises, or aborts the call, there is no such
        handle: the routine cleans up what it made, and `rundown` is not called.
        Raises: `InvalidAsyncHandle` (1914) if the call was closed. Source: "Context Handles".
        """
        return self._answers.contexts.open(self, state, rundown)

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
        return self._answers.contexts.lock(self, context, shared)

    @property
    def metadata(self) -> dict[str, str]:
        """The connection's texts, overlaid with the call's own; a copy."""
        options = self._options
        own = options.metadata if options is not None else None
        return {**self._peer.metadata, **(own or {})}

    def set_trailing_metadata(self, metadata: dict[str, str]) -> None:
        """Have texts travel with the answer, whatever it is; the client reads them in `Call.trailing_metadata`.

        Setting them again replaces them. A one-way call has no answer. With a failure they are left out if the client
        takes no message of that size.
        Raises: `InvalidArgumentType` if it is no dict of texts; `InvalidAsyncHandle` (1914) if the call was closed.
        """
        texts = check_metadata(metadata)
        attachment = attachment_of(self)
        if not is_open(self):
            raise InvalidAsyncHandle(f"{self!r} was closed: its answer is on its way")
        attachment.metadata = texts

    def attributes(self) -> CallAttributes:
        """Return who calls, and over what. Source: "RpcServerInqCallAttributes"."""
        peer, target = self._peer, self._entry.spec.target
        return CallAttributes(
            interface=target.interface,
            version=(target.major, target.minor),
            operation=target.operation,
            client_process=peer.process,
            client_host=peer.host,
            client_address=peer.address,
            client_principal=peer.user,
            authentication_level=self._answers.authentication_level,
            metadata=self.metadata,
            status=3 if peer.lost else 2 if self._cancelled else 1,
        )

    def __repr__(self) -> str:
        return f"<ServerCall {self._id} {self._entry.spec.target.interface}.{self._entry.spec.name}>"


# Whether this process has, or had, a server: without one nobody needs to ask what is served here.
serving: bool = False


def begin_serving() -> None:
    """A server is made."""
    global serving
    serving = True


# The call that a task serves: one that runs an `async def` routine, and what it starts.
task_call: contextvars.ContextVar[ServerCall | None] = contextvars.ContextVar("engine.task_call", default=None)


class Opener(Protocol):
    """Calls that have no handle yet, and get one when it is asked for: a `Batch`."""

    _entry: Any

    def open(self, call_id: int) -> ServerCall: ...


class Place:
    """Where a thread keeps which call it serves. Made and written by that thread only; its lane reads it.

    What a call has run that is not the library's runs in a context of its own, so that nothing that it sets is seen by
    the next one: no tenant, no precision of `decimal`. The context is a new and empty one, not a copy: copies share
    what a variable holds. As long as nothing was set in it, it serves the next call, too.
    """

    __slots__ = ("batch", "call", "call_id", "context", "ident")

    def __init__(self) -> None:
        self.ident: int = get_ident()
        # The call, if it has a handle; else the batch that it is one of.
        self.call: ServerCall | None = None
        self.batch: Opener | None = None
        # Its number, from just before its routine is entered until it was answered; None otherwise. The other two are
        # set before it, and changed after it was forgotten.
        self.call_id: int | None = None
        # Empty whenever no call runs in it.
        self.context: contextvars.Context = contextvars.Context()

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """Run a part of a call in the context of this place, in which nothing is set afterwards."""
        try:
            return self.context.run(function, *args)
        finally:
            if self.context:  # Not empty any more.
                self.context = contextvars.Context()

    def take_context(self) -> contextvars.Context:
        """Return the context, for what goes on elsewhere; the next call has another one."""
        taken, self.context = self.context, contextvars.Context()
        return taken


class _Current(threading.local):
    """The call being served here. Workers store it in their place; a context variable would cost five times that."""

    def __init__(self) -> None:
        self.place: Place = Place()

    def get(self) -> ServerCall | None:
        """Return the call that this thread, or else this task, serves."""
        place = self.place
        if place.call is not None:
            return place.call
        if place.batch is not None and place.call_id is not None:
            return place.batch.open(place.call_id)
        return task_call.get()


current: _Current = _Current()


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
    return call


def tell_unanswered(call: ServerCall, value: object, error: EngineError) -> None:
    """What a routine returned could not answer its call. A routine that has closed it mostly returns nothing."""
    tell = log.debug if value is None and isinstance(error, InvalidAsyncHandle) else log.error
    tell("%r: %s", call, error)
