"""A log that grows, followed by browsers: an out pipe at the server, server-sent events at an ASGI application.

    python -m examples.log_tail serve FILE [ENDPOINT]      the server that reads the file
    python -m examples.log_tail print [ENDPOINT]           a client on a terminal
    uvicorn --factory examples.log_tail:make_app           /log for browsers; needs starlette and uvicorn

The pipe holds back who reads faster than its client takes, and a browser that leaves ends the routine within a moment:
its request is cancelled, the stream closed, the server told.
"""

import asyncio
import sys
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from engine import Client, Interface, OutPipe, Pipe, Server, Unavailable, operation

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

ENDPOINT = "tcp://127.0.0.1:5555"
LOOK = 0.1  # Seconds between two looks at a file that does not grow: no system tells of that everywhere.


class Log(Interface, id="example.Log", version=(1, 0)):
    """What is served."""

    @operation
    def follow(self, last: int, lines: OutPipe[str] = ...) -> None:
        """Push the last lines, and then each that is added, without an end."""
        raise NotImplementedError


class File:
    """Implements `Log` for one file. A routine in a coroutine: many may follow, and none keeps a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def follow(self, last: int, lines: Pipe[str]) -> None:
        with self._path.open(encoding="utf-8", errors="replace") as file:
            recent = deque(file, max(last, 0) + 1)  # Reads to the end; what is there is mostly whole lines.
            rest = recent.pop() if recent and not recent[-1].endswith("\n") else ""
            if last > 0 and recent:
                await lines.push_async([line.rstrip("\n") for line in recent][-last:])
            while True:  # Until the client goes away: then its task is cancelled.
                rest += file.readline()
                if rest.endswith("\n"):
                    await lines.push_async([rest.rstrip("\n")])
                    rest = ""
                else:  # Nothing, or the beginning of a line.
                    await asyncio.sleep(LOOK)


def serve(path: str, endpoint: str = ENDPOINT) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    with Server(endpoint) as server:
        server.register(Log, File(Path(path)))
        print("serving at", endpoint, flush=True)
        server.listen(wait=True)


def show(endpoint: str = ENDPOINT) -> None:
    """Print what is logged, until Ctrl-C."""
    with Client(endpoint) as client, client.bind(Log).follow.stream(10) as lines:
        for line in lines:
            print(line, flush=True)


async def events(client: Client, last: int) -> AsyncGenerator[str, None]:
    """Yield server-sent events: one for each line."""
    async with aclosing(client.bind(Log).follow.stream(last)) as lines:
        try:
            async for line in lines:
                yield f"data: {line}\n\n"
        except Unavailable as error:
            yield f"event: error\ndata: {type(error).__name__}\n\n"  # A browser asks again by itself.


def make_app(endpoint: str = ENDPOINT) -> "Starlette":
    """Return the application: one client for all requests, open as long as it runs."""
    from starlette.applications import Starlette
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    @asynccontextmanager
    async def lifespan(app: "Starlette") -> AsyncIterator[None]:
        async with Client(endpoint, connect_timeout=2.0) as client:
            app.state.client = client
            yield

    async def log(request: "Request") -> "Response":
        last = int(request.query_params.get("last", "10"))
        return StreamingResponse(events(request.app.state.client, last), media_type="text/event-stream")

    return Starlette(routes=[Route("/log", log)], lifespan=lifespan)


if __name__ == "__main__":
    commands: dict[str, Callable[..., None]] = {"serve": serve, "print": show}
    commands[sys.argv[1]](*sys.argv[2:])
