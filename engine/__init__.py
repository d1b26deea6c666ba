"""Completion ports, a thread pool and asynchronous RPC over ZeroMQ, for a service to embed."""

import typing

import transport as _transport

if not hasattr(_transport, "LinkOptions"):  # Somebody's own, which is found first.
    raise ImportError(
        f"the module 'transport' that is found is not this library's, but {getattr(_transport, '__file__', None)}: "
        "rename it, or put it behind this library on sys.path"
    )

from transport.frames import LIBRARY as _LIBRARY

from .errors import (
    AbandonedWait,
    Alerted,
    CallError,
    CallPending,
    Deadlock,
    EngineError,
    Forked,
    InvalidArgumentType,
    InvalidAsyncHandle,
    InvalidHandle,
    InvalidParameter,
    InvalidState,
    LimitExceeded,
    Misuse,
    NotFound,
    NotOwner,
    OperationAborted,
    QueueFull,
    WaitTimeout,
)
from .kernel.apc import queue_apc
from .kernel.bridge import WaitPacket
from .kernel.clock import Clock, SystemClock
from .kernel.event import Event
from .kernel.mutex import Mutex
from .kernel.packet import UNSET, CompletionPacket, PacketSink, PacketTemplate, PortStatistics
from .kernel.port import CompletionPort
from .kernel.port_source import PortSource
from .kernel.registered_wait import RegisteredWait
from .kernel.semaphore import Semaphore
from .kernel.thread import blocking
from .kernel.timer import WaitableTimer
from .kernel.wait import MAXIMUM_WAIT_OBJECTS, WaitResult, signal_and_wait, sleep, wait_all, wait_any
from .kernel.waitable import Waitable, WaitableStatistics, register_wait
from .pool.callback_object import CallbackObject, CallbackStatistics, Environment
from .pool.cleanup import CleanupGroup
from .pool.fair_queue import Priority
from .pool.io import Io, IoStatistics
from .pool.pool import PoolStatistics, ThreadPool, default_pool
from .pool.running import CallbackInstance, current_callback
from .pool.timer import Timer
from .pool.wait import Wait
from .pool.work import Work, submit_callback
from .rpc.address import Address
from .rpc.call import Call
from .rpc.client.binding import Binding, BoundOperation
from .rpc.client.client import Client, ClientStatistics
from .rpc.client.member import MemberStatistics
from .rpc.client.pinned_session import PinnedSession
from .rpc.client.pipes import PipedOperation
from .rpc.client.resolver import Discovery, Resolver
from .rpc.context import Context
from .rpc.contract.interface import Interface, Operation, operation
from .rpc.contract.outputs import InOut, Out
from .rpc.contract.own_types import register_type
from .rpc.errors import (
    AccessDenied,
    BadStubData,
    CallCancelled,
    CallFailed,
    CallFailedDne,
    CallTimeout,
    ContextMismatch,
    NullContext,
    PeerProtocolError,
    PipeError,
    RemoteFault,
    ServerTooBusy,
    ServerUnavailable,
    Unavailable,
    UnknownInterface,
    UnknownOperation,
)
from .rpc.interceptors import AsyncInterceptor, Interceptor, OutgoingCall
from .rpc.notify import ApcNotification, CallbackNotification, EventKind, apc
from .rpc.pipes.pipe import InOutPipe, InPipe, OutPipe, Pipe, PipePending
from .rpc.pipes.stream import Stream
from .rpc.server.admission import ServerStatistics
from .rpc.server.announcing import Announcer, Presence
from .rpc.server.call import ServerCall, current_call
from .rpc.server.health import Health, HealthReport
from .rpc.server.intercepting import IncomingCall
from .rpc.server.management import Management
from .rpc.server.open_call import CallAttributes
from .rpc.server.peers import ServerPeer
from .rpc.server.reflection import InterfaceDescription, OperationDescription, ParameterDescription, Reflection
from .rpc.server.registry import implements, manager
from .rpc.server.server import Server
from .rpc.state import TRANSITIONS, On, State
from .status import Status

if typing.TYPE_CHECKING:
    from .pool.executor import Executor


def __getattr__(name: str) -> typing.Any:
    """Load `Executor` when it is asked for: the standard module that it extends takes 3 ms."""
    if name == "Executor":
        from .pool.executor import Executor

        globals()[name] = Executor
        return Executor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__version__: str = _LIBRARY.partition(" ")[2]

__all__ = [
    "MAXIMUM_WAIT_OBJECTS", "TRANSITIONS", "UNSET", "AbandonedWait", "AccessDenied", "Address", "Alerted",
    "Announcer", "ApcNotification", "AsyncInterceptor", "BadStubData", "Binding", "BoundOperation", "Call",
    "CallAttributes", "CallCancelled", "CallError", "CallFailed", "CallFailedDne", "CallPending", "CallTimeout",
    "CallbackInstance", "CallbackNotification", "CallbackObject", "CallbackStatistics", "CleanupGroup", "Client",
    "ClientStatistics", "Clock", "CompletionPacket", "CompletionPort", "Context", "ContextMismatch", "Deadlock",
    "Discovery", "EngineError", "Environment", "Event", "EventKind", "Executor", "Forked", "Health", "HealthReport",
    "InOut", "InOutPipe", "InPipe", "IncomingCall", "Interceptor", "Interface", "InterfaceDescription",
    "InvalidArgumentType", "InvalidAsyncHandle", "InvalidHandle", "InvalidParameter", "InvalidState", "Io",
    "IoStatistics", "LimitExceeded", "Management", "MemberStatistics", "Misuse", "Mutex", "NotFound", "NotOwner",
    "NullContext", "On", "Operation", "OperationAborted", "OperationDescription", "Out", "OutPipe", "OutgoingCall",
    "PacketSink", "PacketTemplate", "ParameterDescription", "PeerProtocolError", "PinnedSession", "Pipe",
    "PipeError", "PipePending", "PipedOperation", "PoolStatistics", "PortSource", "PortStatistics", "Presence",
    "Priority", "QueueFull", "Reflection", "RegisteredWait", "RemoteFault", "Resolver", "Semaphore", "Server",
    "ServerCall", "ServerPeer", "ServerStatistics", "ServerTooBusy", "ServerUnavailable", "State", "Status",
    "Stream", "SystemClock", "ThreadPool", "Timer", "Unavailable", "UnknownInterface", "UnknownOperation", "Wait",
    "WaitPacket", "WaitResult", "WaitTimeout", "Waitable", "WaitableStatistics", "WaitableTimer", "Work", "apc",
    "blocking", "current_call", "current_callback", "default_pool", "implements", "manager", "operation",
    "queue_apc", "register_type", "register_wait", "signal_and_wait", "sleep", "submit_callback", "wait_all",
    "wait_any",
]  # fmt: skip
