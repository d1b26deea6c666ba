"""Words for what the tests do: services in their own process, peers that lie, code interrupted at each line."""

import dis
import gc
import inspect
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from linecache import getline
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any, ParamSpec, Protocol, Self, TypeVar

import pytest
import zmq

from engine import Call, Client, EngineError
from engine.testing import LIMIT, wait_until, wait_until_blocked
from transport.frames import Hello, Message, Welcome
from transport.wire.codec import decode, encode

from ..certificates import folder as certificates
from ..certificates import for_client
from ..tunnel import Tunnel
from .interfaces import Control, Probe

ROOT = Path(__file__).resolve().parents[2]

GONE = 1914  # The status of a handle that carries no call.
PENDING = 997

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C", bound="Closeable")


_numbers = itertools.count()


def new_endpoint(transport: str, folder: Path) -> str:
    """Return an endpoint that nobody uses."""
    number = next(_numbers)
    if transport == "tls":
        certificates()  # Before a process is started that shall have the same.
    return {
        "tcp": "tcp://127.0.0.1:*",
        "ipc": f"ipc://{folder}/{number}",
        "native+tcp": "native+tcp://127.0.0.1:*",
        "native+ipc": f"native+ipc://{folder}/{number}",
        "tls": "tls://127.0.0.1:*",
        "inproc": f"inproc://rpc-{number}",
        "loopback": f"loopback://rpc-{number}",
    }[transport]


class Closeable(Protocol):
    @property
    def close(self) -> Callable[..., object]: ...


@contextmanager
def factory(make: Callable[P, C], *how: object) -> Iterator[Callable[P, C]]:
    """A function that makes what `make` makes; all of it is closed at the end of the block, the last one first.

    `how` is what `close` is called with.
    """
    with ExitStack() as made:

        def new(*args: P.args, **options: P.kwargs) -> C:
            thing = make(*args, **options)
            made.callback(thing.close, *how)
            return thing

        yield new


def untyped(thing: object) -> Any:
    """The same thing, for a use that no type checker lets pass."""
    return thing


def present(value: T | None) -> T:
    """The value, which is there."""
    assert value is not None
    return value


def status_of(action: Callable[[], object]) -> int:
    """Run the action; return 0, or the status of what it raised."""
    try:
        action()
    except EngineError as error:
        return int(error.status)
    return 0


def reach(client: Client, state: str = "connected") -> None:
    """Return once the client's connection is in this state, however long that takes."""
    wait_until(lambda: client.statistics().connection == state, what=f"that {client} is {state}")


def limits(*seconds: float) -> Iterator[float]:
    """Limits to be tried in turn, for what must first get somewhere within one: on a slow machine a longer one will do.

    Leave the loop with `break` once it did; a loop that comes to its end fails.
    """
    yield from seconds
    raise AssertionError(f"not even {seconds[-1]} s were enough")


class Child:
    """A program of the tests in a process of its own, which says a line when it is ready, and ends with its input."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
        )
        self._read = b""
        self.said = self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        deadline = time.monotonic() + LIMIT
        while b"\n" not in self._read:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            some = os.read(self._process.stdout.fileno(), 65536) if ready else b""
            if not some:
                raise AssertionError(f"the process said nothing; it logged:\n{self.log()}")
            self._read += some
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def kill(self) -> None:
        """Kill the process as an operator does: no goodbye, no flushing."""
        self._process.kill()
        self._process.wait(LIMIT)

    def close(self) -> None:
        """Have the process end, and see it gone; one that stands still says where."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self._process.wait(LIMIT / 2)  # Before the test's own time is over.
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGABRT)  # Has faulthandler write the stacks of all threads.
            self._process.wait(LIMIT / 4)
            raise AssertionError(f"the process does not end; it logged:\n{self.log()}") from None
        finally:
            self._process.kill()
            self._process.wait(LIMIT)
            self._process.stdout.close()
            self._errors.close()

    def log(self) -> str:
        """What the process has logged so far."""
        # The process writes where its descriptor stands, which is this one's too: that must not move.
        file = self._errors.fileno()
        return os.pread(file, os.fstat(file).st_size, 0).decode()


class Service(Child):
    """A service of the tests in a process of its own, which does what it is told; `serving.py` is its other end."""

    def __init__(
        self, *endpoints: str, module: str = "tests.rpc.service", pool: dict[str, Any] | None = None, **server: Any
    ) -> None:
        super().__init__(module, json.dumps({"endpoints": endpoints, "server": server, "pool": pool}))
        self.endpoints: list[str] = json.loads(self.said)

    @property
    def endpoint(self) -> str:
        return self.endpoints[0]

    def start(self, *order: Any) -> None:
        """Give an order, and do not wait for the answer: `finish` does."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()

    def finish(self) -> Any:
        """Wait for the answer to an order that was started."""
        return json.loads(self._line())

    def order(self, *order: Any) -> Any:
        """Give an order, and return its answer."""
        self.start(*order)
        return self.finish()


class Bench:
    """A client under test and, beside it, a client of the control that says how held calls end."""

    def __init__(self, endpoint: str, **options: Any) -> None:
        self.endpoint = endpoint
        self.client = Client(endpoint, **for_client(endpoint), **options)
        self.probe = self.client.bind(Probe)
        self._aside = Client(endpoint, **for_client(endpoint))
        self.control = self._aside.bind(Control)

    def held(self, key: str, **options: Any) -> Call[Any]:
        """Begin a call and return it when its routine has begun; the control ends it."""
        call = self.probe.hold.begin(key, **options)
        self.control.arrived(key)
        return call

    def done(self, value: object = "value", **options: Any) -> Call[Any]:
        """Return a call whose reply has arrived and is not collected."""
        call = self.probe.echo.begin(value, **options)
        assert call.wait(LIMIT)
        return call

    def failed(self, key: str, status: int = 4711, **options: Any) -> Call[Any]:
        """Return a call that the server has aborted and that is not collected."""
        call = self.held(key, **options)
        assert self.control.abort(key, status, "aborted") == 0
        assert call.wait(LIMIT)
        return call

    def close(self) -> None:
        self.client.close()
        self._aside.close()


class RawPeer:
    """A ZeroMQ socket that says what it likes. Use it as a context manager."""

    def __init__(self, kind: int) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self.socket = self._context.socket(kind)
        self.socket.set(zmq.LINGER, 1000)
        self._tunnel: Tunnel | None = None

    def receive(self) -> list[bytes]:
        if not self.socket.poll(int(LIMIT * 1000)):
            raise AssertionError("nothing came")
        return self.socket.recv_multipart()

    def close(self) -> None:
        self.socket.close()
        self._context.term()
        if self._tunnel is not None:
            self._tunnel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RawClient(RawPeer):
    """A client of a real server that says what it likes; of one on a native link, too, under TLS by a tunnel."""

    def __init__(self, endpoint: str, greet: bool = True) -> None:
        super().__init__(zmq.DEALER)
        if endpoint.startswith("tls:"):
            self._tunnel = Tunnel(int(endpoint.rpartition(":")[2]), outwards=True)
            endpoint = f"tcp://127.0.0.1:{self._tunnel.port}"
        self.socket.connect(endpoint.removeprefix("native+"))
        if greet:
            self.greet()

    def greet(self) -> None:
        """Say hello, and be welcomed."""
        self.say(Hello(b"\1" * 16, pid=1, host="raw"))
        assert type(self.hear()) is Welcome

    def send(self, *frames: bytes) -> None:
        self.socket.send_multipart(frames)

    def say(self, message: Message) -> None:
        self.socket.send_multipart(encode(message))

    def hear(self) -> Message:
        return decode(self.receive())


class RawServer(RawPeer):
    """A server for one real client that says what it likes. On `native+...` the client's link is to be a native one; on
    `tls` a tunnel is before it.
    """

    def __init__(self, endpoint: str, receive_limit: int | None = None) -> None:
        super().__init__(zmq.ROUTER)
        if receive_limit is not None:
            self.socket.set(zmq.RCVHWM, receive_limit)
        scheme = endpoint.partition("://")[0]
        native = "native+" if scheme.startswith("native+") else ""
        self.socket.bind("tcp://127.0.0.1:*" if scheme == "tls" else endpoint.removeprefix(native))
        self.endpoint = native + self.socket.get_string(zmq.LAST_ENDPOINT)
        if scheme == "tls":
            self._tunnel = Tunnel(int(self.endpoint.rpartition(":")[2]), outwards=False)
            self.endpoint = f"tls://127.0.0.1:{self._tunnel.port}"
        self.peer = b""

    def hear(self) -> Message:
        self.peer, *frames = self.receive()
        return decode(frames)

    def greet(self) -> None:
        """Take the client's greeting, and answer it."""
        assert type(self.hear()) is Hello
        self.say(Welcome(b"\2" * 16))

    def send(self, *frames: bytes) -> None:
        self.socket.send_multipart([self.peer, *frames])

    def say(self, message: Message) -> None:
        self.socket.send_multipart([self.peer, *encode(message)])


@contextmanager
def interrupted() -> Iterator[None]:
    """Have a signal handler raise `KeyboardInterrupt` in the main thread, once it is blocked within the block."""
    main, raised = threading.main_thread(), threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if not raised.is_set():
            raised.set()
            raise KeyboardInterrupt

    def signals() -> None:
        wait_until_blocked(main)
        # A signal that comes just before a system call is noticed only after it, so one may not be enough.
        while not raised.is_set():
            signal.pthread_kill(main.ident or 0, signal.SIGUSR1)
            raised.wait(0.1)

    former = signal.signal(signal.SIGUSR1, handle)
    thread = threading.Thread(target=signals)
    thread.start()
    try:
        yield
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("nothing was interrupted")
    finally:
        raised.set()
        thread.join(LIMIT)
        signal.signal(signal.SIGUSR1, former)


class Elsewhere:
    """An action for `at_line` that another thread performs; it may need a lock that the interrupted thread holds.

    Called, it lets the action go as far as it can, then lets the interrupted thread go on.
    """

    PAUSE = 0.02  # Seconds; an action that needs no such lock takes less.

    def __init__(self, action: Callable[[], object]) -> None:
        self._thread = threading.Thread(target=action)

    def __call__(self) -> None:
        self._thread.start()
        self._thread.join(self.PAUSE)

    def join(self) -> None:
        """See the action end, if it began."""
        if self._thread.ident is not None:
            self._thread.join(LIMIT)


@contextmanager
def at_line(number: int, where: Callable[[CodeType], bool], action: Callable[[], None]) -> Iterator[list[int]]:
    """Run `action` as the calling thread reaches line `number` of the code that `where` picks.

    Lines are counted as they run, but for `try:`, which does nothing, and those of a `with`, which are reached once
    more on leaving its block: no signal handler ever runs there, and what raised there would leave a lock held, or
    not be caught. Yields a list that holds, afterwards, how many lines were reached.
    """
    reached = [0]
    busy = False

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal busy
        if busy or not where(frame.f_code):
            return None
        line = getline(frame.f_code.co_filename, frame.f_lineno).strip() if event == "line" else ""
        if line and line != "try:" and not line.startswith("with "):
            reached[0] += 1
            if reached[0] == number + 1:
                busy = True
                try:
                    action()
                finally:
                    busy = False
        return trace

    with _stepping(trace):
        yield reached


class _Both:
    """A trace function that goes on tracing for `first`, which counts what the tests cover, and then for `second`."""

    def __init__(self, first: Callable[..., Any], second: Callable[..., Any]) -> None:
        self.first, self.second = first, second

    def __call__(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
        self.first(frame, event, argument)
        if event == "call":
            sys.settrace(self)  # The other one has put itself in this one's place.
        following = self.second(frame, event, argument)
        if following is None:
            return self.first
        return self if following is self.second else _Both(self.first, following)


@contextmanager
def _stepping(trace: Callable[[FrameType, str, object], Any]) -> Iterator[None]:
    """Trace the calling thread. No garbage is collected meanwhile: what is raised in a finalizer goes nowhere."""
    former, collecting = sys.gettrace(), gc.isenabled()
    gc.disable()
    sys.settrace(trace if former is None else _Both(former, trace))
    try:
        yield
    finally:
        sys.settrace(former)
        if collecting:
            gc.enable()


# For each test that uses `at_step`.
uses_steps = pytest.mark.skipif(
    sys.version_info[:2] == (3, 12),
    reason="CPython 3.12.1 calls a null pointer where a thread that is not traced runs code traced by opcodes",
)

# Where the interpreter runs signal handlers: as a function begins, after it has called something, and on jumping back.
HANDLED_AFTER = ("RESUME", "CALL", "JUMP_BACKWARD")

# Of the code that was stepped through, by its `id`: itself, and of each step, by its offset, its name, and where what
# is raised in it is dealt with. (Code is compared by all that is in it, which takes longer than a step.)
_known: dict[int, tuple[CodeType, dict[int, tuple[str, int | None]]]] = {}


def _steps_of(code: CodeType) -> dict[int, tuple[str, int | None]]:
    known = _known.get(id(code))
    if known is None:
        entries = dis.Bytecode(code).exception_entries  # type: ignore[attr-defined]  # the published types lack it
        guards = {offset: guard.target for guard in entries for offset in range(guard.start, guard.end)}
        known = code, {each.offset: (each.opname, guards.get(each.offset)) for each in dis.get_instructions(code)}
        _known[id(code)] = known
    return known[1]


@contextmanager
def at_step(number: int, where: Callable[[CodeType], bool], action: Callable[[], None]) -> Iterator[list[int]]:
    """Run `action` in the calling thread where a signal handler may run, at the step `number` of the code that `where`
    picks.

    Unlike `at_line` it comes between the steps of a line too, and not between lines where no handler can run: what a
    handler raises belongs to the call that is over, so a step that another `with` or `try` guards than that call is
    left out. Yields a list that holds, afterwards, how many such steps were reached.
    """
    reached = [0]
    busy = False
    former: dict[FrameType, tuple[str, int | None]] = {}

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal busy
        if busy or (event == "call" and not where(frame.f_code)):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            step = _steps_of(frame.f_code)[frame.f_lasti]
            name, guard = former.get(frame, ("", None))
            if name.startswith(HANDLED_AFTER) and guard == step[1]:
                reached[0] += 1
                if reached[0] == number + 1:
                    busy = True
                    try:
                        action()
                    finally:
                        busy = False
            former[frame] = step
        elif event == "return":
            former.pop(frame, None)
        return trace

    with _stepping(trace):
        yield reached
    former.clear()


def code_of(*functions: Callable[..., Any]) -> Callable[[CodeType], bool]:
    """Pick the code of these functions, for `at_line`."""
    codes = {id(code): code for code in (inspect.unwrap(function).__code__ for function in functions)}
    return lambda code: id(code) in codes


def code_named(name: str, *files: str) -> Callable[[CodeType], bool]:
    """Pick the code of the functions of that name in some files of the project, for `at_line`."""
    paths = {str(ROOT / file) for file in files}
    return lambda code: code.co_name == name and code.co_filename in paths


def code_in(folder: str) -> Callable[[CodeType], bool]:
    """Pick all code in the files below a folder of the project, for `at_line`."""
    start = str(ROOT / folder)
    return lambda code: code.co_filename.startswith(start)
