"""How the library logs: by the standard loggers, but never at their mercy.

Theory of operation. Filters and handlers are foreign code: they raise, and they take their time. So a record is handed
to them at once only where no thread but the calling one has to wait for it. Threads that others depend on (services,
and those that harvest) hand it to a thread of its own, by way of a bounded queue. That thread lives as long as there
are records.

    debug, ..., exception -> record -> depended on? --no--> logger.handle
                                              `--yes, or `later`--> queue -> transport:log -> logger.handle

Guarantees: logging raises nothing, whatever filters and handlers raise, `SystemExit` included; what a signal handler
raises meanwhile is let through. Records of one thread that go through the queue are emitted in their order. A record
that found the queue full is dropped; a record of its own says how many were.

Assumes: `SimpleQueue.put` and `next` of a count are single steps, for finalizers and signal handlers too.
"""

import itertools
import logging
import sys
import traceback
from _thread import get_ident
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TypeAlias

from transport.foreign import is_interrupt, loggable
from transport.lifecycle import Layer, at_exit, in_child, report_by
from transport.service import Service, vital

LIMIT = 1000  # Records that may wait to be emitted. Arbitrary: more than a person reads, 1 MB of them.
LINGER = 0.05  # Seconds that the thread waits for another record before it ends.
FLUSH = 1.0  # Seconds that the end of the process waits for the records that are queued.

# Asked whether the thread of that identifier does something that others depend on.
asked: list[Callable[[int], bool]] = [vital.__contains__]


class Log:
    """A standard logger, used so that nothing of it can harm. The methods are those of `logging.Logger`.

    `later`: hand the record over in any case, because a lock is held.
    """

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, message: str, *args: object, later: bool = False) -> None:
        _record(self._logger, logging.DEBUG, message, args, None, later)

    def info(self, message: str, *args: object) -> None:
        _record(self._logger, logging.INFO, message, args, None, False)

    def warning(self, message: str, *args: object, later: bool = False) -> None:
        _record(self._logger, logging.WARNING, message, args, None, later)

    def error(
        self, message: str, *args: object, exc_info: BaseException | None = None, later: bool = False,
        extra: dict[str, object] | None = None,
    ) -> None:  # fmt: skip
        _record(self._logger, logging.ERROR, message, args, exc_info, later, extra)

    def critical(self, message: str, *args: object, exc_info: BaseException | None = None) -> None:
        _record(self._logger, logging.CRITICAL, message, args, exc_info, False)

    def failed(self, text: str, error: BaseException) -> None:
        """Log what left a service of the library; for `Service`."""
        _record(self._logger, logging.ERROR, "%s", (text,), error, True)

    def exception(self, message: str, *args: object, later: bool = False) -> None:
        """`error`, with the exception that is being handled."""
        _record(self._logger, logging.ERROR, message, args, sys.exception(), later)


def _record(
    logger: logging.Logger, level: int, message: str, args: tuple[object, ...], error: BaseException | None,
    later: bool, extra: dict[str, object] | None = None,
) -> None:  # fmt: skip
    try:
        if not logger.isEnabledFor(level):
            return
        file, line, function, _ = logger.findCaller(stacklevel=3)
        shown = None if error is None else loggable(error)
        trace = None if shown is None else (type(shown), shown, shown.__traceback__)
        record = logger.makeRecord(logger.name, level, file, line, message, args, trace, function, extra)
        me = get_ident()
        if later or any(ask(me) for ask in asked):
            _emitter.put(logger, record)
        else:
            logger.handle(record)
    except BaseException as failure:
        if is_interrupt(failure):
            raise
        _failed(failure)


def _failed(failure: BaseException) -> None:
    """A filter or handler raised: say so where `logging` itself says it."""
    with suppress(BaseException):  # There is nowhere else to say it.
        if logging.raiseExceptions and sys.stderr is not None:
            traceback.print_exception(failure, file=sys.stderr)


# A record and its logger; or the queue to which None goes when all before it was emitted.
Item: TypeAlias = "tuple[logging.Logger, logging.LogRecord] | SimpleQueue[None]"


class _Emitter:
    """The queue, and the thread that empties it."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Item] = SimpleQueue()
        # One step for each record dropped. The emitting thread reads it by one more step, which `_read` counts.
        self._dropped = itertools.count()
        self._read = 0
        self._reported = 0
        self._service = Service("transport:log", self._emit, _report, more=self._waiting, depended_on=False)

    def put(self, logger: logging.Logger, record: logging.LogRecord) -> None:
        """Have the record emitted. Any thread; never blocks for longer than starting a thread takes."""
        if self._queue.qsize() < LIMIT:
            self._queue.put((logger, record))
        else:
            next(self._dropped)
        self._service.ensure()  # If there can be no thread now, the next record tries again, or the end of the process.

    def _waiting(self) -> bool:
        return not self._queue.empty()

    def _emit(self) -> None:
        while True:
            try:
                item = self._queue.get(timeout=LINGER)
            except Empty:
                return  # The thread has lingered long enough.
            self._emit_one(item)

    def _emit_one(self, item: "Item") -> None:
        if isinstance(item, SimpleQueue):
            item.put(None)
            return
        logger, record = item
        try:
            logger.handle(record)
        except BaseException as failure:
            _failed(failure)
        if self._queue.empty():
            self._report_dropped(logger)

    def _report_dropped(self, logger: logging.Logger) -> None:
        dropped = next(self._dropped) - self._read
        self._read += 1
        new, self._reported = dropped - self._reported, dropped
        if new:
            try:
                logger.warning("%d log records were dropped: the handlers take longer than the records to come", new)
            except BaseException as failure:
                _failed(failure)

    def flush(self, timeout: float) -> None:
        """Wait until what is queued now was emitted; emit it here if there is no thread."""
        if self._queue.empty() and not self._service.running:
            return
        done: SimpleQueue[None] = SimpleQueue()
        self._queue.put(done)
        if self._service.ensure():
            with suppress(Empty):  # The time is up.
                done.get(timeout=timeout)
        else:
            self._emit()


def _report(text: str, error: BaseException) -> None:
    _failed(error)


_emitter = _Emitter()


@in_child
def _forget() -> None:
    global _emitter
    _emitter = _Emitter()
    vital.clear()


at_exit(Layer.LOG, lambda: _emitter.flush(FLUSH))
report_by(Log("transport").exception)
