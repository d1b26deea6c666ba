"""What this process serves: its endpoints, its interfaces, and the one `Server` made of them.

Theory of operation. Windows has one server a process, and functions without a server argument. Endpoints and interfaces
are kept here; the first `RpcServerListen`, or the first interface that listens by itself, makes a `Server` of them, on
the process's default pool. As on Windows its endpoints stay open, and its clients connected, when it stops; it is
closed when the process ends. If there are more endpoints by the next such occasion another `Server` is made: the
clients connect again, context handles are run down, and calls of interfaces that listen by themselves end with 1726.

    idle --listen--> listening --stop--> draining --last call closed--> idle

Who wants more servers, keys or a pool of his own uses `engine.Server`.

Guarded by `Process.lock`, which is held while endpoints are bound; nothing of the user's runs under it.
"""

from collections.abc import Callable
from functools import partial
from itertools import filterfalse
from typing import Any, NamedTuple

from transport import Endpoint, EndpointError
from transport.foreign import shown

from .. import CallAttributes, Deadlock, EngineError, Interface, InvalidState, Server, SystemClock, default_pool, sleep
from ..kernel.lock import Lock
from ..lifecycle import Stage, at_exit, in_child
from .constants import (
    RPC_S_ALREADY_LISTENING,
    RPC_S_CANT_CREATE_ENDPOINT,
    RPC_S_DUPLICATE_ENDPOINT,
    RPC_S_NO_PROTSEQS_REGISTERED,
    RPC_S_NOT_LISTENING,
    RPC_S_TYPE_ALREADY_REGISTERED,
    RPC_S_UNKNOWN_IF,
)

# Seconds in which an endpoint that was closed just now becomes free: ZeroMQ's thread does it, and reports it to none.
# Arbitrary; it takes milliseconds.
REBIND = 2.0

CLOCK = SystemClock()

# What interfaces are told apart by: name and major version.
Key = tuple[str, int]

# `authorize(attributes)`: whether a client may have what it asks of `Management`.
Authorize = Callable[[CallAttributes], bool]


class Registered(NamedTuple):
    """One interface: what `Server.register` is to be given."""

    interface: type[Interface] | str
    implementation: Any
    conditions: dict[str, Any]

    @property
    def auto_listen(self) -> bool:
        return bool(self.conditions.get("auto_listen"))

    def register(self, server: Server) -> None:
        server.register(self.interface, self.implementation, **self.conditions)


def key_of(interface: type[Interface] | str) -> Key:
    """Return what an interface is known by; raises `TypeError` for what is none."""
    if isinstance(interface, str):
        return interface, 0
    if isinstance(interface, type) and issubclass(interface, Interface):
        return interface.interface_id, interface.interface_version[0]
    raise TypeError(f"an interface is an Interface class or a name, not {shown(interface)}")


def only_looking(attributes: CallAttributes) -> bool:
    """Who may manage this process from another: everybody may look, nobody may stop it."""
    return attributes.operation != "stop"


class Process:
    """What this process serves; there is one, `process`."""

    def __init__(self) -> None:
        self.lock: Lock = Lock()
        # All guarded by lock.
        self.endpoints: list[Endpoint] = []
        self.interfaces: dict[Key, Registered] = {}
        self.server: Server | None = None
        # The endpoints that `server` was made of.
        self.made_of: list[Endpoint] = []
        # Listening has begun, every endpoint open, and no thread has waited for its end yet.
        self.begun: bool = False
        # Until then an endpoint that is taken may just be becoming free.
        self.patient_until: float = 0.0
        # Set by any thread, read for each question.
        self.authorize: Authorize = only_looking

    def add(self, endpoint: Endpoint) -> None:
        """Serve on one more endpoint; raises 1740 if it is served on already."""
        with self.lock:
            if endpoint in self.endpoints:
                raise InvalidState(f"{endpoint} is used already", status=RPC_S_DUPLICATE_ENDPOINT)
            self.endpoints.append(endpoint)

    # Interfaces

    def register(self, added: Registered) -> None:
        """Serve an interface; raises 1712 if it is registered, 1720 if it listens by itself and an endpoint is taken,
        and what `Server.register` raises.
        """
        key = key_of(added.interface)
        taken = InvalidState(f"{shown(key[0])} is registered already", status=RPC_S_TYPE_ALREADY_REGISTERED)
        with self.lock:
            if key in self.interfaces:
                raise taken
        # Whether the routines fit the interface is to be checked now, though the server may be made later.
        with Server(pool=default_pool()) as rehearsal:
            added.register(rehearsal)
        with self.lock:
            if key in self.interfaces:
                raise taken
            server = self.server
            if added.auto_listen:
                server = self._server_locked()
            if server is not None:
                self._bind_locked(partial(added.register, server))
            self.interfaces[key] = added

    def unregister(self, interface: type[Interface] | str | None, wait: bool, run_down: bool) -> None:
        """Serve an interface no longer, or none that does not listen by itself; raises 1717, and 1131, as the engine.

        Blocks: if asked to `wait` or `run_down`, and for interfaces that listen by themselves.
        """
        with self.lock:
            if interface is None:
                keys = list(filterfalse(lambda key: self.interfaces[key].auto_listen, self.interfaces))
            else:
                keys = [key_of(interface)]
            if not self.interfaces.keys() >= set(keys):
                raise InvalidState(f"{shown(interface)} is not registered", status=RPC_S_UNKNOWN_IF)
            taken = dict(zip(keys, map(self.interfaces.pop, keys), strict=True))
            server = self.server
        if server is None:
            return
        try:
            server.unregister(interface, wait=wait, run_down=run_down)
        except Deadlock:
            with self.lock:
                self.interfaces = {**taken, **self.interfaces}  # It was not unregistered.
            raise

    # Listening

    def listening(self) -> Server:
        """Return the server that takes calls; raises 1715 if there is none."""
        server = self.server
        if server is None or not self.begun or not server.listening:
            raise InvalidState("the process is not listening", status=RPC_S_NOT_LISTENING)
        return server

    def listen(self, max_calls: int) -> None:
        """Have a server of what is registered listen; raises 1713, 1714, 1720."""
        with self.lock:
            if self.server is not None and not _is_idle(self.server):
                raise InvalidState("the process listens already", status=RPC_S_ALREADY_LISTENING)
            if not self.endpoints:
                raise InvalidState("no endpoint to listen on", status=RPC_S_NO_PROTSEQS_REGISTERED)
            self.begun = False
            server = self._server_locked()
            self._bind_locked(partial(server.listen, max_calls=max_calls))
            self.begun = True

    def wait(self) -> None:
        """Wait until the server has stopped, and its last call was closed; raises 1713, 1715."""
        server = self.server
        if server is None or not self.begun:
            raise InvalidState("the process is not listening", status=RPC_S_NOT_LISTENING)
        server.wait()
        self.begun = server.listening  # Another thread may have begun anew.

    def at_exit(self) -> None:
        """Close the server, if this is the process that made it."""
        server, self.server = self.server, None
        if server is not None:
            server.close(0)

    def _server_locked(self) -> Server:
        """Return a server of all endpoints, bound or not; or the present one while it listens."""
        server = self.server
        if server is not None and (self.made_of == self.endpoints or not _is_idle(server)):
            return server
        if server is not None:
            self.server = None
            server.close(0)
            self.patient_until = CLOCK.monotonic() + REBIND
        made = Server(*self.endpoints, pool=default_pool(), authorize=lambda attributes: self.authorize(attributes))
        try:
            self._register_locked(made)
        except BaseException:
            made.close(0)
            raise
        self.server = made
        self.made_of = self.endpoints.copy()
        return made

    def _register_locked(self, server: Server) -> None:
        for each in self.interfaces.values():
            self._bind_locked(partial(each.register, server))

    def _bind_locked(self, bind: Callable[[], None]) -> None:
        """Do what binds endpoints; raises 1720 if one is taken."""
        while True:
            try:
                bind()
                return
            except EndpointError as error:
                if CLOCK.monotonic() >= self.patient_until:
                    raise EngineError(str(error), status=RPC_S_CANT_CREATE_ENDPOINT) from error
            sleep(0.005)


def _is_idle(server: Server) -> bool:
    return server.statistics().phase == "idle"


process: Process = Process()

# A forked child serves nothing. The same object: other modules refer to it.
in_child(process.__init__)  # type: ignore[misc]  # on purpose
at_exit(Stage.SERVERS, process.at_exit)
