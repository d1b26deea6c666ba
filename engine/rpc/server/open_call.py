"""One open call of a server, as the server itself works with it.

Theory of operation. A call is in its peer's table from its arrival until it is closed; closing it (complete, abort, the
routine's return or exception) takes it out, which is one atomic operation, and the thread that takes it out sends the
answer. So the first closing wins, and every later one is refused. Ordinary calls are rows of a batch, and have no
record of their own before somebody asks for it: see `batch.py`. What users get to see of a call is its handle, a
`ServerCall`, which is made when it is asked for: see `call.py`.

Few calls have `CallExtras`: subscriptions, open contexts, output buffers, done callbacks. For all others that is None,
and one look at it is all they pay. The thread that takes a call out of the table then runs the done callbacks, before
the answer can leave.

    make extras, append a callback, look at the table | one of the two sees the other: either the closer runs the
    take out of the table, look at the extras         | callback, or the appender finds the call closed, and removes it

Assumes: `deque.append`, `popleft` and `remove` are atomic, and are not reordered with a look at a dictionary.

Source: "Asynchronous RPC" (the server's side), "RpcServerInqCallAttributes".
"""

import weakref
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol, TypeVar

import msgspec

from transport import Buffer
from transport.foreign import shown
from transport.frames import CallOptions
from transport.log import Log
from transport.realtime import monotonic

from ...kernel.event import Event
from ...kernel.lock import Lock
from ..channel import Channel
from ..context import Context
from .peer import Peer

log: Log = Log("engine.rpc")

S = TypeVar("S")


class CloseReason(Enum):
    """How a call was closed; what was made during the call, for its answer to carry, depends on it."""

    ANSWERED = "answered"  # With a result, which is on its way.
    UNSENT = "unsent"  # With a result that cannot be sent: it could not be encoded, or the client is gone.
    FAILED = "failed"  # With a failure: the routine raised, or aborted.


DoneCallback = Callable[[CloseReason], object]

_making = Lock()


class CallExtras:
    """What few calls have beside themselves; see `OpenCall.extras`."""

    __slots__ = ("callbacks", "contexts", "error", "metadata", "outputs", "span", "status", "subscriptions")

    def __init__(self) -> None:
        # Set once, when they are first needed; each guards itself.
        self.subscriptions: Any = None
        self.contexts: Any = None
        # The routine's output buffers, which its answer is to carry. Set once, before the routine runs.
        self.outputs: list[Any] | None = None
        # Texts that the answer is to carry. Set as a whole, before it is made.
        self.metadata: dict[str, str] | None = None
        # What telemetry keeps of the call. Set once, before the routine runs.
        self.span: Any = None
        # What the call failed with, before the callbacks run.
        self.status: int = 0
        # What its routine raised, or why its result cannot be sent, before the callbacks run.
        self.error: BaseException | None = None
        # Quick functions that take no link's lock, run once each. Single atomic operations only.
        self.callbacks: deque[DoneCallback] = deque()

    def run_callbacks(self, how: CloseReason) -> None:
        """Run the done callbacks: the call was closed."""
        while True:
            try:
                act = self.callbacks.popleft()
            except IndexError:  # All have run.
                self.error = None  # Its traceback refers to the call.
                return
            try:
                act(how)
            except BaseException as error:  # The others wait for this call's end, too.
                log.error("%s failed as its call was closed", shown(act), exc_info=error)


class Contexts(Protocol):
    """The context handles of a server: a `ContextBook`."""

    def open(self, call: "OpenCall", state: S, rundown: Callable[[S], object] | None) -> Context[S]: ...
    def lock(self, call: "OpenCall", context: Context[Any], shared: bool) -> bool: ...


class Admission(Protocol):
    """What counts the calls of a server."""

    def called_out(self) -> None:
        """A routine has begun a call of its own."""


class Answerer(Protocol):
    """What sends answers to the endpoint that the call came in by: `Answers`."""

    @property
    def admission(self) -> Admission:
        """What counts the calls of its server."""

    @property
    def contexts(self) -> Contexts:
        """The context handles of its server."""

    @property
    def authentication_level(self) -> int:
        """How well its connections are protected."""

    @property
    def channel(self) -> Channel:
        """What moves the messages of its endpoint."""

    def answer(self, call: "OpenCall", value: object) -> None: ...
    def answer_fault(self, call: "OpenCall", status: int, text: str) -> None: ...
    def answer_error(self, call: "OpenCall", error: BaseException) -> None: ...
    def give_up(self, call: "OpenCall") -> bool: ...


class CallAttributes(msgspec.Struct, frozen=True):
    """Who calls, and over what: a snapshot.

    Fields:
        interface, version, operation: what is called.
        client_process, client_host: what the client says of itself; not verified.
        client_address: where the connection comes from, as far as the transport tells; "" if it does not.
        client_principal: who the client proved to be; "" for an anonymous one.
        authentication_level: how well the connection is protected, in Windows' numbers: 6 (privacy) with CURVE, and on
            ipc, inproc and loopback, which do not leave the machine; 1 (none) on plain tcp.
        metadata: the connection's texts, overlaid with the call's own.
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


class OpenCall(msgspec.Struct, eq=False):
    """One call being served, from its arrival until it is closed."""

    answers: Answerer
    peer: Peer
    id: int
    # What serves it: an `Entry` of the registry.
    entry: Any
    args: Any
    options: CallOptions | None = None
    blobs: list[Buffer] | None = None
    # Monotonic time at which the client stops waiting; None: it does not say.
    deadline: float | None = None
    # Whether its routine is being entered, or was: False while it waits for that, wherever it does. Written by the
    # thread that has the call; see `Answers.give_up` for which threads read it.
    begun: bool = True
    # Set once, under admission's lock; read anywhere. Aborted: cancelled, and no answer is waited for.
    cancelled: bool = False
    aborted: bool = False
    # The server's ends of the call's pipes, if it has any.
    pipes: Any = None
    # What few calls have beside all this. Set once, by `extras`.
    extra: CallExtras | None = None
    # Leads to the handle, as long as a user has it. Set under the lock of `call.py`.
    handle: "weakref.ref[Any] | None" = None

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
        """Its routine has begun a call of its own."""
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
        )

    def __repr__(self) -> str:
        return f"<ServerCall {self.id} {self.entry.spec.target.interface}.{self.entry.spec.name}>"


def await_closed(calls: list[OpenCall]) -> None:
    """Wait until all of these calls are closed."""
    with Event(manual_reset=True) as closed:
        counting = Lock()
        left = 1 + len(calls)  # One more than calls, so that the event is set once all are known.

        def done(how: CloseReason | None) -> None:
            nonlocal left
            with counting:
                left -= 1
                last = left == 0
            if last:
                closed.set()

        # A function of its own for each call: what is removed again is found by identity.
        open_ = [call.add_done_callback(lambda how: done(how)) for call in calls]
        for _ in range(1 + open_.count(False)):
            done(None)
        closed.wait()
