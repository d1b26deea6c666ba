"""An overlapped operation: what it was asked, and what became of it.

Source: "Synchronization and Overlapped Input and Output", "GetOverlappedResult"; sections 5, 8 and 10 of
`docs/semantics/completion-port.md`.
"""

from _thread import get_ident
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from transport.errors import InvalidOperation, OperationFailed, OperationPending
from transport.foreign import a_type, type_name
from transport.lifecycle import Uncopyable

if TYPE_CHECKING:
    from transport.overlapped.services import SourceServices
    from transport.overlapped.source import OverlappedSource

# The Windows numbers that operations end with.
OK: Final = 0
ACCESS_DENIED: Final = 5
INVALID_HANDLE: Final = 6
BAD_COMMAND: Final = 22
GEN_FAILURE: Final = 31
HANDLE_EOF: Final = 38
NOT_SUPPORTED: Final = 50
NETNAME_DELETED: Final = 64
BROKEN_PIPE: Final = 109
MORE_DATA: Final = 234
OPERATION_ABORTED: Final = 995
PENDING: Final = 997
HOST_UNREACHABLE: Final = 1232

# What those that a failed operation ends with mean, for people.
_MEANINGS: Final = {
    ACCESS_DENIED: "access was denied",
    INVALID_HANDLE: "the object was closed",
    HANDLE_EOF: "end of stream",
    NETNAME_DELETED: "the peer broke the connection off",
    BROKEN_PIPE: "the other end of the pipe was closed",
    MORE_DATA: "there was more than the buffer takes",
    OPERATION_ABORTED: "cancelled",
    HOST_UNREACHABLE: "there is no such peer",
}

T_co = TypeVar("T_co", covariant=True)


class Settable(Protocol):
    """An event, as an operation sees it."""

    def set(self) -> object:
        """Make it signaled."""


class _Itself:
    """The type of `ITSELF`."""

    def __repr__(self) -> str:
        return "ITSELF"


#: As `overlapped`: the packet carries the operation object, which is also what happens if nothing is given.
ITSELF: Final[Any] = _Itself()


class OverlappedOperation(Uncopyable, Generic[T_co]):
    """One overlapped operation, made by a `begin_...` method of its source. Used once.

    It is complete when `status` is no longer 997 (PENDING). Its buffers belong to it until then. Attributes
    may be read from any thread; they are final before the event is set and the packet is queued.
    """

    _instead = "hand over its result"

    __slots__ = (
        "__weakref__", "_events", "_result", "_silent", "_source", "_status", "_synchronous", "_thread",
        "_transferred", "_value",
    )  # fmt: skip

    def __init__(self, source: "OverlappedSource", overlapped: Any, event: Settable | None, packet: bool) -> None:
        if event is not None and not callable(getattr(event, "set", None)):
            raise InvalidOperation(f"event must have a method `set`, which {a_type(event)} has not")
        self._source = source
        self._value = overlapped
        # Guarded by the source's lock until complete; `_status` is written last.
        self._events: tuple[Settable, ...] = () if event is None else (event,)
        # No packet: the caller said so, or was told of the success already.
        self._silent = not packet
        self._thread = get_ident()
        self._result: Any = None
        self._transferred = 0
        self._synchronous = False
        self._status = PENDING

    @property
    def source(self) -> "OverlappedSource":
        """The source it was begun on."""
        return self._source

    @property
    def overlapped(self) -> Any:
        """What its packet carries: the value given by the caller, else the operation itself."""
        return self if self._value is ITSELF else self._value

    @property
    def status(self) -> int:
        """997 while pending, then 0 for success or the number of the error; 995 if it was cancelled."""
        return self._status

    @property
    def done(self) -> bool:
        """Whether it is complete."""
        return self._status != PENDING

    @property
    def completed_synchronously(self) -> bool:
        """Whether it had succeeded when the `begin_...` returned.

        Then a source whose mode is `SKIP_PORT_ON_SUCCESS` posts no packet for it; any other source does.
        """
        return self._synchronous

    @property
    def transferred(self) -> int:
        """Bytes transferred, counted over all frames; what had been transferred when it failed, too."""
        return self._transferred

    def result(self) -> T_co:
        """Return what it came to; for which type see the `begin_...` method.

        Raises: `OperationPending` (996) before it is complete; `OperationFailed` with its `status` if it
            failed. Blocks: never: wait for the packet, the event, or, with the engine's waits, for the operation
            itself: `wait_any([operation], timeout)`. Source: "GetOverlappedResult".
        """
        if self._status == PENDING:
            raise OperationPending("the operation is pending: wait for its packet or its event")
        if self._status != OK:
            why = _MEANINGS.get(self._status)
            raise OperationFailed(f"{self!r} failed{'' if why is None else f': {why}'}", status=self._status)
        result: T_co = self._result
        return result

    def cancel(self) -> None:
        """Ask for this very operation to end; `OverlappedSource.cancel` says how. Raises what that raises."""
        self._source._cancel_operation(self)

    def bind_wait(self, services: "SourceServices", event: Settable) -> None:
        """For the engine's waits only, which take operations as they are."""
        self._source._bind_wait(self, services, event)

    # For the source, under its lock

    def _attempt(self, handle: Any) -> int | None:
        """Do what can be done now; return the status if that completes it, else None. Must not block.

        `_result` and `_transferred` are set on the way. Raises what the source's `_status_of` understands; a
        signal handler may raise in the midst of it too, and then it is called again.
        """
        raise NotImplementedError

    def _interrupted(self, handle: Any) -> int | None:
        """A signal handler raised inside `_attempt`: return the status if that ends it, else None."""
        return None

    def __repr__(self) -> str:
        state = "pending" if self._status == PENDING else f"status={self._status} transferred={self._transferred}"
        return f"<{type(self).__name__} {state}>"


def readable(data: Any) -> memoryview:
    """A view of the data as bytes, empty or not; raises `InvalidOperation` if it has none."""
    try:
        view = memoryview(data)
        if view.c_contiguous:
            return view.cast("B") if view.nbytes else memoryview(b"")
    except TypeError:
        pass  # It has no such view, as is told below.
    raise InvalidOperation(f"data must be contiguous bytes-like objects, which {a_type(data)} is not")


def writable(buffer: Any) -> memoryview:
    """A view of the buffer as bytes; raises `InvalidOperation` if nothing can be written to it."""
    try:
        view = memoryview(buffer)
        if view.nbytes and view.c_contiguous and not view.readonly:
            return view.cast("B")
    except TypeError:
        pass  # It has no such view, as is told below.
    raise InvalidOperation(
        f"a buffer must be contiguous memory, writable and not empty, which this {type_name(buffer)} is not"
    )
