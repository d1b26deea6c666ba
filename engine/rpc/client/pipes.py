"""The client's ends of one call's pipes.

Theory of operation. The pipes are made before the call is begun and hang on its handle, so that what the server pushes
finds them. They wait for the call's outcome as a thread would (`wake`): the call's table notifies no other target, and
the signals of the pipes and of the call reach the caller's target through one queue, call-complete last.

A push or pull that fails aborts the call, tells the server, and throws the outcome away: the handle is spent.

Source: "Client-side Asynchronous Pipe Handling", "Asynchronous Pipe State".
"""

from typing import Any, NoReturn

from transport import Buffer
from transport.frames import Cancel
from transport.wire.codec import encode

from ...errors import CallError, InvalidAsyncHandle
from ...kernel.checks import check_flag
from ...kernel.notification import Notification
from ..call import Call, pipes_of, progress_of, throw_away
from ..contract.spec import OperationSpec
from ..notify import EventKind
from ..pipes.pipe import PipeState
from ..pipes.pipe_set import PipeSet
from ..pipes.shipment import Shipment
from ..pipes.signals import Signals
from ..state import Failure
from .carrier import Carrier


class ClientPipes(PipeSet):
    """The pipes of one call, at the client."""

    def __init__(
        self, carrier: Carrier, call: Call[Any], spec: OperationSpec, notify: Notification | None, send_complete: bool
    ) -> None:
        check_flag("send_complete", send_complete)
        signals = Signals(call, notify)
        window, limit = carrier.session.pipe_window, carrier.connection.pipe_window
        # The number of the call is set as the handle takes it.
        super().__init__(spec.pipes, True, spec.duplex, window, limit, signals, send_complete, 0, carrier.channel)
        self.call = call
        self._carrier = carrier
        # The notification does not change: `wake` takes from the count what `begun` has added.
        self._needs_driver = notify is not None and notify.needs_driver
        # Set once, by the push or pull that failed.
        self._spent = False

    def begun(self) -> None:
        """The call was accepted: wait for its outcome, and notify the caller then."""
        carrier = self._carrier
        if self._needs_driver:
            carrier.need_driver(1)
        for act in self.opened(carrier.session.pipe_window):  # It may have been said since this was made.
            act()
        if self.send_complete and any(pipe.sends for pipe in self.pipes):
            self.signals.add(EventKind.SEND_COMPLETE)  # The issue counts as a send.
            self.signals.deliver()
        if not carrier.table.await_outcome(self.number, self.call, self):
            self.wake()

    def wake(self) -> None:
        """The call has its outcome: release the threads and tasks that wait for a pipe, and notify the caller."""
        with self.lock:
            waiters = self.release_locked()
            self.signals.add(EventKind.CALL_COMPLETE, last=True)
        for waiter in waiters:
            waiter.wake()
        self.signals.deliver()
        if self._needs_driver:
            self._carrier.need_driver(-1)

    def check_complete(self) -> None:
        """The call is to be completed: raise `PipeError` 1917 if its pipes are not at their end, unless it failed."""
        with self.lock:
            state = self.state_locked()
            error = self.unprocessed_locked()
        if state == 2 or error is None or (state == 1 and self.call.status() != 0):
            return
        self.broken(error)
        raise error

    def state_locked(self) -> int:
        return 2 if self._spent else progress_of(self.call, self)

    def broken(self, error: CallError) -> None:
        self._spent = True
        self.signals.mute()
        if pipes_of(self.call) is self:  # Else the handle carries another call by now.
            self._carrier.cancel(self.number, self.call, abort=True)
            throw_away(self.call)

    def given_up(self) -> None:
        if pipes_of(self.call) is self and not self._spent:
            self._carrier.give_up_waiting(self.number, self.call, None)

    def raise_outcome(self) -> NoReturn:
        if pipes_of(self.call) is self and not self._spent:
            self.call.complete()
        raise InvalidAsyncHandle("the call of this pipe is over")

    def fail(self, error: CallError) -> None:
        """End the call, for a reason that the server does not know."""
        if self._carrier.table.finish(self.number, Failure(error)):
            self._carrier.tell_cancel(self.number, True)

    def drop(self) -> None:
        """Notify the server that no thread is going to complete the call; the reply to that ends it here.

        Takes no lock, because a finalizer calls it: the message leaves before the next wait of any thread.
        """
        if not self._spent:
            self._carrier.send(encode(Cancel([(self.number, True)])), soon=True)

    def ship(self, shipment: Shipment) -> None:
        self._carrier.ship(shipment)

    def send(self, frames: list[Buffer]) -> None:
        self._carrier.send(frames)

    def check_size(self, pipe: PipeState, size: int) -> None:
        self._carrier.session.limit.check_push(pipe.name, size)
