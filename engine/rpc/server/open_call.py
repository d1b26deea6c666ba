"""The open calls of a server: their records, the batches that stand for ordinary ones, and the clients that made them.

Theory of operation. A call is in its peer's table from its arrival until it is closed; closing it (complete, abort, the
routine's return or exception) takes it out, which is one atomic operation, and the thread that takes it out sends the
answer. So the first closing wins, and every later one is refused. Users see a call as its handle, a `ServerCall`, which
is made when it is asked for: see `call.py`.

Most calls are answered by what their routine returns, and need no record: they stay the rows of a `Batch`, which stands
for each of them in the table. Their arguments are decoded in one step. A record is made, and takes the batch's place in
the table, for a call that `current_call()`, a cancel, or a wait for running calls asks for.

    arrival: table[number] = batch     record asked for: table[number] = record     closing: table.pop(number)

Few calls have `CallExtras`: subscriptions, open contexts, output buffers, done callbacks. The thread that takes such a
call out of the table runs the done callbacks, before the answer can leave.

    make extras, append a callback, look at the table | one of the two sees the other: either the closer runs the
    take out of the table, look at the extras         | callback, or the appender finds the call closed, and removes it

Guarantees: one record a call, however many ask.

Assumes: insertion and removal of one key of a `dict`, and `deque.append`, `popleft` and `remove`, are atomic, and are
not reordered with a look at a dictionary. Putting a record in the place of its batch takes two steps: a thread that
finds nothing there asks for the record, by the same lock, and looks again.

Source: "Asynchronous RPC" (the server's side), "RpcServerInqCallAttributes".
"""

import weakref
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, Protocol

import msgspec

from transport import Buffer
from transport.foreign import shown
from transport.frames import CallGroup, CallOptions
from transport.log import Log
from transport.realtime import monotonic
from transport.wire.codec import PendingReply, split_args
from transport.wire.session import ServerSession

from ...kernel.event import Event
from ...kernel.lock import Lock
from ..channel import Channel
from ..interceptors import Around
from ..pipes.shipment import Shipment

log: Log = Log("engine.rpc")


class CloseReason(Enum):
    """How a call was closed; what was made during the call, for its answer to carry, depends on it."""

    ANSWERED = "answered"  # With a result, which is on its way.
    UNSENT = "unsent"  # With a result that cannot be sent: it could not be encoded, or the client is gone.
    FAILED = "failed"  # With a failure: the routine raised, or aborted.


DoneCallback = Callable[[CloseReason], object]

_making = Lock()  # Held to make the extras of a call.
_opening = Lock()  # Held to make the record of a call of a batch: one lock for all, as that is rare.


class CallExtras(msgspec.Struct, eq=False):
    """What few calls have beside themselves; see `OpenCall.extras`."""

    # Set once, when they are first needed; each guards itself.
    subscriptions: Any = None
    contexts: Any = None
    # The routine's output buffers, which its answer is to carry. Set once, before the routine runs.
    outputs: list[Any] | None = None
    # Texts that the answer is to carry. Set as a whole, before it is made.
    metadata: dict[str, str] | None = None
    # The interceptors around the routine. Set once, before it runs.
    around: Around | None = None
    # Quick functions that take no link's lock, run once each. Single atomic operations only.
    callbacks: deque[DoneCallback] = msgspec.field(default_factory=deque)

    def run_callbacks(self, how: CloseReason) -> None:
        """Run the done callbacks: the call was closed."""
        while True:
            try:
                act = self.callbacks.popleft()
            except IndexError:  # All have run.
                return
            try:
                act(how)
            except BaseException as error:  # The others wait for this call's end, too.
                log.error("%s failed as its call was closed", shown(act), exc_info=error)


class Answerer(Protocol):
    """What sends answers to the endpoint that the call came in by: `Answers`."""

    admission: Any  # The `Admission` of its server.
    contexts: Any  # The `ContextBook` of its server.
    authentication_level: int
    channel: Channel

    def answer(self, call: "OpenCall", value: object) -> None: ...
    def answer_fault(self, call: "OpenCall", status: int, text: str, error: BaseException | None = None) -> None: ...
    def reply(self, call: "OpenCall", value: object) -> None: ...
    def abandon(self, call: "OpenCall", error: BaseException) -> None: ...
    def give_up(self, call: "OpenCall") -> bool: ...


class CallQueue(Protocol):
    """Calls of one connection that wait to be run: `ClientTurns`."""

    # Who appends calls `post` after it, or `arrived`, if that is the harvest and the call an ordinary one.
    calls: deque[Any]

    def arrived(self) -> None: ...

    def post(self) -> None: ...
    def is_settled(self) -> bool: ...
    def waiting(self) -> Iterator["OpenCall"]: ...


class Peer(msgspec.Struct, eq=False, weakref=True):
    """A connected client. `listener.py` makes one for each connection, and says which thread may do what."""

    id: bytes
    # Its calls that wait: those that have an order, and the others.
    turns: CallQueue
    loose: CallQueue
    # How far the conversation has come, and what the client takes. Under link.lock.
    session: ServerSession
    address: str
    # Who the client has proved to be.
    user: str
    # Whether the client is on this machine.
    local: bool
    # Nothing of it is begun any more but, while the listener is open, one-way calls: it is lost, or the listener
    # closes. Set once, under link.lock; read anywhere.
    parting: bool
    # Set once, under the server's lock; read anywhere.
    lost: bool = False
    # When it was heard first; monotonic.
    since: float = 0.0
    # Bytes of messages that came, and that were handed over; and with how many `Backlog` is to look. Under link.lock.
    bytes_in: int = 0
    bytes_out: int = 0
    look_at: int = 0
    # When it may be counted again what waits. Under link.lock.
    count_again: float = 0.0
    # What the greeting said.
    association: bytes = b""
    process: int = 0
    host: str = ""
    metadata: dict[str, str] = {}
    # What security callbacks said of it, by `AccessPolicy`, or that and the operation. Single atomic operations only.
    verdicts: dict[object, bool] = {}
    # Calls that arrived and are not closed. Taking a call out is closing it: one atomic operation, anywhere.
    calls: "dict[int, OpenCall | Batch]" = {}
    # Answers to be sent, or a message of its own: its frames, or what makes them. Appended anywhere, taken under
    # link.lock.
    answers: deque[PendingReply | list[Buffer] | Shipment] = msgspec.field(default_factory=deque)
    # Whether the peer waits in `Answers.outgoing`.
    queued: bool = False
    # A message that the link did not take; what is behind it waits, until it is offered again. Under link.lock.
    kept: list[Buffer] | None = None
    # Whether it is time to do so. Set anywhere, cleared under link.lock.
    again: bool = False
    # How much waits because of it, as it was counted last. Under link.lock.
    unread_bytes: int = 0
    unread_answers: int = 0

    @property
    def key(self) -> tuple[bytes, str]:
        """What the client belongs to: the association that it named, as the user who it has proved to be."""
        return self.association, self.user


class CallAttributes(msgspec.Struct, frozen=True):
    """Who calls, and over what: a snapshot.

    Fields:
        interface, version, operation: what is called.
        client_process, client_host: what the client says of itself; not verified.
        client_address: where the connection comes from, as far as the transport knows; "" if it does not.
        client_principal: who the client proved to be; "" for an anonymous one.
        authentication_level: how well the connection is protected, in Windows' numbers: 6 (privacy) with CURVE and TLS,
            and on ipc, inproc and loopback, which do not leave the machine; 1 (none) on plain tcp.
        metadata: the connection's texts, overlaid with the call's own.
        client_is_local: whether the connection comes from this machine, as far as the transport knows.
        status: 1 in progress, 2 cancelled, 3 disconnected. Compare for equality: it is no bit field.
    """

    interface: str
    version: tuple[int, int]
    operation: str
    client_process: int
    client_host: str
    client_address: str
    client_principal: str
    authentication_level: int
    metadata: dict[str, str]
    status: int
    client_is_local: bool = False


class OpenCall(msgspec.Struct, eq=False):
    """One call being served, from its arrival until it is closed."""

    answers: Answerer
    peer: Peer
    id: int
    # What serves it: an `Entry` of the registry.
    entry: Any
    args: Any
    options: CallOptions | None = None
    # Its frames out of band; None if there are none and the arguments are small.
    blobs: list[Buffer] | None = None
    # Monotonic time at which the client stops waiting; None: it does not say.
    deadline: float | None = None
    # Whether its routine is being entered, or was: False while it waits for that, wherever it does. Written by the
    # thread that has the call; see `Answers.give_up` for which threads read it.
    begun: bool = True
    # The event loop was handed it, and took it. In the loop's thread only.
    handed: bool = False
    # Set once, under admission's lock; read anywhere. Aborted: cancelled, and no answer is waited for.
    cancelled: bool = False
    aborted: bool = False
    # The server's ends of the call's pipes, if it has any.
    pipes: Any = None
    # What has its routine run as a task, a `CoroutineRunner`. Set once, before the task is made.
    runner: Any = None
    # What few calls have beside all this. Set once, by `extras`.
    extra: CallExtras | None = None
    # Leads to the handle, as long as a user has it. Set under the lock of `call.py`.
    handle: "weakref.ref[Any] | None" = None
    # Whether a manager routine has been given the handle: from then on the call ends when nothing refers to it.
    given: bool = False

    def is_open(self) -> bool:
        """Whether the call was not closed yet."""
        return self.peer.calls.get(self.id) is self

    def extras(self) -> CallExtras:
        """Return the extras; made if there are none."""
        with _making:
            if self.extra is None:
                self.extra = CallExtras()
            return self.extra

    def add_done_callback(self, act: DoneCallback) -> bool:
        """Have `act` run when the call is closed; False, and it will not be run, if it was closed before."""
        callbacks = self.extras().callbacks
        callbacks.append(act)
        if self.is_open():
            return True
        try:
            callbacks.remove(act)
        except ValueError:
            return True  # The closer found it after all.
        return False

    def called_out(self) -> None:
        """Count a call that its routine has begun."""
        self.answers.admission.called_out()

    def time_left(self) -> float | None:
        """Seconds until the client stops waiting, 0 or more; None if it set no limit."""
        return None if self.deadline is None else max(0.0, self.deadline - monotonic())

    def metadata(self) -> dict[str, str]:
        """The connection's texts, overlaid with the call's own; a copy."""
        own = self.options.metadata if self.options is not None else None
        return {**self.peer.metadata, **(own or {})}

    def attributes(self) -> CallAttributes:
        """Return who calls, and over what."""
        peer, target = self.peer, self.entry.spec.target
        return CallAttributes(
            interface=target.interface,
            version=(target.major, target.minor),
            operation=target.operation,
            client_process=peer.process,
            client_host=peer.host,
            client_address=peer.address,
            client_principal=peer.user,
            authentication_level=self.answers.authentication_level,
            metadata=self.metadata(),
            status=3 if peer.lost else 2 if self.cancelled else 1,
            client_is_local=peer.local,
        )

    def __repr__(self) -> str:
        return f"<ServerCall {self.id} {self.entry.spec.target.interface}.{self.entry.spec.name}>"


class Batch(msgspec.Struct, eq=False):
    """Calls of one operation that came together, and are run one after the other."""

    answers: Answerer
    peer: Peer
    # What serves them: an `Entry` of the registry.
    entry: Any
    # As it arrived.
    group: CallGroup
    # The records that were made, by number. Written under _opening; read anywhere.
    records: dict[int, OpenCall] = {}
    # Whether decoding the arguments takes long: it came in a large message.
    large: bool = False
    # Number and arguments of each call that is not run yet; None until they are decoded. Taken by who has the client.
    rows: deque[tuple[int, Any]] | None = None

    def apart(self) -> list[OpenCall]:
        """Return a record for each call, with its arguments as they came.

        Raises: msgspec.MsgspecError if there are not as many arguments as calls; the records are `open_all` then.
        """
        calls = self.open_all()
        for call, raw in zip(calls, split_args(self.group), strict=True):
            call.args = raw
            call.blobs = [] if self.large else None
            call.begun = False
        return calls

    def waiting(self) -> list[OpenCall]:
        """Return a record for each call that is not run yet, while no thread runs any."""
        rows = self.rows
        return self.open_all() if rows is None else [self.open(call_id) for call_id, _ in rows.copy()]

    def open_all(self) -> list[OpenCall]:
        """Return a record for each call."""
        return [self.open(call_id) for call_id in self.group.ids]

    def open(self, call_id: int) -> OpenCall:
        """Return the record of a call; made if it has none. Any thread."""
        table = self.peer.calls
        with _opening:
            call = self.records.get(call_id)
            if call is None:
                call = self.records[call_id] = OpenCall(self.answers, self.peer, call_id, self.entry, None)
                if table.pop(call_id, None) is self:
                    table[call_id] = call
        return call


def await_closed(call: OpenCall) -> None:
    """Wait until `call` is closed."""
    with Event(manual_reset=True) as closed:
        if call.add_done_callback(lambda how: closed.set()):
            closed.wait()
