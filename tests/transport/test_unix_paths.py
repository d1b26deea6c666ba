"""Where a server on ipc listens: what it takes, what it leaves alone, and what it says is there."""

import errno
import fcntl
import gc
import itertools
import os
import re
import resource
import select
import socket
import stat
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from engine import EngineError
from engine.testing import LIMIT, wait_until
from tests.rpc.helpers import at_line, code_named
from tests.transport.helpers import Party, exchange
from transport import EndpointError, bind, connect

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, an empty one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(params=["ipc", "native+ipc"])
def ipc(request: pytest.FixtureRequest) -> str:
    """Each link that has Unix sockets."""
    return str(request.param)


@pytest.fixture
def served() -> Iterator[Callable[[str], Party]]:
    """A function that binds an endpoint, until the end of the test."""
    made: list[Party] = []

    def serve(endpoint: str) -> Party:
        made.append(Party(bind(endpoint)))
        return made[-1]

    yield serve
    for party in made:
        party.close()


def test_ctrl_c_at_any_line_of_binding(ipc: str, tmp_path: Path) -> None:
    """An interrupt at any line of binding leaves neither a descriptor nor the endpoint taken, and harms no other."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    step, at = ("_bind_ipc", "zmq_link") if ipc == "ipc" else ("_bind", "native_link")
    binding = code_named(step, f"transport/{at}/server.py")
    abstract = [f"@{tmp_path.name}-{os.getpid()}"] if sys.platform == "linux" else []
    for name in (f"{tmp_path}/socket", *abstract):
        for number in itertools.count():
            with at_line(number, binding, interrupt) as reached:
                try:
                    bind(f"{ipc}://{name}").close()
                    break
                except KeyboardInterrupt:
                    pass
            with open(os.devnull, "rb") as other:  # Has the number of a descriptor that was closed too early.
                server = Party(bind(f"{ipc}://{name}"))
                try:
                    assert answers(server), f"after an interrupt at line {number}"
                    assert other.read() == b""
                finally:
                    server.close()
        assert number > 5 and reached[0] <= number


def answers(server: Party) -> bool:
    """Whether a client reaches the server by the endpoint that it tells."""
    client = Party(connect(server.link.endpoint))
    try:
        exchange([server, client], lambda: client.ups)
        return bool(client.ups)
    finally:
        client.close()


def left_behind(path: str) -> None:
    """Leave a socket at a path, as a server does that is killed."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
        dead.listen()


class TestWhatIsThere:
    """Only a socket on which nobody answers is removed."""

    @pytest.mark.parametrize(
        ("what", "make"),
        [
            ("a file", lambda path: path.write_bytes(b"precious")),
            ("a folder", lambda path: path.mkdir()),
            ("a named pipe", lambda path: os.mkfifo(path)),
            ("a symbolic link", lambda path: path.symlink_to("nowhere")),
            ("a symbolic link", lambda path: (left_behind("dead"), path.symlink_to("dead"))),
        ],
        ids=["file", "folder", "pipe", "dangling link", "link"],
    )
    def test_what_is_no_socket(self, ipc: str, folder: Path, what: str, make: Callable[[Path], object]) -> None:
        """It stays as it is, and the error says what it is."""
        path = folder / "here"
        make(path)
        before = os.lstat(path)
        with pytest.raises(EndpointError, match=f"{path}.*{what} is there"):
            bind(f"{ipc}://{path}")
        after = os.lstat(path)
        assert (after.st_ino, after.st_mode, after.st_size) == (before.st_ino, before.st_mode, before.st_size)

    def test_a_server_that_answers(self, ipc: str, folder: Path, served: Callable[[str], Party]) -> None:
        """It keeps its endpoint, also by way of a link, and the error says that it listens there."""
        server = served(f"{ipc}://{folder}/here")
        with pytest.raises(EndpointError, match="a server listens there"):
            bind(f"{ipc}://{folder}/here")
        (folder / "link").symlink_to("here")
        with pytest.raises(EndpointError, match="a symbolic link is there"):
            bind(f"{ipc}://{folder}/link")
        assert answers(server)

    def test_a_server_too_busy_to_answer(self, ipc: str, folder: Path) -> None:
        """A queue that is full of connections is a sign of life, too."""
        with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
            busy.bind("here")
            busy.listen(0)
            first.connect("here")
            with pytest.raises(EndpointError, match="a server listens there"):
                bind(f"{ipc}://here")
            assert stat.S_ISSOCK(os.lstat("here").st_mode)

    def test_a_socket_of_another_kind(self, ipc: str, folder: Path) -> None:
        """A datagram socket, of a logger for one, stays."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind("here")
            with pytest.raises(EndpointError, match="socket of another kind"):
                bind(f"{ipc}://here")
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.connect("here")

    def test_left_behind(self, ipc: str, folder: Path, served: Callable[[str], Party]) -> None:
        """A socket that nobody answers on any more is taken over."""
        left_behind("here")
        assert answers(served(f"{ipc}://here"))

    def test_the_race_for_what_was_left_behind(self, ipc: str, folder: Path) -> None:
        """Of servers that find the same dead socket at once one gets it, and keeps it."""
        for _ in range(20):
            left_behind("here")
            start = threading.Barrier(4)
            got: list[Party] = []

            def compete(start: threading.Barrier = start, got: list[Party] = got) -> None:
                start.wait(LIMIT)
                try:
                    got.append(Party(bind(f"{ipc}://here")))
                except EndpointError:
                    pass

            threads = [threading.Thread(target=compete) for _ in range(start.parties)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(LIMIT)
            try:
                assert len(got) == 1 and answers(got[0])
            finally:
                for party in got:
                    party.close()

    def test_the_folder_is_anothers(self, ipc: str, folder: Path, served: Callable[[str], Party]) -> None:
        """While another server takes a path in the folder, this one takes none: not even a dead socket is looked at."""
        left_behind("here")
        before = os.lstat("here").st_ino
        holder = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(holder, fcntl.LOCK_EX)
            with pytest.raises(EndpointError, match="folder is locked by another process"):
                bind(f"{ipc}://here")
            assert os.lstat("here").st_ino == before
        finally:
            os.close(holder)
        assert answers(served(f"{ipc}://here"))

    @pytest.mark.parametrize(
        ("function", "said"),
        [("os.unlink", "another user's is there, on which nobody answers"), ("socket.socket.connect", "may not ask")],
    )
    def test_what_is_another_users(
        self, ipc: str, folder: Path, monkeypatch: pytest.MonkeyPatch, function: str, said: str
    ) -> None:
        """A socket of another user's, which this one may neither remove nor ask, stays, and the error says so."""
        left_behind("here")
        before = os.lstat("here").st_ino

        def refuse(*args: Any, **options: Any) -> Any:
            raise PermissionError(errno.EACCES, "denied")

        with monkeypatch.context() as patch:
            patch.setattr(function, refuse, raising=False)
            with pytest.raises(EndpointError, match=f"cannot bind {re.escape(ipc)}://here: .*{said}"):
                bind(f"{ipc}://here")
        assert os.lstat("here").st_ino == before

    def test_no_folder(self, ipc: str, folder: Path) -> None:
        """A path in a folder that is not there, or is none, says so."""
        (folder / "file").write_bytes(b"")
        for path in ("missing/here", "file/here"):
            with pytest.raises(EndpointError, match=f"{path.partition('/')[0]}.*(does not exist|is no folder)"):
                bind(f"{ipc}://{path}")

    @pytest.mark.skipif(os.geteuid() == 0, reason="everything is permitted")
    def test_no_permission(self, ipc: str, folder: Path) -> None:
        """A folder that one may not write to says so."""
        folder.chmod(0o500)
        try:
            with pytest.raises(EndpointError, match="may not"):
                bind(f"{ipc}://here")
        finally:
            folder.chmod(0o700)

    def test_a_path_that_is_too_long(self, ipc: str, folder: Path, served: Callable[[str], Party]) -> None:
        """107 bytes are the most, counted as they go to the system."""
        for name in ("x" * 108, "\u00e9" * 54, "@" + "x" * 107):
            with pytest.raises(EndpointError, match="107 bytes"):
                bind(f"{ipc}://{name}")
        assert answers(served(f"{ipc}://" + "x" * 107))


class TestNames:
    """Paths, and what is none."""

    def test_it_goes_with_the_server(self, ipc: str, folder: Path, served: Callable[[str], Party]) -> None:
        """A relative path is that of the working directory at the time; the socket is removed as the server closes."""
        server = served(f"{ipc}://here")
        assert server.link.endpoint == f"{ipc}://here" and (folder / "here").exists()
        (folder / "elsewhere").mkdir()
        os.chdir(folder / "elsewhere")
        server.close()
        assert list(folder.iterdir()) == [folder / "elsewhere"]

    def test_not_what_is_another_servers_by_now(self, ipc: str, folder: Path, served: Callable[[str], Party]) -> None:
        """Who closes removes its own socket only."""
        first = served(f"{ipc}://here")
        (folder / "here").unlink()
        second = served(f"{ipc}://here")
        first.close()
        assert answers(second)

    def test_any_path(self, ipc: str, folder: Path, served: Callable[[str], Party]) -> None:
        """`*` is a path that the system chooses; the endpoint tells it, and nothing is left of it afterwards."""
        server = served(f"{ipc}://*")
        path = Path(server.link.endpoint.removeprefix(f"{ipc}://"))
        assert path.is_absolute() and stat.S_ISSOCK(path.lstat().st_mode)
        assert answers(server)
        server.close()
        assert not path.parent.exists() and not list(folder.iterdir())
        with pytest.raises(EndpointError, match="once it listens"):
            connect(f"{ipc}://*")

    def test_bytes_that_are_no_text(self, ipc: str, folder: Path, served: Callable[[str], Party]) -> None:
        """A path may have any bytes, as the system has it."""
        name = os.fsdecode(b"not-\xff-utf8")
        assert answers(served(f"{ipc}://{name}"))
        assert name in os.listdir(folder)

    @pytest.mark.skipif(sys.platform != "linux", reason="Linux has an abstract space")
    def test_abstract(self, ipc: str, folder: Path, served: Callable[[str], Party]) -> None:
        """`@` begins an abstract name, which is no file; it is taken while its server lives, and free afterwards."""
        endpoint = f"{ipc}://@callport-test-{os.getpid()}"
        server = served(endpoint)
        assert server.link.endpoint == endpoint and not list(folder.iterdir())
        assert answers(server)
        with pytest.raises(EndpointError, match="a server listens there"):
            bind(endpoint)
        server.close()
        assert answers(served(endpoint))
        with pytest.raises(EndpointError, match="a name behind the @"):
            bind(f"{ipc}://@")


#: No name is used twice: who was a client of a former server would come to the next one.
_names = (f"{os.getpid()}-{number}" for number in itertools.count())


class Short:
    """A server that echoes, in a process that may open few more descriptors than it has."""

    def __init__(self, endpoint: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.transport.few_descriptors", endpoint.format(name=next(_names))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self.endpoint = self._read()

    def _read(self) -> str:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], LIMIT)[0], "it says nothing"
        line = self.process.stdout.readline().strip()
        assert line, f"it ended: {self.end()}"
        return line

    def do(self, word: str) -> None:
        """Have it do something, see its module, and wait until that is done."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # It ended, and says below with what.
            self.process.stdin.write(f"{word}\n")
            self.process.stdin.flush()
        assert self._read() == word

    def end(self) -> tuple[int, str]:
        """Let it come to its end; return its exit code, and what it told."""
        try:
            _, told = self.process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            _, told = self.process.communicate()
        return self.process.returncode, told


@pytest.fixture
def short(folder: Path) -> Iterator[Callable[[str], Short]]:
    """A function that starts such a server, which lives until the end of the test."""
    made: list[Short] = []

    def start(endpoint: str) -> Short:
        made.append(Short(endpoint))
        return made[-1]

    yield start
    for each in made:
        each.end()


EVERYWHERE = pytest.mark.parametrize(
    "where",
    [
        "ipc://here", "ipc://@callport-few-{name}", "tcp://127.0.0.1:*",
        "native+ipc://here", "native+ipc://@callport-few-{name}", "native+tcp://127.0.0.1:*",
    ],
)  # fmt: skip
COUNTED = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="descriptors cannot be counted")


@EVERYWHERE
@COUNTED
def test_few_descriptors(short: Callable[[str], Short], where: str) -> None:
    """A server that runs out of descriptors lives on: it warns, and accepts nobody while few are left. Those whom it
    serves go on where their connections can be kept, and when descriptors are free again, new ones are served.
    """
    server = short(where)
    bare: list[socket.socket] = []
    try:
        client = Party(connect(server.endpoint))
        assert echoed(client)
        while len(bare) < 40 and echoed(client):  # The server has looked each time.
            bare.append(open_connection(server.endpoint))
        assert server.endpoint.startswith("ipc://@") or not client.losses
        server.do("few")
        for each in bare:
            each.close()
        late = Party(connect(server.endpoint))
        for party in (late, client):
            assert echoed(party)
            party.close()
    finally:
        for each in bare:
            each.close()
    code, told = server.end()
    assert code == 0, told
    assert told.count("file descriptors are left") == 1, told


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
@COUNTED
def test_who_is_permitted(short: Callable[[str], Short], mode: int) -> None:
    """Whom the socket's permissions let in, and no others, may wait in the queue while few descriptors are left."""
    server = short("ipc://here")
    os.chmod("here", mode)
    first = os.lstat("here").st_ino
    server.do("eat")
    server.do("few")
    with socket.socket(socket.AF_UNIX) as client:
        wait_until(lambda: not client.connect_ex("here"))
        assert os.lstat("here").st_ino != first and stat.S_IMODE(os.lstat("here").st_mode) == mode
    server.do("free")
    wait_until(lambda: os.lstat("here").st_ino == first)
    assert stat.S_IMODE(os.lstat("here").st_mode) == mode


@COUNTED
def test_the_queue_is_no_longer_than_what_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So few clients may wait to be accepted that, all accepted at once, they leave some of the kept descriptors."""
    asked: list[int] = []

    class Socket(socket.socket):
        def listen(self, backlog: int = 128) -> None:
            asked.append(backlog)
            super().listen(backlog)

    monkeypatch.setattr(socket, "socket", Socket)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = len(os.listdir("/proc/self/fd"))
    try:
        for few in (40, 100, soft - open_now):
            resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + few, hard))
            server = Party(bind("ipc://here"))
            server.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(asked) == 3 and all(backlog < few // 2 for backlog, few in zip(asked, (40, 100, soft), strict=True))
    assert 0 < asked[0] < asked[1] <= asked[2] <= 1024


@EVERYWHERE
@COUNTED
def test_its_program_has_them_all(short: Callable[[str], Short], where: str) -> None:
    """A server whose own program has opened all that it may lives on though clients connect. On ipc it notices, and
    warns, while none do. Who connects meanwhile is served when descriptors are free again.
    """
    server = short(where)
    server.do("eat")
    if server.endpoint.startswith("ipc"):
        server.do("few")
    client = Party(connect(server.endpoint))
    bare = [open_connection(server.endpoint) for _ in range(3)]
    server.do("free")
    assert echoed(client)
    client.close()
    for each in bare:
        each.close()
    code, told = server.end()
    assert code == 0, told


@pytest.mark.parametrize("where", ["here", "./here"])
@COUNTED
def test_clients_wait_while_there_are_none(short: Callable[[str], Short], where: str) -> None:
    """At a path, clients find a queue to wait in, though not one descriptor was left to make it of."""
    server = short(f"ipc://{where}")
    server.do("eat")
    server.do("few")
    with socket.socket(socket.AF_UNIX) as client:
        wait_until(lambda: not client.connect_ex("here"))  # The warning comes a moment before.
        server.do("free")
        client.settimeout(LIMIT)
        with suppress(ConnectionResetError):
            assert not client.recv(1), "it is told to connect again"
    code, told = server.end()
    assert code == 0, told
    assert not os.listdir()


def lookers() -> list[threading.Thread]:
    """The threads that look how many descriptors are left."""
    return [thread for thread in threading.enumerate() if thread.name == "transport:descriptors"]


def test_one_thread_looks_for_all_servers(folder: Path, served: Callable[[str], Party]) -> None:
    """However many servers listen on ipc, one thread counts descriptors for them, and ends when the last has closed."""
    servers = [served(f"ipc://{number}") for number in range(4)]
    (looker,) = lookers()
    for server in servers[:3]:
        server.close()
    assert lookers() == [looker]
    servers[3].close()
    looker.join(LIMIT)
    assert not lookers()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_server_that_is_dropped(folder: Path, served: Callable[[str], Party]) -> None:
    """A server's link that its program drops without closing it is kept alive by nothing."""
    kept = served("ipc://kept")
    dropped = weakref.ref(bind("ipc://dropped"))

    def gone() -> bool:
        gc.collect()
        return dropped() is None

    wait_until(gone)  # The thread may just be looking.
    assert answers(kept)


def echoed(client: Party) -> bool:
    """Whether the server answers what is sent, over a connection that has never been lost."""
    before, losses = len(client.messages), len(client.losses)

    def sent() -> bool:
        client.harvest()
        return len(client.losses) > losses or client.send(b"", [b"hello"])

    wait_until(sent)
    exchange([client], lambda: len(client.messages) > before or len(client.losses) > losses)
    return len(client.messages) > before


def open_connection(endpoint: str) -> socket.socket:
    """Connect, and say nothing. It may find nobody, or wait for ever: never mind."""
    name = endpoint.partition("://")[2]
    if endpoint.startswith(("tcp", "native+tcp")):
        host, _, port = name.rpartition(":")
        bare = socket.socket()
        address: str | tuple[str, int] = (host, int(port))
    else:
        bare = socket.socket(socket.AF_UNIX)
        address = name.replace("@", "\0", 1)
    bare.setblocking(False)
    try:
        bare.connect(address)
    except OSError:
        pass
    return bare


def test_all_are_errors_of_the_engine() -> None:
    """What is wrong with an endpoint is caught as everything else is."""
    assert issubclass(EndpointError, EngineError)


@pytest.mark.parametrize(
    ("function", "outcome", "said"),
    [("access", False, "no permission to connect"), ("stat", PermissionError(13, "denied"), "no permission to enter")],
)
def test_who_may_not_connect_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, outcome: Any, said: str
) -> None:
    """A client that has no permission for the socket is told so, and not that nobody listens there."""

    def refuse(path: Any, *args: Any, **options: Any) -> Any:
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    (tmp_path / "s").touch()
    client = Party(connect(f"ipc://{tmp_path}/s"))
    with monkeypatch.context() as patch:
        patch.setattr(f"os.{function}", refuse)
        exchange([client], lambda: client.refusals)
    client.close()
    assert said in client.refusals[0]
