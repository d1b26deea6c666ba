"""The client's ends of one call's pipes.

Theory of operation. The pipes are made before the call is begun and hang on its handle, so that what the server pushes
finds them. They wait for the call's outcome as a thread would (`wake`): the call's table tells nobody else, and the
signals of the pipes and of the call reach the caller's target through one queue, call-complete last.

A push or pull that fails aborts the call, tells the server, and throws the outcome away: the handle is spent.

Source: "Client-side Asynchronous Pipe Handling", "Asynchronous Pipe State".
"""

from typing import TYPE_CHECKING, Any, NoReturn

from transport import Buffer
from transport.errors import RemoteProtocolError
from transport.frames import Cancel, Chunks, Credit, PipeChunk
from transport.wire.codec import encode

from ...errors import CallError, InvalidAsyncHandle
from ...kernel.checks import check_flag
from ...kernel.notification import Notification
from ..call import Call, Failure
from ..errors import PeerProtocolError
from ..notify import EventKind
from ..pipes.pipe import UNBOUNDED, PipeState
from ..pipes.pipe_set import PipeSet, unprocessed
from ..pipes.shipment import Shipment
from ..pipes.signals import Signals
from ..state import State
from .outbox import Special

if TYPE_CHECKING:
    from ..contract.spec import OperationSpec
    from .client import Client
    from .connection import Association


class ClientPipes(PipeSet):
    """The pipes of one call, at the client."""

    def __init__(
        self, client: "Client", call: Call[Any], spec: "OperationSpec", notify: Notification | None, send_complete: bool
    ) -> None:
        check_flag("send_complete", send_complete)
        signals = Signals(call, notify)
        limit = client._pipe_window
        super().__init__(spec.pipes, True, spec.duplex, client._peer_window or UNBOUNDED, limit, signals, send_complete)
        self.call = call
        self._owner = client
        # The notification does not change: whoever adds to the count takes as much from it.
        self._needs_driver = notify is not None and notify.needs_driver
        # Set once, by the push or pull that failed.
        self._spent = False

    def begun(self) -> None:
        """The call was accepted: learn of its outcome, and tell of it."""
        client = self._owner
        if self._needs_driver:
            with client._lock:
                client._table.need_driver += 1
                client._attend_locked()
        for act in self.opened(client._peer_window or UNBOUNDED):  # It may have been said since this was made.
            act()
        if self.send_complete and any(pipe.sends for pipe in self.pipes):
            self.signals.add(EventKind.SEND_COMPLETE)  # The issue counts as a send.
            self.signals.deliver()
        if not client._table.await_outcome(self.call, self):
            self.wake()

    def wake(self) -> None:
        """The call has its outcome: release who waits for a pipe, and tell the caller's target."""
        with self.lock:
            waiters = self.release_locked()
            self.signals.add(EventKind.CALL_COMPLETE, last=True)
        for waiter in waiters:
            waiter.wake()
        self.signals.deliver()
        if self._needs_driver:
            client = self._owner
            with client._lock:
                client._table.need_driver -= 1
                client._attend_locked()

    def check_complete(self) -> None:
        """The call is to be completed: raise `PipeError` 1917 if its pipes are not at their end, unless it failed."""
        with self.lock:
            state = self.state_locked()
            pipe = self.unprocessed_locked()
        if state == 2 or pipe is None or (state == 1 and self.call.status() != 0):
            return
        error = unprocessed(pipe)
        self.broken(error)
        raise error

    def state_locked(self) -> int:
        call = self.call
        if self._spent or call._pipes is not self:
            return 2
        box = call._box
        return 0 if box is None else 1 if box else 2

    def broken(self, error: CallError) -> None:
        self._spent = True
        self.signals.mute()
        call = self.call
        if call._pipes is not self:
            return  # The handle carries another call by now.
        self._owner._cancel(call, abort=True)
        box = call._box
        if box:
            try:
                box.pop()
            except IndexError:
                return  # Another thread completed the call just now, and has the outcome.
            call._state = State.SPENT

    def given_up(self) -> None:
        if self.call._pipes is self and not self._spent:
            self._owner._give_up_waiting(self.call, None)

    def raise_outcome(self) -> NoReturn:
        if self.call._pipes is self and not self._spent:
            self.call.complete()
        raise InvalidAsyncHandle("the call of this pipe is over")

    def fail(self, error: CallError) -> None:
        """End the call, for a reason that the server does not know."""
        call = self.call
        if self._owner._table.finish(call._id, Failure(error)):
            self._owner._tell_cancel(call._id, True)

    def drop(self) -> None:
        """Tell the server that nobody is going to complete the call; the reply to that ends it here.

        Takes no lock, because a finalizer calls it: the message leaves before the next wait of any thread.
        """
        if not self._spent:
            self._owner._send(encode(Cancel([(self.call._id, True)])), soon=True)

    def ship(self, shipment: Shipment) -> None:
        self._owner._outgoing.append(Special([], 0, shipment))

    def send(self, frames: list[Buffer]) -> None:
        self._owner._send(frames)

    def flush(self, soon: bool) -> None:
        channel = self._owner._channel
        if not soon:
            channel.flush()
        elif not channel.deferred:
            channel.defer()

    def call_id(self) -> int:
        return self.call._id

    def check_size(self, pipe: PipeState, size: int) -> None:
        client = self._owner
        client._oversize.check_push(pipe.name, size, client.endpoint, client._message_limit if client._greeted else 0)


def widen(client: "Association", window: int) -> None:
    """The server said how much may be pushed into each pipe to begin with. Under link.lock."""
    if window == client._peer_window:
        return
    client._peer_window = window
    for call in list(client._calls.values()):
        if call._pipes is not None:
            client._do_later(call._pipes.opened(window or UNBOUNDED))


def take(client: "Association", message: Chunks | Credit) -> None:
    """Take elements of pipes, or credit for them. Calls that have ended have none. Under link.lock."""
    if type(message) is Chunks:
        for chunk in message.chunks:
            _take_one(client, chunk.id, chunk)
    else:
        assert type(message) is Credit
        for call_id, index, size in message.grants:
            _take_one(client, call_id, (index, size))


def _take_one(client: "Association", call_id: int, item: PipeChunk | tuple[int, int]) -> None:
    call = client._calls.get(call_id)
    if call is None or call._pipes is None:
        return
    pipes: ClientPipes = call._pipes
    try:
        client._do_later(pipes.arrived(item) if isinstance(item, PipeChunk) else pipes.granted(*item))
    except RemoteProtocolError as error:
        client._finish({call_id: Failure(PeerProtocolError(str(error)))})
        raise
