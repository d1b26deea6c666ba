"""NATS: requests through a broker, `nats-server`, with the asyncio client nats-py on both sides, over uvloop.

What favours it: the broker is a compiled process of its own, and the client joins the writes of a turn of its loop.
What does not: each call and each answer takes two hops.
"""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from perf.measure import ANSWER_TIMEOUT
from perf.streams import Loop, needs
from perf.worker import Control

NOTE = "through nats-server, uvloop, tasks"
SUBJECT = "perf.echo"
START_TIMEOUT = 10.0  # Seconds until the broker says where it listens.


def broker() -> str | None:
    """Return the path of nats-server, which Debian installs where only root looks."""
    return shutil.which("nats-server", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")


def missing() -> str | None:
    """It needs nats-py, uvloop, and the broker."""
    absent = needs("nats", "nats-py") or needs("uvloop", "uvloop")
    if absent is None and broker() is None:
        return "nats-server is not installed: apt-get install nats-server"
    return absent


def serve(settings: dict[str, Any], control: Control) -> None:
    """Start a broker that listens where the system chooses, and answer what it forwards."""
    import nats
    import uvloop

    async def main(url: str) -> None:
        connection = await nats.connect(url)

        async def answer(message: Any) -> None:
            await message.respond(message.data)

        await connection.subscribe(SUBJECT, cb=answer)
        await connection.flush()
        control.ready(url)
        await asyncio.to_thread(control.wait_for_end)
        await connection.close()

    path = broker()
    assert path is not None
    with TemporaryDirectory(prefix="perf-") as folder:
        # The broker's own log goes where the others' words go: it is shown if the run fails.
        process = subprocess.Popen([path, "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", folder])
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(main(_address(Path(folder), process)))
        finally:
            process.terminate()
            process.wait()


def _address(folder: Path, process: subprocess.Popen[bytes]) -> str:
    """Return where the broker listens, which it writes to a file of its own."""
    import msgspec

    limit = time.monotonic() + START_TIMEOUT
    while time.monotonic() < limit and process.poll() is None:
        for file in folder.glob("*.ports"):
            text = file.read_bytes()
            if text.endswith(b"}"):
                (url,) = msgspec.json.decode(text)["nats"]
                return str(url)
        time.sleep(0.01)
    raise TimeoutError("nats-server did not say where it listens")


class Client:
    """A connection; requests share one subscription for answers."""

    def __init__(self, endpoint: str) -> None:
        import nats
        import uvloop

        self._loop = Loop(uvloop.new_event_loop)
        self._connection = self._loop.run(nats.connect(endpoint))

    async def _echo(self, payload: bytes) -> bytes:
        answer: bytes = (await self._connection.request(SUBJECT, payload, ANSWER_TIMEOUT)).data
        return answer

    def one_by_one(self, payloads: Sequence[bytes]) -> list[int]:
        """Await each."""
        return self._loop.one_by_one(self._echo, payloads)

    def stream(self, payloads: Sequence[bytes], outstanding: int) -> None:
        """Tasks."""
        self._loop.stream(self._echo, payloads, outstanding)

    def close(self) -> None:
        """Close the connection, then the loop."""
        self._loop.run(self._connection.close())
        self._loop.close()
