"""What a client knows of its server: the session, and why there is none. No I/O, no locks.

`transport.wire.session` has the states; what they are called in statistics is here.

    FRESH --begin--> GREETED --WELCOME--> OPEN        GREETED, OPEN --BYE, or lost--> CLOSED --settled--> FRESH
                                                      GREETED, OPEN --REJECT--> REJECTED --settled--> FRESH
                                                      any --leave--> LEAVING

Guarded by the table's lock: `state`, `reached`, `wary`, `refusal` (writes; reads of one are atomic). Under link.lock:
the others.
"""

from transport.frames import PIPE_WINDOW_BYTES, Limits
from transport.wire.conversation import ConversationState
from transport.wire.session import UNGREETED, ClientSession

from ...errors import CallError
from ..errors import CallFailed, CallFailedDne, ServerUnavailable
from ..limits import SizeLimit

_GREETED, _LEAVING = ConversationState.GREETED, ConversationState.LEAVING


class EndpointSession(ClientSession):
    """The session with the server at one endpoint, over one connection after another."""

    __slots__ = ("endpoint", "limit", "pipe_window", "reached", "refusal", "wary")

    def __init__(self, endpoint: str) -> None:
        self.endpoint: str = endpoint
        # How large a message the server takes.
        self.limit: SizeLimit = SizeLimit(endpoint, endpoint)
        # What the pipes of calls know of what the server lets this side push into each.
        self.pipe_window: int = PIPE_WINDOW_BYTES
        # A server has greeted, or spoken at all.
        self.reached: bool = False
        # The last server has said goodbye, and none has greeted since.
        self.wary: bool = False
        # Why the last connection, or attempt to make one, has failed; "" if there is a connection.
        self.refusal: str = ""
        super().__init__()

    def _learn(self, limits: Limits) -> None:
        super()._learn(limits)
        self.limit.bytes, self.limit.body = self.message_limit, min(self.body_limit, self.message_limit)
        self.limit.known = limits is not UNGREETED

    @property
    def linked(self) -> bool:
        """Whether there is a connection to send over."""
        return self.is_open or self.state is _GREETED

    @property
    def has_left(self) -> bool:
        """Whether the client is closed."""
        return self.state is _LEAVING

    @property
    def name(self) -> str:
        """What statistics call the state: "connected", "greeting", "connecting" or "closed"."""
        if self.is_open:
            return "connected"
        return "greeting" if self.state is _GREETED else "closed" if self.has_left else "connecting"

    # What errors say

    def silence(self, outstanding: int) -> str:
        """Why no answer comes to so many calls, if that is for want of a server; else ""."""
        if not outstanding or self.is_open or self.has_left:
            return ""
        if self.state is _GREETED:
            what = f"what accepts connections at {self.endpoint} has not greeted"
        elif self.reached:
            what = f"there is no connection to {self.endpoint} any more"
        else:
            what = f"no server was ever reached at {self.endpoint}"
        why = f" ({self.refusal})" if self.refusal else ""
        return f"{what}, {outstanding} {'call waits' if outstanding == 1 else 'calls wait'} for it{why}"

    def unreachable(self, waited: float, lost: str, left: bool) -> CallError:
        """Return what ends a call that has waited for a server.

        Args: `waited` in seconds. `lost`: how the connection was lost that it was sent over before, or "". `left`: it
            may have been sent, though no server has greeted.
        """
        kind = CallFailed if lost or left else CallFailedDne if self.reached else ServerUnavailable
        first = f"{lost}; to send it again there was " if lost else ""
        if self.linked:
            text = f"no greeting from {self.endpoint} within {waited} s: what accepts connections there says nothing"
            text += "; the call was sent to it, and may run" if left else ""
        else:
            text = f"no connection to {self.endpoint} within {waited} s" + (self.refusal and f": {self.refusal}")
        return kind(first + text)
