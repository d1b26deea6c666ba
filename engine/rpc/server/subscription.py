"""Subscriptions of a served call: notifications that its client has cancelled it, or is gone.

Theory of operation. Each call has its own set of them, one for each kind at the most. A subscriber is notified in the
ways in which a client is notified of a completion (`notify.py`): event, APC, port, callback.

    subscribe --client cancels / is lost--> queued once --> delivered       close: nothing further is delivered

A notification is handed to its target under the set's lock. That is an exception to acting outside of locks, made so
that the closing of a call, which takes the same lock, leaves none behind that is decided but not handed over. Targets
only queue or wake: none runs a program's code there. An APC or a callback looks again when it runs.

Guarantees: at most one notification of each kind for a call, also if it happened before the subscription. None begins
after the closing of the call returned; a callback or APC that began before may still be running.

Lock order: this lock, then those of the targets (a port's, the dispatcher's, the pool's).

Source: "RpcServerSubscribeForNotification", "RpcServerUnsubscribeForNotification", "Receiving Cancellations".
"""

from collections.abc import Callable, Iterable
from typing import Any

from transport.foreign import shown

from ...errors import InvalidAsyncHandle, InvalidParameter, InvalidState, Misuse
from ...kernel.event import Event
from ...kernel.lock import Lock
from ...kernel.notification import Notification
from ...status import Status
from ..notify import EventKind, snapshot
from .open_call import CloseReason, OpenCall

KINDS = frozenset({EventKind.CLIENT_CANCEL, EventKind.CLIENT_DISCONNECT})


class Subscriptions:
    """The subscriptions of one call. Threads: any."""

    __slots__ = ("_call", "_handle", "_live", "_lock", "_over", "_queued", "_used")

    def __init__(self, call: OpenCall, handle: object) -> None:
        self._call = call
        # What functions and packets get. Kept until the call is closed: a subscriber may be the only one to have it.
        self._handle: object = handle
        self._lock = Lock()
        # All guarded by _lock.
        self._live: dict[EventKind, Notification] = {}
        # Kinds that were subscribed to, ever, and kinds that were queued.
        self._used: set[EventKind] = set()
        self._queued: set[EventKind] = set()
        self._over = False

    def add(self, kinds: frozenset[EventKind], notify: Notification) -> None:
        """Subscribe to `kinds`, all or none."""
        with self._lock:
            if self._over:
                raise _closed(self._call)
            if kinds & self._used:
                kind = min(kinds & self._used)
                raise InvalidState(f"{self._call!r} was subscribed to {kind.name} before: once a call is allowed")
            self._used |= kinds
            self._live.update(dict.fromkeys(kinds, notify.guarded(self._run)))

    def remove(self, kind: EventKind) -> int:
        """Unsubscribe; return how many notifications were queued."""
        with self._lock:
            if self._over:
                raise _closed(self._call)
            if self._live.pop(kind, None) is None:
                raise InvalidState(f"{self._call!r} has no subscription to {kind.name}")
            return int(kind in self._queued)

    def notify(self, kind: EventKind) -> None:
        """`kind` happened. Not under link.lock."""
        with self._lock:
            notify = self._live.get(kind)
            if notify is not None and kind not in self._queued and notify.deliver((self._handle,), kind):
                self._queued.add(kind)

    def _run(self, function: Callable[[Any, EventKind], object], call: Any, kind: EventKind) -> None:
        """Call a subscriber's function, in its thread, unless the call was closed since it was queued."""
        with self._lock:
            if self._over:
                return
        function(call, kind)

    def close(self, how: CloseReason) -> None:
        """The call was closed: deliver nothing further."""
        with self._lock:
            self._over = True
            self._live.clear()
            self._handle = None


def subscribe(call: OpenCall, kind: EventKind | Iterable[EventKind], notify: Any, handle: object) -> None:
    """See `ServerCall.subscribe`."""
    wanted = frozenset((kind,) if isinstance(kind, int) else kind)
    if not wanted or not wanted <= KINDS:
        raise _unsupported(kind)
    kinds = frozenset(map(EventKind, wanted))
    if notify is None:
        raise InvalidParameter("notify must say how to notify, None does not: use `test_cancel` and `disconnected`")
    target = snapshot(notify)
    assert target is not None
    if isinstance(notify, Event) and len(kinds) > 1:
        raise InvalidParameter("an event cannot tell kinds apart: subscribe to each with an event of its own")
    subscriptions = _subscriptions_of(call, handle)
    subscriptions.add(kinds, target)
    # Subscribe, then look: what happens in between finds the subscription, which notifies once.
    if call.cancelled and EventKind.CLIENT_CANCEL in kinds:
        subscriptions.notify(EventKind.CLIENT_CANCEL)
    if call.peer.lost and EventKind.CLIENT_DISCONNECT in kinds:
        subscriptions.notify(EventKind.CLIENT_DISCONNECT)


def unsubscribe(call: OpenCall, kind: EventKind, handle: object) -> int:
    """See `ServerCall.unsubscribe`."""
    if kind not in KINDS:
        raise _unsupported(kind)
    return _subscriptions_of(call, handle).remove(EventKind(kind))


def _subscriptions_of(call: OpenCall, handle: object) -> Subscriptions:
    """The subscriptions of `call`, made if it has none; raises if it was closed."""
    extras = call.extras()
    with _making:
        subscriptions: Subscriptions | None = extras.subscriptions
        if subscriptions is None:
            subscriptions = Subscriptions(call, handle)
            if not call.add_done_callback(subscriptions.close):
                raise _closed(call)
            extras.subscriptions = subscriptions
    return subscriptions


def _unsupported(kind: object) -> Misuse:
    return Misuse(
        f"kind must be EventKind.CLIENT_CANCEL or EventKind.CLIENT_DISCONNECT, not {shown(kind)}",
        status=Status.CANNOT_SUPPORT,
    )


def _closed(call: OpenCall) -> InvalidAsyncHandle:
    return InvalidAsyncHandle(f"{call!r} was closed, and its subscriptions with it")


_making = Lock()  # Held to make the set of a call; before the lock of extras.
