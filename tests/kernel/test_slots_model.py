"""The port against a small model of its accounting: any sequence of events, and the numbers agree after each.

The model is the event table of section 4 of `docs/semantics/completion-port.md`, line by line. Threads are
real; each step is done to its end before the next.
"""

from collections import deque
from concurrent.futures import Future
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine import Alerted, CompletionPort, Event, WaitTimeout, blocking, queue_apc
from engine.testing import LIMIT, Gate, wait_until, wait_until_blocked

from .helpers import Actor, result

THREADS = 4
LIMITS = (1, 2)


class ModelPort:
    """What the page says a port keeps."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.active = 0
        self.entries: deque[int] = deque()
        self.waiters: list[ModelThread] = []

    def pump(self) -> None:
        while self.active < self.limit and self.waiters and self.entries:
            self.give(self.entries.popleft())

    def give(self, packet: int) -> None:
        thread = self.waiters.pop()
        self.active += 1
        thread.got = packet

    def post(self, packet: int) -> None:
        if self.active < self.limit and self.waiters:
            self.give(packet)
        else:
            self.entries.append(packet)


class ModelThread:
    """What the page says a thread keeps."""

    def __init__(self) -> None:
        self.port: ModelPort | None = None
        self.got: int | None = None

    def leave(self) -> None:
        """It blocks elsewhere, or ends."""
        if self.port is not None:
            self.port.active -= 1
            self.port.pump()

    def join(self, port: ModelPort) -> None:
        if self.port is port:
            port.active -= 1
        else:
            self.leave()
            self.port = port

    def take(self, port: ModelPort, maximum: int) -> list[int]:
        """The "try" of the table: the packets taken, none if nothing is takeable."""
        if port.active < port.limit and port.entries:
            port.active += 1
            return [port.entries.popleft() for _ in range(min(maximum, len(port.entries)))]
        return []


class Accounting(RuleBasedStateMachine):
    """Drives two ports and some threads beside their models."""

    def __init__(self) -> None:
        super().__init__()
        self.ports = [CompletionPort(limit) for limit in LIMITS]
        self.models = [ModelPort(limit) for limit in LIMITS]
        self.actors = [Actor() for _ in range(THREADS)]
        self.threads = [ModelThread() for _ in range(THREADS)]
        # Where each thread is: None running, else what it waits for, and the outcome to come.
        self.waiting: list[tuple[str, Any, Future[Any]] | None] = [None] * THREADS
        self.next = 0

    def teardown(self) -> None:
        for port in self.ports:
            port.close()
        for state in self.waiting:
            if state is not None and state[0] == "blocked":
                state[1]()
        for actor in self.actors:
            actor.end()

    thread = st.integers(0, THREADS - 1)
    where = st.integers(0, len(LIMITS) - 1)

    def running(self, number: int) -> bool:
        return self.waiting[number] is None

    def settle(self) -> None:
        """Collect what sleeping threads were given."""
        for number, state in enumerate(self.waiting):
            thread = self.threads[number]
            if state is not None and thread.got is not None:
                kind, _, future = state
                packets = result(future)
                first = packets[0] if kind == "batch" else packets
                assert first.key == thread.got
                thread.got = None
                self.waiting[number] = None

    @rule(where=where)
    def post(self, where: int) -> None:
        self.next += 1
        self.models[where].post(self.next)
        self.ports[where].post(self.next)
        self.settle()

    @rule(number=thread, where=where, maximum=st.integers(1, 3))
    def poll(self, number: int, where: int, maximum: int) -> None:
        if not self.running(number):
            return
        model, thread = self.models[where], self.threads[number]
        thread.join(model)
        expected = thread.take(model, maximum)
        if not expected:
            model.active += 1
        polling = self.actors[number].start(self.ports[where].get_many, maximum, 0)
        if expected:
            assert [packet.key for packet in result(polling)] == expected
        else:
            assert isinstance(polling.exception(LIMIT), WaitTimeout)
        self.settle()

    @rule(number=thread, where=where, batch=st.booleans())
    def dequeue(self, number: int, where: int, batch: bool) -> None:
        if not self.running(number):
            return
        port, model, thread = self.ports[where], self.models[where], self.threads[number]
        thread.join(model)
        expected = thread.take(model, 1)
        if batch:
            future: Future[Any] = self.actors[number].start(port.get_many, 1, None, alertable=True)
        else:
            future = self.actors[number].start(port.get)
        if expected:
            outcome = result(future)
            assert (outcome[0] if batch else outcome).key == expected[0]
        else:
            model.waiters.append(thread)
            self.waiting[number] = ("batch" if batch else "single", where, future)
            wait_until_blocked(port, len(model.waiters))
        self.settle()

    @rule(number=thread, where=where)
    def dequeue_in_vain(self, number: int, where: int) -> None:
        """A dequeue that times out after having slept."""
        model, thread = self.models[where], self.threads[number]
        if not self.running(number) or model.entries:
            return
        thread.join(model)
        model.active += 1
        assert isinstance(self.actors[number].start(self.ports[where].get, 0.0001).exception(LIMIT), WaitTimeout)
        self.settle()

    @rule(number=thread)
    def interrupt(self, number: int) -> None:
        """An APC ends an alertable dequeue."""
        state = self.waiting[number]
        if state is None or state[0] != "batch":
            return
        _, where, future = state
        model, thread = self.models[where], self.threads[number]
        model.waiters.remove(thread)
        model.active += 1
        queue_apc(int, thread=self.actors[number].thread)
        assert isinstance(future.exception(LIMIT), Alerted)
        self.waiting[number] = None
        self.settle()

    @rule(number=thread, scope=st.booleans())
    def block(self, number: int, scope: bool) -> None:
        """The thread blocks: in a wait for an event, or in a scope that says so."""
        if not self.running(number):
            return
        self.threads[number].leave()
        if scope:
            gate = Gate()

            def inside() -> None:
                with blocking():
                    gate.pass_through()

            future: Future[Any] = self.actors[number].start(inside)
            self.waiting[number] = ("blocked", gate.open, future)
            gate.wait_for_arrivals()
        else:
            event = Event()

            def sleep() -> None:
                with event:
                    event.wait()

            future = self.actors[number].start(sleep)
            self.waiting[number] = ("blocked", event.set, future)
            wait_until_blocked(event)
            wait_until_blocked(self.actors[number].thread)
        self.settle()

    @rule(number=thread)
    def wake(self, number: int) -> None:
        """A blocked thread becomes runnable: active at once, whatever the limit."""
        state = self.waiting[number]
        if state is None or state[0] != "blocked":
            return
        _, go, future = state
        go()
        result(future)
        self.waiting[number] = None
        port = self.threads[number].port
        if port is not None:
            port.active += 1

    @precondition(lambda self: any(state is None for state in self.waiting))
    @rule(number=thread)
    def end(self, number: int) -> None:
        """The thread ends, and another one comes in its place."""
        if not self.running(number):
            return
        self.threads[number].leave()
        self.actors[number].end()
        self.actors[number] = Actor()
        self.threads[number] = ModelThread()
        self.settle()

    @invariant()
    def numbers_agree(self) -> None:
        for port, model in zip(self.ports, self.models, strict=True):
            expected = (model.active, len(model.entries), len(model.waiters))

            def seen(port: CompletionPort = port) -> tuple[int, int, int]:
                statistics = port.statistics()
                return statistics.active, statistics.depth, statistics.waiting

            # A thread that was just told to sleep may be on its way there.
            if seen() != expected:
                wait_until(lambda: seen() == expected, what=f"{seen()} == {expected}")  # noqa: B023  # called in this turn
            assert not (model.waiters and model.entries and model.active < model.limit)


TestAccounting = Accounting.TestCase
TestAccounting.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
