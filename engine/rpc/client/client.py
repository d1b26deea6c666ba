"""The client: calls of one association with one server, shared by any number of threads and event loops.

Theory of operation. Beginning a call enters it in the table and appends it to the queue of what is to be sent; neither
takes a lock. While few calls are outstanding each leaves at once; beyond that calls wait for company: they leave when
half as many wait as were outstanding lately (at most `COALESCE_RECORDS`), when any thread is about to wait, or at the
monitor's next tick (2 ms), whichever comes first. What waits is encoded as it leaves, many calls in one step;
arguments that could change until then are encoded when the call is begun. Replies are harvested by whichever thread
waits.

The life of the connection, and what becomes of calls when it goes, is in `association.py`.

Only under link.lock: taking from the queue. Lock order: link.lock, then the table's lock.

Assumes: `deque.append` and `popleft`, and insertion and removal of one key of a `dict`, are atomic and are not
reordered. `_begin` enters and appends its call before it looks at `_state`; `_lost` and `close` store `_state` before
they look at the calls and the queue. One of the two sees the other, so no call is left behind.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import wraps
from operator import itemgetter
from types import TracebackType
from typing import Any, Self, TypeVar, overload

import msgspec

from transport import Buffer, Endpoint, connect
from transport.errors import RemoteProtocolError
from transport.foreign import shown
from transport.frames import PIPE_WINDOW_BYTES, Bye, CallOptions, Cancel, Kind, Replies
from transport.log import Log
from transport.realtime import monotonic
from transport.wire.codec import DEFERRABLE_BYTES, PendingCall, decode, deferrable, encode

from ...errors import CallError, Forked, InvalidArgumentType, InvalidHandle, QueueFull
from ...kernel.aio import Completion
from ...kernel.checks import check_count, check_flag, check_timeout
from ...kernel.driver import driver
from ...kernel.once import Once
from ...kernel.packet import PacketTemplate
from ...kernel.thread import park
from ...kernel.waiter import Waiter
from ...lifecycle import Closeable, OpenObjects, Stage, at_exit, close_left_open
from ..batching import FEW_CALLS, company_of
from ..call import Call, Failure, Outcome, handle_of, outcomes_of
from ..channel import Channel, Parcel
from ..contract.interface import Interface
from ..contract.spec import OperationSpec
from ..errors import CallCancelled, CallFailed, CallFailedDne, CallTimeout
from ..limits import check_options, fit
from ..notify import snapshot
from ..pipes.pipe import MAX_WINDOW
from ..pipes.stream import operation_kind
from ..server import call as server_call
from ..serving import inherit
from ..state import NEXT, On, State
from . import pipes as pipe_client
from .binding import Binding, BoundOperation, bind_typed, check_metadata
from .buffers import filling
from .call_table import perform
from .connection import Association
from .early import encode_early
from .outbox import Special
from .retry import RETRIES, RETRY_BUDGET, Retries
from .spin import Vigil
from .statistics import ClientStatistics, Connection

log: Log = Log("engine.rpc")

I = TypeVar("I", bound=Interface)  # noqa: E741  # the interface

CONNECT_TIMEOUT = 5.0  # Seconds; long enough for a server that is just starting.
MAX_CALLS = 1 << 20  # Outstanding calls of one client; arbitrary, about 1 GB.


class Client(Association, Closeable):
    """A client of one server.

    Args:
        endpoint: `tcp://host:port`, `ipc://path`, `inproc://name` or `loopback://name`.
        timeout: seconds that a call may take unless it says otherwise; None: no limit. See `BoundOperation.begin` for
            the errors that it ends with: `CallTimeout` is not the only one.
        connect_timeout: seconds that a call may wait for a connection to a server that greets before it ends with
            `ServerUnavailable`, or with `CallFailed` if it was sent to one that has not greeted yet; None: for ever.
            Each call waits for itself, even if one before it has waited in vain.
            Once the server has greeted, a call may take its time; after a lost connection the limit counts again.
        max_calls: outstanding calls allowed; beginning one more raises `QueueFull`.
        retries: how often a call of an idempotent operation may be sent again, each time that its connection is lost
            before the answer has come; it waits for the next connection as a new call would. 0: never. Other calls are
            never sent twice, nor is one that was cancelled.
        retry_budget: so many calls may be sent again, and one more for every ten answers to calls of such operations.
            The next one ends with `CallFailed`, as without retries.
        metadata: texts sent with each connection, for the server's routines to read.
        pipe_window: bytes of encoded elements that the server may push into each pipe ahead of what is pulled, 1 or
            more.
        options: of the transport, see `transport.LinkOptions`: `heartbeat` (seconds between pings, 5), `linger`
            (seconds that a closed client goes on sending, 1), `max_message_bytes` (the largest message
            taken, 64 KiB or more, 256 MiB; a larger result ends its call with `BadStubData`),
            `curve` (keys), `context` (a ZeroMQ context of your own).

    Connecting happens in the background; the constructor does not wait for it. Close the client, or use it as a context
    manager: it stays open, and goes on serving its calls, though nobody refers to it. One that is still open when the
    process ends is reported as a `ResourceWarning`.

    Threads: any, at once; calls from several threads share the connection. Not for signal handlers: let one set an
    `Event`, or post to a port, and go on in the thread that waits for that. Blocks: only `close`, for `linger` seconds.
    Source: "Binding Handles"; "Making the Asynchronous Call".
    """

    _instead = "connect a new one there, to the same endpoint"

    def __init__(
        self,
        endpoint: str | Endpoint,
        *,
        timeout: float | None = None,
        connect_timeout: float | None = CONNECT_TIMEOUT,
        max_calls: int = MAX_CALLS,
        retries: int = RETRIES,
        retry_budget: int = RETRY_BUDGET,
        metadata: dict[str, str] | None = None,
        pipe_window: int = PIPE_WINDOW_BYTES,
        **options: Any,
    ) -> None:
        self._timeout = check_timeout(timeout)
        self._max_calls = check_count("max_calls", max_calls, least=1)
        super().__init__(
            str(endpoint),
            check_timeout(connect_timeout, "connect_timeout"),
            check_count("pipe_window", pipe_window, 1, MAX_WINDOW),
            {} if metadata is None else check_metadata(metadata),
            check_options(options),
        )
        budget = check_count("retry_budget", retry_budget, most=1 << 53)  # A float has it exactly.
        self._retries = Retries(self._table, check_count("retries", retries), budget)
        self._ids = itertools.count(1)
        self._forked = False
        self._closed_once = Once()
        # What `close` has found to be done.
        self._last_actions: list[Callable[[], object]] = []
        # How many calls may wait for company. Written under link.lock, read as a hint. From the calls that were
        # outstanding before the replies came that have come since a message left: those that are begun in answer to
        # these replies are many if these were many.
        self._company = 0
        # Those replies. Under link.lock.
        self._answered = 0
        self._vigil = Vigil(Endpoint.parse(endpoint).local)
        # Counters; under link.lock.
        self._messages_sent = 0
        self._messages_received = 0
        self._garbage = 0
        self._link = connect(endpoint, **options)
        self._channel = Channel(self._link, self._callbacks, self._lock)
        self._channel.open()
        _open_clients.add(self)

    # Binding

    @overload
    def bind(self, interface: type[I], *, causal: bool = True) -> I: ...
    @overload
    def bind(self, interface: str, *, causal: bool = True) -> Binding: ...
    def bind(self, interface: type[I] | str, *, causal: bool = True) -> Any:
        """Return a binding: an object with the interface's operations, each callable and with a `begin`.

        Args:
            interface: an `Interface` class, or the name of one to call without a contract, with plain values.
            causal: the server enters routines in the order in which the calls of this client are begun, but for those
                that have to wait for a context handle. False: calls of this binding have no place in that order, and
                wait for none of the others.
        Nothing is sent: whether the server knows the interface shows in the first call. Bindings need no closing.
        Raises: `InvalidParameter` if an operation of the interface has a type that cannot be sent, naming both.
        """
        check_flag("causal", causal)
        if isinstance(interface, str):
            return Binding(self, interface, causal)
        if isinstance(interface, type) and issubclass(interface, Interface):
            return bind_typed(self, interface, operation_kind, causal)
        raise InvalidArgumentType(f"interface must be an Interface class or a name, not {shown(interface)}")

    # Issuing

    def _begin(
        self,
        spec: OperationSpec,
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        notify: Any,
        timeout: float | None,
        metadata: dict[str, str] | None,
        handle: Call[Any] | None,
        pipes: "pipe_client.ClientPipes | None" = None,
    ) -> Call[Any]:
        """Accept a call, or raise. Bindings' operations come here; `BoundOperation.begin` describes the arguments.

        A call with `pipes` has a handle.
        """
        # Flat, and without a lock: this runs for every call.
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
        if server_call.serving and (outer := server_call.current.get()) is not None:
            timeout, metadata = inherit(outer, timeout, metadata, self._metadata)
        if handle is not None:
            handle = handle_of(handle)
        calls = self._calls
        if self._state is _CLOSED:
            raise self._closed_error()
        if len(calls) >= self._max_calls:
            raise QueueFull(f"{len(calls)} calls are outstanding, max_calls allows no more: complete some first")
        options = None
        if timeout is not None or metadata is not None or spec.special:
            options = CallOptions(
                time_left=timeout, metadata=metadata, lane=spec.lane, one_way=spec.one_way, pipes=spec.directions
            )
        call_id = next(self._ids)
        pending: PendingCall | Special
        if (spec.only is bytes and type(args[0]) is bytes and len(args[0]) <= DEFERRABLE_BYTES) or deferrable(args):
            pending = (call_id, spec.target, args, options)
            due = False
        else:
            pending, due = encode_early(self, spec, call_id, args, options)
        if handle is None:
            call: Call[Any] = Call(None, self, spec, notify, call_id, _PENDING)
        else:
            call = handle
            call._adopt(self, spec, notify, call_id, pipes)
        if spec.retried:
            self._retries.keep(call, call_id, pending)
        calls[call_id] = call
        outgoing = self._outgoing
        outgoing.append(pending)
        needs_driver = notify is not None and notify.needs_driver
        if self._state is not _CONNECTED or timeout is not None or spec.one_way or needs_driver:
            self._settle(call, timeout)
        if due or len(outgoing) > self._company:
            self._channel.flush()
        elif not self._channel.deferred:
            self._channel.defer()
        return call

    def _shortcut(self, spec: OperationSpec) -> Callable[..., Call[Any]] | None:
        """Return what does for the usual call what `BoundOperation.begin` does for any, in two thirds of the time.

        What does not change from call to call is looked up once. A call that needs more than a place in the table and
        in the queue goes the long way; if each does, None is returned. The steps, and their order, are those of
        `begin`.
        """
        if spec.special or spec.retried or spec.outputs or self._timeout is not None:
            return None
        client, calls, outgoing, channel, ids, most = (
            self, self._calls, self._outgoing, self._channel, self._ids, self._max_calls,
        )  # fmt: skip
        target, exact, only, typed = spec.target, spec.exact, spec.only, spec.signature is not None
        flush, lock, short = channel.flush, self._lock, DEFERRABLE_BYTES if spec.only is bytes else -1

        @wraps(BoundOperation.begin)
        def begin_usual(*args: Any, notify: Any = None, handle: Call[Any] | None = None, **more: Any) -> Call[Any]:
            if (
                more
                or client._state is not _CONNECTED
                or len(calls) >= most
                or (typed and (type(args[0]) is not only if len(args) == 1 else tuple(map(type, args)) != exact))
                or not ((short > 0 and len(args[0]) <= short) or deferrable(args))
                or (server_call.serving and server_call.current.get() is not None)
            ):
                return client._begin_unusual(spec, args, notify, handle, **more)
            if notify is not None and type(notify) is not PacketTemplate:
                notify = snapshot(notify)
            call_id = next(ids)
            if handle is None:
                call: Call[Any] = Call(None, client, spec, notify, call_id, _PENDING)
            else:
                call = handle_of(handle)
                call._adopt(client, spec, notify, call_id)
            calls[call_id] = call
            outgoing.append((call_id, target, args, None))
            if client._state is not _CONNECTED:
                client._settle(call, None)
            elif notify is not None and notify.needs_driver:
                if lock.owned():
                    lock.refuse()
                try:
                    lock.acquire()
                    settles = not client._attended or client._state is not _CONNECTED
                    if not settles:
                        client._table.need_driver += 1
                except BaseException:
                    if lock.owned():
                        lock.release()
                    raise
                lock.release()
                if settles:
                    client._settle(call, None)
            if len(outgoing) > client._company:
                flush()
            elif not channel.deferred:
                channel.defer()
            return call

        return begin_usual

    def _begin_unusual(
        self,
        spec: OperationSpec,
        args: tuple[Any, ...],
        notify: Any,
        handle: Call[Any] | None,
        timeout: float | None = None,
        metadata: dict[str, str] | None = None,
        into: Any = None,
        **kwargs: Any,
    ) -> Call[Any]:
        """What `BoundOperation.begin` does."""
        chosen = spec if into is None else filling(spec, into)
        return self._begin(chosen, args, kwargs, notify, timeout, metadata, handle)

    def _settle(self, call: Call[Any], timeout: float | None) -> None:
        """What few calls need, after they were appended to the queue."""
        call_id = call._id
        with self._lock:
            if self._state is _CLOSED:
                # Closed since the call was begun. If `close` did not end it, it was never accepted.
                if self._calls.pop(call_id, None) is call:
                    self._retries.forget_locked(call_id)
                    call._state = State.SPENT
                    raise self._closed_error()
                return
            if call._notify is not None and call._notify.needs_driver:
                self._table.need_driver += 1
            if self._state is not _CONNECTED:
                self._strand_locked(call_id)
            self._attend_locked()
        if call._spec.one_way:
            self._table.finish(call_id, _NIL)
        elif timeout is not None:
            self._limit(call, timeout)

    def _closed_error(self) -> InvalidHandle:
        if self._forked:
            return Forked("this client was made before fork(): make a new one in the child")
        return InvalidHandle("the client is closed")

    def _limit(self, call: Call[Any], timeout: float) -> None:
        call_id = call._id

        def expire() -> None:
            driver().harvest(self._channel)  # An answer that has arrived counts.
            if call_id not in self._calls:
                return
            silence = self._silence()
            error: CallError = CallTimeout(f"no reply within {timeout} s{silence and f': {silence}'}")
            # Only if an attempt to connect has failed: otherwise the time was just too short.
            with self._lock:
                if self._state is Connection.CONNECTING and self._refusal and self._withdraw_locked(call_id):
                    error = self._unreachable_locked(call_id, timeout)
            if self._table.finish(call_id, Failure(error)):
                self._outbox.withdraw({call_id})  # If it has not left it need not, and must not run.
                if call._pipes is not None:
                    self._tell_cancel(call_id, True)  # Its routine may be waiting for this side to push or pull.

        timer = driver().monitor.call_at(monotonic() + timeout, expire)
        call._timer = timer
        if call._box is not None:  # The outcome came first, and found no timer to cancel.
            timer.cancel()

    # What calls ask for

    def _poll(self, call: Call[Any]) -> None:
        """Take what has arrived, without waiting, until `call` has its outcome."""
        driver().catch_up(lambda: call._box is not None)

    def _wait_for(self, call: Call[Any], timeout: float | None) -> bool:
        """Wait until `call` has its outcome; False if `timeout` ran out first."""
        timeout = check_timeout(timeout)
        if timeout == 0:
            self._poll(call)
            return call._box is not None
        waiter = Waiter()
        if not self._table.await_outcome(call, waiter):
            return True
        signalled = False
        try:
            signalled = park(waiter, timeout)
        finally:
            if not signalled:
                self._table.forget_waiter(call, waiter)
        return signalled or call._box is not None

    def _expect(self, call: Call[Any]) -> Completion | None:
        """Return what the running event loop can await until `call` has its outcome; None if it has it."""
        completion = Completion()
        if not self._table.await_outcome(call, completion):
            return None
        if self._outgoing:
            # Not at once: other tasks that are ready may begin calls that can share a message.
            if not self._channel.deferred:
                self._channel.defer()
            if not completion.bridge.turning:
                completion.bridge.turn_soon()
        return completion

    def _give_up_waiting(self, call: Call[Any], completion: Completion | None) -> None:
        """A task that awaited `call` or a pipe of it, or was going to, was cancelled: so is the call, if nobody else
        waits for it.
        """
        if completion is not None:
            self._table.forget_waiter(call, completion)
        if not self._table.awaited(call) and not (call._pipes is not None and call._pipes.waited_for()):
            self._cancel(call, abort=True)

    def _cancel(self, call: Call[Any], abort: bool) -> None:
        """Cancel a call: tell the server, and with `abort` end it here."""
        call_id = call._id
        actions: list[Callable[[], object]] = []
        unsent = False
        driver().harvest(self._channel)  # If the answer has arrived, there is nothing to cancel.
        try:
            with self._lock:
                if self._calls.get(call_id) is not call:
                    return
                if abort:
                    self._table.finish_locked((call_id,), (Failure(CallCancelled("cancelled by its caller")),), actions)
                elif (lost := self._retries.lost_locked(call_id)) and self._withdraw_locked(call_id):
                    error = CallFailed(f"{lost}; it was not sent again, for it was cancelled")
                    self._table.finish_locked((call_id,), (Failure(error),), actions)
                    unsent = True
                else:
                    following = NEXT[call._state][On.CANCEL]
                    assert following is not None
                    call._state = following
        finally:
            perform(actions)
        if unsent or (abort and self._outbox.withdraw({call_id})):
            return  # The server has not heard of it.
        if self._linked or abort:
            self._tell_cancel(call_id, abort)
        else:
            self._outgoing.append(Special(encode(Cancel([(call_id, False)]))))  # It follows the call, which waits too.

    def _tell_cancel(self, call_id: int, abort: bool) -> None:
        """Tell the server that a call ought to end."""
        self._send(encode(Cancel([(call_id, abort)])))

    def _send(self, frames: list[Buffer], soon: bool = False) -> None:
        """Send a message of its own, if connected: what it is about ends with the connection.

        `soon`: before the next wait of any thread, without a lock taken here.
        """
        if self._linked:
            self._outgoing.append(Special(frames))
            if soon:
                driver().schedule(self._channel)
            else:
                self._channel.flush()

    # The channel's side: sending

    def _next_message(self) -> Parcel | None:
        """Take the next message to send, or None. Under link.lock."""
        # A client that closes still sends what was accepted, and its goodbye.
        if not self._outgoing or not (self._linked or self._closing):
            return None
        frames = self._outbox.take()
        if not frames:
            return None  # What there was has been withdrawn.
        if len(frames) > 1 or len(frames[0]) > self._message_limit:
            frames = fit(self, frames)
            if not frames:
                return None
        self._answered = 0
        outstanding = len(self._calls)
        if outstanding > FEW_CALLS:
            self._company = max(self._company, company_of(outstanding))
        self._vigil.sent(outstanding)
        # Last: what fails until here was not counted.
        taken = self._outbox.taken
        first = taken[0]
        if type(first) is not Special or first.call_id:
            sent = self._sent
            if len(sent.messages) > sent.most:
                sent.forget(self._calls.keys())
            number = sent.count + 1
            sent.messages.append((number, (first.call_id,) if type(first) is Special else [*map(_number, taken)]))
            sent.count = number
        self._messages_sent += 1
        return b"", frames

    # The channel's side: receiving. Under link.lock, one at a time.

    def _on_message(self, peer: bytes, frames: list[Buffer]) -> bool:
        """Take one message from the server. True: no more is expected now, so the harvest may end."""
        self._messages_received += 1
        try:
            message = decode(frames)
            if type(message) is not Replies:
                self._take(message)
            elif self._greeted:
                # This is the way of every reply.
                self._vigil.answered()
                outstanding = len(self._calls) + self._answered
                self._company = company_of(outstanding) if outstanding > FEW_CALLS else 0
                lock = self._lock
                outcomes: Sequence[Outcome]
                for group in message.groups:
                    outcomes = ()
                    if lock.owned():
                        lock.refuse()
                    try:
                        lock.acquire()
                        if group.status or group.options is not None:
                            outcomes = outcomes_of(group, frames[1:], self._calls)
                        else:
                            outcomes = group.values
                        self._answered += self._table.record_locked(group.ids, outcomes, self._callbacks.actions)
                        if self._attended:
                            self._attend_locked()
                    except BaseException:
                        if lock.owned():
                            try:
                                self._table.record_again_locked(group.ids, outcomes, self._callbacks.actions)
                            finally:
                                lock.release()
                        raise
                    lock.release()
            else:
                self._conversation.received(Kind.REPLIES)  # Raises: it is out of turn.
        except RemoteProtocolError as error:
            self._garbage += 1
            if self._garbage == 1:
                log.warning("%s: dropped a message: %s; further ones are only counted", self.endpoint, error)
        return not self._calls

    def _on_unsendable(self, error: Exception, made: bool) -> None:
        """A message cannot be sent, or not be made: its calls end. Under link.lock."""
        numbers = self._outbox.taken_numbers()
        if made:
            self._messages_sent -= 1
            if 0 not in numbers:
                self._sent.take_back()
        if 0 in numbers:  # It was about the connection, which cannot do without it.
            self._link.leave()
        text = f"the message that held the call could not be sent: {shown(error)}"
        self._finish({number: Failure(CallFailedDne(text)) for number in numbers - {0}})

    def _on_failed(self, error: Exception) -> None:
        """A harvest failed: the link tells what it has lost by that."""

    # End

    def close(self) -> None:
        """Close the client: calls without an answer end with `CallCancelled`, and what was sent leaves within `linger`
        seconds.

        The server is told, so that it can release what it holds for this client. Closing twice does nothing; closing
        again after a signal handler has raised in the midst of it goes on.
        Blocks: no longer than sending takes. Ports and events given as notification targets stay open: they are the
        caller's.
        """
        if not self._forked:
            self._closed_once.do(self._close, True)

    async def aclose(self) -> None:
        """As `close`, in another thread: the event loop goes on. It is done also if the task is cancelled."""
        from asyncio import to_thread  # Who runs a loop has it.

        await to_thread(self.close)

    def _close(self, tell: bool) -> None:
        """Close; `tell`: who waits for calls, too."""
        if self._calls:
            driver().harvest(self._channel)  # Answers that have arrived count.
        # All of it may have been begun before, and broken off by a signal handler: what was done is not done again.
        actions = self._last_actions
        with self._lock:
            if self._linked and self._conversation.may_say(Kind.BYE):
                self._outgoing.append(Special(encode(Bye(0, "the client closed"))))
                self._closing = True
            self._linked = False
            self._state = _CLOSED
            ended = list(self._calls)
            failures = [Failure(CallCancelled("the client was closed"))] * len(ended)
            self._table.finish_locked(ended, failures, actions)
            if self._stranded_timer is not None:
                self._stranded_timer.cancel()
        while actions and tell:
            actions[0]()  # Taken out afterwards: rather told twice, if that is broken off, than not at all.
            del actions[0]
        _open_clients.discard(self)
        self._channel.close()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._state is Connection.CLOSED

    def statistics(self) -> ClientStatistics:
        """Return a consistent snapshot of the client's counters. Never blocks."""
        driver().look_around()
        with self._lock:
            return ClientStatistics(
                connection=self._state.value,
                outstanding=len(self._calls),
                calls_begun=self._table.finished + len(self._calls),
                calls_finished=self._table.finished,
                replies_late=self._table.late,
                messages_sent=self._messages_sent,
                messages_received=self._messages_received,
                garbage_received=self._garbage,
                connections=self._connections,
                retries=self._retries.sent,
                retries_refused=self._retries.refused,
            )

    def __repr__(self) -> str:
        return f"<Client {self.endpoint} {self._state.value} outstanding={len(self._calls)}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


_CONNECTED = Connection.CONNECTED
_CLOSED = Connection.CLOSED
_NIL = msgspec.Raw(b"\xc0")
_PENDING = int(State.PENDING)
_number: Callable[[Any], int] = itemgetter(0)  # Of what waits to be sent.


def _inherited(client: Client) -> None:
    client._state = Connection.CLOSED
    client._forked = True
    while client._calls:
        _, call = client._calls.popitem()
        call._state = State.DONE
        call._box = [Failure(CallFailed("the call was begun before fork(): its reply goes to the parent"))]


def _close_all() -> None:
    # Told to nobody: threads that wait for calls now are daemons, and end with the process where they are.
    close_left_open(_open_clients, lambda client: client._close(False))


_open_clients = OpenObjects(_inherited)
at_exit(Stage.CLIENTS, _close_all)
