"""Answers that have arrived in a process where no thread waits in the library.

    python -m tests.rpc.client.arrived SCENARIO ENDPOINT

Each scenario is a function below; it prints what a test expects to read. The server is a plain socket in the same
thread, so that nothing of the library runs but what a scenario calls, and the library's own threads.
"""

import select
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import msgspec

from engine import Call, Client, CompletionPort, Event, Semaphore, ThreadPool, Wait, register_wait
from engine.kernel.notification import Notification
from engine.testing import LIMIT, wait_until
from transport.frames import Replies

from ...one_by_one import calls_in, one_reply
from ..helpers import RawServer
from ..interfaces import Probe

AT_ONCE = 1e-9  # Seconds; up as soon as anybody looks.
ENOUGH = 1.0  # Seconds; for an answer to come while nothing else is done.


class Release(Notification, frozen=True):
    """A notification of the program's own."""

    semaphore: Semaphore

    def notify(self, operation: Any, kind: Any) -> None:
        self.semaphore.release()


class Resolve(Notification, frozen=True):
    """Another one."""

    future: "Future[None]"

    def notify(self, operation: Any, kind: Any) -> None:
        self.future.set_result(None)


class Conversation:
    """A client, the socket that answers it, and a binding. Use it as a context manager."""

    def __init__(self, endpoint: str) -> None:
        self.raw = RawServer(endpoint)
        self.client = Client(self.raw.endpoint, connect_timeout=None)  # A limit looks around as it ends.
        self.probe = self.client.bind(Probe)
        first = self.probe.echo.begin("the first one")
        self.raw.greet()
        self.answer("connected")
        assert first.result(LIMIT) == "connected"

    def answer(self, value: object) -> None:
        """Take the next call, and answer it."""
        message: Any = self.raw.hear()
        encoded = msgspec.Raw(msgspec.msgpack.encode(value))
        self.raw.say(Replies([one_reply(calls_in(message)[0].id, 0, encoded)]))

    def arrived(self, **options: Any) -> Call[Any]:
        """Return a call whose answer has arrived in this process, though nobody has looked."""
        call = self.probe.echo.begin("echo", **options)
        self.answer("arrived")
        # The link's own descriptor: whatever public query there is would look. Who attends may have taken it by now.
        descriptors = self.client._connection.channel.descriptors()
        wait_until(lambda: select.select(descriptors, (), (), 0)[0] or call._box is not None)
        return call

    def __enter__(self) -> "Conversation":
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()
        self.raw.close()


def limit(endpoint: str) -> None:
    """A call's own time limit comes after its answer, which nobody has taken."""
    with Conversation(endpoint) as conversation:
        call = conversation.arrived(timeout=ENOUGH)
        wait_until(lambda: call._box is not None)  # `done()` would look by itself.
        print(call.complete())


def abort(endpoint: str) -> None:
    """An abort comes after the answer."""
    with Conversation(endpoint) as conversation:
        call = conversation.arrived()
        call.cancel(abort=True)
        print(call.complete())


def closing(endpoint: str) -> None:
    """The client is closed after the answer has come."""
    with Conversation(endpoint) as conversation:
        call = conversation.arrived()
        conversation.client.close()
        print(call.complete())


def queries(endpoint: str) -> None:
    """Each query that a program may poll sees what has arrived, by itself and at once."""
    with Conversation(endpoint) as conversation, Event() as event, CompletionPort() as port:
        client = conversation.client
        for look in (
            lambda call: call.state.name == "DONE",
            lambda call: call.status() == 0,
            lambda call: call.done(),
            lambda call: call.event is not None,
            lambda call: call.wait(0),
            lambda call: client.statistics().outstanding == 0,
        ):
            call = conversation.arrived()
            print(look(call))
            call.complete()
        for see in (event.is_set, event.is_signaled, lambda: event.statistics().signaled, lambda: event.wait(0)):
            call = conversation.arrived(notify=event)
            print(see())
            event.reset()
            call.complete()
        semaphore = Semaphore(0, 1)
        for ask in (semaphore.is_signaled, lambda: semaphore.statistics().signaled, lambda: semaphore.wait(0)):
            call = conversation.arrived(notify=Release(semaphore))
            print(ask())
            call.complete()
            semaphore.wait(0)
        for see in (lambda: len(port) == 1, lambda: port.statistics().depth == 1, lambda: port.get(0) is not None):
            call = conversation.arrived(notify=port)
            print(see())
            wait_until(lambda: len(port) == 0 or port.get(0))
            call.complete()


def out_of_time(endpoint: str) -> None:
    """Each wait whose time is up looks once more before it says so."""
    with Conversation(endpoint) as conversation, Event() as event, CompletionPort() as port:
        print(conversation.arrived().wait(AT_ONCE))
        print(conversation.arrived().result(AT_ONCE) == "arrived")
        conversation.arrived(notify=event)
        print(event.wait(AT_ONCE))
        call = conversation.arrived(notify=port)
        print(port.get(AT_ONCE).overlapped is call)


def many(endpoint: str) -> None:
    """Many answers have arrived, each in a message of its own: a query for the last sees it."""
    with Conversation(endpoint) as conversation:
        # Well below what a ROUTER keeps for a peer that does not read: it drops the rest.
        calls = [conversation.probe.echo.begin(number) for number in range(500)]
        conversation.client._connection.channel.flush()
        left = len(calls)
        while left:
            message: Any = conversation.raw.hear()
            for call in calls_in(message):
                conversation.raw.say(Replies([one_reply(call.id, 0, msgspec.Raw(b"\x07"))]))
                left -= 1
        wait_until(lambda: calls[-1].done())
        print(all(call.done() for call in calls))


def _told(conversation: Conversation, told: threading.Event, **options: Any) -> None:
    call = conversation.probe.echo.begin("echo", **options)
    conversation.answer("arrived")
    print(told.wait(LIMIT))
    told.clear()
    call.complete()  # Kept until here: dropping it would have the network driven.


def registered(endpoint: str) -> None:
    """Waits in which no thread sleeps end though no thread waits for anything."""
    told = threading.Event()
    with Conversation(endpoint) as conversation, Event() as event, CompletionPort() as port, CompletionPort() as other:

        def tell(*_: object) -> None:
            told.set()

        class Port(CompletionPort):
            def deliver(self, packets: Any) -> bool:
                told.set()
                return super().deliver(packets)

        register_wait(event, tell)
        _told(conversation, told, notify=event)
        register_wait(port, tell)
        _told(conversation, told, notify=port)
        port.get(0)
        with Port() as target:
            target.associate_wait(event)
            _told(conversation, told, notify=event)
            target.associate_wait(other)
            _told(conversation, told, notify=other)
        with ThreadPool(maximum=1) as pool, Wait(tell, pool=pool) as wait:
            wait.set(event)
            _told(conversation, told, notify=event)


def _registered_first(thing: Any, notify: Notification, endpoint: str) -> None:
    """A registered wait for `thing`, before any other: the monitor leads for a while after one."""
    told = threading.Event()
    with Conversation(endpoint) as conversation:
        register_wait(thing, lambda status: told.set())
        _told(conversation, told, notify=notify)


def registered_semaphore(endpoint: str) -> None:
    """As `registered`, for a semaphore that a notification of the program's own releases."""
    semaphore = Semaphore(0, 1)
    _registered_first(semaphore, Release(semaphore), endpoint)


def registered_future(endpoint: str) -> None:
    """The same, for a future."""
    future: Future[None] = Future()
    _registered_first(future, Resolve(future), endpoint)


def registered_limit(endpoint: str) -> None:
    """The time limit of a registered wait comes after the answer."""
    with Conversation(endpoint) as conversation:
        while (status := _limited(conversation)) is None:
            pass
        print(status)


def _limited(conversation: Conversation) -> int | None:
    """What a registered wait with a limit says; None: the machine was too slow for that to show anything."""
    come: list[int] = []
    began = time.monotonic()
    with Event() as event:
        register_wait(event, come.append, ENOUGH)
        conversation.arrived(notify=event)
        soon = time.monotonic() < began + ENOUGH / 2
        wait_until(lambda: come)
    return int(come[0]) if soon else None


def idle(endpoint: str) -> None:
    """A registered wait that is pending costs nothing, nor does one that has been."""
    with Conversation(endpoint), Event() as event:
        for _ in range(2):
            handle = register_wait(event, print)
            began = time.process_time(), time.monotonic()
            time.sleep(1.0)  # What is measured is what happens meanwhile.
            used = time.process_time() - began[0]
            print(used < 0.05 * (time.monotonic() - began[1]))
            handle.cancel()


if __name__ == "__main__":
    scenario: Callable[[str], None] = globals()[sys.argv[1]]
    scenario(sys.argv[2])
