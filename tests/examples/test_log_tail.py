"""examples/log_tail.py: a file that grows, as a stream and as server-sent events."""

import asyncio
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import Client, Server
from engine.testing import LIMIT, wait_until
from examples.log_tail import File, Log, make_app


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.write_text("one\ntwo\nthr", encoding="utf-8")
    return path


@pytest.fixture
def server(path: Path) -> Iterator[Server]:
    with Server("tcp://127.0.0.1:*") as server:
        server.register(Log, File(path))
        server.listen()
        yield server


def append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def test_lines_that_come(path: Path, server: Server) -> None:
    """The last lines, then those that are added, each once it is whole; a reader that goes ends the routine."""
    with Client(server.endpoint) as client:
        with client.bind(Log).follow.stream(1) as lines:
            assert next(lines) == "two"
            append(path, "ee\nfour\nfi")
            assert [next(lines), next(lines)] == ["three", "four"]
            append(path, "ve\n")
            assert next(lines) == "five"
        wait_until(lambda: server.statistics().active == 0)


@pytest.mark.skipif(importlib.util.find_spec("starlette") is None, reason="starlette is not installed")
def test_a_browser(path: Path, server: Server) -> None:
    """Each line is an event; a browser that leaves ends the routine at the server."""

    async def visit() -> str:
        app: Any = make_app(server.endpoint)
        got: asyncio.Queue[str] = asyncio.Queue()
        gone = asyncio.Event()
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "method": "GET", "path": "/log",
            "raw_path": b"/log", "query_string": b"last=2", "headers": [], "http_version": "1.1", "scheme": "http",
            "server": ("test", 80), "client": ("test", 1), "root_path": "",
        }  # fmt: skip

        async def receive() -> dict[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message.get("body"):
                await got.put(message["body"].decode())

        async with app.router.lifespan_context(app):
            request = asyncio.create_task(app(scope, receive, send))
            events = [await got.get(), await got.get()]
            append(path, "ee\n")
            events.append(await got.get())
            gone.set()
            await request
            while server.statistics().active:
                await asyncio.sleep(0.01)  # Between two looks, while the loop goes on; no promise is timed by it.
        return "".join(events)

    assert asyncio.run(asyncio.wait_for(visit(), LIMIT)) == "data: one\n\ndata: two\n\ndata: three\n\n"
