"""Starts the processes of a service, starts those again that end, and replaces them one by one on demand.

Theory of operation. One thread runs `run`: it sleeps until a process says something or ends, until the time has come to
start or to kill one, or until another thread, or a signal, wants something. Each place has a process, and while it is
replaced two: the new one serves before the old one leaves, so that a new version that does not come up costs nothing.

    place     event                          what is done
    any       its process ends               another one is started: at once if it had lived for `HEALTHY` seconds, else
                                             after a pause that doubles; the fifth time in a row it is a crash loop
    serving   it is its turn to be replaced  a second process is started
    replaced  the second process serves      the first one leaves; the next place's turn comes when it has ended
    replaced  the second process ends first  the replacing is given up, the first process stays
    any       stop                           its processes leave, and nothing is started any more

The shared endpoint is listened on by the supervisor's socket, which it hands to each process and never accepts on
itself. So it outlives each process, and with the processes the supervisor: they go on serving if that dies.

Guarantees: what `make_server` does, or a process dies of, does not end the supervisor; a process that does not come up
in time, or does not leave, is killed. A handler of a log that takes its time delays none of that.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf
from multiprocessing import connection, get_context
from multiprocessing.reduction import ForkingPickler
from types import FrameType
from typing import Any

import msgspec

from transport import Endpoint, inherited
from transport.foreign import name_of, text_of
from transport.log import Log
from transport.realtime import monotonic
from transport.service import depended_on

from ..errors import InvalidArgumentType, InvalidState
from ..kernel.checks import check_callback, check_count, check_duration
from ..kernel.signal_handlers import SignalHandlers
from .inside import MakeServer, MembersAre
from .process import ProcessState, ServingProcess

log: Log = Log("engine.processes")

GRACE = 5.0  # Seconds for calls that run when a process leaves.
PATIENCE = 5.0  # Seconds that a process may take to end beyond that, before it is killed.
START = 60.0  # Seconds in which a process must serve.
HEALTHY = 10.0  # Seconds: a process that has lived for so long did not fail because of how it began.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0  # Seconds before a process is started again that did not.
LOOP = 5  # Times in a row that a place's process has failed so that it is called a crash loop.


class SupervisorStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a service in several processes. `processes` are wanted, `serving` of them serve.

    `restarts` counts processes that were started for such as had ended by themselves, `crash_looping` the places whose
    process fails again and again. The rest is summed over the servers of all processes, past ones included, as of a
    second ago at most; see `ServerStatistics`.
    """

    processes: int
    serving: int
    restarts: int
    crash_looping: int
    active: int
    calls_in: int
    calls_out: int
    messages_in: int
    messages_out: int
    faults: int
    refused: int
    garbage_received: int
    failures: int
    strangers_refused: int
    clients_evicted: int
    clients: int
    queued_bytes: int


_OWN = ("processes", "serving", "restarts", "crash_looping")
# What is summed over the servers that there are; and what over those that there were, too, for it only grows.
_GAUGES = ("active", "clients", "queued_bytes")
_COUNTERS = tuple(name for name in SupervisorStatistics.__struct_fields__ if name not in _OWN + _GAUGES)


class _Place:
    """One of the processes that there are to be. For the thread that supervises."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: ServingProcess | None = None
        # What is to take its place, or the one that it has taken it from, as long as that runs.
        self.successor: ServingProcess | None = None
        self.leaving: ServingProcess | None = None
        # When to start a process; inf: not now.
        self.start_at = 0.0
        self.failed_in_a_row = 0

    def loops(self) -> bool:
        """Whether its processes fail again and again."""
        process = self.process
        return self.failed_in_a_row >= LOOP and (process is None or process.age < HEALTHY)

    def processes(self) -> list[ServingProcess]:
        """All that it has."""
        return [one for one in (self.process, self.successor, self.leaving) if one is not None]


class Supervisor:
    """A service in several processes of this machine.

    Args:
        make_server: a function at the top level of a module, called in each process with the endpoints on which its
            server is to listen: first the process's own, then the one that all share. It returns a `Server` that does
            not listen yet.
        endpoint: where clients find the service first: `tcp://host:port`, `native+tcp://...` or `tls://...`. Each
            process also has an endpoint of its own there, with a port that the system chooses, and sends clients those
            of all (`engine.resolvers.Seed`).
        processes: how many, 1 or more. None: one for each processor.
        grace: seconds that calls may go on when a process leaves.
        start: seconds in which a process must serve.
    Raises: `transport.EndpointError` if the endpoint is taken, or is not reached over TCP.

    Processes are spawned, not forked: the program's main module is imported in each, so it has to guard what it runs by
    `if __name__ == "__main__"`. They outlive a supervisor that is killed: end them then by SIGTERM.

    Threads: `run` is for one, the others for any. Blocks: only `run`.
    """

    def __init__(
        self,
        make_server: MakeServer,
        endpoint: str | Endpoint,
        *,
        processes: int | None = None,
        grace: float = GRACE,
        start: float = START,
    ) -> None:
        check_callback("make_server", make_server)
        try:
            ForkingPickler.dumps(make_server)
        except Exception as error:
            raise InvalidArgumentType(
                f"make_server must be a function at the top level of a module, to be imported: {text_of(error)}"
            ) from error
        count = _processors() if processes is None else check_count("processes", processes, least=1)
        self._make_server = make_server
        self._grace = check_duration("grace", grace)
        self._start = check_duration("start", start)
        self._shared, self._listening = inherited.listen(Endpoint.parse(endpoint))
        self._own = Endpoint(self._shared.scheme, host=self._shared.host)
        self._context = get_context("spawn")
        self._places = [_Place(number) for number in range(count)]
        # Places that are to be replaced, in turn. All below: changed by the thread that runs, looked at by any.
        self._to_replace: list[_Place] = []
        self._restarts = 0
        self._past = dict.fromkeys(_COUNTERS, 0)
        # What others want; written before the byte that wakes.
        self._stopping = False
        self._rolling = False
        self._woken, self._wake = self._context.Pipe(duplex=False)
        self._nudged = False
        self._running = threading.Lock()

    @property
    def endpoint(self) -> str:
        """Where clients find the service, with its port."""
        return str(self._shared)

    def request_stop(self) -> None:
        """Have all processes leave, and `run` return when they have. Safe in a signal handler."""
        self._stopping = True
        self._nudge()

    def roll(self) -> None:
        """Replace the processes one by one, each by a new one that imports the program anew. Safe in a signal handler.

        Each new process serves before the old one leaves. If one does not come to that, the rest is left as it is, and
        the log says so.
        """
        self._rolling = True
        self._nudge()

    def statistics(self) -> SupervisorStatistics:
        """Return a snapshot. Never blocks; any thread."""
        serving = [one for place in self._places for one in place.processes() if one.state is not ProcessState.ENDED]
        known = [one.statistics for one in serving if one.statistics is not None]
        sums = {name: sum(getattr(one, name) for one in known) for name in _COUNTERS + _GAUGES}
        for name in _COUNTERS:
            sums[name] += self._past[name]
        return SupervisorStatistics(
            processes=len(self._places),
            serving=sum(one.state is ProcessState.SERVING for one in serving),
            restarts=self._restarts,
            crash_looping=sum(place.loops() for place in self._places),
            **sums,
        )

    def run(self) -> None:
        """Serve until `request_stop`, and until all processes have ended then.

        In the main thread SIGTERM and Ctrl-C request it, and SIGHUP has the processes replaced, if the program has not
        set handlers of its own; a second SIGTERM or Ctrl-C has all processes killed. Raises: `InvalidState` if it runs
        already, or did; `KeyboardInterrupt` after Ctrl-C.
        """
        if not self._running.acquire(blocking=False):
            raise InvalidState("the supervisor runs already, or did: make another one")
        with self._signals(), depended_on():
            try:
                log.info("serving at %s in %d processes", self.endpoint, len(self._places))
                self._supervise()
            finally:
                self._release()

    # What the thread that runs does

    def _release(self) -> None:
        """Leave no process behind, if it was broken off, and nothing open."""
        for place in self._places:
            for process in place.processes():
                if not process.ended():
                    process.kill()
        for opened in (self._listening, self._woken, self._wake):
            opened.close()

    def _supervise(self) -> None:
        while self._step():
            pass

    def _step(self) -> bool:
        """Do what is due, and sleep until something happens; False when it is over."""
        now = monotonic()
        if self._stopping:
            self._stop()
            if not any(place.processes() for place in self._places):
                return False
        elif self._rolling:
            self._rolling = False
            self._to_replace = [*self._places]
        for place in self._places:
            if not self._stopping and place.process is None and place.start_at <= now:
                place.process = self._spawn(place)
            for process in place.processes():
                if process.deadline is not None and process.deadline <= now:
                    log.error("process %s %s for too long: it is killed", process.pid, process.state.value)
                    process.kill()
        self._replace_next()
        self._sleep()
        changed = [self._look_at(place) for place in self._places]
        if any(changed):
            self._send_members()
        return True

    def _stop(self) -> None:
        self._to_replace.clear()
        for place in self._places:
            for process in place.processes():
                process.leave(self._grace, PATIENCE)

    def _spawn(self, place: _Place) -> ServingProcess | None:
        place.start_at = inf
        try:
            process = ServingProcess(
                self._context, place.number, self._make_server, self._own, self._shared, self._listening, self._grace
            )
        except (OSError, MemoryError) as error:
            log.error("no process can be started now, it is tried again", exc_info=error)
            self._fail(place)
            return None
        process.deadline = process.began + self._start
        return process

    def _replace_next(self) -> None:
        """Begin to replace the next place's process, if no place is just being replaced."""
        if self._to_replace and not any(place.successor or place.leaving for place in self._places):
            place = self._to_replace[0]
            if place.process is not None and place.process.state is ProcessState.SERVING:
                place.successor = self._spawn(place)
                if place.successor is None:
                    self._to_replace.clear()
            elif place.process is not None and place.process.age < self._start:
                return  # It has just been started anew: it will do, once it serves.
            self._to_replace.pop(0)

    def _sleep(self) -> None:
        processes = [process for place in self._places for process in place.processes()]
        due = [place.start_at for place in self._places if place.process is None and not self._stopping]
        due += [process.deadline for process in processes if process.deadline is not None]
        until = min(due, default=inf)
        objects: list[Any] = [self._woken]
        for process in processes:
            objects += (process.said, process.sentinel)
        ready = connection.wait(objects, None if until == inf else max(0.0, until - monotonic()))
        if self._woken in ready:
            self._nudged = False
            self._woken.recv_bytes()

    def _look_at(self, place: _Place) -> bool:
        """Take what a place's processes have said, and note their ends; return whether the members are others now."""
        changed = False
        for process in place.processes():
            served = process.state is ProcessState.SERVING
            if process.hear():
                changed = True
                log.info("process %s serves at %s", process.pid, process.endpoint)
                if process is place.successor:
                    place.process, place.leaving, place.successor = process, place.process, None
                    if place.leaving is not None:
                        place.leaving.leave(self._grace, PATIENCE)
            if process.ended():
                changed = changed or served
                self._note_end(place, process)
        return changed

    def _note_end(self, place: _Place, process: ServingProcess) -> None:
        if process.statistics is not None:
            for name in _COUNTERS:
                self._past[name] += getattr(process.statistics, name)
        if process is place.leaving:
            place.leaving = None
        elif process is place.successor:
            place.successor = None
            self._to_replace.clear()
            if not self._stopping:
                text = "the new process %s %s before it served: the others are not replaced"
                log.error(text, process.pid, process.how)
        elif process is place.process:
            place.process = None
            if self._stopping:
                return
            log.error("process %s %s: another one is started", process.pid, process.how)
            self._restarts += 1
            if process.age >= HEALTHY:
                place.failed_in_a_row = 0
                place.start_at = 0.0
            else:
                self._fail(place)

    def _fail(self, place: _Place) -> None:
        """A process was not started, or soon ended: the next one is started after a pause."""
        place.failed_in_a_row += 1
        pause = min(FIRST_PAUSE * 2 ** min(place.failed_in_a_row - 1, 20), LONGEST_PAUSE)
        place.start_at = monotonic() + pause
        if place.failed_in_a_row == LOOP:
            text = "process number %d is in a crash loop: it has failed %d times in a row within %s s of its start"
            log.critical(text, place.number, LOOP, HEALTHY)

    def _send_members(self) -> None:
        serving = [one for place in self._places for one in place.processes() if one.state is ProcessState.SERVING]
        message = MembersAre([process.endpoint for process in serving])
        for process in serving:
            process.send(message)

    # Signals

    def _nudge(self) -> None:
        if not self._nudged:  # Two at once wake it twice.
            self._nudged = True
            with suppress(OSError):  # It does not run any more.
                self._wake.send_bytes(b"!")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Within this context signals request what they stand for, where `SignalHandlers` sets handlers."""
        received: list[int] = []

        def end(number: int, frame: FrameType | None) -> None:
            received.append(number)
            if len(received) > 1:
                raise KeyboardInterrupt  # All processes are killed on the way out.
            self.request_stop()

        with SignalHandlers({"SIGTERM": end, "SIGINT": end, "SIGHUP": lambda *_: self.roll()}):
            yield
        if signal.SIGINT in received:
            raise KeyboardInterrupt

    def __repr__(self) -> str:
        return f"<Supervisor {self.endpoint} {name_of(self._make_server)} x{len(self._places)}>"


def serve(
    make_server: MakeServer,
    endpoint: str | Endpoint,
    *,
    processes: int | None = None,
    grace: float = GRACE,
    start: float = START,
) -> None:
    """Serve in several processes until SIGTERM, or Ctrl-C, which then raises `KeyboardInterrupt`; SIGHUP replaces them
    one by one. See `Supervisor`.
    """
    Supervisor(make_server, endpoint, processes=processes, grace=grace, start=start).run()


def _processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
