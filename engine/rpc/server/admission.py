"""The gate of an interface: who may call it, how large, how many at once, and whether it listens by itself.

Theory of operation. An interface that is registered with any of these conditions has a gate; the operations of all
others have None in its place. How many may call is decided as calls arrive, under the server's lock. Who may call, and
how large, is decided by the worker that is to run the call, before its arguments are decoded: a security callback is
the program's own code, and may take its time.

Source: "Interface Registration Flags", "RpcServerRegisterIf2", "RPC_IF_CALLBACK_FN".
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from transport.log import Log

from ...errors import Misuse
from ...kernel.checks import check_callback, check_count, check_flag
from ...status import Status
from .call import current

if TYPE_CHECKING:
    from .call import CallAttributes, ServerCall

log: Log = Log("engine.rpc")


class TooFewCalls(Misuse, ValueError):
    """A limit of calls that lets none through."""

    status: int = Status.MAX_CALLS_TOO_SMALL


def check_max_calls(value: int) -> None:
    """Raise `Misuse` 1742 unless `value` is an int of 1 or more."""
    check_count("max_calls", value, least=1, raising=TooFewCalls)


class Gate:
    """The conditions of one interface; see `Server.register`."""

    __slots__ = (
        "active", "auto_listen", "local_only", "max_calls", "max_request_bytes", "name", "no_cache", "secure_only",
        "security",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        max_calls: int | None,
        max_request_bytes: int | None,
        auto_listen: bool,
        security: Callable[["CallAttributes"], object] | None,
        secure_only: bool,
        local_only: bool,
        no_cache: bool,
    ) -> None:
        if max_calls is not None:
            check_max_calls(max_calls)
        if max_request_bytes is not None:
            check_count("max_request_bytes", max_request_bytes)
        check_callback("security", security, optional=True)
        check_flag("auto_listen", auto_listen)
        check_flag("secure_only", secure_only)
        check_flag("local_only", local_only)
        check_flag("no_cache", no_cache)
        self.name: str = name
        self.max_calls: int | None = max_calls
        self.max_request_bytes: int | None = max_request_bytes
        self.auto_listen: bool = auto_listen
        self.security: Callable[[CallAttributes], object] | None = security
        self.secure_only: bool = secure_only
        self.local_only: bool = local_only
        self.no_cache: bool = no_cache
        # Calls that arrived and are not closed, of an interface that listens by itself. Under the server's lock.
        self.active: int = 0

    @property
    def needed(self) -> bool:
        """Whether there is any condition."""
        return (
            self.auto_listen or self.secure_only or self.local_only
            or self.max_request_bytes is not None or self.security is not None
        )  # fmt: skip

    def examine(self, call: "ServerCall") -> str | None:
        """Return why `call` may not run, None if it may. On a worker, holding nothing."""
        peer = call._peer
        if self.local_only and not peer.local:
            return f"interface {self.name!r} is for callers on this machine"
        if self.secure_only and not peer.user:
            return f"interface {self.name!r} is for callers who prove who they are"
        if self.max_request_bytes is not None:
            size = len(memoryview(call._args)) + sum(map(len, call._blobs or ()))
            if size > self.max_request_bytes:
                return f"a request of {size} bytes; max_request_bytes of {self.name!r} is {self.max_request_bytes}"
        if self.security is not None and not self._admits(call, self.security):
            return f"the security callback of interface {self.name!r} refused"
        return None

    def _admits(self, call: "ServerCall", security: Callable[["CallAttributes"], object]) -> bool:
        # By gate; belongs to the connection, and goes with it. Two workers may both ask: their answers count alike.
        verdicts: dict[Gate, bool] = call._peer.verdicts
        known = None if self.no_cache else verdicts.get(self)
        if known is not None:
            return known
        current.place.call = call  # This worker's next one in any case; whoever runs the next call sets it anew.
        try:
            verdict = security(call.attributes()) is True
        except BaseException as error:
            text = "the security callback of interface %r failed: the call is refused"
            log.error(text, self.name, exc_info=error)
            return False
        if not self.no_cache:
            verdicts[self] = verdict
        return verdict


# The gate of an interface without conditions.
OPEN = Gate("", None, None, False, None, False, False, False)


def is_local(endpoint: str, address: str) -> bool:
    """Whether a client that came to `endpoint` from `address` is on this machine, as far as the transport tells."""
    if not endpoint.startswith("tcp:"):
        return True
    return address.removeprefix("::ffff:").startswith("127.") or address == "::1"
