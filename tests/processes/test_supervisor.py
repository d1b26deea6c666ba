"""Processes that serve side by side: they begin, die, are replaced, and end."""

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from engine import Client, InvalidArgumentType, InvalidParameter, InvalidState
from engine.processes import Supervisor
from engine.resolvers import Seed
from engine.testing import LIMIT, Gate, wait_until
from transport import EndpointError

from ..resolvers.daemons import free_port
from ..resolvers.following import Following, following
from ..rpc.helpers import status_of
from .service import ORDERS, Work, make_server, no_server


@contextmanager
def running(
    make: Callable[..., object] = make_server, endpoint: str = "tcp://127.0.0.1:*", **options: object
) -> Iterator[Supervisor]:
    """A supervisor that runs in a thread."""
    supervisor = Supervisor(make, endpoint, **options)  # type: ignore[arg-type]  # checked at run time
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        yield supervisor
    finally:
        supervisor.request_stop()
        thread.join(LIMIT)
        assert not thread.is_alive()
        assert supervisor.statistics().serving == 0


def all_serve(supervisor: Supervisor) -> None:
    """Wait until each place has its process."""
    wait_until(lambda: supervisor.statistics().serving == supervisor.statistics().processes)


def pid_at(endpoint: str) -> int:
    """Who answers there."""
    with Client(endpoint, connect_timeout=LIMIT) as client:
        pid: int = client.bind("numbers").pid()
        return pid


@contextmanager
def members_of(endpoint: str) -> Iterator[Following]:
    """Follow the members of the service there, once one of them serves."""
    pid_at(endpoint)
    # Shorter than for others: this is how long one that has died is tried, if it is asked first.
    with following(Seed(endpoint, connect_timeout=5.0)) as found:
        yield found


def two(found: Following) -> dict[str, int]:
    """Wait for two members; return their processes by their endpoints."""
    wait_until(lambda: len(found.now()) == 2 or found.raised)
    assert found.raised is None
    return {endpoint: pid_at(endpoint) for endpoint in found.now()}


def wait_for_two_others(found: Following, before: dict[str, int]) -> None:
    """Wait until there are two members again, and none of those."""
    wait_until(lambda: len(found.now()) == 2 and not found.now() & before.keys())


@pytest.fixture
def orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What processes read as they start."""
    path = tmp_path / "orders"
    path.touch()
    monkeypatch.setenv(ORDERS, str(path))
    return path


class TestLife:
    """From the first process to the last."""

    def test_one_dies(self, caplog: pytest.LogCaptureFixture) -> None:
        """All serve, each in a process of its own, and tell of each other; one that is killed is followed by another,
        while the others serve on; what all have counted is summed, the dead one's part included.
        """
        with running(processes=2) as supervisor, members_of(supervisor.endpoint) as found:
            before = two(found)
            assert len(set(before.values())) == 2 and os.getpid() not in before.values()
            assert pid_at(supervisor.endpoint) in before.values()
            wait_until(lambda: supervisor.statistics().calls_in >= 6)  # Four for numbers, two for members.
            (gone, victim), (stays, other) = before.items()
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: len(found.now()) == 2 and gone not in found.now())
            assert stays in found.now() and pid_at(stays) == other
            assert supervisor.statistics().restarts == 1 and supervisor.statistics().calls_in >= 6
        assert f"process {victim} was killed by signal 9: another one is started" in caplog.text

    def test_one_dies_while_a_log_holds(self) -> None:
        """A handler of a log that does not return keeps no process from being started again, and none from ending."""
        gate = Gate()

        class Holding(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                gate.pass_through()

        handler = Holding()
        logging.getLogger("engine.processes").addHandler(handler)
        try:
            with running(processes=1) as supervisor:
                all_serve(supervisor)
                os.kill(pid_at(supervisor.endpoint), signal.SIGKILL)
                wait_until(lambda: supervisor.statistics().restarts == 1)
                all_serve(supervisor)
        finally:
            gate.open()
            logging.getLogger("engine.processes").removeHandler(handler)

    def test_a_roll(self) -> None:
        """Each process is replaced by a new one, which serves before the old one leaves."""
        with running(processes=2) as supervisor, members_of(supervisor.endpoint) as found:
            before = two(found)
            known = len(found.lists)
            supervisor.roll()
            wait_for_two_others(found, before)
            assert all(len(each) >= 2 for each in found.lists[known:])
            assert supervisor.statistics().restarts == 0

    def test_a_roll_to_what_does_not_come_up(self, orders: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A roll whose first new process ends before it serves is given up: the old processes stay."""
        with running(processes=2) as supervisor:
            all_serve(supervisor)
            orders.write_text("fail")
            supervisor.roll()
            wait_until(lambda: "the others are not replaced" in caplog.text)
            assert "ended with status 3" in caplog.text
            assert supervisor.statistics().serving == 2 and supervisor.statistics().restarts == 0

    def test_a_crash_loop(
        self, orders: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A process that fails again and again is told of once, and started again all the same: until it serves."""
        monkeypatch.setattr("engine.processes.supervisor.LOOP", 1)
        monkeypatch.setattr("engine.processes.supervisor.HEALTHY", LIMIT)
        orders.write_text("fail")
        with running(processes=1) as supervisor:
            wait_until(lambda: supervisor.statistics().restarts > 1)
            assert supervisor.statistics().crash_looping == 1
            told = [record for record in caplog.records if record.levelno == logging.CRITICAL]
            assert len(told) == 1 and "is in a crash loop" in told[0].getMessage()
            orders.write_text("")
            all_serve(supervisor)

    def test_one_that_hangs(self, orders: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A process that does not come to serve in time is killed, and another one is started."""
        orders.write_text("hang")
        with running(processes=1, start=0.5) as supervisor:
            wait_until(lambda: supervisor.statistics().restarts)
        assert "starting for too long: it is killed" in caplog.text

    def test_over_the_native_link(self) -> None:
        """The native link's processes share an endpoint likewise, which is refused to another supervisor."""
        with running(endpoint="native+tcp://127.0.0.1:*", processes=1) as supervisor:
            assert pid_at(supervisor.endpoint)
            with pytest.raises(EndpointError, match="cannot listen"):
                Supervisor(make_server, supervisor.endpoint)


class TestProgram:
    """`serve`, in the main thread of a program, and its signals."""

    @contextmanager
    def program(self, endpoint: str) -> Iterator[subprocess.Popen[bytes]]:
        with subprocess.Popen([sys.executable, "-m", "tests.processes.service", endpoint]) as process:
            try:
                yield process
            finally:
                process.kill()

    def test_its_signals(self) -> None:
        """SIGHUP replaces the processes, SIGTERM ends all."""
        endpoint = f"tcp://127.0.0.1:{free_port()}"
        with self.program(endpoint) as program, members_of(endpoint) as found:
            before = two(found)
            program.send_signal(signal.SIGHUP)
            wait_for_two_others(found, before)
            program.send_signal(signal.SIGTERM)
            assert program.wait(LIMIT) == 0

    def test_its_death(self) -> None:
        """Processes whose supervisor was killed go on serving, at the shared endpoint, too; SIGTERM ends each."""
        endpoint = f"tcp://127.0.0.1:{free_port()}"
        with self.program(endpoint) as program, members_of(endpoint) as found:
            one, other = two(found).values()
            program.kill()
            program.wait(LIMIT)
            assert pid_at(endpoint) in (one, other)
            os.kill(one, signal.SIGTERM)
            wait_until(lambda: not Path(f"/proc/{one}").exists() or "Z" in Path(f"/proc/{one}/stat").read_text())
            assert pid_at(endpoint) == other
            os.kill(other, signal.SIGTERM)


def spread(work: Work, *wanted: int, others: int = 0, former: int = 0) -> set[int]:
    """Wait until calls of this binding are answered by all these processes, and by so many others; return those. The
    `former` one, which was told to end, may answer a while longer, and is none of them.
    """
    found: set[int] = set()

    def all_found() -> bool:
        found.update(call.result(LIMIT) for call in [work.pid.begin() for _ in range(16)])
        found.discard(former)
        return found >= set(wanted) and len(found - set(wanted)) >= others

    wait_until(all_found, what=f"{wanted} and {others} others answer")
    return found - set(wanted)


class TestAPlainClient:
    """A client that was given the shared endpoint, and knows nothing of processes."""

    def test_while_processes_come_and_go(self) -> None:
        """Its calls without an order go to all processes, those that are started later as well; those with an order
        stay with one until that ends, and then with another one. All that did not run, or is idempotent, is answered.
        """
        with running(processes=2) as supervisor:
            all_serve(supervisor)
            with Client(supervisor.endpoint, connect_timeout=LIMIT, heartbeat=0.3) as client:
                free, ordered = client.bind(Work, causal=False), client.bind(Work)
                first, second = spread(free, others=2)
                (own,) = {ordered.pid() for _ in range(20)}
                other = second if own == first else first
                os.kill(other, signal.SIGKILL)
                (third,) = spread(free, own, others=1, former=other)
                assert {ordered.pid() for _ in range(20)} == {own}
                os.kill(own, signal.SIGTERM)
                (fourth,) = spread(free, third, others=1, former=own)
                wait_until(lambda: ordered.pid() != own)
                (now,) = {ordered.pid() for _ in range(20)}
                assert now in (third, fourth)

    def test_in_a_roll(self) -> None:
        """No call fails while all processes are replaced, and the new ones are used."""
        with running(processes=2) as supervisor:
            all_serve(supervisor)
            with Client(supervisor.endpoint, connect_timeout=LIMIT, heartbeat=0.3) as client:
                free = client.bind(Work, causal=False)
                before = spread(free, others=2)
                supervisor.roll()
                found: set[int] = set()

                def replaced() -> bool:
                    found.update(call.result(LIMIT) for call in [free.pid.begin() for _ in range(16)])
                    return len(found - before) == 2

                wait_until(replaced)
                assert client.statistics().outstanding == 0

    def test_without_a_supervisor(self) -> None:
        """Whose supervisor was killed goes on; it leads to all processes also who comes then."""
        endpoint = f"tcp://127.0.0.1:{free_port()}"
        with TestProgram().program(endpoint) as program, members_of(endpoint) as found:
            pids = set(two(found).values())
            try:
                with Client(endpoint, connect_timeout=LIMIT, heartbeat=0.3) as client:
                    free, ordered = client.bind(Work, causal=False), client.bind(Work)
                    spread(free, *pids)
                    program.kill()
                    program.wait(LIMIT)
                    spread(free, *pids)
                    with Client(endpoint, connect_timeout=LIMIT, heartbeat=0.3) as late:
                        spread(late.bind(Work, causal=False), *pids)
                    own = ordered.pid()
                    os.kill(own, signal.SIGKILL)
                    (other,) = pids - {own}
                    assert {free.add.begin(1, number).result(LIMIT) for number in range(50)} == {*range(1, 51)}
                    wait_until(lambda: status_of(ordered.pid) == 0)
                    assert ordered.pid() == other
            finally:
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGTERM)


class TestArguments:
    """What cannot be is refused."""

    def test_no_function_of_a_module(self) -> None:
        """Processes import the function: one that has no name in a module is refused."""
        with pytest.raises(InvalidArgumentType, match="top level of a module"):
            Supervisor(lambda *endpoints: make_server(*endpoints), "tcp://127.0.0.1:*")

    @pytest.mark.parametrize("endpoint", ["ipc:///tmp/several", "loopback://several"])
    def test_no_endpoint_to_share(self, endpoint: str) -> None:
        """Only what is reached over TCP is shared."""
        with pytest.raises(EndpointError, match="over TCP"):
            Supervisor(make_server, endpoint)

    def test_numbers(self) -> None:
        """There is one process at least."""
        with pytest.raises(InvalidParameter):
            Supervisor(make_server, "tcp://127.0.0.1:*", processes=0)

    def test_what_is_no_server(self, caplog: pytest.LogCaptureFixture) -> None:
        """A function that returns no server fails in each process; a supervisor runs once."""
        with running(no_server, processes=1) as supervisor:
            wait_until(lambda: supervisor.statistics().restarts)
            with pytest.raises(InvalidState):
                supervisor.run()
        wait_until(lambda: "ended with status 1" in caplog.text)  # Another thread logs it.
