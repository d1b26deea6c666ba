"""Overlapped file descriptors: pipes, stream sockets, terminals, the ends of a child process.

Theory of operation. A descriptor shows levels: it is readable as long as there is something to read, whether
a thread wants it or not. So each source has a poll set of its own, in which the descriptor is for the
directions that have operations pending; that set's own descriptor is what the port polls. (Poll sets nest:
one is readable while it has something to report.) An interest that is no longer needed is dropped only when it
makes itself felt, so that one read after another costs one system call each.

Source: "ReadFile", "WriteFile", "Pipes"; Linux' `epoll(7)` by way of the standard `selectors`.
"""

import errno
import os
import selectors
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any, Final

from transport.errors import InvalidOperation, TooManyOperations
from transport.foreign import text_of
from transport.overlapped.operation import (
    ACCESS_DENIED,
    BROKEN_PIPE,
    GEN_FAILURE,
    HANDLE_EOF,
    INPUT,
    ITSELF,
    NETNAME_DELETED,
    NOT_SUPPORTED,
    OK,
    OUTPUT,
    OverlappedOperation,
    Settable,
)
from transport.overlapped.source import DEFAULT_LIMIT, OverlappedSource, check_limit, readable, writable

_STATUSES: Final = {errno.EPIPE: BROKEN_PIPE, errno.ECONNRESET: NETNAME_DELETED}


class ReadOperation(OverlappedOperation[Any]):
    """A read; `result()` is what was read."""

    __slots__ = ("_size", "_target")

    def __init__(self, size: int, target: memoryview | None, *begun: Any) -> None:
        super().__init__(*begun)
        self._size = size
        self._target = target

    def _attempt(self, handle: int) -> int | None:
        target = self._target
        try:
            # Each read is one step of a `for` loop: no signal handler can raise between it and the storing of
            # what was read, which would lose that.
            while self._result is None:
                if target is None:
                    for data in iter(partial(os.read, handle, self._size), None):
                        self._result = data
                        break
                else:
                    for count in iter(partial(os.readv, handle, [target]), None):
                        self._result = target[:count]
                        break
        except BlockingIOError:
            return None  # It stays pending.
        self._transferred = len(self._result)
        return OK if self._transferred else HANDLE_EOF


class WriteOperation(OverlappedOperation[int]):
    """A write; `result()` is the number of bytes, which is all of them."""

    __slots__ = ("_data",)

    def __init__(self, data: memoryview, *begun: Any) -> None:
        super().__init__(*begun)
        self._data = data

    def _attempt(self, handle: int) -> int | None:
        data = self._data
        try:
            while self._transferred < len(data):
                for count in iter(partial(os.write, handle, data[self._transferred :]), None):
                    self._transferred += count
                    break
        except BlockingIOError:
            return None  # It stays pending.
        self._result = self._transferred
        return OK


class _Descriptor:
    """The device: a descriptor, and the poll set that shows when it is worth an attempt."""

    failures: tuple[type[Exception], ...] = (OSError,)
    outcomes = frozenset({HANDLE_EOF, NETNAME_DELETED, BROKEN_PIPE})

    def __init__(self, file: Any) -> None:
        if not hasattr(selectors.DefaultSelector, "fileno"):
            raise InvalidOperation("poll sets do not nest on this platform", status=NOT_SUPPORTED)
        try:
            fd = file if isinstance(file, int) else file.fileno()
            blocking = os.get_blocking(fd)
            os.set_blocking(fd, False)
        except (AttributeError, OSError, OverflowError, TypeError, ValueError) as error:
            raise InvalidOperation(f"file must be an open descriptor, or have one: {text_of(error)}") from error
        try:
            self._selector = selectors.DefaultSelector()
        except OSError as error:
            os.set_blocking(fd, blocking)
            raise TooManyOperations(f"no descriptor is left for a poll set: {error}") from error
        self.file = file
        self.handle = fd
        self._blocking = blocking
        # What the selector looks for, an or of `INPUT` and `OUTPUT`.
        self._interest = 0

    def descriptors(self) -> Sequence[int]:
        return [self._selector.fileno()]

    def ready(self) -> int:
        return INPUT | OUTPUT  # An attempt costs no more than asking.

    def woken(self, wanted: int) -> None:
        self._look_for(self._interest & wanted)

    def watch(self, wanted: int) -> None:
        self._look_for(self._interest | wanted)

    def _look_for(self, interest: int) -> None:
        if interest == self._interest:
            return
        with suppress(KeyError):  # Nothing was looked for so far.
            self._selector.unregister(self.handle)
        self._interest = 0
        if interest:
            self._selector.register(self.handle, interest)
        self._interest = interest

    def is_fatal(self, error: Exception) -> bool:
        if not isinstance(error, OSError) or error.errno != errno.EBADF:
            return False
        try:
            os.fstat(self.handle)  # EBADF is also what one says that is open for the other direction only.
        except OSError:
            return True
        return False

    def status_of(self, error: Exception) -> int:
        assert isinstance(error, OSError), "nothing else is caught"
        if error.errno == errno.EBADF:
            return ACCESS_DENIED  # The source would be closed if the descriptor were.
        return _STATUSES.get(error.errno or 0, GEN_FAILURE)

    def release(self, close: bool) -> None:
        self._look_for(0)
        self._selector.close()
        if not close:
            with suppress(OSError):  # The program has closed it.
                os.set_blocking(self.handle, self._blocking)
        elif isinstance(self.file, int):
            with suppress(OSError):  # Likewise.
                os.close(self.file)
        else:
            self.file.close()


class OverlappedDescriptor(OverlappedSource):
    """A stream of bytes with a file descriptor, whose reads and writes complete as packets on a port.

    Args:
        file: a descriptor, or an object with a method `fileno`: an end of a pipe, a connected stream socket,
            `Popen.stdout`. It is made non-blocking, for all who share it, until `detach`. Nothing may be left in a
            buffer of the object. From here on it is used through this object. (Regular files work: they are
            always ready, so each operation completes when it is begun.)
        limit: how many operations may be pending.

    Raises: `InvalidOperation` (87); with 50 where the platform has neither epoll nor kqueue. `TooManyOperations` (1816)
        if the process has no descriptor left.

    Reads get the stream's bytes in the order in which they were begun, writes leave in that order, and
    neither waits for the other. What the other end did is the outcome of an accepted operation, a packet, even
    if it was known when the operation was begun: 38 (HANDLE_EOF) for a read at the end, 64 (NETNAME_DELETED)
    for a connection that was reset, 109 (BROKEN_PIPE) for a write whose reader is gone. A read of what is open for
    writing only, or the other way round, cannot be begun: 5 (ACCESS_DENIED).

    Different from Windows: the end of a stream is 38 for pipes and sockets too, not 109 and an empty success.
    """

    def __init__(self, file: Any, *, limit: int = DEFAULT_LIMIT) -> None:
        check_limit(limit)
        self._device = _Descriptor(file)
        super().__init__(self._device, limit)

    def begin_read(
        self, size_or_buffer: Any = 65536, *, overlapped: Any = ITSELF, event: Settable | None = None,
        packet: bool = True,
    ) -> ReadOperation:  # fmt: skip
        """Begin to read what there is, or comes; see `OverlappedSource` for what all begins share.

        Args: `size_or_buffer` is the most bytes to read, 1 or more, or a writable buffer to read into.
        `result()`: bytes, or a memoryview of what was filled. Transferred: how many; never 0 of a success.
        """
        if isinstance(size_or_buffer, int):
            size, target = size_or_buffer, None
            if size < 1:
                raise InvalidOperation(f"a read takes 1 byte or more, not {size}")
        else:
            size, target = 0, writable(size_or_buffer)
        read = ReadOperation(size, target, self, self._completions, overlapped, event, packet)
        return self._pending.begin(read, self._pending.input)

    def begin_write(
        self, data: Any, *, overlapped: Any = ITSELF, event: Settable | None = None, packet: bool = True
    ) -> WriteOperation:
        """Begin to write all of `data`; see `OverlappedSource` for what all begins share.

        Args: `data` is a bytes-like object, which belongs to the operation until it completes.
        `result()`, transferred: how many bytes the system took; of a write that failed, how many until then.
        """
        write = WriteOperation(readable(data), self, self._completions, overlapped, event, packet)
        return self._pending.begin(write, self._pending.output)

    def exclusive(self) -> AbstractContextManager[Any]:
        """Lend the object for other uses, `shutdown` for one: `with source.exclusive() as file: ...`.

        No other thread uses it meanwhile. Inside, call nothing that blocks, and no method of this object.
        """
        return self._pending.lend(self._device.file)

    def detach(self) -> Any:
        """Close this object but not the file, which is returned: it is the caller's alone again.

        What is pending completes with 995. Raises: `SourceClosed`.
        """
        self._pending.end(close=False)
        return self._device.file


assert (selectors.EVENT_READ, selectors.EVENT_WRITE) == (INPUT, OUTPUT)
