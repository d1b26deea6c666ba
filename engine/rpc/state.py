"""The states of a client's call, as a table.

Rows are states, columns are events, a cell is the next state. A missing cell is an error of the caller's, and leaves
the state unchanged. The table knows nothing of sockets, threads or roles.

    IDLE       initialised; carries no call
    ISSUING    inside `begin`, not yet returned
    PENDING    accepted; the outcome is unknown
    CANCELLING as PENDING, and a non-abortive cancel was requested
    DONE       the outcome is known, the notification raised; to be completed
    SPENT      the call is over: completed, or it failed while being issued

Source: "Asynchronous Call State", "RpcAsyncCompleteCall", "RpcAsyncCancelCall".
"""

from enum import IntEnum


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
