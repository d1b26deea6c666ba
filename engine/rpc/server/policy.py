"""The conditions of an interface: who may call it, and how large a request may be.

An interface that is registered with conditions has an `AccessPolicy`; the operations of all others have None in its
place. How many may call is decided as calls arrive, under admission's lock. Who may call, and how large, is decided by
the worker that is to run the call, before its arguments are decoded: a security callback is the program's own code, and
may take its time.

How well a connection is protected has two levels here. Encrypted connections (CURVE, TLS) have privacy, and so do
transports that do not leave the machine (ipc, inproc, loopback): only the two ends can read or change what passes.
Plain tcp has none, from a loopback address too. The level says nothing of who the client is: that is
`CallAttributes.client_principal`.

Source: "Interface Registration Flags", "RpcServerRegisterIf2", "RPC_IF_CALLBACK_FN", "Authentication-Level Constants".
"""

from collections.abc import Callable

import msgspec

from transport import Endpoint
from transport.foreign import shown

from ...errors import Misuse
from ...kernel.checks import check_callback, check_count, check_flag
from ...status import Status
from ..serving import current
from .open_call import CallAttributes, OpenCall

# Authentication levels, in the numbers that Windows has for them.
NONE = 1
PRIVACY = 6


class TooFewCalls(Misuse, ValueError):
    """A limit of calls that lets none through."""

    status: int = Status.MAX_CALLS_TOO_SMALL


def check_max_calls(value: int) -> None:
    """Raise `Misuse` 1742 unless `value` is an int of 1 or more."""
    check_count("max_calls", value, least=1, raising=TooFewCalls)


class Refusal(msgspec.Struct, frozen=True):
    """Why a call is not taken."""

    status: int
    text: str


class AccessPolicy(msgspec.Struct, eq=False):
    """The conditions of one interface; see `Server.register`."""

    name: str = ""
    max_calls: int | None = None
    max_request_bytes: int | None = None
    auto_listen: bool = False
    security: Callable[[CallAttributes], object] | None = None
    secure_only: bool = False
    local_only: bool = False
    no_cache: bool = False
    # By the name of an operation: who may call that.
    operations: dict[str, Callable[[CallAttributes], object]] = {}
    # Calls that arrived and are not closed, of an interface that listens by itself. Under admission's lock.
    active: int = 0

    def __post_init__(self) -> None:
        if self.max_calls is not None:
            check_max_calls(self.max_calls)
        if self.max_request_bytes is not None:
            check_count("max_request_bytes", self.max_request_bytes)
        check_callback("security", self.security, optional=True)
        for operation, function in self.operations.items():
            check_callback(f"operations[{shown(operation)}]", function)
        for flag in ("auto_listen", "secure_only", "local_only", "no_cache"):
            check_flag(flag, getattr(self, flag))

    @property
    def needed(self) -> bool:
        """Whether there is any condition."""
        return (
            self.auto_listen or self.secure_only or self.local_only
            or self.max_request_bytes is not None or self.security is not None or bool(self.operations)
        )  # fmt: skip

    def examine(self, call: OpenCall) -> str | None:
        """Return why `call` may not run, None if it may. On a worker, holding nothing."""
        peer = call.peer
        if self.local_only and not peer.local:
            return f"interface {self.name!r} is for callers on this machine"
        if self.secure_only and not peer.user:
            return f"interface {self.name!r} is for callers who prove who they are"
        if self.max_request_bytes is not None:
            size = len(memoryview(call.args)) + sum(map(len, call.blobs or ()))
            if size > self.max_request_bytes:
                return f"a request of {size} bytes; max_request_bytes of {self.name!r} is {self.max_request_bytes}"
        if self.security is not None and not self._admits(call, self.security, self):
            return f"the security callback of interface {self.name!r} refused"
        operation = call.entry.spec.name
        if operation in self.operations and not self._admits(call, self.operations[operation], (self, operation)):
            return f"the security callback of operation {operation!r} of interface {self.name!r} refused"
        return None

    def _admits(self, call: OpenCall, security: Callable[[CallAttributes], object], key: object) -> bool:
        # By `key`; belongs to the connection, and goes with it. Two workers may both ask: their answers count alike.
        verdicts = call.peer.verdicts
        known = None if self.no_cache else verdicts.get(key)
        if known is not None:
            return known
        current.slot.call = call  # The thread that runs the next call stores that one.
        try:
            verdict = security(call.attributes()) is True
        except BaseException as error:
            text = "the security callback of interface %r failed: the call is refused"
            call.answers.admission.complaints.error(text, self.name, exc_info=error)
            return False
        if not self.no_cache:
            verdicts[key] = verdict
        return verdict


def is_local(endpoint: str, address: str) -> bool:
    """Whether a client that came to `endpoint` from `address` is on this machine, as far as the transport knows."""
    if Endpoint.parse(endpoint).carrier != "tcp":
        return True
    return address.removeprefix("::ffff:").startswith("127.") or address == "::1"
