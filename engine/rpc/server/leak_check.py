"""Manager routines that look as if they had forgotten to answer: told of once, for people.

Theory of operation. A manager routine answers through the call's handle, at any time, from anywhere. If it returns a
value, that goes nowhere. If nobody but the library refers to an open call's handle once its routine has returned,
nobody can answer it any more, and its client waits until its own time limit. The library's own references are known:
those of the frames that ran the routine, and of the tables that the call is in; how the interpreter counts them is
measured once, with the same frames.

Hints only, in the first `WATCHED` calls of an operation: looking at all would cost each 0.2 us. A handle that is kept
alive by something else (a debugger, a cycle) is not suspected.
"""

import sys
from typing import TYPE_CHECKING, Any

from transport.foreign import type_name
from transport.log import Log

from .extras import is_open

if TYPE_CHECKING:
    from .call import ServerCall

log: Log = Log("engine.rpc")

WATCHED = 100  # Calls of each operation; arbitrary.


def examine(call: "ServerCall", value: object) -> None:
    """Log, once an operation, if its manager routine returned a value, or let go of the handle without an answer."""
    entry = call._entry
    entry.watched -= 1
    if value is not None:
        entry.watched = 0
        log.warning(
            "%r: its manager routine returned a value (%s), which goes nowhere: answer with the handle's complete()",
            call, type_name(value),
        )  # fmt: skip
    elif sys.getrefcount(call) <= _own and is_open(call):
        entry.watched = 0
        log.warning(
            "%r: its manager routine returned, kept no reference to the handle and did not answer: its client waits "
            "until its own time limit",
            call,
        )


class _Place:
    """Where the thread that serves a call keeps it."""

    call: Any = None


def _measure() -> int:
    """Count the references of a call that is only where the library keeps it, seen as `examine` sees it."""
    counted = 0

    def look(call: object, value: object) -> None:
        nonlocal counted
        counted = sys.getrefcount(call)

    def run_one(call: object, place: _Place) -> None:
        place.call = call
        look(call, None)

    def run_alone(call: object) -> None:
        run_one(call, _Place())

    def run() -> None:
        table = {1: object()}
        call = table[1]
        run_alone(call)

    run()
    return counted


_own = _measure()
