"""The asynchronous handle: what the caller writes into it, and what is behind it.

Theory of operation. An `RPC_ASYNC_STATE` is the caller's record of one call. The runtime's half is in `RuntimeInfo`:
on the client a `Call`, from the first call that is issued on it, on the server the `ServerCall`. A client's `Call` is
put there before the call is issued, because the notification may be seen by another thread before the issuing function
has returned. Issuing takes a copy of the notification fields, so later edits change nothing.

    RAW --initialise--> IDLE --issue--> PENDING --outcome--> DONE --complete--> SPENT --issue, initialise--> ...

A handle is usable while its size, signature, lock and stub fields are as initialising left them; otherwise every
function says 1914.

Source: "RPC_ASYNC_STATE", "RPC_ASYNC_NOTIFICATION_INFO", "RPCNOTIFICATION_ROUTINE", "Asynchronous Call State".
"""

import threading
import weakref
from collections.abc import Callable
from functools import wraps
from inspect import isasyncgenfunction, isgeneratorfunction
from typing import Any

from transport.foreign import name_of, shown

from .. import (
    Call,
    CompletionPort,
    EngineError,
    Event,
    EventKind,
    InvalidAsyncHandle,
    InvalidParameter,
    InvalidState,
    ServerCall,
    apc,
    manager,
)
from ..kernel.checks import check_callback
from .constants import (
    RPC_ASYNC_SIGNATURE,
    RPC_ASYNC_VERSION_1_0,
    RPC_C_NOTIFY_ON_SEND_COMPLETE,
    RPC_NOTIFICATION_TYPES,
    RPC_S_CANNOT_SUPPORT,
)
from .errors import contained

__all__ = ["RPC_ASYNC_NOTIFICATION_INFO", "RPC_ASYNC_STATE", "async_manager", "sizeof"]

# `routine(state, context, event)`; the context is reserved, and None. The state is the handle; or, where a server
# subscribed to a call that is not asynchronous to it, that call's binding handle.
NotificationRoutine = Callable[[Any, None, EventKind], object]


class _Apc:
    """The target of type 2. `hThread`: a `threading.Thread` or an identifier; 0 or None: the issuing thread."""

    __slots__ = ("NotificationRoutine", "hThread")

    def __init__(self) -> None:
        self.NotificationRoutine: NotificationRoutine | None = None
        self.hThread: threading.Thread | int | None = None


class _Ioc:
    """The target of type 3: a port, and the three values that its packet will have."""

    __slots__ = ("dwCompletionKey", "dwNumberOfBytesTransferred", "hIOPort", "lpOverlapped")

    def __init__(self) -> None:
        self.hIOPort: CompletionPort | None = None
        self.dwNumberOfBytesTransferred: Any = 0
        self.dwCompletionKey: Any = 0
        self.lpOverlapped: Any = None


class RPC_ASYNC_NOTIFICATION_INFO:
    """The targets, one for each type; only that of the handle's `NotificationType` counts.

    Fields: `APC.NotificationRoutine`, `APC.hThread`; `IOC.hIOPort`, `IOC.dwNumberOfBytesTransferred`,
        `IOC.dwCompletionKey`, `IOC.lpOverlapped`; `hEvent`; `NotificationRoutine`.
    """

    __slots__ = ("APC", "IOC", "NotificationRoutine", "hEvent")

    def __init__(self) -> None:
        self.APC = _Apc()
        self.IOC = _Ioc()
        self.hEvent: Event | None = None
        self.NotificationRoutine: NotificationRoutine | None = None


class RPC_ASYNC_STATE:
    """One outstanding call. Initialise it by `RpcAsyncInitializeHandle`, then choose how to be notified of its end.

    Fields:
        UserInfo: the caller's own, never looked at.
        Event: the last event that was signaled for a call on this handle.
        NotificationType, u: how to notify; there is no default, and initialising leaves them alone.
        Flags: `RPC_C_NOTIFY_ON_SEND_COMPLETE`: sends of a call with pipes are notified of too; cleared by initialising.
        These three count as they are when a call is issued; in a routine, at its first push or pull.
        RuntimeInfo: the engine's object for the call. The rest is not for editing.
    """

    __slots__ = (
        "Flags", "Lock", "NotificationType", "Reserved", "RuntimeInfo", "Signature", "Size", "StubInfo", "UserInfo",
        "__weakref__", "_event", "u",
    )  # fmt: skip

    def __init__(self) -> None:
        self.Size: int = 0
        self.Signature: int = 0
        self.Lock: int = 0
        self.Flags: int = 0
        self.StubInfo: object = None
        self.UserInfo: Any = None
        self.RuntimeInfo: Call[Any] | ServerCall | None = None
        self._event: EventKind = EventKind.CALL_COMPLETE
        self.NotificationType: int = RPC_NOTIFICATION_TYPES.RpcNotificationTypeNone
        self.u: RPC_ASYNC_NOTIFICATION_INFO = RPC_ASYNC_NOTIFICATION_INFO()
        self.Reserved: tuple[int, ...] = (0, 0, 0, 0)

    @property
    def Event(self) -> EventKind:
        """The last event that was signaled."""
        call = self.RuntimeInfo
        if call is not None and call.event is not None:
            self._event = call.event
        return self._event

    @Event.setter
    def Event(self, value: EventKind) -> None:
        self._event = value

    def __repr__(self) -> str:
        return f"<RPC_ASYNC_STATE {self.RuntimeInfo!r}>"


def sizeof(kind: object) -> int:
    """Return the size of an `RPC_ASYNC_STATE`, as C does, for `RpcAsyncInitializeHandle`."""
    if kind is RPC_ASYNC_STATE or isinstance(kind, RPC_ASYNC_STATE):
        return RPC_ASYNC_VERSION_1_0
    raise TypeError(f"only an RPC_ASYNC_STATE has a size here, not {shown(kind)}")


def stamp(state: RPC_ASYNC_STATE) -> None:
    """Write the fields that make a handle a usable one, and clear those of the runtime."""
    state.Size = RPC_ASYNC_VERSION_1_0
    state.Signature = RPC_ASYNC_SIGNATURE
    state.Lock = 0
    state.Flags = 0
    state.StubInfo = None
    state.RuntimeInfo = None
    state.Reserved = (0, 0, 0, 0)


def usable(state: object) -> RPC_ASYNC_STATE:
    """Return the handle; raises `InvalidAsyncHandle` (1914) if it was not initialised, or was tampered with."""
    if not isinstance(state, RPC_ASYNC_STATE):
        raise InvalidAsyncHandle(f"{shown(state)} is not an RPC_ASYNC_STATE")
    stamped = (state.Size, state.Signature, state.Lock, state.StubInfo)
    if stamped != (RPC_ASYNC_VERSION_1_0, RPC_ASYNC_SIGNATURE, 0, None):
        raise InvalidAsyncHandle("the handle is not initialised, or its fields were overwritten")
    return state


def client_call(state: object) -> Call[Any]:
    """Return the call behind a client's handle; raises 1914 if there is none, 1915 for a server's handle."""
    found = usable(state).RuntimeInfo
    if isinstance(found, Call):
        return found
    if isinstance(found, ServerCall):
        raise InvalidState("this is for the client, and the handle is a server's")
    raise InvalidAsyncHandle("the handle carries no call yet")


def notification(state: RPC_ASYNC_STATE) -> Any:
    """Return a copy of the handle's notification fields, as the engine's `notify=`."""
    return target(state.NotificationType, state.u, state)


def sends_are_told(state: RPC_ASYNC_STATE) -> bool:
    """Whether the handle's flags ask for a notification at the end of sends."""
    return bool(state.Flags & RPC_C_NOTIFY_ON_SEND_COMPLETE)


def _pipe_notification(state: RPC_ASYNC_STATE) -> Any:
    """Return what a routine has filled in. The thread that runs it is not its own, and no target."""
    if state.NotificationType == RPC_NOTIFICATION_TYPES.RpcNotificationTypeApc and not state.u.APC.hThread:
        raise InvalidParameter("u.APC.hThread must be a thread: a routine's own may not be there when it is needed")
    return notification(state)


def target(kind: int, u: RPC_ASYNC_NOTIFICATION_INFO, subject: "RPC_ASYNC_STATE | ServerCall") -> Any:
    """Return what the fields say, as the engine's `notify=`; a routine gets `subject`.

    Raises: 87 for a target that does not fit, 1764 for window messages.
    """
    if not isinstance(u, RPC_ASYNC_NOTIFICATION_INFO) and kind != RPC_NOTIFICATION_TYPES.RpcNotificationTypeNone:
        raise InvalidParameter(f"the targets must be an RPC_ASYNC_NOTIFICATION_INFO, not {shown(u)}")
    match kind:
        case RPC_NOTIFICATION_TYPES.RpcNotificationTypeNone:
            return None
        case RPC_NOTIFICATION_TYPES.RpcNotificationTypeEvent:
            if isinstance(u.hEvent, Event):
                return u.hEvent
            raise InvalidParameter(f"u.hEvent must be an event, not {shown(u.hEvent)}")
        case RPC_NOTIFICATION_TYPES.RpcNotificationTypeApc:
            thread = u.APC.hThread or None
            if thread is not None and not isinstance(thread, (threading.Thread, int)):
                raise InvalidParameter(f"u.APC.hThread must be a thread, or 0, not {shown(thread)}")
            return apc(contained(_calling(subject, u.APC.NotificationRoutine)), thread)
        case RPC_NOTIFICATION_TYPES.RpcNotificationTypeIoc:
            if not isinstance(u.IOC.hIOPort, CompletionPort):
                raise InvalidParameter(f"u.IOC.hIOPort must be a completion port, not {shown(u.IOC.hIOPort)}")
            return u.IOC.hIOPort.packet(u.IOC.dwCompletionKey, u.IOC.dwNumberOfBytesTransferred, u.IOC.lpOverlapped)
        case RPC_NOTIFICATION_TYPES.RpcNotificationTypeHwnd:
            raise EngineError("there are no window messages here", status=RPC_S_CANNOT_SUPPORT)
        case RPC_NOTIFICATION_TYPES.RpcNotificationTypeCallback:
            return _calling(subject, u.NotificationRoutine)
        case other:
            raise InvalidParameter(f"NotificationType must be one of RPC_NOTIFICATION_TYPES, not {shown(other)}")


def _calling(
    subject: "RPC_ASYNC_STATE | ServerCall", routine: NotificationRoutine | None
) -> Callable[[Any, EventKind], object]:
    check_callback("NotificationRoutine", routine)
    assert routine is not None

    def notify(call: object, event: EventKind) -> None:
        if isinstance(subject, RPC_ASYNC_STATE):
            subject.Event = event
        routine(subject, None, event)

    return notify


# The handles of calls that asynchronous manager routines serve, by the identity of the call, which they keep alive.
_served: "weakref.WeakValueDictionary[int, RPC_ASYNC_STATE]" = weakref.WeakValueDictionary()


def state_of(call: ServerCall) -> RPC_ASYNC_STATE | None:
    """Return the handle that an asynchronous manager routine got for `call`; None if there is none any more."""
    return _served.get(id(call))


def async_manager(function: Callable[..., object]) -> Callable[..., object]:
    """Mark a routine as an asynchronous manager routine, as `[async]` in an ACF file does: the handle comes first.

        @async_manager
        def synonyms(self, pAsync, word):
            SubmitThreadpoolWork(...)          # later, on any thread: RpcAsyncCompleteCall(pAsync, Box([...]))

    If the call has pipes, the routine may fill in how it is notified of their sends and receives, before it
    uses one of them; an APC needs the thread named.

    Raises: `InvalidParameter` for a generator function, of which nothing would run.
    Source: "Handling Asynchronous Calls", "Server-side Asynchronous Pipe Handling".
    """

    if isgeneratorfunction(function) or isasyncgenfunction(function):
        raise InvalidParameter(
            f"routine {name_of(function)} has a `yield`: calling it would run nothing of it. Answer by the handle"
        )

    @wraps(function)
    def routine(*args: Any) -> object:
        place = 0 if isinstance(args[0], ServerCall) else 1  # After `self`, in a method.
        call: ServerCall = args[place]
        state = RPC_ASYNC_STATE()
        stamp(state)
        state.RuntimeInfo = call
        _served[id(call)] = state
        if call.pipes:
            call.before_pipes(lambda: call.notify_pipes(_pipe_notification(state), sends_are_told(state)))
        return function(*args[:place], state, *args[place + 1 :])

    return manager(routine)
