"""What is told about one call that has pipes: several signals to one target, in order, the last one last.

Theory of operation. A call without pipes is told of once, by its client's table. With pipes the same target hears of
sends and receives as well, decided by different threads, and nothing may follow the end. So signals queue up, and one
thread at a time delivers them. Callbacks are delivered one after the other by one worker of the default pool.

    add(kind) -> queue -> tell -> deliver, until the queue is empty

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

    __slots__ = ("_lock", "_queue", "_telling", "event", "notify", "silent", "subject")

    def __init__(self, subject: object, notify: Notification | None) -> None:
        self.subject: object = subject
        self.notify: Notification | None = notify
        # The kind delivered last, or just being delivered. Read anywhere.
        self.event: EventKind | None = None
        self._lock = Lock()
        # All below: guarded by _lock. What is added once `silent` is set is dropped.
        self._queue: deque[EventKind] = deque()
        self._telling = False
        self.silent: bool = False

    def add(self, kind: EventKind, last: bool = False) -> None:
        """Queue a signal; `tell` delivers it. May be called under the lock of the call's pipes."""
        with self._lock:
            if not self.silent:
                self._queue.append(kind)
                self.silent = last

    def hush(self) -> None:
        """Deliver nothing any more."""
        with self._lock:
            self.silent = True
            self._queue.clear()

    def tell(self) -> None:
        """Deliver what is queued, unless another thread is doing so. Call it outside all locks."""
        with self._lock:
            if self._telling or not self._queue:
                return
            self._telling = True
        if self.notify is None:
            self._drain(None)
            return
        try:
            self.notify.in_order(self._drain)
        except EngineError as error:  # The pool that was to run the callbacks is closed.
            with self._lock:
                self._telling = False
            log.warning("%r could not be told of: %s", self.subject, text_of(error))

    def _drain(self, deliver: Callable[[Sequence[object], EventKind], object] | None) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._telling = False
                    return
                self.event = kind = self._queue.popleft()
            try:
                if deliver is not None:
                    deliver((self.subject,), kind)
            except BaseException as error:
                if is_interrupt(error):
                    with self._lock:
                        self._telling = False
                    raise
                log.error("the callback of %r raised for %s", self.subject, kind.name, exc_info=error)
