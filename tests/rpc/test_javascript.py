"""The client and the server in `examples/javascript`, which were written from PROTOCOL.md: against each other and ours.

Where Node.js or their packages are missing, this is skipped. `make javascript` installs the packages;
CALLPORT_NODE_MODULES may name a `node_modules` folder elsewhere that has them.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from engine import (
    CallTimeout,
    Client,
    EngineError,
    Interface,
    Out,
    OutPipe,
    RemoteFault,
    Server,
    current_call,
    operation,
)
from engine.testing import LIMIT, wait_until

from .helpers import ROOT
from .test_vectors import Echo, Routines

EXAMPLE = ROOT / "examples" / "javascript"
PACKAGES = ("zeromq", "@msgpack/msgpack")


class More(Interface, id="example.More"):
    """What the example's server, and ours for its client, have besides `vectors.Echo`."""

    @operation
    def up_to(self, count: int, numbers: OutPipe[int] = ...) -> int:
        """Push the numbers below `count`."""

    @operation
    def grab(self, frame: Out[bytearray]) -> int:
        """Fill the frame; return its size."""

    @operation
    def fail(self) -> None:
        """End with 4711."""

    @operation
    def wait(self) -> str:
        """Wait until the client has cancelled the call."""

    @operation
    def metadata(self) -> None:
        """Say in the reply's metadata what came."""


class MoreRoutines:
    """Implements `More`."""

    def up_to(self, count: int, numbers: Any) -> int:
        for first in range(0, count, 100):
            numbers.push_wait(range(first, min(first + 100, count)))
        numbers.push([])
        return count

    def grab(self, frame: bytearray) -> int:
        frame[:] = b"x" * len(frame)
        return len(frame)

    def fail(self) -> None:
        raise RemoteFault("on purpose", status=4711)

    def wait(self) -> str:
        call = current_call()
        wait_until(call.test_cancel)
        return "told"

    def metadata(self) -> None:
        current_call().set_trailing_metadata({"seen": str(dict(current_call().metadata))})


def packages() -> Path | None:
    """The folder that has the packages, if there is one."""
    given = os.environ.get("CALLPORT_NODE_MODULES", "")
    for folder in (given, ROOT / ".javascript" / "node_modules", EXAMPLE / "node_modules"):
        if folder and all((Path(folder) / package).is_dir() for package in PACKAGES):
            return Path(folder)
    return None


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example that finds the packages."""
    if shutil.which("node") is None:
        pytest.skip("Node.js is not installed")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.removeprefix("v").split(".")[0]) < 20:
        pytest.skip(f"Node.js is {version.strip()}, the example needs 20")
    found = packages()
    if found is None:
        pytest.skip(f"{' or '.join(PACKAGES)} is not installed: make javascript")
    folder = tmp_path_factory.mktemp("javascript")
    for file in (*EXAMPLE.glob("*.js"), EXAMPLE / "package.json"):
        shutil.copy(file, folder)
    (folder / "node_modules").symlink_to(found.resolve())
    return folder


def run(example: Path, *command: str) -> str:
    """Run a program of the example to its end; return what it has said."""
    done = subprocess.run(["node", *command], cwd=example, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def started(example: Path, *command: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A program of the example, and its first line; it is ended with the block."""
    program = subprocess.Popen(
        ["node", *command],
        cwd=example,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    try:
        line = program.stdout.readline().strip()
        assert line, program.communicate()[1]
        yield program, line
        _, complaints = program.communicate(timeout=LIMIT)
        assert (program.returncode, complaints) == (0, "")
    finally:
        program.kill()
        program.communicate()


@pytest.fixture
def served(folder: Path) -> Iterator[Callable[..., Server]]:
    """A function that makes a server of ours, of what `calls.js` calls."""
    made: list[Server] = []

    def serve(endpoint: str = "tcp://127.0.0.1:*") -> Server:
        server = Server(endpoint)
        made.append(server)
        server.register(Echo, Routines())
        server.register(More, MoreRoutines())
        server.listen()
        return server

    yield serve
    for server in made:
        server.close(0)


def test_vectors(example: Path) -> None:
    """Its reader, server and client do what the file of vectors says."""
    assert "vectors" in run(example, "vectors.js", str(ROOT / "transport" / "vectors.json"))


def test_each_other(example: Path) -> None:
    """Its client calls its server."""
    with started(example, "server.js", "tcp://127.0.0.1:*") as (_, endpoint):
        assert run(example, "calls.js", endpoint) == "checked\n"


@pytest.mark.parametrize("scheme", ["tcp", "native+tcp"])
def test_their_client(example: Path, served: Callable[..., Server], scheme: str) -> None:
    """Its client calls our server, of either link: values, arrays, faults, streams, outputs, cancels."""
    server = served(f"{scheme}://127.0.0.1:*")
    assert run(example, "calls.js", server.endpoint.removeprefix("native+")) == "checked\n"
    assert server.statistics().garbage_received == 0


def test_their_client_stays(example: Path, served: Callable[..., Server], folder: Path) -> None:
    """It goes on with the server that takes the place of the first."""
    first = served(f"ipc://{folder}/again")
    with started(example, "calls.js", first.endpoint, "again") as (program, line):
        assert line == "checked"
        first.close(0)
        served(f"ipc://{folder}/again")
        assert program.stdin is not None and program.stdout is not None
        program.stdin.write("go on\n")
        program.stdin.flush()
        assert program.stdout.readline() == "again\n"


@pytest.mark.parametrize("scheme", ["tcp", "native+tcp"])
def test_their_server(example: Path, scheme: str) -> None:
    """Our client, of either link, calls its server, in all the ways that it has."""
    numpy: Any = pytest.importorskip("numpy")
    with (
        started(example, "server.js", "tcp://127.0.0.1:*") as (_, endpoint),
        Client(endpoint.replace("tcp", scheme, 1), connect_timeout=LIMIT) as client,
    ):
        echo, more = client.bind(Echo), client.bind(More)
        value = [1, {"a": None}, "é", b"b", 2.5]
        assert echo.echo(value) == value
        calls = [echo.add.begin(number) for number in range(2000)]
        assert [call.result(LIMIT) for call in calls] == [number + 10 for number in range(2000)]
        assert echo.echo(bytes(5 << 20)) == bytes(5 << 20)
        array = numpy.arange(6, dtype="<i4").reshape(2, 3)
        assert (echo.echo(array) == array).all()
        assert echo.total(range(200_000)) == sum(range(200_000))
        assert list(more.up_to.stream(200_000)) == list(range(200_000))
        with pytest.raises(RemoteFault) as caught:
            more.fail()
        assert caught.value.status == 4711
        call = more.wait.begin()
        echo.add(1)
        call.cancel(abort=False)
        assert call.result(LIMIT) == "told"
        with pytest.raises(CallTimeout):
            more.wait(timeout=0.05)
        looked = more.metadata.begin(metadata={"trace": "1"})
        looked.result(LIMIT)
        assert looked.trailing_metadata == {"seen": '{"trace":"1"}'}
        buffer = bytearray(3)
        assert more.grab(buffer) == 3 and buffer == b"xxx"
        with pytest.raises(EngineError) as refused:
            client.bind("no.such").anything()
        assert refused.value.status == 1717
        assert client.statistics().garbage_received == 0
