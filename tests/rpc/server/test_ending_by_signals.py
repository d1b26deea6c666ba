"""How signals end a service that waits in `listen(wait=True)`: real processes, real signals."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from engine import Call, CallFailed, Client, Server, ServerUnavailable
from engine.testing import LIMIT, wait_until

from ..helpers import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send")


@contextmanager
def service(endpoint: str, where: str = "main") -> "Iterator[tuple[subprocess.Popen[str], Any]]":
    """A service in a process of its own, which listens and has its handlers; and a binding of it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.rpc.server.ended", endpoint, where],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        with Client(endpoint, connect_timeout=LIMIT) as client:
            binding: Any = client.bind("routines")
            if where != "thread":
                while binding.ready(timeout=LIMIT) == "0":  # SIG_DFL: it does not wait yet.
                    pass
            yield process, binding
    finally:
        process.kill()
        process.communicate()


def held(process: "subprocess.Popen[str]", binding: Any, seconds: float) -> Call[Any]:
    """A call that runs now, for so long."""
    call: Call[Any] = binding.hold.begin(seconds)
    assert process.stdout is not None and process.stdout.readline() == "running\n"
    return call


@pytest.fixture
def handlers() -> Iterator[None]:
    """Puts back the handlers of the signals that the test changes."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class TestListen:
    """`listen(wait=True)` in the main thread."""

    def test_sigterm(self, endpoint: str) -> None:
        """It returns on SIGTERM after the running call was answered, with the handlers as they were."""
        with service(endpoint) as (process, binding):
            call = held(process, binding, 0.3)
            process.send_signal(signal.SIGTERM)
            assert call.result(LIMIT) == "answered"
            out, complaints = process.communicate(timeout=LIMIT)
            assert (out, complaints, process.returncode) == ("returned\nrestored True\n", "", 0)

    def test_ctrl_c(self, endpoint: str) -> None:
        """It raises KeyboardInterrupt after Ctrl-C, when the running call was answered."""
        with service(endpoint) as (process, binding):
            call = held(process, binding, 0.3)
            process.send_signal(signal.SIGINT)
            assert call.result(LIMIT) == "answered"
            out, complaints = process.communicate(timeout=LIMIT)
            assert (out, complaints, process.returncode) == ("KeyboardInterrupt\nrestored True\n", "", 0)

    @pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
    def test_a_second_signal(self, endpoint: str, second: signal.Signals) -> None:
        """A second signal takes effect at once, whatever runs: SIGTERM kills, Ctrl-C raises."""
        with service(endpoint) as (process, binding):
            held(process, binding, 6.0)
            process.send_signal(signal.SIGTERM)
            with pytest.raises(ServerUnavailable):
                while True:  # Until it refuses: it has begun to stop.
                    binding.ready(timeout=LIMIT)
            process.send_signal(second)
            if second is signal.SIGINT:
                assert process.stdout is not None and process.stdout.readline() == "KeyboardInterrupt\n"
            else:
                process.communicate(timeout=LIMIT)
                assert process.returncode == -signal.SIGTERM

    def test_a_second_ctrl_c_waits_for_no_call(self, endpoint: str) -> None:
        """After a second Ctrl-C `with Server` waits for no running call: the process ends while the routine runs."""
        with service(endpoint) as (process, binding):
            call = held(process, binding, 3 * LIMIT)
            process.send_signal(signal.SIGINT)
            with pytest.raises(ServerUnavailable):
                while True:  # Until it refuses: it has begun to stop.
                    binding.ready(timeout=LIMIT)
            process.send_signal(signal.SIGINT)
            assert process.stdout is not None and process.stdout.readline() == "KeyboardInterrupt\n"
            _, complaints = process.communicate(timeout=LIMIT)
            assert "1 call was still open 0.0 s after the stop" in complaints
            with pytest.raises(CallFailed):
                call.result(LIMIT)

    def test_an_own_handler_stays(self, endpoint: str) -> None:
        """A handler that the application has set is left alone; in it `request_stop` ends the service."""
        with service(endpoint, "own") as (process, binding):
            assert binding.ready(timeout=LIMIT) == "<lambda>"
            process.send_signal(signal.SIGTERM)
            out, complaints = process.communicate(timeout=LIMIT)
            assert (out, complaints, process.returncode) == ("own handler\nreturned\nrestored True\n", "", 0)

    def test_a_handler_set_meanwhile_stays(self, endpoint: str, handlers: None) -> None:
        """A handler that the application sets while the service waits is not replaced when it ends."""

        def own(*_: object) -> None: ...

        def set_it_and_stop(*_: object) -> None:
            signal.signal(signal.SIGTERM, own)
            server.request_stop()

        def interrupt() -> None:
            wait_until(lambda: signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

        signal.signal(signal.SIGUSR1, set_it_and_stop)
        interrupting = threading.Thread(target=interrupt)
        with Server(endpoint) as server:
            interrupting.start()
            server.listen(wait=True)
        interrupting.join()
        assert signal.getsignal(signal.SIGTERM) is own
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_other_threads_set_no_handlers(self, endpoint: str) -> None:
        """In another thread it sets no handlers, and waits as `wait` does."""
        with service(endpoint, "thread") as (process, _):
            out, complaints = process.communicate(timeout=LIMIT)
            assert (out, complaints, process.returncode) == ("unchanged True\n", "", 0)


class TestRequestStop:
    """`request_stop`, whatever state the server is in."""

    def test_before_it_listens(self, endpoint: str) -> None:
        """A stop that was requested before `listen` takes effect then: `listen(wait=True)` returns at once."""
        with Server(endpoint) as server:
            server.request_stop()
            server.listen(wait=True)
            assert not server.listening

    def test_while_it_stops_and_afterwards(self, endpoint: str) -> None:
        """Requested again while it stops, or later, it does nothing; the server can listen anew."""
        with Server(endpoint) as server:
            server.listen()
            for _ in range(3):
                server.request_stop()
            assert server.wait(LIMIT)
            server.listen()
            assert server.listening
        server.request_stop()
