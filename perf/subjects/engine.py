"""Us: a client that collects its replies through a completion port, a server with a pool of workers."""

from collections.abc import Mapping, Sequence
from itertools import islice
from time import perf_counter_ns
from typing import Any

from engine import Client as EngineClient
from engine import CompletionPort, Interface, Server, operation
from perf.certificates import server_options
from perf.measure import ANSWER_TIMEOUT, WrongAnswer
from perf.worker import Control

NOTE = "4 workers, replies collected through a completion port"
WORKERS = 4


class Echo(Interface, id="perf.Echo"):
    """The service that every subject offers."""

    @operation
    def echo(self, data: bytes) -> bytes:
        """Return `data`."""


class EchoService:
    """It, served."""

    def echo(self, data: bytes) -> bytes:
        """Return `data`."""
        return data


def missing() -> str | None:
    """We are always there."""
    return None


def serve_until_end(
    settings: dict[str, Any], control: Control, services: Mapping[type[Interface], object], **options: Any
) -> None:
    """What a worker function does that serves: these services, by their contracts."""
    with Server(settings["endpoint"], **{**server_options(settings["endpoint"]), **options}) as server:
        for contract, service in services.items():
            server.register(contract, service)
        server.listen()
        control.ready(server.endpoint)
        control.wait_for_end()


def serve(settings: dict[str, Any], control: Control) -> None:
    """Serve `Echo`, with settings["workers"] workers."""
    serve_until_end(settings, control, {Echo: EchoService()}, workers=settings.get("workers", WORKERS))


class Client:
    """A port, and a client of its own unless one is `shared`; each call carries what was sent."""

    contract: type[Interface] = Echo

    def __init__(self, endpoint: str, shared: EngineClient | None = None, causal: bool | None = None) -> None:
        self._client = shared or EngineClient(endpoint)
        self._owner = shared is None
        self._port = CompletionPort()
        self._echo: Any = self._client.bind(self.contract, causal=causal).echo  # type: ignore[attr-defined]  # each contract has it

    def one_by_one(self, payloads: Sequence[bytes]) -> list[int]:
        """Begin, take the packet, complete, compare."""
        begin, get, now = self._echo.begin, self._port.get, perf_counter_ns
        told = self._port.packet()
        times = []
        for payload in payloads:
            start = now()
            begin(payload, notify=told)
            answer = get(ANSWER_TIMEOUT).overlapped.complete()
            times.append(now() - start)
            if answer != payload:
                raise WrongAnswer(f"{answer[:16]!r} for {payload[:16]!r}")
        return times

    def stream(self, payloads: Sequence[bytes], outstanding: int) -> None:
        """Take what is there, complete and compare it, and begin as many calls anew.

        Completing a call twice raises, so as many packets as calls means that each call was answered once.
        """
        begin, get_many = self._echo.begin, self._port.get_many
        told = self._port.packet()
        waiting = iter(payloads)
        for payload in islice(waiting, outstanding):
            begin(payload, notify=told).user_data = payload
        open_calls = len(payloads)
        while open_calls:
            packets = get_many(outstanding, ANSWER_TIMEOUT)
            open_calls -= len(packets)
            for packet in packets:
                call = packet.overlapped
                answer = call.complete()
                if answer != call.user_data:
                    raise WrongAnswer(f"{answer[:16]!r} for {call.user_data[:16]!r}")
            for payload in islice(waiting, len(packets)):
                begin(payload, notify=told).user_data = payload

    def close(self) -> None:
        """Close the port, and the client if it is not shared."""
        if self._owner:
            self._client.close()
        self._port.close()
