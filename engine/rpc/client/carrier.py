"""Beginning calls, and what calls and their pipes ask of the connection that carries them.

Theory of operation. Beginning a call enters it in the table of its connection and appends it to the outbox; neither
takes a lock. It leaves at once, or waits to be batched; see `connection.py`, and there what orders these steps. A call
that was accepted knows its carrier: through it a thread or task waits for the outcome, and cancels the call. Ending a
call takes it out of the connection's table; then the server is notified.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec

from transport import Buffer
from transport.frames import CallOptions, Cancel, CancelledCall
from transport.realtime import monotonic
from transport.wire.codec import DEFERRABLE_BYTES, PendingCall, deferrable, encode
from transport.wire.conversation import ConversationState

from ...errors import CallError, Forked, InvalidHandle, QueueFull
from ...kernel.aio import Completion
from ...kernel.checks import check_timeout
from ...kernel.driver import driver
from ...kernel.notification import Notification
from ...kernel.packet import PacketTemplate
from .. import serving
from ..call import (
    Call,
    adopt,
    ask_to_end_locked,
    carried_by,
    carrier_of,
    carrying,
    handle_of,
    is_elsewhere_locked,
    limit,
    withdraw_locked,
)
from ..channel import Channel
from ..contract.spec import OperationSpec
from ..errors import CallCancelled, CallFailed, CallFailedDne, CallTimeout
from ..notify import snapshot
from ..pipes.shipment import Shipment
from ..state import Failure, State
from ..wire_types import check_metadata
from .buffers import filling
from .call_table import CallTable, perform
from .connection import Connection
from .elsewhere import Elsewhere
from .homes import homed
from .outbox import LoneMessage, Outbox, encode_eagerly
from .session import EndpointSession

# What begins calls, as `Carrier.begin` does.
Begin = Callable[..., Call[Any]]

_LEAVING = ConversationState.LEAVING
_PENDING = int(State.PENDING)
_NIL = msgspec.Raw(b"\xc0")


class Carrier:
    """Begins and carries the calls of one client, on one connection.

    Args:
        timeout: of calls that have none of their own, in seconds, and `max_calls`: see `Client`.
        ids: the numbers of calls, which are unique among the connections of a client.
        pinned: its calls never go to another server.
    """

    def __init__(
        self, connection: Connection, timeout: float | None, max_calls: int, ids: Iterator[int], pinned: bool = False
    ) -> None:
        self.pinned: bool = pinned
        self.connection: Connection = connection
        # Its parts, at hand.
        self.table: CallTable = connection.table
        self.session: EndpointSession = connection.session
        self.outbox: Outbox = connection.outbox
        self._outbox = self.outbox
        self._retries = connection.retries
        self._awaiting = connection.awaiting
        self.channel: Channel = connection.channel
        self.silence: Callable[[], str] = connection.silence
        self._timeout = timeout
        self._max_calls = max_calls
        self._ids = ids
        self._decorated = False

    # Beginning

    def decorate(self, wrap: Callable[[Begin], Begin]) -> None:
        """Have calls of bindings that are made from now on begun by `wrap(begin)`, and none by a way past it."""
        self.begin = wrap(self.begin)  # type: ignore[method-assign]  # on this instance only
        self._decorated = True

    def begin(  # a hot path
        self, spec: OperationSpec, args: tuple[Any, ...], kwargs: dict[str, Any] | None, notify: Any,
        timeout: float | None, metadata: dict[str, str] | None, handle: Call[Any] | None, pipes: Any = None,
    ) -> Call[Any]:  # fmt: skip
        """Accept a call, or raise. `BoundOperation.begin` describes the arguments; a call with `pipes` has a handle."""
        # Hot path: flat, and without a lock, as this runs for every call.
        if kwargs or (type(args[0]) is not spec.only if len(args) == 1 else tuple(map(type, args)) != spec.exact):
            args = spec.arrange(args, kwargs or {})
        if notify is not None and type(notify) is not PacketTemplate:
            notify = snapshot(notify)
        if timeout is None:
            timeout = self._timeout
        else:
            timeout = check_timeout(timeout)
        if metadata is not None:
            metadata = check_metadata(metadata)
        connection, session = self.connection, self.session
        calls, queue = self.table.calls, self._outbox.queue
        if serving.serving and (outer := serving.current.get()) is not None:
            timeout, metadata = serving.inherit(outer, timeout, metadata, connection.metadata)
        if handle is not None:
            handle = handle_of(handle)
        if session.state is _LEAVING:
            raise self._closed_error()
        if len(calls) >= self._max_calls:
            raise QueueFull(f"{len(calls)} calls are outstanding, max_calls allows no more: complete some first")
        options = None
        if timeout is not None or metadata is not None or spec.special:
            options = CallOptions(
                time_left=timeout, metadata=metadata, lane=spec.lane, one_way=spec.one_way, pipes=spec.directions
            )
        call_id = next(self._ids)
        pending: PendingCall | LoneMessage
        if (spec.only is bytes and type(args[0]) is bytes and len(args[0]) <= DEFERRABLE_BYTES) or deferrable(args):
            pending = (call_id, spec.target, args, options)
            due = False
        else:
            pending, due = encode_eagerly(session.limit, spec, call_id, args, options)
        if handle is None:
            call: Call[Any] = Call(None, self, spec, notify, call_id, _PENDING, pending)
        else:
            call = handle
            adopt(call, self, spec, notify, call_id, pending, pipes)
        calls[call_id] = call
        queue.append(pending)
        needs_driver = notify is not None and notify.needs_driver
        if not session.is_open or timeout is not None or spec.one_way or needs_driver:
            self._accepted(call, call_id, spec, notify, timeout)
        if due or len(queue) > self._outbox.batch_threshold:
            self.channel.flush()
        elif not self.channel.deferred:
            self.channel.defer()
        return call

    def place(self) -> "Carrier":
        """Return the carrier of calls that stay with one server: see `Balancer`."""
        return self

    def bound(self, operation: object) -> None:
        """Nothing: an operation of a binding stays with its carrier."""

    def prepared(self, spec: OperationSpec) -> OperationSpec:
        """Return how calls of `spec` are written and read here."""
        return spec if self.connection.elsewhere is None else homed(spec, self)

    def begin_usual(self, spec: OperationSpec) -> Callable[..., Call[Any]]:
        """Return what does for calls of one operation what `BoundOperation.begin` does, in the shortest way."""
        shortcut = self.shortcut(spec)
        if shortcut is not None:
            return shortcut

        def begin_any(*args: Any, notify: Any = None, handle: Call[Any] | None = None, **more: Any) -> Call[Any]:
            return self._begin_unusual(spec, args, notify, handle, **more)

        return begin_any

    def shortcut(self, spec: OperationSpec) -> Callable[..., Call[Any]] | None:
        """Return what does for the usual call what `BoundOperation.begin` does for any, in two thirds of the time; None
        if no call of the operation is usual.

        What does not change from call to call is looked up once. A call that needs more than a place in the table and
        in the queue goes the long way. The steps, and their order, are those of `begin`.
        """
        if spec.special or spec.outputs or self._timeout is not None or self._decorated:
            return None
        ids, most, connection, session, table = self._ids, self._max_calls, self.connection, self.session, self.table
        channel, flush, outbox, calls, lock = self.channel, self.channel.flush, self._outbox, table.calls, table.lock
        queue, current, task_call = outbox.queue, serving.current, serving.task_call
        target, exact, only, typed = spec.target, spec.exact, spec.only, spec.signature is not None
        short, unusual = DEFERRABLE_BYTES if only is bytes else -1, self._begin_unusual

        def begin_usual(*args: Any, notify: Any = None, handle: Call[Any] | None = None, **more: Any) -> Call[Any]:
            if (
                more
                or not session.is_open
                or len(calls) >= most
                or (typed and (type(args[0]) is not only if len(args) == 1 else tuple(map(type, args)) != exact))
                or not ((short > 0 and len(args[0]) <= short) or deferrable(args))
                # `serving.current.get()` in line; it may be that a thread has just left the routine.
                or (
                    serving.serving
                    and (
                        (slot := current.slot).call is not None or slot.batch is not None or task_call.get() is not None
                    )
                )
            ):
                return unusual(spec, args, notify, handle, **more)
            if notify is not None and type(notify) is not PacketTemplate:
                notify = snapshot(notify)
            call_id = next(ids)
            pending = (call_id, target, args, None)
            if handle is None:
                call: Call[Any] = Call(None, self, spec, notify, call_id, _PENDING, pending)
            else:
                call = handle_of(handle)
                adopt(call, self, spec, notify, call_id, pending)
            calls[call_id] = call
            queue.append(pending)
            if not session.is_open:
                self._accepted(call, call_id, spec, notify, None)
            elif notify is not None and notify.needs_driver:
                if lock.owned():
                    lock.refuse()
                try:
                    lock.acquire()
                    more_to_do = not connection.attended or not session.is_open
                    if not more_to_do:
                        table.need_driver += 1
                except BaseException:
                    if lock.owned():
                        lock.release()
                    raise
                lock.release()
                if more_to_do:
                    self._accepted(call, call_id, spec, notify, None)
            if not outbox.batch_threshold or len(queue) > outbox.batch_threshold:
                flush()
            elif not channel.deferred:
                channel.defer()
            return call

        return begin_usual

    def _begin_unusual(
        self, spec: OperationSpec, args: tuple[Any, ...], notify: Any, handle: Call[Any] | None,
        timeout: float | None = None, metadata: dict[str, str] | None = None, into: Any = None, user_data: Any = None,
        **kwargs: Any,
    ) -> Call[Any]:  # fmt: skip
        """What `BoundOperation.begin` does."""
        chosen = spec if into is None else filling(spec, into)
        return self.begin(chosen, args, kwargs, notify, timeout, metadata, carrying(handle, user_data))

    def _accepted(
        self, call: Call[Any], call_id: int, spec: OperationSpec, notify: Notification | None, timeout: float | None
    ) -> None:
        """Do for a call that was appended to the queue what only some need.

        Raises: `InvalidHandle` if the client was closed meanwhile and did not take the call.
        """
        table, elsewhere = self.table, self.connection.elsewhere
        actions: list[Callable[[], object]] = []
        with table.lock:
            if self.session.state is _LEAVING:
                # If `close` did not end it, it was never accepted.
                if table.calls.pop(call_id, None) is call:
                    self._retries.forget_locked(call_id)
                    withdraw_locked(call)
                    raise self._closed_error()
                return
            if notify is not None and notify.needs_driver:
                table.need_driver += 1
            if not self.session.is_open:
                if elsewhere is None or not elsewhere.may_move(call):
                    self._awaiting.add_locked(call_id)
                elif not self._leave_locked(call_id, elsewhere, actions):
                    self._awaiting.add_locked(call_id)
            self.connection.attend_locked()
        perform(actions)
        if spec.one_way:
            carrier_of(call).table.finish(call_id, _NIL)
        elif timeout is not None:
            expire = partial(self._expire, call_id, spec, timeout, carried_by(call))
            limit(call, driver().monitor.call_at(monotonic() + timeout, expire))

    def _leave_locked(self, call_id: int, elsewhere: Elsewhere, actions: list[Callable[[], object]]) -> bool:
        """Have a call that waits leave by another connection; False: it leaves by this one, just now."""
        try:
            if not self._outbox.withdraw({call_id}):
                return False
            elsewhere.move_locked((call_id,), actions)
            return True
        except BaseException:  # An interrupt: it may be in no queue, and would never end.
            if call_id in self.table.calls and call_id not in self._outbox.numbers():
                elsewhere.move_locked((call_id,), actions)
            raise

    def _expire(self, call_id: int, spec: OperationSpec, timeout: float, where: Callable[[], "Carrier | None"]) -> None:
        """The time limit of a call is over."""
        carrier = where()
        if carrier is not None and carrier is not self:  # It has moved.
            return carrier._expire(call_id, spec, timeout, where)
        driver().harvest(self.channel)  # An answer that has arrived counts.
        table, session = self.table, self.session
        if call_id not in table.calls:
            return
        why = self.silence() or "it is connected: the routine takes longer, or waits for a free worker there"
        error: CallError = CallTimeout(f"no reply from {self.connection.endpoint} within {timeout:.4g} s: {why}")
        # Only if an attempt to connect has failed: otherwise the time was just too short.
        with table.lock:
            if not session.linked and session.refusal and self._awaiting.withdraw_locked(call_id):
                error = session.unreachable(timeout, self._retries.lost_locked(call_id), False)
        # If it has not left it must not run: first, so that nothing sends it once its caller knows.
        self._outbox.withdraw({call_id})
        if table.finish(call_id, Failure(error)) and spec.pipes:
            self.tell_cancel(call_id, True)  # Its routine may be waiting for this side to push or pull.

    def _closed_error(self) -> InvalidHandle:
        """Return what beginning a call raises once the client is closed."""
        if self.connection.forked:
            return Forked("this client was made before fork(): make a new one in the child")
        return InvalidHandle("the client is closed")

    # What calls ask for

    def expect(self, call_id: int, call: Call[Any]) -> Completion | None:
        """Return what the running event loop can await until `call` has its outcome; None if it has it."""
        completion = Completion()
        if not self.table.await_outcome(call_id, call, completion):
            return None
        if self._outbox.queue:
            # Not at once: other tasks that are ready may begin calls that can share a message.
            if not self.channel.deferred:
                self.channel.defer()
            if not completion.bridge.turning:
                completion.bridge.turn_soon()
        return completion

    def give_up_waiting(self, call_id: int, call: Call[Any], completion: Completion | None) -> None:
        """Cancel `call`, if no thread or task waits for it any more.

        A task that awaited it or a pipe of it, or was going to, was cancelled; `completion` is what it awaited.
        """
        if self.table.is_given_up(call_id, call, completion):
            self.cancel(call_id, call, abort=True)

    def cancel(self, call_id: int, call: Call[Any], abort: bool) -> None:
        """Cancel a call: notify the server, and with `abort` end the call here."""
        table = self.table
        actions: list[Callable[[], object]] = []
        unsent = False
        driver().harvest(self.channel)  # If the answer has arrived, there is nothing to cancel.
        try:
            with table.lock:
                if table.calls.get(call_id) is not call:
                    if is_elsewhere_locked(table, call_id, call):
                        actions.append(partial(carrier_of(call).cancel, call_id, call, abort))
                    return
                if abort:
                    table.finish_locked((call_id,), (Failure(CallCancelled("cancelled by its caller")),), actions)
                elif (
                    (lost := self._retries.lost_locked(call_id)) or self._retries.backs_off_locked(call_id)
                ) and self._awaiting.withdraw_locked(call_id):
                    why = "it was not sent again, for it was cancelled"
                    error = CallFailed(f"{lost}; {why}") if lost else CallFailedDne(f"a server has refused it; {why}")
                    table.finish_locked((call_id,), (Failure(error),), actions)
                    unsent = True
                else:
                    ask_to_end_locked(call)
        finally:
            perform(actions)
        if unsent or (abort and self._outbox.withdraw({call_id})):
            return  # The server has not heard of it.
        if self.session.linked or abort:
            self.tell_cancel(call_id, abort)
        else:  # It follows the call, which waits too.
            self._outbox.queue.append(LoneMessage(encode(Cancel([CancelledCall(call_id, False)]))))

    def tell_cancel(self, call_id: int, abort: bool) -> None:
        """Notify the server that a call ought to end."""
        self.send(encode(Cancel([CancelledCall(call_id, abort)])))

    # What the pipes of calls ask for

    def send(self, frames: list[Buffer], soon: bool = False) -> None:
        """Send a message of its own, if connected: what it is about ends with the connection.

        `soon`: before the next wait of any thread, without a lock taken here.
        """
        if self.session.linked:
            self._outbox.queue.append(LoneMessage(frames))
            if soon:
                driver().schedule(self.channel)
            else:
                self.channel.flush()

    def ship(self, shipment: Shipment) -> None:
        """Queue elements for a pipe."""
        self._outbox.queue.append(LoneMessage([], 0, shipment))

    def need_driver(self, change: int) -> None:
        """So many more pipes, or less, notify in a way for which the network must be driven."""
        with self.table.lock:
            self.table.need_driver += change
            self.connection.attend_locked()
