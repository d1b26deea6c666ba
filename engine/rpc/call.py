"""The client's handle of one asynchronous call.

Theory of operation. Beginning a call makes a `Call` and enters it in the table of its connection under a number. The
thread that takes it out of that table, under the table's lock, decides its outcome: a reply, a lost connection, an
abortive cancel or a timeout, the first one wins. The outcome is put in a box of one; `complete` pops the box, and
popping a list is atomic, so of two threads that complete at once one gets the value and the other an error.

Awaiting collects, too, and keeps the outcome: a task that awaits the call again gets it again, as with a future. Tasks
may step a call as a coroutine (`asyncio.create_task` and task groups take nothing else), each by a generator of its
own.

What the client's other files do with the fields of a call stands here, as functions below the class, so that no other
file touches them: hence the length.

Guarantees: an accepted call gets exactly one outcome and one call-complete notification, and a thread that sees the
notification can complete.

Source: "RPC_ASYNC_STATE", "Asynchronous Call State", "RpcAsyncCompleteCall", "RpcAsyncGetCallStatus".
"""

import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from functools import partial
from time import localtime, strftime
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import msgspec

from transport import Buffer
from transport.foreign import is_interrupt, shown, text_of, type_name
from transport.frames import ReplyGroup
from transport.realtime import monotonic, time

from ..errors import CallError, CallPending, InvalidArgumentType, InvalidAsyncHandle, InvalidParameter, InvalidState
from ..kernel.aio import Completion
from ..kernel.checks import check_flag, check_timeout
from ..kernel.driver import driver
from ..kernel.helping import HelpingWaiter
from ..kernel.lock import Lock
from ..kernel.monitor import TimerHandle
from ..kernel.notification import Notification
from ..kernel.thread import park
from ..kernel.waiter import Wakeable
from ..lifecycle import Uncopyable
from ..status import Status
from .errors import BadStubData
from .notify import EventKind
from .pipes.pipe import Pipe, Progress
from .state import NEXT, FaultReply, Observer, On, Outcome, Reply, Settled, State, outcome_error, status_of

R = TypeVar("R")

_RESULT = msgspec.Raw
# Where beginning a call takes a handle, through ISSUING; None: nowhere.
_ACCEPTED_FROM = tuple(
    None if issuing is None else NEXT[issuing][On.ACCEPTED] for issuing in (NEXT[state][On.ISSUE] for state in State)
)
# Where an outcome takes a call that has none, whatever its state.
assert NEXT[State.PENDING][On.OUTCOME] == NEXT[State.CANCELLING][On.OUTCOME] == State.DONE
_COMPLETE = EventKind.CALL_COMPLETE
# Plain integers for the hot path: comparing with a member of an IntEnum costs as much as a method call.
_PENDING, _CANCELLING, _DONE, _SPENT = int(State.PENDING), int(State.CANCELLING), int(State.DONE), int(State.SPENT)


class Awaited(msgspec.Struct):
    """What a call has for the tasks that await it; all in the thread of their loop."""

    # The generators of the tasks that step the call as a coroutine.
    steps: dict[Any, Generator[Any, None, Any]] = {}
    # The outcome, once a task has awaited it.
    collected: bool = False
    result: Any = None
    error: Exception | None = None


class Recorder(Protocol):
    """The table of the calls of a connection, as its calls see it: a `CallTable`. Guarded by its lock."""

    lock: Lock
    calls: dict[int, "Call[Any]"]
    waiting: dict[int, list[Wakeable]]
    need_driver: int
    finished: int
    late: int

    def await_outcome(self, call_id: int, call: "Call[Any]", waiter: Wakeable) -> bool: ...
    def forget_waiter(self, call_id: int, waiter: Wakeable) -> None: ...


class CallCarrier(Protocol):
    """The connection, as its calls see it."""

    @property
    def table(self) -> Recorder: ...
    def expect(self, call_id: int, call: "Call[Any]") -> Completion | None: ...
    def give_up_waiting(self, call_id: int, call: "Call[Any]", completion: Completion | None) -> None: ...
    def cancel(self, call_id: int, call: "Call[Any]", abort: bool) -> None: ...
    def silence(self) -> str: ...


class Resumed(Protocol):
    """The interceptors around a call, as its table sees them."""

    @property
    def home(self) -> "CallCarrier":
        """Has the call from when it is answered until they are done."""

    def resume(self, call_id: int, spec: Any, outcome: Outcome, carrier: "CallCarrier | None") -> None:
        """The call has ended so at `carrier`. Outside all locks."""


if TYPE_CHECKING:
    # asyncio knows a coroutine by its methods, type checkers by its base.
    Steps = Coroutine[Any, Any, R]
else:
    Steps = Generic


class Call(Uncopyable, msgspec.Struct, Steps[R], eq=False, weakref=True):
    """One outstanding call: its status, its outcome, the way to cancel it. `begin` returns one.

    `user_data` is the caller's own and never looked at: `begin(..., user_data=)` sets it. A handle may carry one call
    after another: give it to `begin` as `handle=`, after `initialize()` or as it is once its call is over.

    Threads: every method may be called from any thread. Not for signal handlers.
    """

    _instead = "hand over what its call returned"

    user_data: Any = None
    # All below: written under the client's lock, except as said.
    _carrier: CallCarrier | None = None
    _spec: Any = None
    _notify: Notification | None = None
    _id: int = 0
    # Moves by state.TRANSITIONS only. DONE -> SPENT is written by the thread that emptied the box.
    _state: int = State.IDLE
    # What was queued to be sent, for as long as it may have to be sent again: until the outcome is known.
    _request: Any = None
    # Filled once a call, before the notification is raised.
    _box: list[Outcome] | None = None
    # The timer of the call's own time limit, if it has one.
    _timer: Any = None
    # The client's ends of the call's pipes, if it has any.
    _pipes: Any = None
    # From when a task awaits the call.
    _awaited: Awaited | None = None
    # What came with the answer that was collected. Written by the thread that emptied the box.
    _trailing: dict[str, str] | None = None
    # Wall-clock time at which the first wait began whose time ran out. A hint for people.
    _waited_since: float | None = None
    # The interceptors around the call, until they are resumed: see `client/interception.py`.
    _around: "Resumed | None" = None

    @property
    def state(self) -> State:
        """Where the call is in its life: a snapshot, what has arrived by now included."""
        self._look_around()
        return State(self._state)

    @property
    def event(self) -> EventKind | None:
        """The last event that was signalled for this call, None before the first."""
        self._look_around()
        if self._pipes is not None:
            return self._pipes.signals.event  # type: ignore[no-any-return]  # as below
        return EventKind.CALL_COMPLETE if self._state >= _DONE and self._box is not None else None

    @property
    def trailing_metadata(self) -> dict[str, str]:
        """The texts that the server has sent with the answer, a result or a failure; a copy.

        Empty if there are none, before the answer has come, and if none came; good until the handle carries another
        call. The routine sets them with `ServerCall.set_trailing_metadata`.
        """
        self._look_around()
        box = [] if self._box is None else self._box.copy()  # Another thread may be just emptying it.
        found = box[0].metadata if box and isinstance(box[0], Reply) else self._trailing
        return dict(found or {})

    def __repr__(self) -> str:
        name = "" if self._spec is None else f" {self._spec.target.interface}.{self._spec.name}"
        return f"<Call {self._id}{name} {State(self._state).name}>"

    @property
    def __name__(self) -> str:  # asyncio shows it, where it names a task that awaits the call.
        return "Call" if self._spec is None else f"{self._spec.target.interface}.{self._spec.name}"

    def initialize(self) -> None:
        """Make the handle ready for another call. `user_data` is kept.

        Raises: `InvalidState` while a call is outstanding on it; that call is left alone.
        Source: "RpcAsyncInitializeHandle".
        """
        if NEXT[self._state][On.REINITIALIZE] is None:
            raise InvalidState(f"the handle carries a call that is {State(self._state).name}: complete it first")
        self._carrier = None
        self._spec = None
        self._notify = None
        self._box = None
        self._state = State.IDLE
        self._request = None
        self._pipes = self._awaited = self._trailing = self._waited_since = None

    @property
    def pipes(self) -> dict[str, Pipe[Any]]:
        """This side's ends of the call's pipes, by the names of their parameters; empty if it has none."""
        return {} if self._pipes is None else dict(self._pipes.ends)

    def pipe(self, name: str) -> Pipe[Any]:
        """Return this side's end of the pipe that stands for the parameter `name`.

        Raises: `InvalidParameter` if there is no such pipe. Source: "Client-side Asynchronous Pipe Handling".
        """
        if self._pipes is None:
            raise InvalidParameter(f"the call has no pipe {shown(name)}, and no other")
        return self._pipes.end_of(name)  # type: ignore[no-any-return]  # `_pipes` is Any: few calls have some

    def status(self) -> int:
        """Return 997 while the outcome is unknown, 0 after success, the outcome's status number after a failure.

        An outcome with the status 997, which a server of another make may send, is returned as 1726 here; `complete`
        raises the very one.
        Never changes anything; never blocks (it takes what has already arrived from the network).
        Raises: `InvalidAsyncHandle` (1914) if the handle carries no call: never used, or completed.
        Source: "RpcAsyncGetCallStatus".
        """
        self._look_around()
        # By the box: the state may move on between two looks at it.
        box = self._box
        if box is None:
            if _PENDING <= self._state <= _DONE:
                return Status.PENDING
            raise self._no_call()
        try:
            status = status_of(box[0])
        except IndexError:
            raise self._no_call() from None
        # A server may end a call with any code, but 997 tells that a call has not ended.
        return Status.CALL_FAILED if status == Status.PENDING else status

    def done(self) -> bool:
        """Whether the outcome is known: `complete` would not raise `CallPending`. Never blocks."""
        self._look_around()
        return self._box is not None

    def _look_around(self) -> None:
        """Take what has arrived from the network, without waiting, if the outcome is not known yet."""
        if self._state == _PENDING or self._state == _CANCELLING:
            driver().catch_up(lambda: self._box is not None)

    def complete(self) -> R:
        """Collect the outcome: return the result, or raise the call's error. Never blocks.

        Raises: `CallPending` (997) while the outcome is unknown: nothing is consumed, the handle stays good, the
            notification still comes. `InvalidAsyncHandle` (1914) if the handle carries no call, or its outcome was
            collected already. `PipeError` 1917 before all pipes are at their end, which ends the call. Otherwise the
            outcome itself: a `CallError` with its status, or what the operation declares to raise
            (`@operation(raises=)`).
        Source: "RpcAsyncCompleteCall".
        """
        if self._pipes is not None:
            self._pipes.check_complete()
        box = self._box
        if box is None:
            box = self._look()
        try:
            outcome = box.pop()
        except IndexError:
            raise self._no_call() from None
        self._state = _SPENT
        if type(outcome) is _RESULT:
            try:
                return self._spec.decode_plain(outcome)  # type: ignore[no-any-return]  # it gives an R
            except BaseException as error:
                if is_interrupt(error):
                    raise
                raise _undecodable(self._spec, error) from error
        if isinstance(outcome, Reply):
            self._trailing = outcome.metadata
        failure = outcome_error(outcome, self._spec.raises)
        if failure is not None:
            raise failure
        assert isinstance(outcome, Reply)
        return _decoded(self._spec, outcome)  # type: ignore[no-any-return]  # it gives an R

    def _look(self) -> "list[Outcome]":
        """Look for the outcome where it was not yet; raise if it is not known."""
        # DONE without a box: another thread is just recording the outcome, and has notified no thread yet.
        if not _PENDING <= self._state <= _DONE:
            raise self._no_call()
        self._look_around()
        if self._box is None:
            raise self._pending("is not complete: wait for its notification, then complete it")
        return self._box

    def _pending(self, how: str) -> CallPending:
        """The error that says that the call is pending, and why, if there is no server to answer it."""
        silence = "" if self._carrier is None else self._carrier.silence()
        text = f"call {self._id}, {self._spec.target.interface}.{self._spec.name}, {how}"
        return CallPending(f"{text} ({silence})" if silence else text)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the outcome is known; return False if `timeout` (seconds, None for ever) ran out first.

        Raises: `InvalidAsyncHandle` (1914) if the handle carries no call. Blocks: yes; the waiting thread drives the
            network itself. The call goes on after a timeout: wait again, or `cancel`.
        """
        if self._box:
            return True
        if self._carrier is None or not _PENDING <= self._state <= _DONE:
            raise self._no_call()
        timeout = check_timeout(timeout)
        if timeout == 0:
            self._look_around()
            return self._box is not None
        table, call_id, waiter = self._carrier.table, self._id, HelpingWaiter()
        if not table.await_outcome(call_id, self, waiter):
            return True
        signalled = False
        try:
            signalled = park(waiter, timeout)
        finally:
            if not signalled:
                table.forget_waiter(call_id, waiter)
        return signalled or self._box is not None

    def result(self, timeout: float | None = None) -> R:
        """Wait, then `complete`.

        Raises: `CallPending`, a `TimeoutError`, if `timeout` (seconds, None for ever) ran out first: the call goes on.
        """
        if self._box is None and not self.wait(timeout) and self._box is None:
            raise self._pending_since(timeout)
        return self.complete()

    def exception(self, timeout: float | None = None) -> Exception | None:
        """Wait, and return the error that `complete` would raise, or None after success; nothing is collected.

        (A result that is not what its annotation says shows only as it is collected.) A call that was awaited has its
        error still.
        Raises: as `result`: `CallPending`, a `TimeoutError`, if `timeout` (seconds, None for ever) ran out first;
            `InvalidAsyncHandle` (1914) if the handle carries no call, or `complete` has collected its outcome.
        """
        awaited = self._awaited
        if awaited is not None and awaited.collected:
            return awaited.error
        if self._box is None and not self.wait(timeout) and self._box is None:
            raise self._pending_since(timeout)
        outcome = outcome_of(self)
        if outcome is None:
            raise self._no_call()
        return outcome_error(outcome, self._spec.raises)

    def _pending_since(self, timeout: float | None) -> CallPending:
        """The error of a wait whose time is up. Since when is known from the first wait: `begin` looks at no clock."""
        now = time()
        if self._waited_since is None:
            self._waited_since = now - (timeout or 0.0)
        since = strftime("%H:%M:%S", localtime(self._waited_since))
        waited = now - self._waited_since
        return self._pending(f"is pending, and was waited for since {since}, for {waited:.3g} s: wait on, or cancel it")

    def cancel(self, abort: bool = False) -> None:
        """Ask for the call to be ended. Returns at once; the notification still comes, and the call is still completed.

        Args: `abort` False asks the server, and the outcome is whatever it then does; True ends the call here and now
            with `CallCancelled` (1818), notifies the server, and discards a later reply.
        Cancelling again, or when the answer has arrived, does nothing.
        Raises: `InvalidAsyncHandle` (1914) if the handle carries no call.
        Source: "RpcAsyncCancelCall".
        """
        check_flag("abort", abort)
        if self._state == _DONE and self._box:
            return
        if self._carrier is None or not _PENDING <= self._state <= _DONE:
            raise self._no_call()
        self._carrier.cancel(self._id, self, abort)

    def __await__(self) -> Generator[Any, None, R]:
        """Await the outcome, and collect it: return the result, or raise the call's error.

        A task that is cancelled meanwhile cancels the call, abortively, unless another task or thread waits for it or
        for a pipe of it (`asyncio.shield` keeps it from that). The call may be awaited again, and by several tasks of a
        loop: each gets the same result or error. It is spent, so `complete` raises `InvalidAsyncHandle`. Tasks may be
        made of it: `asyncio.create_task(call)`.
        Raises: `InvalidAsyncHandle` (1914) if the handle carries no call, or `complete` has collected its outcome.
        """
        awaited = self._awaited
        if self._box is None:
            if self._carrier is None or not _PENDING <= self._state <= _DONE:
                raise self._no_call()
            completion = self._carrier.expect(self._id, self)
            if completion is not None:
                completion.bridge.hold()
                try:
                    yield from completion.future
                except BaseException:
                    self._carrier.give_up_waiting(self._id, self, completion)
                    raise
                finally:
                    completion.bridge.release()
                awaited = self._awaited  # Another task may have collected it meanwhile.
        if awaited is None:
            awaited = self._awaited = Awaited()
        if not awaited.collected:
            try:
                awaited.result = self.complete()
            except (CallError, *self._spec.raises) as error:
                awaited.error = error
            awaited.collected = True
        if awaited.error is None:
            return awaited.result  # type: ignore[no-any-return]  # it is an R
        try:
            raise awaited.error.with_traceback(None)
        finally:
            del self, awaited  # The error's traceback holds this frame.

    def send(self, value: Any) -> Any:
        """Go on awaiting the call, for the task that runs: a call can be stepped as a coroutine is."""
        return self._step("send", value)

    def throw(self, *error: Any) -> Any:
        """Raise an error, that of a cancelled task for one, in the task that awaits the call."""
        return self._step("throw", *error)

    def _step(self, how: str, *values: Any) -> Any:
        from asyncio import current_task  # Takes longer to import than the whole engine; a program with tasks has it.

        if self._awaited is None:
            self._awaited = Awaited()
        steps, task = self._awaited.steps, current_task()
        generator = steps.get(task)
        if generator is None:
            generator = steps[task] = self.__await__()
            if how == "throw" and self._carrier is not None and _PENDING <= self._state < _DONE:
                self._carrier.give_up_waiting(self._id, self, None)  # A task that is cancelled before it began.
        try:
            return getattr(generator, how)(*values)
        except BaseException:
            del steps[task]
            raise

    def close(self) -> None:
        """Cancel the call abortively, if its outcome is not known: no task is going to await it. Never blocks."""
        if _PENDING <= self._state < _DONE:
            self.cancel(abort=True)

    def _no_call(self) -> InvalidAsyncHandle:
        how = "carries no call yet" if self._state == State.IDLE else "is spent: its call is over"
        return InvalidAsyncHandle(f"the handle {how}")


def _decoded(spec: Any, outcome: Reply) -> Any:
    """Return the result of an operation that has come as more than a value in band."""
    if type(outcome) is Settled:
        return outcome.result
    try:
        # Without a contract, the reply says whether the value is a result with outputs.
        decode = spec.decode_args if outcome.outputs and spec.signature is None else spec.decode_result
        return decode(outcome.value, outcome.blobs, outcome.descriptors)
    except BaseException as error:
        if is_interrupt(error):
            raise
        raise _undecodable(spec, error) from error


def _undecodable(spec: Any, error: BaseException) -> CallError:
    """Decoding runs into whatever was sent, and runs the types' own checks, which may say what is wrong."""
    if issubclass(type(error), CallError):
        return error  # type: ignore[return-value]  # it is one
    return BadStubData(f"the result of {spec.name} is not what its annotation says: {text_of(error)}")


def _in_use(call: Call[Any]) -> InvalidState:
    return InvalidState(f"the handle carries a call that is {call.state.name}: complete it, or use another handle")


def handle_of(handle: object) -> Call[Any]:
    """Return `handle` if it is one; raise `InvalidArgumentType` if not."""
    if not isinstance(handle, Call):
        raise InvalidArgumentType(f"handle must be a Call or None, not {type_name(handle)}")
    return handle


def carrying(handle: Call[Any] | None, user_data: Any) -> Call[Any] | None:
    """Return a handle that has `user_data`, if there is any: before its call is begun, which may be over at once."""
    if user_data is None:
        return handle
    call: Call[Any] = Call() if handle is None else handle_of(handle)
    call.user_data = user_data
    return call


def abandon(call: Call[Any]) -> None:
    """End a call that no thread is going to collect."""
    try:
        call.cancel(abort=True)
    except InvalidAsyncHandle:
        pass  # It is over already.


# What the client's parts do with the fields of a call. `_locked`: under the table's lock.


def adopt(
    call: Call[Any], carrier: CallCarrier, spec: Any, notify: Notification | None, call_id: int, request: Any,
    pipes: Any = None,
) -> None:  # fmt: skip
    """Have a handle carry a call: from the states that allow it, through ISSUING, to PENDING."""
    accepted = _ACCEPTED_FROM[call._state]
    if accepted is None:
        raise _in_use(call)
    call._carrier, call._spec, call._notify, call._id = carrier, spec, notify, call_id
    call._box = call._timer = call._awaited = call._trailing = call._waited_since = None
    call._pipes, call._request = pipes, request
    if pipes is not None:
        pipes.number = call_id
    call._state = accepted


def surround(call: Call[Any], around: Resumed) -> None:
    """Have these interceptors resumed with the outcome of the call that is begun next with this handle."""
    if _ACCEPTED_FROM[call._state] is None:
        raise _in_use(call)
    call._around = around


def uncover(call: Call[Any], around: Resumed) -> None:
    """The call was not begun after all."""
    if call._around is around:
        call._around = None


def read(spec: Any, outcome: Outcome) -> Any:
    """Return the result that an outcome of an operation is, or raise the error, as completing the call would."""
    failure = outcome_error(outcome, spec.raises)
    if failure is not None:
        raise failure
    return _decoded(spec, outcome if isinstance(outcome, Reply) else Reply(0, outcome))  # type: ignore[arg-type]  # a Raw


def limit(call: Call[Any], timer: TimerHandle) -> None:
    """Have an outcome cancel `timer`, which ends the call."""
    call._timer = timer
    if call._box is not None:  # The outcome came first, and found no timer to cancel.
        timer.cancel()


def time_left(call: Call[Any]) -> float | None:
    """Return the seconds that are left of the call's own time limit; None if it has none."""
    timer = call._timer
    return None if timer is None else max(0.0, timer.when - monotonic())


def ask_to_end_locked(call: Call[Any]) -> None:
    """Note that the caller has cancelled the call, and waits for what the server makes of that."""
    following = NEXT[call._state][On.CANCEL]
    assert following is not None
    call._state = following


def withdraw_locked(call: Call[Any]) -> None:
    """The call was not accepted after all."""
    call._state = State.SPENT
    call._request = None


def give_up_at_fork(call: Call[Any], outcome: Outcome) -> None:
    """End a call in a forked child, where nothing else runs yet, and notify of nothing."""
    call._state = State.DONE
    call._box = [outcome]


def number_of(call: Call[Any]) -> int:
    """Return the number under which the table of its connection has the call."""
    return call._id


def carrier_of(call: Call[Any]) -> Any:
    """Return what carries the call, or did."""
    return call._carrier


def carried_by(call: Call[Any]) -> Callable[[], Any]:
    """Return a function that returns what carries the call, as long as it is the one that its handle has now.

    It keeps no handle: the timer of a call may outlive the call.
    """
    handle, call_id = weakref.ref(call), call._id

    def carrier() -> Any:
        call = handle()
        return call._carrier if call is not None and call._id == call_id else None

    return carrier


def is_elsewhere_locked(table: Recorder, call_id: int, call: Call[Any]) -> bool:
    """Whether the call of that number is outstanding in another table of the same client."""
    carrier = call._carrier
    if carrier is None:
        return False
    other = carrier.table
    return other.lock is table.lock and other is not table and other.calls.get(call_id) is call


def move_locked(
    call: Call[Any], source: Recorder, target: Recorder, carrier: CallCarrier, spec: Any,
    queue: deque[Any], messages: tuple[Any, ...],
) -> None:  # fmt: skip
    """Have another connection of the client carry an outstanding call, whatever waits for it, under the same number.

    Its `messages` go to the end of that one's queue. No interrupt halves it: there is no call of anything in it, and no
    jump back. `target` may be `source`.
    """
    queue += messages
    number, needs = call._id, call._notify is not None and call._notify.needs_driver
    if target is not source:
        target.calls[number] = call
        call._carrier, call._spec = carrier, spec
        del source.calls[number]
        source.need_driver -= needs
        target.need_driver += needs


def spec_of(call: Call[Any]) -> Any:
    """Return the operation that is called."""
    return call._spec


def request_of(call: Call[Any]) -> Any:
    """Return what was queued for the call; it is kept until the outcome is known."""
    return call._request


def is_cancelled(call: Call[Any]) -> bool:
    """Whether the caller has asked for an end, or the call has one."""
    return call._state != _PENDING


def pipes_of(call: Call[Any]) -> Any:
    """Return this side's end of all pipes of the call; None if it has none."""
    return call._pipes


def outcome_of(call: Call[Any]) -> Outcome | None:
    """Return the outcome, if it is known and was not collected."""
    box = call._box
    return next(iter(box.copy()), None) if box else None


def progress_of(call: Call[Any], pipes: Any) -> Progress:
    """Return how far the call of these pipes is; collected, too, if the handle carries another call by now."""
    if call._pipes is not pipes:
        return Progress.COLLECTED
    box = call._box
    return Progress.RUNNING if box is None else Progress.ENDED if box else Progress.COLLECTED


def throw_away(call: Call[Any]) -> None:
    """Drop the outcome: the handle is spent."""
    box = call._box
    if box:
        try:
            box.pop()
        except IndexError:
            return  # Another thread completed the call just now, and has the outcome.
        call._state = State.SPENT


def outcomes_of(group: ReplyGroup, blobs: Sequence[Buffer], calls: Mapping[int, Call[Any]]) -> list[Outcome]:
    """The outcomes of a group that are not just results in band."""
    options = group.options
    metadata = None if options is None else options.metadata
    if group.status:
        return [
            FaultReply(group.status, value, metadata=metadata, operation=call._spec.name)
            if (call := calls.get(call_id))
            else value
            for call_id, value in zip(group.ids, group.values, strict=True)
        ]
    descriptors, outputs = (None, 0) if options is None else (options.blobs, options.outputs)
    return [Reply(0, value, blobs, descriptors, metadata, outputs) for value in group.values]


def record_locked(
    table: Recorder, call_ids: Iterable[int], outcomes: Iterable[Outcome], actions: list[Callable[[], object]]
) -> int:
    """What `CallTable.finish_locked` does, for callers that go on by themselves if it is broken off.

    Whatever raises in it, each call has its outcome, is out of the table and its notification is in `actions`, or
    none of that: what may raise comes first, and from the line where `actions`, or a list that is in it, grows
    until the call is out there is no call of anything, no jump back, and nothing that needs memory.
    """
    calls, waiting, before = table.calls, table.waiting, table.finished
    # Calls in a row mostly have one notification, or notifications of one class: those are delivered in one step.
    common: Notification | None = None
    deliver_row: Callable[[list[Any], EventKind], object] | None = None
    row: list[Any] = []
    for call, outcome in zip(map(calls.get, call_ids), outcomes, strict=False):
        if call is None:
            table.late += 1
            continue
        # Once it has its outcome, the handle may carry another call.
        call_id, notify = call._id, call._notify
        box = [outcome]
        finished, need_driver = table.finished + 1, table.need_driver
        around = call._around
        if around is not None:
            # Its interceptors come first: it leaves for their table, where it has no outcome yet.
            home, driven = around.home, notify is not None and notify.needs_driver
            first = (partial(around.resume, call_id, call._spec, outcome, call._carrier),)
            if call._timer is not None:
                call._timer.cancel()
            home.table.calls[call_id] = call
            home.table.need_driver += driven
            actions += first
            call._around = None
            call._carrier = home
            table.finished = finished
            table.need_driver = need_driver - driven
            del calls[call_id]
            continue
        waiters = waiting.get(call_id) if waiting else None
        if waiters is not None:  # Its notification is delivered by itself, so that one list grows.
            common = deliver_row = None
        grown: list[Any] = actions
        added: tuple[Any, ...] = ()
        if notify is not None:
            need_driver -= notify.needs_driver
            if notify is common:
                grown, added = row, (call,)
            elif (jointly := notify.deliver_row) is None:
                common, deliver_row, row = notify, None, [call]
                added = (partial(notify.deliver, row, _COMPLETE),)
            elif jointly is deliver_row:
                grown, added = row, (notify, call)
            else:
                common, deliver_row, row = None, jointly, [notify, call]
                added = (partial(jointly, row, _COMPLETE),)
        if waiters is not None:
            for waiter in waiters:
                if isinstance(waiter, Observer):
                    waiter.outcome = outcome
                added = (*added, waiter.wake)
        if call._timer is not None:
            call._timer.cancel()
        grown += added  # Grows, or raises and does not; `append` would be a call.
        call._state = _DONE
        call._request = None
        call._box = box
        table.finished = finished
        table.need_driver = need_driver
        del calls[call_id]
        if waiters is not None:
            del waiting[call_id]
    return table.finished - before
