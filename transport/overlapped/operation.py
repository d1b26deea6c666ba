"""An overlapped operation: what it was asked, what became of it, and how its packet and event report that.

What completes goes to the outbox of `Completions`, under the lock of the source; one thread at a time empties it
without the lock, so that packets reach the port in the order of completion though nothing foreign is called under the
lock.

Guarantees: each accepted operation completes once, and then delivers one packet if it is to deliver any; its attributes
are final before that, and its event is set before its packet is queued. Packets of one source are in the order of
completion.

Assumes: `append`, `popleft` and indexing of a deque are atomic. Between two bytecodes that call nothing no signal
handler runs: so a status and the entry in the outbox are stored as one, seen from the main thread.

Source: "Synchronization and Overlapped Input and Output", "GetOverlappedResult"; sections 5, 8 and 10 of
`docs/semantics/completion-port.md`.
"""

import weakref
from _thread import get_ident
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from threading import Lock as TryLock
from typing import Any, Final, Generic, Protocol, TypeVar

from transport.errors import InvalidOperation, OperationFailed, OperationPending
from transport.foreign import a_type, is_interrupt
from transport.lifecycle import Uncopyable
from transport.lock import Lock
from transport.log import Log

log: Log = Log("transport.overlapped")

# The Windows numbers that operations end with, and what those that a failed one ends with mean, for people.
OK: Final = 0
ACCESS_DENIED: Final = 5
INVALID_HANDLE: Final = 6
BAD_COMMAND: Final = 22
GEN_FAILURE: Final = 31
HANDLE_EOF: Final = 38
NOT_SUPPORTED: Final = 50
NETNAME_DELETED: Final = 64
BROKEN_PIPE: Final = 109
MORE_DATA: Final = 234
OPERATION_ABORTED: Final = 995
PENDING: Final = 997
HOST_UNREACHABLE: Final = 1232

MEANINGS: Final = {
    ACCESS_DENIED: "access was denied",
    INVALID_HANDLE: "the object was closed",
    HANDLE_EOF: "end of stream",
    NETNAME_DELETED: "the peer broke the connection off",
    BROKEN_PIPE: "the other end of the pipe was closed",
    MORE_DATA: "there was more than the buffer takes",
    OPERATION_ABORTED: "cancelled",
    HOST_UNREACHABLE: "there is no such peer",
}

INPUT: Final = 1
OUTPUT: Final = 2

#: Modes of a source, see `OverlappedSource.set_completion_modes`.
SKIP_PORT_ON_SUCCESS: Final = 1
SKIP_SET_EVENT_ON_HANDLE: Final = 2

T_co = TypeVar("T_co", covariant=True)


class Settable(Protocol):
    """An event, as an operation sees it."""

    def set(self) -> object:
        """Make it signaled."""


class SourceServices(Protocol):
    """What the engine does for a source: its port does it, or a thread that waits for one of its operations."""

    def deliver(self, outcomes: Iterable[tuple[Any, Any, Any, int]]) -> bool:
        """Queue one packet for each (key, transferred, overlapped, status)."""

    def full(self) -> bool:
        """Whether the port has all the packets that it may have."""

    def register(self, source: "Hook") -> None:
        """Have `source` polled from now on."""

    def unregister(self, source: "Hook") -> None:
        """Have `source` polled no longer."""

    def schedule(self, source: "Hook") -> None:
        """Have `source` driven before any thread polls."""

    def needs_progress(self, source: "Hook", wanted: bool) -> None:
        """Say whether `source` needs progress even while no thread waits."""


class Device(Protocol):
    """What the operations of a source are done to: a socket, a descriptor. Used under the lock of the source.

    Directions are `INPUT`, `OUTPUT`, or both.
    """

    #: Handed to `OverlappedOperation._attempt`.
    handle: Any
    #: What an attempt and `ready` may raise because the system said no.
    failures: tuple[type[Exception], ...]
    #: Statuses by which the other end, not the caller, is to blame: an outcome, even if known at once.
    outcomes: frozenset[int]

    def descriptors(self) -> Sequence[int]:
        """What to poll for readability, the same for the life of the source."""

    def ready(self) -> int:
        """Which directions are worth an attempt."""

    def woken(self, wanted: int) -> None:
        """A descriptor was seen to be readable, perhaps: if that is of no use to `wanted`, let it be so no longer."""

    def watch(self, wanted: int) -> None:
        """What is pending may have changed: have the descriptors show what `wanted` waits for."""

    def is_fatal(self, error: Exception) -> bool:
        """Whether the device itself is unusable for good."""

    def status_of(self, error: Exception) -> int:
        """The Windows number for what the system said."""

    def release(self, close: bool) -> None:
        """Let go of the object, which is polled no more; close it too if asked to."""


class OperationSource(Protocol):
    """What every overlapped source has, seen from one of its operations."""

    @property
    def closed(self) -> bool:
        """Whether it was closed, given back by `detach`, or found unusable."""

    def cancel(self, overlapped: Any = ...) -> None:
        """Ask for pending operations to end; see `OverlappedSource.cancel`."""

    def close(self) -> None:
        """Close the source and its object; see `OverlappedSource.close`."""


class Pending(Protocol):
    """The pending operations of a source, seen from one of them."""

    def cancel(self, chosen: Callable[["OverlappedOperation[Any]"], bool]) -> int:
        """End those that are `chosen`."""

    def be_polled(self, services: SourceServices) -> None:
        """Have the device polled from now on, if it is not."""

    def drive(self, readable: bool) -> bool:
        """Do what can be done; True if there may be more."""


class Hook:
    """What is polled in the place of a source, which it does not keep alive unless something is pending."""

    __slots__ = ("__weakref__", "_fds", "_operations", "_services", "pin")

    def __init__(self, operations: Pending, services: SourceServices, fds: Sequence[int]) -> None:
        self._operations = weakref.ref(operations)
        self._services = services
        self._fds = fds
        # The source while it has pending operations; guarded by its lock.
        self.pin: object = None

    def descriptors(self) -> Sequence[int]:
        return self._fds

    def drive(self, readable: bool) -> bool:
        operations = self._operations()
        if operations is None:
            self._services.unregister(self)
            return False
        return operations.drive(readable)


class Sentinel:
    """A value that stands for what was not given."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


#: As `overlapped`: the packet carries the operation object, which is also what happens if nothing is given.
ITSELF: Final[Any] = Sentinel("ITSELF")


class OverlappedOperation(Uncopyable, Generic[T_co]):
    """One overlapped operation, made by a `begin_...` method of its source. Used once.

    It is complete when `status` is no longer 997 (PENDING). Its buffers belong to it until then. Attributes
    may be read from any thread; they are final before the event is set and the packet is queued.
    """

    # A subclass takes its own arguments first, and hands on the others as they came.

    _instead = "hand over its result"

    __slots__ = (
        "__weakref__", "_completions", "_events", "_result", "_silent", "_source", "_status", "_synchronous", "_thread",
        "_transferred", "_value",
    )  # fmt: skip

    def __init__(
        self, source: OperationSource, completions: "Completions", overlapped: Any, event: Settable | None, packet: bool
    ) -> None:
        if event is not None and not callable(getattr(event, "set", None)):
            raise InvalidOperation(f"event must have a method `set`, which {a_type(event)} has not")
        self._source = source
        self._completions = completions
        self._value = overlapped
        # Guarded by the source's lock until complete; `_status` is written last.
        self._events: tuple[Settable, ...] = () if event is None else (event,)
        # No packet: the caller said so, or saw the success already.
        self._silent = not packet
        self._thread = get_ident()
        self._result: Any = None
        self._transferred = 0
        self._synchronous = False
        self._status = PENDING

    @property
    def source(self) -> OperationSource:
        """The source it was begun on."""
        return self._source

    @property
    def overlapped(self) -> Any:
        """What its packet carries: the value given by the caller, else the operation itself."""
        return self if self._value is ITSELF else self._value

    @property
    def status(self) -> int:
        """997 while pending, then 0 for success or the number of the error; 995 if it was cancelled."""
        return self._status

    @property
    def done(self) -> bool:
        """Whether it is complete."""
        return self._status != PENDING

    @property
    def completed_synchronously(self) -> bool:
        """Whether it had succeeded when the `begin_...` returned.

        Then a source whose mode is `SKIP_PORT_ON_SUCCESS` posts no packet for it; any other source does.
        """
        return self._synchronous

    @property
    def transferred(self) -> int:
        """Bytes transferred, counted over all frames; what had been transferred when it failed, too."""
        return self._transferred

    def result(self) -> T_co:
        """Return what it came to; for which type see the `begin_...` method.

        Raises: `OperationPending` (996) before it is complete; `OperationFailed` with its `status` if it
            failed. Blocks: never: wait for the packet, the event, or, with the engine's waits, for the operation
            itself: `wait_any([operation], timeout)`. Source: "GetOverlappedResult".
        """
        if self._status == PENDING:
            raise OperationPending("the operation is pending: wait for its packet or its event")
        if self._status != OK:
            why = MEANINGS.get(self._status)
            raise OperationFailed(f"{self!r} failed{'' if why is None else f': {why}'}", status=self._status)
        result: T_co = self._result
        return result

    def cancel(self) -> None:
        """Ask for this very operation to end; `OverlappedSource.cancel` says how. Raises what that raises."""
        self._completions.pending.cancel(lambda operation: operation is self)

    def bind_wait(self, services: SourceServices, event: Settable) -> None:
        """For the engine's waits only, which take operations as they are: have `event` set when it completes."""
        self._completions.bind_wait(self, services, event)

    # For the source, under its lock

    def _attempt(self, handle: Any) -> int | None:
        """Do what can be done now; return the status if that completes it, else None. Must not block.

        `_result` and `_transferred` are set on the way. Raises what the device's `status_of` understands; a signal
        handler may raise in the midst of it too, and then it is called again.
        """
        raise NotImplementedError

    def _interrupted(self, handle: Any) -> int | None:
        """A signal handler raised inside `_attempt`: return the status if that ends it, else None."""
        return None

    def __repr__(self) -> str:
        state = "pending" if self._status == PENDING else f"status={self._status} transferred={self._transferred}"
        return f"<{type(self).__name__} {state}>"


class Completions:
    """How the operations of one source complete, and how their packets and events get to those who wait.

    `lock` is that of the source; it guards all fields, unless said otherwise.
    """

    def __init__(self, pending: Pending, lock: Lock) -> None:
        self.pending = pending
        self._lock = lock
        self.modes = 0
        self.succeeded: int = 0
        # What the engine gives, and what the association brings.
        self.services: SourceServices | None = None
        self.key: Any = None
        self.bound = False
        # Complete operations that are to be delivered. Appended to under lock, taken out by who holds _delivering.
        self.outbox: deque[OverlappedOperation[Any]] = deque()
        # Those whose packets are being handed over, in their order, by who holds _delivering; and how many were before.
        self._handing: list[OverlappedOperation[Any]] = []
        self._handed = 0
        # Taking it is one step of a `for` loop: no signal handler can raise between taking and using it.
        self._delivering = TryLock()
        self._turn = iter(partial(self._delivering.acquire, False), None)

    def attempt_locked(self, operation: OverlappedOperation[Any], device: Device, starting: bool) -> bool:
        """Do what can be done of it now; return whether it is complete. Raises what `device.failures` says."""
        if operation._status != PENDING:
            return True  # A signal handler raised between completing it and taking it out of its queue.
        try:
            status = operation._attempt(device.handle)
        except device.failures:
            raise
        except BaseException:
            status = operation._interrupted(device.handle)
            if status is not None:
                self.complete_locked(operation, status)
            raise
        if status is None:
            return False
        self.complete_locked(operation, status, starting)
        return True

    def complete_locked(self, operation: OverlappedOperation[Any], status: int, synchronous: bool = False) -> None:
        """Record the outcome. The only place where an operation completes."""
        if status == OK:
            self.succeeded += 1
            operation._synchronous = synchronous
            if synchronous and self.modes & SKIP_PORT_ON_SUCCESS:
                operation._silent = True
        if not self.bound:
            operation._silent = True  # No port yet, so no packet, not even later.
        operation._status = status
        self.outbox.append(operation)

    def mute_locked(self, operation: OverlappedOperation[Any]) -> None:
        """Its begin raises: whatever becomes of the operation, there is no packet, and no event is set."""
        operation._silent = True
        operation._events = ()

    def bind_wait(self, operation: OverlappedOperation[Any], services: SourceServices, event: Settable) -> None:
        with self._lock:
            if operation._status != PENDING:
                return
            operation._events += (event,)
        self.pending.be_polled(services)

    def outstanding_locked(self, pending: Iterable[OverlappedOperation[Any]]) -> tuple[int, list[Any]]:
        """How many packets were handed over, and the `overlapped` of each that is still to come, `pending` last."""
        queued = (operation for operation in (*self.outbox, *pending) if not operation._silent)
        return self._handed, [operation.overlapped for operation in dict.fromkeys((*self._handing, *queued))]

    def deliver(self) -> None:
        """Set the events and queue the packets of what has completed, in order, without the lock."""
        for mine in self._turn:
            if not mine:
                break  # The thread that has it looks at the outbox again after letting go.
            try:
                self._deliver_all()
            finally:
                self._delivering.release()
            if not self.outbox:
                break

    def _deliver_all(self) -> None:
        outcomes: list[tuple[Any, Any, Any, int]] = []
        try:
            self._empty_outbox(outcomes)
        finally:
            if outcomes and self.services is not None:
                self.services.deliver(outcomes)
            if outcomes:
                with self._lock:
                    self._handed += len(outcomes)
                    self._handing.clear()

    def _empty_outbox(self, outcomes: list[tuple[Any, Any, Any, int]]) -> None:
        outbox = self.outbox
        while outbox:
            operation = outbox[0]
            if not operation._silent:
                outcome = (self.key, operation._transferred, operation.overlapped, operation._status)
                self._handing.append(operation)
                operation._silent = True  # With the next line as one: a signal handler may raise after it.
                outcomes.append(outcome)
            for event in operation._events:
                try:
                    event.set()
                except BaseException as error:  # It may be of a class of the program's.
                    if is_interrupt(error):
                        raise
                    log.error("the event of %r could not be set", operation, exc_info=error)
            outbox.popleft()


def begun_by(thread: int) -> Callable[[OverlappedOperation[Any]], bool]:
    """Which operations a thread has begun."""
    return lambda operation: operation._thread == thread
