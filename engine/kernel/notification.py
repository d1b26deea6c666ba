"""Notifications: how a program learns what has happened to its operations. What all ways have in common.

Each way is one class, which delivers itself: the code that has something to notify of calls `deliver`, whatever the
class. A new way needs a `notify`, no more; one that notifies of many operations in one step has a `deliver`, or a
`deliver_row`, too.

The target belongs to the caller before, during and after the operation: it is never created, cleared or closed here.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import msgspec

from transport.foreign import is_interrupt, shown, text_of
from transport.log import Log

log: Log = Log("engine.kernel")


class Notification(msgspec.Struct, frozen=True):
    """One way to notify, with its target. `kind` says of what: for a remote call it is an `EventKind`.

    Threads: any, holding no lock but those that come before the target's own. Blocks: never.
    """

    # Whether the network must be driven for an operation with this notification though no thread waits for it.
    needs_driver: ClassVar[bool] = False
    # `deliver_row(row, kind)` delivers a row `[notification, operation, notification, operation, ...]` of this class in
    # one step; None: only operations that have the same notification are delivered in one step.
    deliver_row: ClassVar[Any] = None
    # `in_order(drain)` runs `drain(deliver)` where `deliver` has run the program's function before it returns, so that
    # one notification follows another; None: this runs no function, or the target keeps the order.
    in_order: ClassVar[Any] = None

    # Whether one target may be notified of several kinds by one subscription.
    takes_several_kinds: ClassVar[bool] = True

    def hands_over(self) -> bool:
        """Whether the target gets the operation, and can go on with it."""
        return True

    def notify(self, operation: Any, kind: Any) -> None:
        """Notify of `kind`, for one operation. May raise: the target may be closed, its thread may have ended."""
        raise NotImplementedError  # Abstract: each class has its own way, here or in `deliver`.

    def deliver(self, operations: Sequence[Any], kind: Any) -> bool:
        """Notify of `kind`, for each of the operations, in their order; return whether the target has taken it.

        What the target refuses is logged: the operations go on, and end, without it.
        """
        taken = True
        for operation in operations:
            try:
                self.notify(operation, kind)
            except BaseException as error:
                if is_interrupt(error):
                    raise
                refused(shown(operation), kind, error)
                taken = False
        return taken

    def guarded(self, guard: Callable[..., object]) -> Self:
        """Return this with `guard(function, operation, kind)` in the place of the function that it runs, if any."""
        return self


def refused(what: str, kind: Any, error: BaseException) -> None:
    """Log why a target has not taken what it was to be notified of."""
    # Later, as the caller may hold the lock of a call's subscriptions.
    text = "the notification %s of %s could not be delivered: %s; it can still be completed"
    log.warning(text, kind.name, what, text_of(error), later=True)
