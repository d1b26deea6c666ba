"""What calls, and the pipes of calls, ask of the connection that carries them.

Theory of operation. A call that was accepted knows its carrier: through it a thread or task waits for the outcome, and
cancels the call. Ending a call takes it out of the connection's table; then the server is notified.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from transport import Buffer
from transport.frames import Cancel
from transport.realtime import monotonic
from transport.wire.codec import encode
from transport.wire.conversation import ConversationState

from ...errors import CallError, Forked, InvalidHandle
from ...kernel.aio import Completion
from ...kernel.driver import driver
from ...kernel.notification import Notification
from ..call import Call, ask_to_end_locked, limit, pipes_of, withdraw_locked
from ..contract.spec import OperationSpec
from ..errors import CallCancelled, CallFailed, CallTimeout
from ..outcome import Failure
from ..pipes.shipment import Shipment
from .call_table import CallTable, perform
from .connection import Connection
from .outbox import LoneMessage
from .session import Session

_LEAVING = ConversationState.LEAVING
_NIL = msgspec.Raw(b"\xc0")


class Carrier:
    """Carries the calls that are begun on one connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection: Connection = connection
        # Its parts, at hand.
        self.table: CallTable = connection.table
        self.session: Session = connection.session
        self._outbox = connection.outbox
        self._retries = connection.retries
        self._awaiting = connection.awaiting
        self._channel = connection.channel

    # Beginning

    def accepted(
        self, call: Call[Any], call_id: int, spec: OperationSpec, notify: Notification | None, timeout: float | None
    ) -> None:
        """Do for a call that was appended to the queue what only some need.

        Raises: `InvalidHandle` if the client was closed meanwhile and did not take the call.
        """
        table = self.table
        with table.lock:
            if self.session.state is _LEAVING:
                # If `close` did not end it, it was never accepted.
                if table.calls.pop(call_id, None) is call:
                    self._retries.forget_locked(call_id)
                    withdraw_locked(call)
                    raise self.closed_error()
                return
            if notify is not None and notify.needs_driver:
                table.need_driver += 1
            if not self.session.is_open:
                self._awaiting.add_locked(call_id)
            self.connection.attend_locked()
        if spec.one_way:
            table.finish(call_id, _NIL)
        elif timeout is not None:
            expire = partial(self._expire, call_id, spec, timeout)
            limit(call, driver().monitor.call_at(monotonic() + timeout, expire))

    def _expire(self, call_id: int, spec: OperationSpec, timeout: float) -> None:
        """The time limit of a call is over."""
        driver().harvest(self._channel)  # An answer that has arrived counts.
        table, session = self.table, self.session
        if call_id not in table.calls:
            return
        silence = self.silence()
        error: CallError = CallTimeout(f"no reply within {timeout} s{silence and f': {silence}'}")
        # Only if an attempt to connect has failed: otherwise the time was just too short.
        with table.lock:
            if not session.linked and session.refusal and self._awaiting.withdraw_locked(call_id):
                error = session.unreachable(timeout, self._retries.lost_locked(call_id), False)
        if table.finish(call_id, Failure(error)):
            self._outbox.withdraw({call_id})  # If it has not left it need not, and must not run.
            if spec.pipes:
                self.tell_cancel(call_id, True)  # Its routine may be waiting for this side to push or pull.

    def closed_error(self) -> InvalidHandle:
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
            if not self._channel.deferred:
                self._channel.defer()
            if not completion.bridge.turning:
                completion.bridge.turn_soon()
        return completion

    def give_up_waiting(self, call_id: int, call: Call[Any], completion: Completion | None) -> None:
        """Cancel `call`, if no thread or task waits for it any more.

        A task that awaited it or a pipe of it, or was going to, was cancelled; `completion` is what it awaited.
        """
        if completion is not None:
            self.table.forget_waiter(call_id, completion)
        pipes = pipes_of(call)
        if not self.table.awaited(call_id, call) and not (pipes is not None and pipes.waited_for()):
            self.cancel(call_id, call, abort=True)

    def cancel(self, call_id: int, call: Call[Any], abort: bool) -> None:
        """Cancel a call: notify the server, and with `abort` end the call here."""
        table = self.table
        actions: list[Callable[[], object]] = []
        unsent = False
        driver().harvest(self._channel)  # If the answer has arrived, there is nothing to cancel.
        try:
            with table.lock:
                if table.calls.get(call_id) is not call:
                    return
                if abort:
                    table.finish_locked((call_id,), (Failure(CallCancelled("cancelled by its caller")),), actions)
                elif (lost := self._retries.lost_locked(call_id)) and self._awaiting.withdraw_locked(call_id):
                    error = CallFailed(f"{lost}; it was not sent again, for it was cancelled")
                    table.finish_locked((call_id,), (Failure(error),), actions)
                    unsent = True
                else:
                    ask_to_end_locked(call)
                    self._retries.cancelled_locked(call_id)
        finally:
            perform(actions)
        if unsent or (abort and self._outbox.withdraw({call_id})):
            return  # The server has not heard of it.
        if self.session.linked or abort:
            self.tell_cancel(call_id, abort)
        else:  # It follows the call, which waits too.
            self._outbox.queue.append(LoneMessage(encode(Cancel([(call_id, False)]))))

    def tell_cancel(self, call_id: int, abort: bool) -> None:
        """Notify the server that a call ought to end."""
        self.send(encode(Cancel([(call_id, abort)])))

    def silence(self) -> str:
        """Why no answer comes to the calls that are outstanding, if that is for want of a server; else ""."""
        return self.connection.silence()

    # What the pipes of calls ask for

    def send(self, frames: list[Buffer], soon: bool = False) -> None:
        """Send a message of its own, if connected: what it is about ends with the connection.

        `soon`: before the next wait of any thread, without a lock taken here.
        """
        if self.session.linked:
            self._outbox.queue.append(LoneMessage(frames))
            if soon:
                driver().schedule(self._channel)
            else:
                self._channel.flush()

    def ship(self, shipment: Shipment) -> None:
        """Queue elements for a pipe."""
        self._outbox.queue.append(LoneMessage([], 0, shipment))

    def flush(self, soon: bool) -> None:
        """Send what is queued; `soon`: it may wait to be batched."""
        channel = self._channel
        if not soon:
            channel.flush()
        elif not channel.deferred:
            channel.defer()

    def need_driver(self, change: int) -> None:
        """So many more pipes, or less, notify in a way for which the network must be driven."""
        with self.table.lock:
            self.table.need_driver += change
            self.connection.attend_locked()
