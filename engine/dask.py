"""A Dask cluster as the place where servers run: one in each worker, found through the scheduler.

    dask = distributed.Client(cluster)              # SLURM, PBS, LSF, SSH, Kubernetes, cloud, or this machine
    dask.register_plugin(Serve(make_server))        # a server in each worker, present and future
    client = Client(Dask(dask))                     # calls go to the workers directly

Needs the `dask` extra. Dask starts and ends workers, on whatever it runs; calls take neither its scheduler nor its
queues. Dask's own futures complete on a port beside the calls: `port.associate_wait(dask.submit(...))`.

Theory of operation. A worker's server listens on a port that the system chooses, at the address by which the cluster
knows the worker, and the scheduler keeps the endpoint among its metadata. A resolver asks for these, and for the
workers that there are: when a worker says that it has come or leaves, soon after the client has lost a server, and
every few seconds. The scheduler's end changes nothing for clients that have found their servers.

A worker's tasks and its routines share an interpreter: let workers that serve run no tasks, or few.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from distributed import Client
from distributed.comm import get_address_host
from distributed.diagnostics.plugin import WorkerPlugin

from transport.foreign import type_name
from transport.log import Log

from .errors import InvalidArgumentType, InvalidParameter
from .kernel.checks import check_callback, check_duration, check_kind, check_text
from .rpc.client.resolver import Discovery
from .rpc.server.server import Server

log: Log = Log("engine.dask")

NAME = "servers"  # Of the servers of a cluster that has but one kind.
GRACE = 5.0  # Seconds for calls that run when a worker closes; Dask gives it 30.
INTERVAL = 5.0  # Seconds between two looks, whatever the workers say.
PATIENCE = 2.0  # Seconds that a worker that closes waits for the scheduler.


class Serve(WorkerPlugin):
    """A plugin that puts a server into each worker: `dask.register_plugin(Serve(make_server))`.

    Args:
        make_server: called in each worker with the endpoint on which its server is to listen; returns a `Server` that
            does not listen yet. It travels to the workers as Dask's tasks do.
        name: of this kind of server: another one is found as `Dask(client, name)`.
        grace: seconds that calls may go on when a worker closes.
        scheme: of the servers' endpoints: `tcp`, `native+tcp` or `tls`.
    """

    def __init__(
        self, make_server: Callable[[str], Server], name: str = NAME, *, grace: float = GRACE, scheme: str = "tcp"
    ) -> None:
        check_callback("make_server", make_server)
        check_text("name", name)
        #: What Dask knows the plugin by.
        self.name: str = _topic(name)
        self._make_server = make_server
        self._grace = check_duration("grace", grace)
        self._scheme = scheme
        # In a worker only.
        self._server: Server | None = None

    async def setup(self, worker: Any) -> None:
        """Serve, and let the scheduler know. Dask calls it in each worker, and reports what it raises."""
        host = get_address_host(worker.address)
        endpoint = f"{self._scheme}://{f'[{host}]' if ':' in host else host}:*"
        server = self._server = await asyncio.to_thread(self._begin, endpoint)
        await worker.scheduler.set_metadata(keys=[self.name, worker.address], value=server.endpoint)
        worker.log_event(self.name, {"worker": worker.address, "endpoint": server.endpoint})
        log.info("worker %s serves at %s", worker.address, server.endpoint)

    def _begin(self, endpoint: str) -> Server:
        server = self._make_server(endpoint)
        if not isinstance(server, Server):
            raise InvalidArgumentType(f"the function that makes the server returned no Server, but {type_name(server)}")
        try:
            server.listen()
        except BaseException:
            server.close(0)
            raise
        return server

    async def teardown(self, worker: Any) -> None:
        """Leave, and drain. Dask calls it as a worker closes."""
        server, self._server = self._server, None
        if server is not None:
            with suppress(Exception):  # The scheduler may be gone, or has forgotten the worker.
                withdrawn = worker.scheduler.set_metadata(keys=[self.name, worker.address], value=None)
                await asyncio.wait_for(withdrawn, PATIENCE)
                worker.log_event(self.name, {"worker": worker.address, "endpoint": None})
            await server.drain_async(self._grace)


class Dask:
    """A resolver: finds a client's servers in the workers of a Dask cluster, where `Serve` has put them.

    Args:
        dask: a `distributed.Client` of the cluster, which stays open as long as workers are to be found. A synchronous
            one: an asynchronous one lives in its own event loop.
        name: as `Serve` has it.
        interval: seconds between two looks, whatever the workers say.
    """

    def __init__(self, dask: Client, name: str = NAME, *, interval: float = INTERVAL) -> None:
        check_kind("dask", dask, Client)
        check_text("name", name)
        if dask.asynchronous:
            raise InvalidParameter("dask must be a synchronous client: Client(address, asynchronous=False)")
        self._dask = dask
        self._topic = _topic(name)
        self._interval = check_duration("interval", interval)

    def run(self, discovery: Discovery) -> None:
        """Follow the workers; see `engine.Resolver`."""
        self._dask.subscribe_topic(self._topic, lambda event: discovery.look())
        while not discovery.closed:
            discovery.update(self._endpoints())
            discovery.wait(self._interval)

    def _endpoints(self) -> list[str]:
        """Where the workers that there are serve."""
        served: dict[str, str | None] = self._dask.get_metadata([self._topic], default={})
        return [endpoint for worker in self._dask.nthreads() if (endpoint := served.get(worker))]

    def __repr__(self) -> str:
        return f"Dask({self._dask.scheduler.address if self._dask.scheduler else self._dask!r})"


def _topic(name: str) -> str:
    return f"callport-{name}"
