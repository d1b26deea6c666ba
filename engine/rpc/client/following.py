"""The servers that the greeting of a client's only one names: calls that have no order are spread over them.

Theory of operation. A client of one endpoint has one connection, and everything that has to be with one server is
there: calls in order, sessions, pipes, context handles. They stay with that server until it leaves or is lost, as ever.
Calls of bindings with `causal=False` begin there, too. If the server's greeting names members, a fleet is made beside
that connection, with connections of its own, and once one of them is ready those bindings begin their calls at its
balancer. A client whose server names none has, and imports, nothing of that; no call takes a step more.

    a binding without order, a greeting that names --> fleet, made by the pool --one is ready--> operations are turned

The list of the greeting is the first one; from then on the members are asked (`asking.py`), in the thread that a fleet
has for its resolver. If the server names members and does not report changes, the list stays as it is.

Calls that were begun before stay where they are. Who is just beginning one meanwhile begins it at either.

Assumes: single keys of a dict are stored and taken out atomically, and stores and loads of attributes are atomic and
are not reordered. `bound` enters an operation before it looks whether the others were turned, `_turn` stores that
before it looks at the operations; likewise `close` and the making of the fleet.
"""

import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from transport import Endpoint, EndpointError
from transport.log import Log

from ...errors import EngineError
from ...pool.pool import default_pool
from ..address import Address, of_scheme
from ..contract.spec import OperationSpec
from ..errors import UnknownInterface, UnknownOperation
from .asking import Asking, Connect
from .binding import BoundOperation
from .carrier import Begin, Carrier
from .resolver import Discovery

if TYPE_CHECKING:
    from .fleet import Fleet

log: Log = Log("engine.rpc")


class MakeFleet(Protocol):
    """Makes a fleet beside the client's connection."""

    def __call__(self, name: str, *, first: Carrier, when_ready: Callable[[], object]) -> "Fleet":
        """Make one, which is not open yet."""


class Following:
    """Begins the calls without an order of a client of one endpoint: see `Starter`.

    Args: `carrier` of the client's only connection; `make` makes a fleet beside it; `connect` a client that asks.
    """

    def __init__(self, carrier: Carrier, make: MakeFleet, connect: Connect) -> None:
        self._carrier = carrier
        self._make = make
        self._connect = connect
        # What is to be turned to the members, while it lives.
        self._operations: dict[weakref.ref[BoundOperation], None] = {}
        # Has one until the fleet is being made.
        self._unmade = [True]
        # Stored once, as the next three.
        self.fleet: Fleet | None = None
        self._turned = False
        self._closed = False

    def begin_to_follow(self) -> None:
        """Be called for the greetings of the server, past and future ones."""
        connection = self._carrier.connection
        connection.follow = self._greeted
        if connection.members:
            self._greeted()

    def _greeted(self) -> None:
        """The server has named members. Holding nothing."""
        try:
            self._unmade.pop()
        except IndexError:
            return
        default_pool().post(self._spread)

    def _spread(self) -> None:
        """Make the fleet; in a thread of the pool."""
        try:
            self._make_one()
        except BaseException:  # No memory, for one: the next greeting has it tried again.
            self._unmade.append(True)
            raise

    def _make_one(self) -> None:
        connection = self._carrier.connection
        members = _usable(connection.members, connection.endpoint)
        if not members or self._closed:
            return
        name = f"any member of {connection.endpoint}"
        resolver = _AskingResolver(self._connect, [connection.endpoint, *(member.endpoint for member in members)])
        fleet = self._make(name, first=self._carrier, when_ready=self._turn)
        try:
            fleet.open(members, resolver)
        except BaseException:
            fleet.close(True)
            raise
        self.fleet = fleet
        if self._closed:
            fleet.close(True)
        elif fleet.balancer.usable:  # Before there was something to turn to.
            self._turn()

    def _turn(self) -> None:
        """A member is ready: have the operations of bindings begin their calls at the balancer."""
        if self.fleet is None or self._turned:
            return
        self._turned = True
        for kept in list(self._operations):
            operation = kept()
            if operation is not None:
                self._turn_one(operation)
        self._operations.clear()

    def _turn_one(self, operation: BoundOperation) -> None:
        assert self.fleet is not None
        # What goes to one server may keep its order there: that costs nothing.
        operation.turn(self.fleet.balancer, operation.spec.with_order())

    # What bindings ask for: see `Carrier`

    @property
    def begin(self) -> Begin:
        """Begins any call."""
        return self._carrier.begin

    def shortcut(self, spec: OperationSpec) -> Begin | None:
        """Return what begins the usual calls of an operation; None: none is usual."""
        return self._carrier.shortcut(spec)

    def prepared(self, spec: OperationSpec) -> OperationSpec:
        """Return how calls of `spec` are written and read."""
        return self._carrier.prepared(spec)

    def place(self) -> Carrier:
        """Return the carrier of a call that stays with one server: that of the client's own."""
        return self._carrier

    def bound(self, operation: BoundOperation) -> None:
        """An operation of a binding was made. Those that need one server stay with the client's own."""
        spec = operation.spec
        if spec.pipes or spec.contexts or spec.brings_contexts:
            return
        self._operations[weakref.ref(operation, self._forget)] = None
        if self._turned:
            self._turn_one(operation)

    def _forget(self, kept: "weakref.ref[BoundOperation]") -> None:
        self._operations.pop(kept, None)

    # For the client

    def close(self, notify: bool) -> None:
        """Close the fleet; `notify` the threads that wait for its calls."""
        self._closed = True
        if self.fleet is not None:
            self.fleet.close(notify)

    def disable(self) -> None:
        """This is the copy of a forked child."""
        self._closed = True
        if self.fleet is not None:
            self.fleet.disable()


class _AskingResolver:
    """A resolver: asks the members about each other. Args: `seeds` are some of them, all of one scheme, as those that
    it finds are.
    """

    def __init__(self, connect: Connect, seeds: Sequence[str]) -> None:
        self._connect = connect
        self._seeds = seeds

    def run(self, discovery: Discovery) -> None:
        """Follow the members; see `Resolver`."""
        asking = Asking(self._connect, self._seeds, discovery, Endpoint.parse(self._seeds[0]).scheme)
        asking.follow()
        if not discovery.closed and not isinstance(asking.failure, (UnknownInterface, UnknownOperation)):
            raise EngineError(f"no member of {self!r} knows the others") from asking.failure

    def __repr__(self) -> str:
        return f"the fleet at {self._seeds[0]}"


def _usable(named: Sequence[str], asked: str) -> list[Address]:
    """Return those of the named endpoints that a client may use which has reached a server at `asked`.

    By the same way only: no server leads a client from an encrypted connection to one that is not, or to the files of
    its own machine.
    """
    there = Endpoint.parse(asked)
    found: dict[str, Address] = {}
    for text in named:
        try:
            address = Address(text).seen_from(there)
        except EndpointError as error:
            log.warning("%s names a member that is none: %s", asked, error)
            continue
        found[address.endpoint] = address
    return of_scheme(there.scheme, found.values())
