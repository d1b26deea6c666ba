"""What overlapped sources have in common: two queues of operations, and their way to a port.

Theory of operation. A source turns readiness into completion. Operations of one direction queue first in,
first out; `_advance_locked` attempts the heads until nothing moves. It is run by whoever begins an operation,
so that what can be done at once is done there and then, and, once the source has a port or somebody waits for
an operation, by whichever thread waits in the engine: its services poll the source's descriptors and drive it.

    begin --done at once--> complete (a packet too, unless skip-port-on-success)
    begin --not now--> pending --driven--> complete | --cancel, close--> complete, 995
    begin --wrong, or refused by the system at once--> raised: not accepted, no packet

What completes goes to the outbox, under the lock; one thread at a time empties it without the lock, so that
packets reach the port in the order of completion though nothing foreign is called under the lock.

Guarantees: each accepted operation completes once, and then delivers one packet if it is to deliver any; its
attributes are final before that, and its event is set before its packet is queued. Packets of one source are
in the order of completion. A source with pending operations is kept alive, and makes progress though no
thread waits.

Assumes: `append`, `popleft` and indexing of a deque are atomic. Between two bytecodes that call nothing no
signal handler runs: so a status and the entry in the outbox are stored as one, seen from the main thread.

Lock order: the source's lock, then the driver's. Nothing else is taken under it.

Source: "I/O Completion Ports", "SetFileCompletionNotificationModes", "CancelIo", "CancelIoEx"; sections 2, 7,
8 and 10 of `docs/semantics/completion-port.md`.
"""

import weakref
from _thread import get_ident
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Lock as TryLock
from typing import Any, Final, TypeVar

import msgspec

from transport.errors import (
    InvalidOperation,
    OperationFailed,
    OperationNotFound,
    SourceClosed,
    SourceForked,
    TooManyOperations,
)
from transport.foreign import is_interrupt, shown
from transport.lifecycle import Closeable, in_child
from transport.lock import Lock
from transport.log import Log
from transport.overlapped.operation import OK, OPERATION_ABORTED, PENDING, OverlappedOperation, Settable
from transport.overlapped.services import Hook, SourceServices

log: Log = Log("transport.overlapped")

#: Modes of a source, see `OverlappedSource.set_completion_modes`.
SKIP_PORT_ON_SUCCESS: Final = 1
SKIP_SET_EVENT_ON_HANDLE: Final = 2

#: How many operations may be pending on a source unless the caller says otherwise. Arbitrary: well above what
#: one thread keeps in flight, and 1 MB of operations at most.
DEFAULT_LIMIT: Final = 1024

#: Operations that one drive completes before other sources have their turn.
_BATCH: Final = 64

INPUT: Final = 1
OUTPUT: Final = 2


class _Every:
    """The type of `EVERY`."""

    def __repr__(self) -> str:
        return "EVERY"


EVERY: Final[Any] = _Every()

AnyOperation = TypeVar("AnyOperation", bound=OverlappedOperation[Any])


class SourceStatistics(msgspec.Struct, frozen=True):
    """A snapshot: accepted = pending + succeeded + failed; cancelled operations count as failed."""

    accepted: int
    pending: int
    succeeded: int
    failed: int


class OverlappedSource(Closeable):
    """Base of the sources: something whose operations are begun now and complete later, as packets.

    Associate it with a port, `port.associate(source, key)`: once, for its life. From then on each operation
    that it accepts delivers exactly one packet: `key`, the bytes transferred, the operation (or the caller's
    own `overlapped`), and its status. That includes what is pending at that time. Before that nobody polls, so
    that what cannot be done at once waits for the association or the next `begin_...`; but a wait of the engine
    for an operation, `wait_any([operation], timeout)`, has the source polled from then on, port or not.

    Args that every `begin_...` method takes:
        overlapped: any value, for the packet and for `cancel`; the operation object unless given.
        event: an object with a method `set`, called when the operation completes, before its packet is
            queued. The caller makes it nonsignaled before it begins.
        packet: False: this operation delivers no packet, only its event tells.

    What every `begin_...` method does:
        Returns: the operation, which was accepted: done already (`completed_synchronously`), or pending.
        Raises: `InvalidOperation` (87) for arguments that cannot be right, and 50 for what this source
            cannot do; `TooManyOperations` (1816) at the limit, or if the port's capacity of packets is
            queued; `SourceClosed` (6); `OperationFailed` with the system's reason if the start fails at once.
            Then nothing was begun, and no packet comes.
        Blocks: never.

    The source takes its object over: use that through `exclusive` only, until `close` (which closes it too)
    or `detach` (which gives it back). It is a context manager. One that is dropped open is reported as a
    `ResourceWarning`.

    Threads: every method may be called from any thread. Not for signal handlers and finalizers: there they raise
        `LocalProtocolError` if their thread was interrupted under the source's lock.
    """

    _instead = "make one there, of what it was made of"

    # What `_attempt` and `_ready_locked` may raise because the system said no.
    _failures: tuple[type[Exception], ...] = (OSError,)
    # Statuses by which the other end, not the call, is to blame: an outcome, even if known at once.
    _outcomes: frozenset[int] = frozenset()

    def __init__(self, limit: int) -> None:
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise InvalidOperation(f"limit must be a positive int, not {shown(limit)}")
        self._lock = Lock()
        # All below: guarded by _lock, unless said otherwise. Accepted operations that are not complete.
        self._input: deque[OverlappedOperation[Any]] = deque()
        self._output: deque[OverlappedOperation[Any]] = deque()
        self._limit = limit
        self._modes = 0
        self._closed = False
        self._forked = False
        self._released = False
        # While the object is lent by `exclusive`: read by whoever drives, without the lock.
        self._lent = False
        # The object that operations use was found unusable: `close` is due.
        self._lost = False
        self._accepted = 0
        self._succeeded = 0
        # What the engine gives, and what the association brings.
        self._services: SourceServices | None = None
        self._key: Any = None
        self._bound = False
        # What is polled; None until the association, or until somebody waits for an operation.
        self._hook: Hook | None = None
        self._attended = False
        # Complete operations that are to be told of. Appended to under _lock, taken out by who holds _telling.
        self._outbox: deque[OverlappedOperation[Any]] = deque()
        # Whose packets are being handed over, in their order, by who holds _telling; and how many were, before these.
        self._handing: list[OverlappedOperation[Any]] = []
        self._handed = 0
        # Taking it is one step of a `for` loop: no signal handler can raise between taking and using it.
        self._telling = TryLock()
        self._tell = iter(partial(self._telling.acquire, False), None)
        _open_sources.add(self)

    # For the engine

    def bind_services(self, services: SourceServices) -> None:
        """For the port only: take what it gives. Called just before `bind_port`."""
        self._services = services

    def bind_port(self, port: Any, key: Any) -> None:
        """For the port only: call `port.associate(source, key)` instead."""
        services = self._services
        if services is None:
            raise InvalidOperation("associate the source by `port.associate(source, key)`")
        with self._lock:
            self._require_open_locked()
            self._key = key
            self._bound = True
        try:
            self._be_polled(services)
        except BaseException:
            self._bound = False
            raise

    def outstanding(self) -> tuple[int, list[Any]]:
        """For the engine: how many packets were handed over, and the `overlapped` of each that is still to come.

        Those that are just being handed over count as still to come, and are the first.
        """
        with self._lock:
            return self._handed, self._coming_locked()

    def _coming_locked(self) -> list[Any]:
        queued = (operation for operation in (*self._outbox, *self._input, *self._output) if not operation._silent)
        return [operation.overlapped for operation in dict.fromkeys((*self._handing, *queued))]

    def _bind_wait(self, operation: OverlappedOperation[Any], services: SourceServices, event: Settable) -> None:
        """Somebody is going to wait for the operation: have `event` set when it completes."""
        with self._lock:
            if operation._status != PENDING:
                return
            operation._events += (event,)
        self._be_polled(services)

    def _be_polled(self, services: SourceServices) -> None:
        """Have the descriptors polled from now on, if they are not."""
        with self._lock:
            if self._hook is not None or self._closed:
                return
            if self._services is None:
                self._services = services
            hook = self._hook = Hook(self, services, self._descriptors())
        try:
            services.register(hook)
            with self._lock:
                self._hold_locked()
                closed = self._closed
        except BaseException as error:
            with self._lock:
                self._hook = None
                self._attended = False
            services.unregister(hook)
            if isinstance(error, OSError):
                raise TooManyOperations(f"{self!r} cannot be polled now: {error}") from error
            raise
        if closed:
            services.unregister(hook)

    @property
    def closed(self) -> bool:
        """Whether it was closed, given back by `detach`, or found unusable."""
        return self._closed

    @property
    def modes(self) -> int:
        """The modes that are set: `SKIP_PORT_ON_SUCCESS`, `SKIP_SET_EVENT_ON_HANDLE` or both, else 0."""
        return self._modes

    def set_completion_modes(self, modes: int) -> None:
        """Set modes, which stay: those that are not given again stay set too.

        Args: `modes` is an or of `SKIP_PORT_ON_SUCCESS` (1): an operation that succeeds at once delivers no
            packet; and `SKIP_SET_EVENT_ON_HANDLE` (2), which is remembered and changes nothing: a source has
            no event of its own, and an operation's event is set in any case.
        Operations that are pending deliver their packets all the same.
        Raises: `InvalidOperation` (87) for another bit; `SourceClosed`.
        Source: "SetFileCompletionNotificationModes".
        """
        if not isinstance(modes, int) or modes & ~(SKIP_PORT_ON_SUCCESS | SKIP_SET_EVENT_ON_HANDLE):
            raise InvalidOperation(f"modes must be an or of the SKIP_... constants, not {shown(modes)}")
        with self._lock:
            self._require_open_locked()
            self._modes |= modes

    # Cancelling

    def cancel(self, overlapped: Any = EVERY) -> None:
        """Ask for pending operations to end: those that carry `overlapped`, or every one.

        Args: `overlapped` is what was given to `begin_...`, or an operation. Objects are told apart by
            identity; numbers, texts and bytes by value. Two operations with the same one are both cancelled.
        Each completes with 995 (OPERATION_ABORTED) here and now, and delivers its packet. What was complete
        stays so: its packet comes, or has come.
        Raises: `OperationNotFound` (1168) if nothing is pending that it is about; `SourceClosed`.
        Source: "CancelIoEx". Different from Windows, where 995 is one of three ways to end.
        """
        self._cancel(None if overlapped is EVERY else partial(_carries, overlapped))

    def cancel_own(self) -> int:
        """Ask for the pending operations that the calling thread began to end; return how many there were.

        To find none is no error. Otherwise as `cancel`. Source: "CancelIo".
        """
        me = get_ident()
        return self._cancel(lambda operation: operation._thread == me, required=False)

    def _cancel_operation(self, wanted: OverlappedOperation[Any]) -> None:
        self._cancel(lambda operation: operation is wanted)

    def _pending_locked(self, chosen: Any) -> list[Any]:
        return [
            operation
            for operation in (*self._input, *self._output)
            if operation._status == PENDING and (chosen is None or chosen(operation))
        ]

    def _cancel(self, chosen: Any, required: bool = True) -> int:
        try:
            with self._lock:
                self._require_open_locked()
                found = self._pending_locked(chosen)
                if required and not found:
                    raise OperationNotFound("nothing is pending that this cancel is about")
                self._abort_locked(found)
                self._hold_locked()
        finally:
            self._settle()
        return len(found)

    def _abort_locked(self, operations: Iterable[OverlappedOperation[Any]]) -> None:
        for operation in operations:
            self._complete_locked(operation, OPERATION_ABORTED)
        for queue in (self._input, self._output):
            for operation in list(queue):
                if operation._status != PENDING:
                    queue.remove(operation)

    # Beginning

    def _begin(self, operation: AnyOperation, queue: deque[OverlappedOperation[Any]]) -> AnyOperation:
        """Accept the operation, and do it if that is possible now."""
        try:
            with self._lock:
                self._require_open_locked()
                self._require_room_locked()
                try:
                    queue.append(operation)
                    # Behind others it has to wait, and the descriptors will tell of its time; while they are
                    # not polled nobody would hear them.
                    if queue[0] is operation or self._hook is None:
                        self._advance_locked(operation)
                    self._hold_locked()
                    self._accepted += 1
                except BaseException:
                    self._disown_locked(operation, queue)
                    raise
        finally:
            self._settle()
        return operation

    def _require_room_locked(self) -> None:
        pending = len(self._input) + len(self._output)
        if pending >= self._limit:
            raise TooManyOperations(f"{pending} operations are pending: wait for some, or make `limit` larger")
        if self._hook is not None and self._services is not None and self._services.full():
            raise TooManyOperations("the port is full of packets: dequeue faster, or make its `capacity` larger")

    def _disown_locked(self, operation: OverlappedOperation[Any], queue: deque[OverlappedOperation[Any]]) -> None:
        """The begin raises: whatever becomes of the operation, its caller will not be told."""
        operation._silent = True
        operation._events = ()
        if operation._status != PENDING:
            self._accepted += 1
        elif operation in queue:
            queue.remove(operation)

    # Progress

    def _advance_locked(self, starting: OverlappedOperation[Any] | None = None) -> bool:
        """Attempt what may be possible, until nothing is; return whether there may be more.

        `starting` is being begun: if it fails, the failure is raised, and there is no bound.
        """
        try:
            return self._attempt_locked(starting)
        except OperationFailed:
            raise
        except BaseException:  # A signal handler raised: what was seen to be there may be seen no more.
            if self._hook is not None and self._services is not None:
                self._services.due(self._hook)
            raise

    def _attempt_locked(self, starting: OverlappedOperation[Any] | None) -> bool:
        failure: OperationFailed | None = None
        moved = True
        rounds = 0
        while moved and (self._input or self._output):
            if rounds == _BATCH and starting is None:
                return True
            moved = False
            rounds += 1
            try:
                ready = self._ready_locked()
            except self._failures as error:
                self._lose_locked(error, starting)
                return False
            for bit, queue in ((INPUT, self._input), (OUTPUT, self._output)):
                if not queue or not ready & bit:
                    continue
                operation = queue[0]
                status: int | None = operation._status
                if status == PENDING:
                    try:
                        status = operation._attempt(self._handle)
                    except self._failures as error:
                        if self._is_fatal(error):
                            self._lose_locked(error, starting)
                            return False
                        status = self._status_of(error)
                        if operation is starting and status not in self._outcomes:
                            failure = OperationFailed(f"the operation could not be begun: {error}", status=status)
                            failure.__cause__ = error
                            queue.popleft()
                            moved = True
                            continue
                    except BaseException:
                        status = operation._interrupted(self._handle)
                        if status is not None:
                            self._complete_locked(operation, status)
                        raise
                    if status is None:
                        continue
                    self._complete_locked(operation, status, operation is starting)
                # Else a signal handler raised between completing it and this.
                queue.popleft()
                moved = True
        if failure is not None:
            raise failure
        return False

    def _complete_locked(self, operation: OverlappedOperation[Any], status: int, synchronous: bool = False) -> None:
        """Record the outcome. The only place where an operation completes."""
        if status == OK:
            self._succeeded += 1
            operation._synchronous = synchronous
            if synchronous and self._modes & SKIP_PORT_ON_SUCCESS:
                operation._silent = True
        if not self._bound:
            operation._silent = True  # No port yet, so no packet, not even later.
        operation._status = status
        self._outbox.append(operation)

    def _hold_locked(self) -> None:
        """While something is pending: stay alive, and have it attended to."""
        hook, services = self._hook, self._services
        if hook is None or services is None:
            return
        pending = bool(self._input or self._output)
        hook.pin = self if pending else None
        self._watch_locked()
        if pending is not self._attended:
            self._attended = pending
            services.attend(hook, pending)

    def _drive(self, readable: bool) -> bool:
        """A waiting thread's turn to see what can be done; return whether there may be more."""
        more = False
        if self._lent:
            return False  # What is there stays there, and other sources must not wait for the one who has the object.
        try:
            with self._lock:
                if not self._closed:
                    try:
                        self._woken_locked()
                    except self._failures as error:
                        self._lose_locked(error)
                    else:
                        more = self._advance_locked()
                    self._hold_locked()
        finally:
            self._settle()
        return more

    def _settle(self) -> None:
        """Tell of what has completed, in order, without the lock; close what was found unusable."""
        if self._outbox:
            for mine in self._tell:
                if not mine:
                    break  # The thread that has it looks at the outbox again after letting go.
                try:
                    self._tell_all()
                finally:
                    self._telling.release()
                if not self._outbox:
                    break
        if self._lost and not self._released:
            self.close()

    def _tell_all(self) -> None:
        outcomes: list[tuple[Any, Any, Any, int]] = []
        try:
            self._empty_outbox(outcomes)
        finally:
            if outcomes and self._services is not None:
                self._services.deliver(outcomes)
            if outcomes:
                with self._lock:
                    self._handed += len(outcomes)
                    self._handing.clear()

    def _empty_outbox(self, outcomes: list[tuple[Any, Any, Any, int]]) -> None:
        outbox = self._outbox
        while outbox:
            operation = outbox[0]
            if not operation._silent:
                outcome = (self._key, operation._transferred, operation.overlapped, operation._status)
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

    # End

    def close(self) -> None:
        """Close the source and its object: what is pending completes with 995, once each.

        A port that it was associated with stays open. Closing twice does nothing. Blocks: never.
        Source: "CloseHandle". Different from Windows: 995 for a pipe's end too.
        """
        self._end(close=True)

    def _end(self, close: bool) -> None:
        """Stop being a source. Each step may be repeated: a signal handler may have raised in the last one."""
        with self._lock:
            if self._released:
                return
            self._closed = True
            self._abort_locked([*self._input, *self._output])
            hook = self._hook
            if hook is not None:
                hook.pin = None
        if hook is not None and self._services is not None:
            self._services.unregister(hook)
        try:
            with self._lock:
                if not self._released:
                    self._release_locked(close)
                    self._released = True
            _open_sources.discard(self)
        finally:
            self._settle()

    def _lose_locked(self, error: Exception, starting: OverlappedOperation[Any] | None = None) -> None:
        """The object is unusable for good: everything fails. The caller settles, which closes the source."""
        self._closed = self._lost = True
        queued = [each for each in (*self._input, *self._output) if each is not starting]
        self._input.clear()
        self._output.clear()
        self._abort_locked(queued)
        if starting is not None:
            raise SourceClosed(f"{self!r} cannot be used any more: {error}") from error

    def _require_open_locked(self) -> None:
        if self._forked:
            raise SourceForked(f"{self!r} was made by the parent process: make one in this process")
        if self._closed:
            raise SourceClosed(f"{self!r} is closed")

    def _fork(self) -> None:
        """In the child: the polls are the parent's."""
        self._closed = self._forked = self._released = True
        self._hook = None
        self._input.clear()
        self._output.clear()
        self._outbox.clear()

    def statistics(self) -> SourceStatistics:
        """Return a consistent snapshot of the source's numbers. Never blocks."""
        with self._lock:
            pending = len(self._input) + len(self._output)
            failed = self._accepted - self._succeeded - pending
            return SourceStatistics(self._accepted, pending, self._succeeded, failed)

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"pending={len(self._input) + len(self._output)}"
        return f"<{type(self).__name__} {state}>"

    def _dropped_open(self) -> str:
        return "" if getattr(self, "_closed", True) else repr(self)

    @contextmanager
    def _exclusive(self, thing: Any) -> Iterator[Any]:
        """Lend the object, under the lock; what was used up of its readiness is made good afterwards."""
        try:
            with self._lock:
                self._require_open_locked()
                try:
                    self._lent = True
                    yield thing
                finally:
                    self._lent = False
                    if self._input or self._output:
                        self._advance_locked()
                    self._hold_locked()
        finally:
            self._settle()

    # What the kinds of sources add

    #: Handed to `OverlappedOperation._attempt`.
    _handle: Any

    def _descriptors(self) -> Sequence[int]:
        """What to poll for readability, the same for the source's life."""
        raise NotImplementedError

    def _ready_locked(self) -> int:
        """Which directions are worth an attempt: an or of `INPUT` and `OUTPUT`."""
        raise NotImplementedError

    def _woken_locked(self) -> None:
        """A descriptor was seen to be readable, perhaps: if nobody wants that, let it be so no longer."""
        raise NotImplementedError

    def _watch_locked(self) -> None:
        """What is pending may have changed: see to it that the descriptors tell of it."""

    def _is_fatal(self, error: Exception) -> bool:
        """Whether the object itself is unusable for good."""
        raise NotImplementedError

    def _status_of(self, error: Exception) -> int:
        """The Windows number for what the system said."""
        raise NotImplementedError

    def _release_locked(self, close: bool) -> None:
        """Let go of the object, which nobody polls any more; close it too if asked to."""
        raise NotImplementedError


def _carries(wanted: Any, operation: OverlappedOperation[Any]) -> bool:
    carried = operation.overlapped
    if carried is wanted or operation is wanted:
        return True
    return type(carried) is type(wanted) and isinstance(wanted, int | str | bytes) and bool(carried == wanted)


# Sources to disable in a forked child. Guarded by nothing but the atomicity of adding and discarding.
_open_sources: "weakref.WeakSet[OverlappedSource]" = weakref.WeakSet()


def _disown() -> None:
    for source in list(_open_sources):
        source._fork()
    _open_sources.clear()


in_child(_disown)
