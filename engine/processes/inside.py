"""What runs in a process of a service: its server, until it is to leave.

Theory of operation. The server listens at an endpoint of its own and at the one that all processes share. A thread
reads what the supervisor says: who the members are, which the server sends to clients, and when to leave. The main
thread waits for that, or for SIGTERM, and reports to the supervisor once a second what the server has counted. If the
supervisor is gone, the server goes on as it is, and ends by SIGTERM.

Ctrl-C in a terminal reaches all processes at once: it is for the supervisor, which has the others leave.
"""

import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

import msgspec

from transport import Endpoint, inherited
from transport.foreign import type_name
from transport.log import Log
from transport.service import Service

from ..errors import InvalidArgumentType
from ..kernel.event import Event
from ..resolvers.members import Members, MembersRoutines
from ..rpc.address import Address
from ..rpc.server.admission import ServerStatistics
from ..rpc.server.server import Server

log: Log = Log("engine.processes")

REPORT_EVERY = 1.0  # Seconds between two reports of what the server has counted.
HOLD = 10  # Reports after which a client that asks who the members are is answered, though they are the same.

MakeServer = Callable[..., Server]


class Ready(msgspec.Struct, frozen=True):
    """The process serves. `endpoint` is its own."""

    endpoint: str


class Counted(msgspec.Struct, frozen=True):
    """What its server has counted."""

    statistics: ServerStatistics


class MembersAre(msgspec.Struct, frozen=True):
    """Who the members are."""

    endpoints: list[str]


class Leave(msgspec.Struct, frozen=True):
    """The process is to end, within `grace` seconds for what runs."""

    grace: float


def run(
    make_server: MakeServer, own: Endpoint, shared: Endpoint, listening: socket.socket, grace: float, said: Connection
) -> None:
    """Serve until it is to leave. The main function of a process.

    Args: `own` and `shared` are the endpoints that the server is to have; `listening` belongs to the second; `grace` in
        seconds is for calls that run when SIGTERM comes; `said` is how supervisor and process talk.
    """
    leave = Event(manual_reset=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: leave.set())
    inherited.hand_over(shared, listening)
    server = make_server(str(own), str(shared))
    if not isinstance(server, Server):
        raise InvalidArgumentType(f"the function that makes the server returned no Server, but {type_name(server)}")
    members = MembersRoutines()
    talk = _Talk(said, server, members, leave, grace)
    with server:
        server.register(Members, members)
        # Before it knows the others: who greets until then asks there for them.
        server.members = [_connectable(shared)]
        server.listen()
        talk.say(Ready(server.endpoint))
        listening_to = Service("engine:supervised", talk.listen, log.failed)
        listening_to.ensure()
        reports = 0
        while not leave.wait(REPORT_EVERY):
            if not talk.over:
                listening_to.ensure()  # Does nothing but where the system has refused a thread.
            reports += 1
            talk.say(Counted(server.statistics()))
            if reports % HOLD == 0:
                members.answer_all()
        members.answer_all(closing=True)
        server.drain(talk.grace)
        talk.say(Counted(server.statistics()))


class _Talk:
    """The process's end of what it and the supervisor say."""

    def __init__(self, said: Connection, server: Server, members: MembersRoutines, leave: Event, grace: float) -> None:
        self._said = said
        self._server = server
        self._members = members
        self._leave = leave
        # Stored by the thread that listens, before it sets the event.
        self.grace = grace
        # Whether the supervisor is gone. Stored by that thread.
        self.over = False

    def say(self, message: Ready | Counted) -> None:
        """Tell the supervisor, if it is there."""
        with suppress(OSError):
            self._said.send(message)

    def listen(self) -> None:
        """Take what the supervisor says, until it is gone."""
        with suppress(OSError, EOFError):
            while True:
                message = self._said.recv()
                if isinstance(message, MembersAre):
                    self._server.members = message.endpoints
                    self._members.update(map(Address, message.endpoints))
                elif isinstance(message, Leave):
                    self.grace = message.grace
                    self._leave.set()
        self.over = True


def _connectable(shared: Endpoint) -> str:
    """Return the endpoint that is good to connect to for who knows where the machine is."""
    return str(msgspec.structs.replace(shared, host="0.0.0.0") if shared.host == "*" else shared)
