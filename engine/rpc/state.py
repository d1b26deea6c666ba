"""The states of a client's call, as a table; and how a call ended.

Rows are states, columns are events, a cell is the next state. A missing cell is an error of the caller's, and leaves
the state unchanged. The table knows nothing of sockets, threads or roles. How a call ended is a result, still encoded;
an answer with more than that; or a failure.

    IDLE       initialised; carries no call
    ISSUING    inside `begin`, not yet returned
    PENDING    accepted; the outcome is unknown
    CANCELLING as PENDING, and a non-abortive cancel was requested
    DONE       the outcome is known, the notification raised; to be completed
    SPENT      the call is over: completed, or it failed while being issued

Source: "Asynchronous Call State", "RpcAsyncCompleteCall", "RpcAsyncCancelCall".
"""

from collections.abc import Sequence
from enum import IntEnum

import msgspec

from transport import Buffer
from transport.foreign import shown, text_of
from transport.frames import Blob, Fault
from transport.log import Log

from ..errors import CallError
from .errors import CallCancelled, RemoteFault, error_for

log: Log = Log("engine.rpc")

_RESULT = msgspec.Raw


class State(IntEnum):
    """Where a call is in its life."""

    IDLE = 0
    ISSUING = 1
    PENDING = 2
    CANCELLING = 3
    DONE = 4
    SPENT = 5


class On(IntEnum):
    """What can happen to a call."""

    ISSUE = 0  # `begin` was entered
    ACCEPTED = 1  # `begin` returns
    REFUSED = 2  # `begin` raises
    OUTCOME = 3  # a reply, a fault, a lost connection, an abortive cancel, a timeout: first one wins
    CANCEL = 4  # a non-abortive cancel
    COMPLETE = 5  # `complete` returned or raised something other than "pending"
    REINITIALIZE = 6


TRANSITIONS: dict[State, dict[On, State]] = {
    State.IDLE: {On.ISSUE: State.ISSUING, On.REINITIALIZE: State.IDLE},
    # An outcome may be there before `begin` has returned (INV-6).
    State.ISSUING: {On.ACCEPTED: State.PENDING, On.REFUSED: State.SPENT},
    State.PENDING: {On.OUTCOME: State.DONE, On.CANCEL: State.CANCELLING},
    State.CANCELLING: {On.OUTCOME: State.DONE, On.CANCEL: State.CANCELLING},
    State.DONE: {On.COMPLETE: State.SPENT, On.CANCEL: State.DONE},
    # A spent handle may begin another call without being initialised first (Windows XP and later).
    State.SPENT: {On.ISSUE: State.ISSUING, On.REINITIALIZE: State.IDLE},
}

# The same table for the hot path: two index operations on tuples instead of two hashes of enum members.
NEXT: tuple[tuple[State | None, ...], ...] = tuple(
    tuple(TRANSITIONS[state].get(event) for event in On) for state in State
)


class Reply(msgspec.Struct, gc=False):
    """An answer that is not just a result in band: something travelled out of band, or beside it."""

    status: int
    value: msgspec.Raw
    blobs: Sequence[Buffer] = ()
    descriptors: Sequence[Blob] | None = None
    metadata: dict[str, str] | None = None
    outputs: int = 0


class FaultReply(Reply):
    """An answer that is a failure."""

    operation: str = ""
    collected: bool = False

    def __del__(self) -> None:
        if not self.collected:
            log.debug("%s failed, and its handle was dropped uncompleted: %s", self.operation, fault_of(self))


class Failure(msgspec.Struct):
    """Why no answer will come. Each call has an error object of its own: two threads must not raise the same one."""

    error: CallError

    @property
    def status(self) -> int:
        return self.error.status

    def __del__(self) -> None:
        # Who cancels a call may well drop it.
        if not self.error.collected and type(self.error) is not CallCancelled:
            log.debug("a call failed, and its handle was dropped uncompleted: %s", self.error)


# How a call ended. Mostly with a result, still encoded.
Outcome = msgspec.Raw | Reply | Failure


def status_of(outcome: Outcome) -> int:
    """Return the status that stands for an outcome: 0 for a result."""
    return 0 if type(outcome) is _RESULT else outcome.status  # type: ignore[union-attr]  # `type() is` narrows nothing


class Settled(Reply, kw_only=True):
    """What the interceptors of a call have left of its outcome."""

    result: object = None
    # What the call ends with instead.
    error: BaseException | None = None


class Observer:
    """Something that waits for a call to see how it ended, not to complete it: a thread may have done so by then."""

    # Set under the table's lock, before `wake`.
    outcome: Outcome | None = None

    def wake(self) -> None:
        """The call has its outcome."""
        raise NotImplementedError  # Abstract: each observer goes on in its own way.


_decode_fault = msgspec.msgpack.Decoder(Fault | None).decode


def collected(error: CallError) -> CallError:
    """Mark an error as one that a caller gets, and return it."""
    error.collected = True
    return error


def outcome_error(outcome: Outcome, declared: Sequence[type[Exception]]) -> Exception | None:
    """Return the error that an outcome is, of a class that the operation has declared if it came as one; None for a
    result. Its caller has it now.
    """
    if type(outcome) is Failure:
        return collected(outcome.error)
    if type(outcome) is Settled:
        error = outcome.error
        return collected(error) if issubclass(type(error), CallError) else error  # type: ignore[arg-type, return-value]  # mostly one
    if type(outcome) is not FaultReply:
        return None
    outcome.collected = True
    error = collected(fault_of(outcome))
    if isinstance(error, RemoteFault):
        for kind in declared:
            if kind.__name__ == error.type_name:
                return _as_declared(kind, error)
    return error


def _as_declared(kind: type[Exception], fault: RemoteFault) -> Exception:
    """Return the exception that has ended a routine, made anew; the fault itself if that cannot be."""
    try:
        found = kind(*fault.data if isinstance(fault.data, list) else (fault.text,))
        if type(found) is not kind:
            return fault
        found.__cause__ = fault
    except Exception as error:  # It takes other arguments than it shows in `args`.
        fault.add_note(f"{kind.__name__} is declared, and cannot be made of {shown(fault.data)}: {text_of(error)}")
        return fault
    return found


def fault_of(reply: Reply) -> CallError:
    """Return the error that a reply with a status other than 0 stands for."""
    try:
        fault = _decode_fault(reply.value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        fault = None  # The status is what counts; the rest is for people.
    if fault is None:
        return error_for(reply.status, "")
    error = error_for(reply.status, fault.text, fault.type, fault.traceback, fault.data)
    if fault.traceback:
        error.add_note(f"At the server:\n{fault.traceback}")
    return error
