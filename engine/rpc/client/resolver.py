"""Who the servers of a client are, as long as that changes: resolvers, and what they are given.

    class FromFile:                                 # a resolver: any object with such a `run`
        def run(self, discovery):
            while not discovery.closed:
                discovery.update(open("/etc/words.servers").read().split())
                discovery.wait(5.0)                 # at once, if a server was lost meanwhile

    client = Client(FromFile())

Theory of operation. Each client with a resolver has one thread for it, which calls `run` and does nothing else. The
resolver says whole lists; what has changed is the client's business. It may raise whatever it likes: that is logged,
and `run` is called again after a pause. The client goes on with the servers that it knows: a registry that is gone
changes nothing.

Guarantees: a list without a server is passed over, so that a client with servers is never without. `wait` returns early
at most once in `LOOK_AGAIN` seconds, and after a jitter, so that the clients of a server that died do not ask all at
once.
"""

import threading
from collections.abc import Callable, Iterable
from math import inf
from typing import Protocol

from transport.chance import about, chance
from transport.foreign import is_interrupt, shown, type_name
from transport.log import Log
from transport.realtime import monotonic

from ...errors import InvalidArgumentType
from ...kernel.checks import check_callback, check_timeout
from ...lifecycle import Uncopyable
from ..address import Address, addresses_of

log: Log = Log("engine.rpc")

LOOK_AGAIN = 0.5  # Seconds between two looks that a loss has caused; arbitrary.
LOOK_JITTER = 0.1  # Seconds that such a look waits at most, whichever.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # Seconds before a resolver that has raised runs again: doubled each time.


class Resolver(Protocol):
    """What finds a client's servers, and follows them."""

    def run(self, discovery: "Discovery") -> None:
        """Find the servers, give them to `discovery.update`, and go on until `discovery.closed`.

        Called in a thread of each client that was given this object: it may block, in `discovery.wait` or in what
        `discovery.on_close` ends. What it raises is logged, and it is called again after a pause, of 30 s at most.
        Returning ends the following, and the client keeps the servers that it has.
        """


class Discovery(Uncopyable):
    """What a resolver says its servers to, and asks whether it should go on. One for each client, which makes it.

    Threads: any; `wait` is for one at a time.
    A test of a resolver makes one with a function, `accept(addresses)`, that takes each list, and says what a client
    would: `look`, `close`.
    """

    def __init__(self, accept: Callable[[list[Address]], object]) -> None:
        self._accept = accept
        self._changed = threading.Condition(threading.Lock())
        # All guarded by it. When the resolver ought to look again, for a loss; and when it last did.
        self._due = inf
        self._looked = 0.0
        self._closed = False
        self._at_close: list[Callable[[], object]] = []

    @property
    def closed(self) -> bool:
        """Whether the client was closed: `run` is to return."""
        return self._closed

    def update(self, addresses: Iterable[Address | str]) -> None:
        """Say who all the servers are now: those that are missing get no more calls, new ones are connected to.

        Args: endpoints, as texts or with what is known beside them, in any order; of one that stands twice the last
            counts. An empty list changes nothing.
        Raises: `InvalidArgumentType` for what is no address, `EndpointError` for what is no endpoint; the list is not
            taken then. Blocks: never. Not for signal handlers.
        """
        known = addresses_of(addresses)
        if known and not self._closed:
            self._accept(known)

    def wait(self, timeout: float | None = None) -> bool:
        """Sleep until it is time to look again: return False after `timeout` seconds (None: no limit), True earlier.

        That is when the client has lost a server, and when it was closed.
        """
        timeout = check_timeout(timeout)
        until = inf if timeout is None else monotonic() + timeout
        with self._changed:
            while not self._closed:
                now = monotonic()
                if now >= self._due:
                    self._due, self._looked = inf, now
                    return True
                if now >= until:
                    return False
                wake = min(self._due, until)
                self._changed.wait(None if wake == inf else min(wake - now, threading.TIMEOUT_MAX))
        return True

    def on_close(self, function: Callable[[], object]) -> None:
        """Have `function()` called once, when the client is closed: to end what `run` is blocked in. At once, if it is.

        It runs in the thread that closes the client, and must not block.
        """
        check_callback("function", function)
        with self._changed:
            if not self._closed:
                self._at_close.append(function)
                return
        _call(function)

    # What the client says

    def look(self) -> None:
        """A server was lost: the resolver ought to look again, soon."""
        with self._changed:
            soon = monotonic() + LOOK_JITTER * chance()
            self._due = min(self._due, max(soon, self._looked + LOOK_AGAIN))
            self._changed.notify_all()

    def close(self) -> None:
        """The client is closed. Doing it again does nothing."""
        with self._changed:
            self._closed = True
            functions, self._at_close = self._at_close, []
            self._changed.notify_all()
        for function in functions:
            _call(function)


def follow(resolver: Resolver, discovery: Discovery) -> None:
    """Run a resolver, again and again if it raises, until it returns or the client is closed: what a thread does."""
    pause = FIRST_PAUSE
    while not discovery.closed:
        began = monotonic()
        try:
            return resolver.run(discovery)
        except BaseException as error:  # A registry that cannot be asked: the client goes on with what it has.
            if discovery.closed:
                return
            log.error("%s: looking for servers failed, it is tried again", shown(resolver), exc_info=error)
        if monotonic() - began > LONGEST_PAUSE:
            pause = FIRST_PAUSE
        if discovery.wait(about(pause, 0.5)):  # Each client by itself, though all began together.
            discovery.wait(FIRST_PAUSE)  # A loss is no reason to do it at once.
        pause = min(2 * pause, LONGEST_PAUSE)


def check_resolver(resolver: Resolver) -> Resolver:
    """Return `resolver` if it is one; raise `InvalidArgumentType` if not."""
    if not callable(getattr(resolver, "run", None)):
        raise InvalidArgumentType(
            "endpoint must be that of a server, a list of them, or a resolver, which has a method `run(discovery)`; "
            f"not {type_name(resolver)}"
        )
    return resolver


def _call(function: Callable[[], object]) -> None:
    try:
        function()
    except BaseException as error:
        if is_interrupt(error):
            raise
        log.error("what a resolver wanted called as its client closes has failed", exc_info=error)
