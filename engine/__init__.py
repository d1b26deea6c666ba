"""Completion ports, a thread pool and asynchronous RPC over ZeroMQ, for a service to embed."""

from .kernel.apc import queue_apc
from .kernel.bridge import WaitPacket
from .kernel.clock import Clock, SystemClock
from .kernel.errors import (
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
    WouldBlock,
)
from .kernel.event import Event
from .kernel.mutex import Mutex
from .kernel.packet import UNSET, CompletionPacket, PacketTemplate, PortStatistics
from .kernel.port import CompletionPort
from .kernel.semaphore import Semaphore
from .kernel.source import PortSource
from .kernel.status import Status
from .kernel.thread import blocking
from .kernel.timer import WaitableTimer
from .kernel.wait import MAXIMUM_WAIT_OBJECTS, WaitResult, signal_and_wait, sleep, wait_all, wait_any
from .kernel.waitable import RegisteredWait, Waitable, WaitableStatistics, register_wait

__all__ = [
    "MAXIMUM_WAIT_OBJECTS",
    "UNSET",
    "AbandonedWait",
    "Alerted",
    "CallError",
    "CallPending",
    "Clock",
    "CompletionPacket",
    "CompletionPort",
    "Deadlock",
    "EngineError",
    "Event",
    "Forked",
    "InvalidArgumentType",
    "InvalidAsyncHandle",
    "InvalidHandle",
    "InvalidParameter",
    "InvalidState",
    "LimitExceeded",
    "Misuse",
    "Mutex",
    "NotFound",
    "NotOwner",
    "OperationAborted",
    "PacketTemplate",
    "PortSource",
    "PortStatistics",
    "QueueFull",
    "RegisteredWait",
    "Semaphore",
    "Status",
    "SystemClock",
    "WaitPacket",
    "WaitResult",
    "WaitTimeout",
    "Waitable",
    "WaitableStatistics",
    "WaitableTimer",
    "WouldBlock",
    "blocking",
    "queue_apc",
    "register_wait",
    "signal_and_wait",
    "sleep",
    "wait_all",
    "wait_any",
]
