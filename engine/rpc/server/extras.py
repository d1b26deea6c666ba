"""What few served calls have beside themselves: subscriptions, open contexts, output buffers, whom to tell of the end.

Theory of operation. A call that needs any of it gets an `Attachment`, in `ServerCall._extra`; for all others that is
None, and one look at it is all they pay. Closing a call takes it out of its peer's table; whoever takes it out then
runs the attachment's ends, before the answer can leave.

    attach, append an end, look at the table      |  one of the two sees the other: either the closer runs the end,
    take out of the table, look at the attachment |  or the attacher finds the call closed, and takes the end back

Assumes: `deque.append`, `popleft` and `remove` are atomic, and are not reordered with a look at a dictionary.
"""

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any

from transport.foreign import shown
from transport.log import Log

from ...kernel.lock import Lock

if TYPE_CHECKING:
    from .call import ServerCall

log: Log = Log("engine.rpc")


class Closing(Enum):
    """How a call was closed, as those see it who made something during the call that its answer was to carry."""

    ANSWERED = "answered"  # With a result, which is on its way.
    UNSENT = "unsent"  # With a result that cannot be sent: it could not be encoded, or the client is gone.
    FAILED = "failed"  # With a failure: the routine raised, or aborted.


End = Callable[[Closing], object]

_making = Lock()


class Attachment:
    """The attachment of one call. Make one with `attachment_of`."""

    __slots__ = ("contexts", "ends", "metadata", "outputs", "span", "status", "subscriptions")

    def __init__(self) -> None:
        # Set once, by whoever needs them first; each guards itself.
        self.subscriptions: Any = None
        self.contexts: Any = None
        # The routine's output buffers, which its answer is to carry. Set once, before the routine runs.
        self.outputs: list[Any] | None = None
        # Texts that the answer is to carry. Set as a whole, before it is made.
        self.metadata: dict[str, str] | None = None
        # What telemetry keeps of the call. Set once, before the routine runs.
        self.span: Any = None
        # What the call failed with, before the ends run.
        self.status: int = 0
        # Quick functions that take no link's lock, run once each. Single atomic operations only.
        self.ends: deque[End] = deque()

    def end(self, how: Closing) -> None:
        """Run the ends: the call was closed."""
        while True:
            try:
                act = self.ends.popleft()
            except IndexError:
                return  # All have run.
            try:
                act(how)
            except BaseException as error:  # The others wait for this call's end, too.
                log.error("%s failed as its call was closed", shown(act), exc_info=error)


def attachment_of(call: "ServerCall") -> Attachment:
    """Return the attachment of `call`; made if it has none."""
    with _making:
        if call._extra is None:
            call._extra = Attachment()
        return call._extra


def when_closed(call: "ServerCall", act: End) -> bool:
    """Have `act` run when `call` is closed; False, and it will not be run, if it was closed before."""
    ends = attachment_of(call).ends
    ends.append(act)
    if is_open(call):
        return True
    try:
        ends.remove(act)
    except ValueError:
        return True  # The closer found it after all.
    return False


def is_open(call: "ServerCall") -> bool:
    """Whether nobody has closed `call` yet."""
    return call._peer.calls.get(call._id) is call
