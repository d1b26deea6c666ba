"""The notifications of one call that has pipes: several signals to one target, in order, the last one last.

Theory of operation. A client's table notifies once of a call without pipes. With pipes, different threads decide to
notify the same target of sends and receives as well, and nothing may follow the end. So signals queue up, and one
thread at a time delivers them. One worker of the default pool runs the callbacks, one after the other.

    add(kind) -> queue -> deliver, until the queue is empty

Guarantees: signals are delivered in the order in which they were added, outside all locks; none after the one that was
added as last.

Source: "RPC_ASYNC_EVENT", "RPC_NOTIFICATION_TYPES".
"""

from collections import deque
from collections.abc import Callable, Sequence

from transport.foreign import is_interrupt, text_of
from transport.log import Log

from ...errors import EngineError
from ...kernel.lock import Lock
from ...kernel.notification import Notification
from ..notify import EventKind

log: Log = Log("engine.rpc")


class Signals:
    """The signals of one call, for the target that its owner chose. Threads: any."""

    __slots__ = ("_delivering", "_lock", "_queue", "event", "muted", "notify", "subject")

    def __init__(self, subject: object, notify: Notification | None) -> None:
        self.subject: object = subject
        self.notify: Notification | None = notify
        # The kind delivered last, or just being delivered. Read anywhere.
        self.event: EventKind | None = None
        self._lock = Lock()
        # All below: guarded by _lock. What is added once `muted` is set is dropped.
        self._queue: deque[EventKind] = deque()
        self._delivering = False
        self.muted: bool = False

    def add(self, kind: EventKind, last: bool = False) -> None:
        """Queue a signal; `deliver` hands it to the target. May be called under the lock of the call's pipes."""
        with self._lock:
            if not self.muted:
                self._queue.append(kind)
                self.muted = last

    def mute(self) -> None:
        """Drop what is queued, and what is added from now on."""
        with self._lock:
            self.muted = True
            self._queue.clear()

    def deliver(self) -> None:
        """Deliver what is queued, unless another thread is doing so. Call it outside all locks."""
        with self._lock:
            if self._delivering or not self._queue:
                return
            self._delivering = True
        notify = self.notify
        if notify is None or notify.in_order is None:
            self._drain(None if notify is None else notify.deliver)
            return
        try:
            notify.in_order(self._drain)
        except EngineError as error:  # The pool that was to run the callbacks is closed.
            with self._lock:
                self._delivering = False
            log.warning("the notification of %r could not be delivered: %s", self.subject, text_of(error))

    def _drain(self, deliver: Callable[[Sequence[object], EventKind], object] | None) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._delivering = False
                    return
                self.event = kind = self._queue.popleft()
            try:
                if deliver is not None:
                    deliver((self.subject,), kind)
            except BaseException as error:
                if is_interrupt(error):
                    with self._lock:
                        self._delivering = False
                    raise
                log.error("the callback of %r raised for %s", self.subject, kind.name, exc_info=error)
