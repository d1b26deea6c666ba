"""A server in a registry: it announces itself once it listens, and leaves before it stops.

    class InFile:                                   # an announcer: any object with such an `announce`
        def announce(self, presence):
            Path("/etc/words.servers").write_text(presence.address.endpoint)
            while not presence.wait(5.0):
                ...                                 # renew what has to be renewed
            Path("/etc/words.servers").unlink()

    server = Server("tcp://*:5555", announce=InFile(), advertise="tcp://10.0.0.7:5555")

Theory of operation. Each server that is announced has one thread for it, which calls `announce` and does nothing else.
What that raises is logged, and it is called again after a pause: a registry that is gone changes nothing for a server,
which is announced again when it is back. Leaving waits for the announcer to have withdrawn the address, within a limit.
"""

from queue import Empty, SimpleQueue
from typing import Any, Protocol

from transport import Endpoint
from transport.chance import about
from transport.foreign import shown, type_name
from transport.log import Log
from transport.realtime import monotonic
from transport.service import Service

from ...errors import InvalidArgumentType, InvalidParameter
from ...kernel.checks import check_timeout
from ...kernel.starting import start
from ...lifecycle import Uncopyable
from ..address import Address

log: Log = Log("engine.rpc")

# Seconds before an announcer that has raised is called again: doubled each time.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
LEAVE = 2.0  # Seconds that a server waits for its address to be withdrawn.


class Announcer(Protocol):
    """What registers a server, and keeps it registered."""

    def announce(self, presence: "Presence") -> None:
        """Register `presence.address`, keep it registered until `presence.wait` returns True, and withdraw it.

        Called in a thread of each server that was given this object. What it raises is logged, and it is called again
        after a pause, of 10 s at most, unless the server leaves. A server that has died withdraws nothing: let what is
        registered be forgotten if it is not renewed.
        """


class Presence(Uncopyable):
    """That a server is there, for an announcer. One for each server, which makes it.

    Threads: any. A test of an announcer makes one with an address, and says what a server would: `leave`.
    """

    def __init__(self, address: Address) -> None:
        #: Where clients find the server.
        self.address: Address = address
        # Has an item once the server leaves. Putting one in is safe in a signal handler, as setting an event is not.
        self._leaving: SimpleQueue[None] = SimpleQueue()

    def wait(self, timeout: float | None = None) -> bool:
        """Sleep for `timeout` seconds (None: no limit), or until the server leaves: True then."""
        try:
            self._leaving.get(timeout=check_timeout(timeout))
        except Empty:
            return False
        self._leaving.put(None)
        return True

    # What the server says

    def leave(self) -> None:
        """The server leaves: `announce` is to withdraw it, and to return. Doing it again does nothing."""
        self._leaving.put(None)


class Announcement:
    """The announcing of one server: the thread, and what it does."""

    def __init__(self, announcer: Announcer, address: Address) -> None:
        self._announcer = announcer
        self._presence = Presence(address)
        self._service = Service("engine:announcing", self._run, log.failed, depended_on=False)

    def begin(self) -> None:
        """Have the server announced from now on."""
        start(self._service, lambda: not self._presence.wait(0))
        if self._service.refusal is not None:
            log.error("%s is not announced yet: %s; it is tried again", self._presence.address.endpoint, self._service)

    def leave(self) -> None:
        """Have it withdrawn, soon. Blocks: never; safe in a signal handler."""
        self._presence.leave()

    def end(self, timeout: float = LEAVE) -> None:
        """Have it withdrawn. Blocks: until that is done, for `timeout` seconds at most."""
        self.leave()
        if not self._service.join(timeout):
            text = "%s could not be withdrawn from %s within %s s"
            log.warning(text, self._presence.address.endpoint, shown(self._announcer), timeout)

    def _run(self) -> None:
        pause = FIRST_PAUSE
        while not self._presence.wait(0):
            began = monotonic()
            try:
                self._announcer.announce(self._presence)
                return
            except BaseException as error:
                if self._presence.wait(0):
                    text = "%s may still be announced, for a while: withdrawing it failed"
                    log.error(text, self._presence.address.endpoint, exc_info=error)
                    return
                log.error("%s: announcing %s failed, it is tried again", shown(self._announcer),
                          self._presence.address.endpoint, exc_info=error)  # fmt: skip
            if monotonic() - began > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            self._presence.wait(about(pause, 0.5))
            pause = min(2 * pause, LONGEST_PAUSE)


def check_announcer(announcer: Any) -> Any:
    """Return `announcer` if it is one, or None; raise `InvalidArgumentType` if not."""
    if announcer is not None and not callable(getattr(announcer, "announce", None)):
        raise InvalidArgumentType(
            f"announce must be a registry, which has a method `announce(presence)`, not {type_name(announcer)}"
        )
    return announcer


def advertised(advertise: Address | str | None, bound: Endpoint) -> Address:
    """Return the address to announce of a server that listens at `bound`.

    Args: advertise: what it is to be; a text may have `*` for the port, which stands for the one that was bound.
    Raises: `InvalidParameter` if nothing says where clients reach it.
    """
    if isinstance(advertise, Address):
        return advertise
    if advertise is not None:
        named = Endpoint.parse(advertise)
        if named.carrier == "tcp" and not named.port:
            named = Endpoint(named.scheme, host=named.host, port=bound.port)
        return Address(str(named))
    if bound.is_wildcard():
        raise InvalidParameter(
            f"{bound} is every address of this machine, so there is none to announce: say where clients reach the "
            "server, advertise='tcp://HOST:*' (the * stands for the port that is bound)"
        )
    if bound.local:
        raise InvalidParameter(f"{bound} is reached from this process only: there is nothing to announce")
    return Address(str(bound))
