"""Management from afar: what a client may ask of any server, and what it may not unless it is allowed to.

Every server that listens serves `Management`. Clients on the same machine may look, none may stop the server, unless
the server has an `authorize` function, which then decides on all of it.

Source: "RpcMgmtInqStats", "RpcMgmtIsServerListening", "RpcMgmtStopServerListening", "RpcMgmtSetAuthorizationFn".
"""

from collections.abc import Callable

from ..contract.interface import Interface, operation
from ..errors import AccessDenied
from .admission import Admission, Phase, ServerStatistics
from .call import current_call
from .open_call import CallAttributes

Authorize = Callable[[CallAttributes], object]


class Management(Interface, id="callport.Management", version=(1, 0)):
    """What every server serves: `client.bind(Management)`.

    Calls end with `AccessDenied` where the server does not allow them, which is its default for `stop`.
    """

    @operation
    def listening(self) -> bool:
        """Whether the server takes calls: True, or `ServerUnavailable`."""
        raise NotImplementedError

    @operation
    def statistics(self) -> ServerStatistics:
        """Return the server's counters."""
        raise NotImplementedError

    @operation
    def stop(self) -> None:
        """Have the server take no new calls, as `Server.stop`."""
        raise NotImplementedError


def _may_look(attributes: CallAttributes) -> bool:
    return attributes.client_is_local and attributes.operation != "stop"


class ManagementRoutines:
    """Serves `Management` for one server."""

    def __init__(self, admission: Admission, authorize: Authorize | None) -> None:
        self._admission = admission
        self._authorize = authorize or _may_look

    def _check(self) -> None:
        attributes = current_call().attributes()
        try:
            allowed = self._authorize(attributes) is True
        except BaseException as error:
            text = "the authorize function failed: %s is refused"
            self._admission.complaints.error(text, attributes.operation, exc_info=error)
            allowed = False
        if not allowed:
            raise AccessDenied(f"the server does not allow {attributes.operation} to this client")

    def listening(self) -> bool:
        self._check()
        return self._admission.phase is Phase.LISTENING

    def statistics(self) -> ServerStatistics:
        self._check()
        return self._admission.snapshot()

    def stop(self) -> None:
        self._check()
        self._admission.stop()
