"""The operations of a source that are pending: begun, attempted, cancelled.

Theory of operation. A source turns readiness into completion. Operations of one direction queue first in, first out;
`advance_locked` attempts the heads until nothing moves. It is run by the thread that begins an operation, so that what
can be done at once is done there and then, and, once the source has a port or a thread waits for an operation, by
whichever thread waits in the engine: its services poll the descriptors of the device and drive the operations.

    begin --done at once--> complete (a packet too, unless skip-port-on-success)
    begin --not now--> pending --driven--> complete | --cancel, close--> complete, 995
    begin --wrong, or refused by the system at once--> raised: not accepted, no packet

Guarantees: a source with pending operations is kept alive, and makes progress though no thread waits.

Source: "I/O Completion Ports", "CancelIo", "CancelIoEx"; sections 2, 7, 8 and 10 of
`docs/semantics/completion-port.md`.
"""

import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from transport.errors import (
    InvalidOperation,
    OperationFailed,
    OperationNotFound,
    SourceClosed,
    SourceForked,
    TooManyOperations,
)
from transport.foreign import type_name
from transport.lifecycle import in_child
from transport.lock import Lock
from transport.overlapped.operation import (
    INPUT,
    OPERATION_ABORTED,
    OUTPUT,
    Completions,
    Device,
    Hook,
    OperationSource,
    OverlappedOperation,
    SourceServices,
)

# Operations that one drive completes before other sources have their turn.
_BATCH: Final = 64

Chosen = Callable[[OverlappedOperation[Any]], bool]
AnyOperation = TypeVar("AnyOperation", bound=OverlappedOperation[Any])


class PendingOperations:
    """The operations of one source, from their begin to their completion.

    Args: `limit` is how many may be pending.
    """

    def __init__(self, source: OperationSource, device: Device, limit: int) -> None:
        self._source = weakref.ref(source)
        self._name = type_name(source)
        self._device = device
        self._limit = limit
        self.lock: Lock = Lock()
        self.completions: Completions = Completions(self, self.lock)
        # All below: guarded by lock, unless said otherwise. Accepted operations that are not complete.
        self.input: deque[OverlappedOperation[Any]] = deque()
        self.output: deque[OverlappedOperation[Any]] = deque()
        self.accepted: int = 0
        self.closed: bool = False
        self._forked = False
        self._released = False
        # While the object is lent: read by the thread that drives, without the lock.
        self._lent = False
        # The device was found unusable: `end` is due.
        self._lost = False
        # What is polled; None until the association, or until a thread waits for an operation.
        self._hook: Hook | None = None
        self._attended = False
        _open.add(self)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"pending={len(self.input) + len(self.output)}"
        return f"<{self._name} {state}>"

    def _wanted_locked(self) -> int:
        return (INPUT if self.input else 0) | (OUTPUT if self.output else 0)

    def bind_port(self, key: Any) -> None:
        """Have packets delivered, with `key`."""
        done = self.completions
        if done.services is None:
            raise InvalidOperation("associate the source by `port.associate(source, key)`")
        with self.lock:
            self.require_open_locked()
            done.key = key
            done.bound = True
        try:
            self.be_polled(done.services)
        except BaseException:
            done.bound = False
            raise

    def be_polled(self, services: SourceServices) -> None:
        """Have the descriptors polled from now on, if they are not."""
        with self.lock:
            if self._hook is not None or self.closed:
                return
            if self.completions.services is None:
                self.completions.services = services
            hook = self._hook = Hook(self, services, self._device.descriptors())
        try:
            services.register(hook)
            with self.lock:
                self.hold_locked()
                closed = self.closed
        except BaseException as error:
            with self.lock:
                self._hook = None
                self._attended = False
            services.unregister(hook)
            if isinstance(error, OSError):
                raise TooManyOperations(f"{self!r} cannot be polled now: {error}") from error
            raise
        if closed:
            services.unregister(hook)

    def _pending_locked(self, chosen: Chosen | None) -> list[OverlappedOperation[Any]]:
        return [
            operation
            for operation in (*self.input, *self.output)
            if not operation.done and (chosen is None or chosen(operation))
        ]

    def cancel(self, chosen: Chosen | None, required: bool = True) -> int:
        """End those that are `chosen`, all if None; return how many there were."""
        try:
            with self.lock:
                self.require_open_locked()
                found = self._pending_locked(chosen)
                if required and not found:
                    raise OperationNotFound("nothing is pending that this cancel is about")
                self._abort_locked(found)
                self.hold_locked()
        finally:
            self.finish()
        return len(found)

    def _abort_locked(self, operations: Iterable[OverlappedOperation[Any]]) -> None:
        for operation in operations:
            self.completions.complete_locked(operation, OPERATION_ABORTED)
        for queue in (self.input, self.output):
            for operation in list(queue):
                if operation.done:
                    queue.remove(operation)

    def begin(self, operation: AnyOperation, queue: deque[OverlappedOperation[Any]]) -> AnyOperation:
        """Accept the operation, and do it if that is possible now."""
        try:
            with self.lock:
                self.require_open_locked()
                self._require_room_locked()
                try:
                    queue.append(operation)
                    # Behind others it has to wait, and the descriptors will show when its time has come; but only
                    # if they are polled.
                    if queue[0] is operation or self._hook is None:
                        self.advance_locked(operation)
                    self.hold_locked()
                    self.accepted += 1
                except BaseException:
                    self._disown_locked(operation, queue)
                    raise
        finally:
            self.finish()
        return operation

    def _require_room_locked(self) -> None:
        pending = len(self.input) + len(self.output)
        if pending >= self._limit:
            raise TooManyOperations(f"{pending} operations are pending: wait for some, or make `limit` larger")
        if self._hook is not None and self.completions.services is not None and self.completions.services.full():
            raise TooManyOperations("the port is full of packets: dequeue faster, or make its `capacity` larger")

    def _disown_locked(self, operation: OverlappedOperation[Any], queue: deque[OverlappedOperation[Any]]) -> None:
        """The begin raises: whatever becomes of the operation, its caller gets no packet and no event."""
        self.completions.mute_locked(operation)
        if operation.done:
            self.accepted += 1
        elif operation in queue:
            queue.remove(operation)

    def advance_locked(self, starting: OverlappedOperation[Any] | None = None) -> bool:
        """Attempt what may be possible, until nothing is; return whether there may be more.

        `starting` is being begun: if it fails, the failure is raised, and there is no bound.
        """
        try:
            return self._attempt_locked(starting)
        except OperationFailed:
            raise
        except BaseException:  # A signal handler raised: what was seen to be there may be seen no more.
            if self._hook is not None and self.completions.services is not None:
                self.completions.services.schedule(self._hook)
            raise

    def _attempt_locked(self, starting: OverlappedOperation[Any] | None) -> bool:
        device = self._device
        failure: OperationFailed | None = None
        moved = True
        rounds = 0
        while moved and (self.input or self.output):
            if rounds == _BATCH and starting is None:
                return True
            moved = False
            rounds += 1
            try:
                ready = device.ready()
            except device.failures as error:
                self._lose_locked(error, starting)
                return False
            for bit, queue in ((INPUT, self.input), (OUTPUT, self.output)):
                if not queue or not ready & bit:
                    continue
                operation = queue[0]
                try:
                    if not self.completions.attempt_locked(operation, device, operation is starting):
                        continue
                except device.failures as error:
                    if device.is_fatal(error):
                        self._lose_locked(error, starting)
                        return False
                    status = device.status_of(error)
                    if operation is starting and status not in device.outcomes:
                        failure = OperationFailed(f"the operation could not be begun: {error}", status=status)
                        failure.__cause__ = error
                    else:
                        self.completions.complete_locked(operation, status)
                queue.popleft()
                moved = True
        if failure is not None:
            raise failure
        return False

    def hold_locked(self) -> None:
        """While something is pending: stay alive, and have it attended to."""
        hook, services = self._hook, self.completions.services
        if hook is None or services is None:
            return
        pending = bool(self.input or self.output)
        hook.pin = self._source() if pending else None
        self._device.watch(self._wanted_locked())
        if pending is not self._attended:
            self._attended = pending
            services.needs_progress(hook, pending)

    def drive(self, readable: bool) -> bool:
        """A waiting thread's turn to see what can be done; return whether there may be more."""
        more = False
        if self._lent:
            return False  # What is there stays there, and other sources must not wait for the one who has the object.
        try:
            with self.lock:
                if not self.closed:
                    try:
                        self._device.woken(self._wanted_locked())
                    except self._device.failures as error:
                        self._lose_locked(error)
                    else:
                        more = self.advance_locked()
                    self.hold_locked()
        finally:
            self.finish()
        return more

    def finish(self) -> None:
        """Deliver what has completed; close what was found unusable. Without the lock."""
        if self.completions.outbox:
            self.completions.deliver()
        if self._lost and not self._released:
            self.end(close=True)

    def end(self, close: bool) -> None:
        """Stop being a source. Each step may be repeated: a signal handler may have raised in the last one.

        Args: close: the object too, and a source that is closed already is left so; else that raises `SourceClosed`.
        """
        with self.lock:
            if not close:
                self.require_open_locked()
            if self._released:
                return
            self.closed = True
            self._abort_locked([*self.input, *self.output])
            hook = self._hook
            if hook is not None:
                hook.pin = None
        if hook is not None and self.completions.services is not None:
            self.completions.services.unregister(hook)
        try:
            with self.lock:
                if not self._released:
                    self._device.release(close)
                    self._released = True
            _open.discard(self)
        finally:
            self.finish()

    def _lose_locked(self, error: Exception, starting: OverlappedOperation[Any] | None = None) -> None:
        """The object is unusable for good: everything fails. The caller calls `finish`, which closes the source."""
        self.closed = self._lost = True
        queued = [each for each in (*self.input, *self.output) if each is not starting]
        self.input.clear()
        self.output.clear()
        self._abort_locked(queued)
        if starting is not None:
            raise SourceClosed(f"{self!r} cannot be used any more: {error}") from error

    def require_open_locked(self) -> None:
        if self._forked:
            raise SourceForked(f"{self!r} was made by the parent process: make one in this process")
        if self.closed:
            raise SourceClosed(f"{self!r} is closed")

    def statistics(self) -> tuple[int, int, int, int]:
        """How many were accepted, are pending, have succeeded, have failed."""
        with self.lock:
            pending = len(self.input) + len(self.output)
            succeeded = self.completions.succeeded
            return self.accepted, pending, succeeded, self.accepted - succeeded - pending

    @contextmanager
    def lend(self, thing: Any) -> Iterator[Any]:
        """Lend the object, under the lock; what was used up of its readiness is made good afterwards."""
        try:
            with self.lock:
                self.require_open_locked()
                try:
                    self._lent = True
                    yield thing
                finally:
                    self._lent = False
                    if self.input or self.output:
                        self.advance_locked()
                    self.hold_locked()
        finally:
            self.finish()

    def fork(self) -> None:
        """In the child: the polls are the parent's."""
        self.closed = self._forked = self._released = True
        self._hook = None
        self.input.clear()
        self.output.clear()
        self.completions.outbox.clear()


# Those to disable in a forked child. Guarded by nothing but the atomicity of adding and discarding.
_open: "weakref.WeakSet[PendingOperations]" = weakref.WeakSet()


def _disown() -> None:
    for pending in list(_open):
        pending.fork()
    _open.clear()


in_child(_disown)
