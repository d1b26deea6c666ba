"""A tunnel, for peers that know no TLS: what comes in plain goes out under TLS, or the other way round."""

import asyncio
import ssl
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from engine.testing import LIMIT

from .certificates import client_context, server_context

_CHUNK = 1 << 16


class Tunnel:
    """Listens on a loopback address, and carries each connection to a port there. On a thread of its own.

    Args: port: where to. outwards: TLS is spoken to whom it connects to; otherwise by those who come.
    """

    def __init__(self, port: int, outwards: bool) -> None:
        self._to = port
        self._out: ssl.SSLContext | None = client_context() if outwards else None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tunnel")
        self._thread.start()
        self._server = self._do(
            asyncio.start_server(self._carry, "127.0.0.1", 0, ssl=None if outwards else server_context())
        )
        #: Where it listens.
        self.port: int = self._server.sockets[0].getsockname()[1]

    def _do(self, step: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(step, self._loop).result(LIMIT)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        writers = [writer]
        try:
            name = "127.0.0.1" if self._out is not None else None
            there = await asyncio.open_connection("127.0.0.1", self._to, ssl=self._out, server_hostname=name)
            writers.append(there[1])
            await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))
            await asyncio.wait_for(asyncio.gather(*(each.wait_closed() for each in writers)), 1.0)
        except (OSError, asyncio.CancelledError):
            pass  # One side is not there, or will not have us: the other sees the end.
        finally:
            self._tasks.discard(task)
            for each in writers:
                each.transport.abort()

    async def _end(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for _ in range(5):  # In so many steps of the loop transports close their sockets.
            await asyncio.sleep(0)

    def close(self) -> None:
        """End all connections, and listen no more."""
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LIMIT)
        self._loop.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry one direction to its end."""
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    finally:
        with suppress(OSError, RuntimeError):
            writer.close()
