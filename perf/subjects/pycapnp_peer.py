"""pycapnp: Cap'n Proto's RPC over a Unix socket, in C++, with asyncio on both sides.

What favours it: protocol, call table and dispatch are compiled; Python runs the loop, the routine and the caller. The
loop is asyncio's own: under uvloop the server of version 2.2.4 crashed.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter_ns
from typing import Any

from perf.streams import check, needs, socket_path
from perf.worker import Control

NOTE = "asyncio on both sides, promises"
CONTRACT = """
@0xb5f1a6b2c3d4e5f7;
interface Echo {
    echo @0 (data :Data) -> (data :Data);
}
"""


def missing() -> str | None:
    """It needs pycapnp."""
    return needs("capnp", "pycapnp")


def contract() -> Any:
    """Return the compiled interface."""
    import capnp

    capnp.remove_import_hook()
    with TemporaryDirectory() as folder:
        file = Path(folder) / "echo.capnp"
        file.write_text(CONTRACT)
        return capnp.load(str(file)).Echo


def serve(settings: dict[str, Any], control: Control) -> None:
    """Serve echo."""
    import capnp

    base = contract().Server

    class Service(base):  # type: ignore[misc, valid-type]  # made when it runs
        async def echo(self, data: bytes, **context: Any) -> bytes:
            return data

    async def accept(stream: Any) -> None:
        await capnp.TwoPartyServer(stream, bootstrap=Service()).on_disconnect()

    async def main() -> None:
        server = await capnp.AsyncIoStream.create_unix_server(accept, socket_path(settings["endpoint"]))
        control.ready(settings["endpoint"])
        async with server:
            await server.serve_forever()

    control.end_with_parent()
    asyncio.run(capnp.run(main()))


class Client:
    """A connection inside a loop of its own; what is measured runs in a coroutine there."""

    def __init__(self, endpoint: str) -> None:
        import capnp

        self._interface = contract()
        self._path = socket_path(endpoint)
        self._runner = asyncio.Runner()
        self._capnp = capnp

    def _run(self, work: Any) -> Any:
        async def main() -> Any:
            async with self._capnp.kj_loop():
                stream = await self._capnp.AsyncIoStream.create_unix_connection(self._path)
                client = self._capnp.TwoPartyClient(stream)
                try:
                    return await work(client.bootstrap().cast_as(self._interface).echo)
                finally:
                    stream.close()

        return self._runner.run(main())

    def one_by_one(self, payloads: Sequence[bytes]) -> list[int]:
        """Await each promise."""

        async def work(echo: Any) -> list[int]:
            times = []
            for payload in payloads:
                start = perf_counter_ns()
                answer = (await echo(payload)).data
                times.append(perf_counter_ns() - start)
                check(answer, payload)
            return times

        found: list[int] = self._run(work)
        return found

    def stream(self, payloads: Sequence[bytes], outstanding: int) -> None:
        """Keep promises, and await the oldest."""

        async def work(echo: Any) -> None:
            waiting = iter(payloads)
            promises = deque((echo(payload), payload) for payload in islice(waiting, outstanding))
            while promises:
                promise, sent = promises.popleft()
                check((await promise).data, sent)
                for payload in islice(waiting, 1):
                    promises.append((echo(payload), payload))

        self._run(work)

    def close(self) -> None:
        """Close the loop."""
        self._runner.close()
