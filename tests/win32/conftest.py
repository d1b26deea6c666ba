"""A service in a process of its own, written with the Windows names, and what every test cleans up after."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from engine import Client
from engine.testing import LIMIT
from engine.win32 import (
    RPC_S_DUPLICATE_ENDPOINT,
    RPC_S_OK,
    Box,
    CloseHandle,
    RpcBindingFree,
    RpcBindingFromStringBinding,
    RpcMgmtSetAuthorizationFn,
    RpcMgmtStopServerListening,
    RpcMgmtWaitServerListen,
    RpcServerRegisterIf,
    RpcServerUnregisterIf,
    RpcServerUseProtseqEp,
    RpcStringBindingCompose,
    RpcStringFree,
    SetLastError,
)
from tests.lasting import lasting_threads

from .contract import Desk
from .greeter import Greeter, Hello

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="package", autouse=True)
def threads_of_the_process() -> Iterator[None]:
    """Threads that outlast a test start before the tests count threads, and end with the last of them.

    So does what the process serves, which no public name closes: its endpoints stay open otherwise.
    """
    with lasting_threads():
        yield
        sys.modules["engine.win32.this_process"].process.at_exit()


@pytest.fixture(autouse=True)
def no_error_yet() -> None:
    """No test sees the last error of another one."""
    SetLastError(0)


@pytest.fixture
def handles() -> Iterator[Callable[[Any], Any]]:
    """A function that returns its argument, a handle, which is closed with the test unless the test does."""
    made: list[Any] = []

    def keep(handle: Any) -> Any:
        assert handle is not None
        made.append(handle)
        return handle

    yield keep
    for handle in made:
        CloseHandle(handle)


@contextmanager
def served(path: str) -> Iterator["subprocess.Popen[str]"]:
    """A service in a process of its own that listens on `path`; killed in the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.win32.service", path], stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "listening\n"
        yield process
    finally:
        process.kill()
        process.wait(LIMIT)
        process.stdout.close()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The path on which the service in another process listens; in the end it stops when it is told to."""
    path = str(tmp_path_factory.mktemp("win32") / "desk")
    with served(path) as process:
        yield path
        with Client(f"ipc://{path}") as client:
            client.bind(Desk).stop(timeout=LIMIT)
        assert process.wait(LIMIT) == 0


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The path and the process of a service that the test may kill."""
    path = str(tmp_path / "victim")
    with served(path) as process:
        yield path, process


@pytest.fixture
def client(service: str) -> Iterator[Client]:
    """A client of the service."""
    with Client(f"ipc://{service}") as made:
        yield made


@pytest.fixture
def desk(client: Client) -> Desk:
    """The service, to be called asynchronously."""
    return client.bind(Desk)


@pytest.fixture
def control(service: str) -> Iterator[Desk]:
    """The same service through a connection of its own: it says how held calls end."""
    with Client(f"ipc://{service}") as made:
        yield made.bind(Desk)


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where this process serves. Endpoints are the process's: they are never taken back."""
    return str(tmp_path_factory.mktemp("served") / "hello")


@pytest.fixture
def endpoint(path: str) -> str:
    assert RpcServerUseProtseqEp("ncalrpc", 0, path, None) in (RPC_S_OK, RPC_S_DUPLICATE_ENDPOINT)
    return path


@pytest.fixture
def quiet(endpoint: str) -> Iterator[None]:
    """This process serves nothing, and is managed by nobody, when the test has ended."""
    yield
    RpcMgmtSetAuthorizationFn(None)
    RpcMgmtStopServerListening(None)
    RpcMgmtWaitServerListen()
    assert RpcServerUnregisterIf(None, None, True) == RPC_S_OK


@pytest.fixture
def greeter(quiet: None) -> Iterator[Greeter]:
    """The implementation, registered; the process has stopped listening afterwards."""
    made = Greeter()
    assert RpcServerRegisterIf(Hello, None, made) == RPC_S_OK
    yield made
    made.gate.open()


@pytest.fixture
def binding(endpoint: str) -> Iterator[Callable[[], Client]]:
    """A function that makes a binding handle of this process, as the samples do. Call it when the process listens."""
    made: list[Box] = []

    def bind() -> Client:
        text, binding = Box(), Box()
        assert RpcStringBindingCompose(None, "ncalrpc", None, endpoint, None, text) == RPC_S_OK
        assert RpcBindingFromStringBinding(text.value, binding) == RPC_S_OK
        assert RpcStringFree(text) == RPC_S_OK
        made.append(binding)
        return binding.value  # type: ignore[no-any-return]  # what is in a box has no type

    yield bind
    for box in made:
        assert RpcBindingFree(box) == RPC_S_OK


@pytest.fixture
def connect(binding: Callable[[], Client]) -> Callable[[], Any]:
    """A function that makes a binding of `Hello`."""
    return lambda: binding().bind(Hello)
