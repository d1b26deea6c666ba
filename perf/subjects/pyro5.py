"""Pyro5: proxies of remote objects.

It has no calls that are outstanding beside others on one connection, so several threads have a proxy each.
"""

from collections.abc import Sequence
from typing import Any

from perf.measure import ANSWER_TIMEOUT
from perf.streams import by_threads, needs, one_by_one
from perf.worker import Control

NOTE = "8 threads with a proxy each, msgpack"
THREADS = 8


def missing() -> str | None:
    """It needs Pyro5, and msgpack for the fastest of its serializers."""
    return needs("Pyro5", "Pyro5") or needs("msgpack", "msgpack")


def serve(settings: dict[str, Any], control: Control) -> None:
    """Serve echo on a port that the system chooses."""
    import Pyro5.api

    @Pyro5.api.expose
    class Service:
        def echo(self, data: bytes) -> bytes:
            return data

    daemon = Pyro5.api.Daemon(host="127.0.0.1")
    uri = daemon.register(Service(), "echo")
    control.end_with_parent()
    control.ready(str(uri))
    daemon.requestLoop()


class Client:
    """A proxy for each thread; each belongs to the thread that uses it."""

    def __init__(self, endpoint: str) -> None:
        import Pyro5.api

        Pyro5.api.config.SERIALIZER = "msgpack"
        Pyro5.api.config.COMMTIMEOUT = ANSWER_TIMEOUT
        self._endpoint = endpoint
        self._proxy = Pyro5.api.Proxy(endpoint)
        self._proxies = [Pyro5.api.Proxy(endpoint) for _ in range(THREADS)]

    def one_by_one(self, payloads: Sequence[bytes]) -> list[int]:
        """The blocking call."""
        return one_by_one(self._proxy.echo, payloads)

    def stream(self, payloads: Sequence[bytes], outstanding: int) -> None:
        """Threads."""

        def caller(proxy: Any) -> Any:
            def call(payload: bytes) -> Any:
                if not mine:
                    proxy._pyroClaimOwnership()
                    mine.append(True)
                return proxy.echo(payload)

            mine: list[bool] = []
            return call

        by_threads([caller(proxy) for proxy in self._proxies], payloads)

    def close(self) -> None:
        """Release all proxies."""
        for proxy in (self._proxy, *self._proxies):
            proxy._pyroClaimOwnership()
            proxy._pyroRelease()
