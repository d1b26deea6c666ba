"""The service of the tests that watch calls, keep handles and look at the order of calls; and a program of it."""

import threading
import time
from collections import Counter, defaultdict
from typing import Any

from engine import (
    Client,
    CompletionPort,
    Context,
    EngineError,
    Event,
    EventKind,
    Server,
    ServerCall,
    apc,
    blocking,
    current_call,
    manager,
    sleep,
)
from engine.testing import LIMIT, wait_until

from ..helpers import status_of
from ..serving import serve
from .interfaces import Desk, Keeper, Order, Store, Watch


class Gates:
    """Events by name, made by whoever comes first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: defaultdict[str, threading.Event] = defaultdict(threading.Event)

    def __getitem__(self, key: str) -> threading.Event:
        with self._lock:
            return self._events[key]

    def wait(self, key: str) -> None:
        with blocking():
            if not self[key].wait(LIMIT):
                raise TimeoutError(key)


class Listening:
    """A thread in alertable waits, for APCs."""

    def __init__(self) -> None:
        self.over = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while not self.over:
            sleep(LIMIT, alertable=True)


class Held:
    """A call that is held, and what its subscribers were told."""

    def __init__(self, call: ServerCall) -> None:
        self.call = call
        self.event = Event()
        self.port = CompletionPort()
        self.listening = Listening()
        self.told: list[int] = []

    def note(self, call: ServerCall, kind: EventKind) -> None:
        assert call is self.call
        self.told.append(int(kind))

    def target(self, how: str) -> Any:
        return {
            "event": self.event,
            "port": self.port.packet(key="k", transferred="t"),
            "given": self.port.packet(key=1, transferred=None, overlapped="o"),
            "callback": self.note,
            "apc": apc(self.note, thread=self.listening.thread),
            "none": None,
        }[how]


class Watching:
    """Implements `Watch` and `Desk`."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}
        self._gates = Gates()
        self._results: dict[str, Any] = {}

    @manager
    def hold(self, call: ServerCall, key: str) -> None:
        self._held[key] = Held(call)
        self._gates[key].set()

    def echo(self, value: Any) -> Any:
        return value

    def time_left(self) -> float | None:
        return current_call().time_left()

    def metadata(self) -> dict[str, str]:
        return current_call().metadata

    def nested_time(self, endpoint: str, own: float | None, default: float | None) -> float | None:
        with Client(endpoint, timeout=default) as client:
            return client.bind(Watch).time_left.begin(timeout=own).result(LIMIT)

    def nested_metadata(self, endpoint: str, own: dict[str, str] | None, connection: dict[str, str]) -> dict[str, str]:
        with Client(endpoint, metadata=connection) as client:
            return client.bind(Watch).metadata.begin(metadata=own).result(LIMIT)

    async def nested_coroutine(self, endpoint: str) -> dict[str, str]:
        with Client(endpoint) as client:
            return await client.bind(Watch).metadata.begin()

    def nested_hold(self, endpoint: str, key: str) -> None:
        with Client(endpoint) as client:
            status = status_of(lambda: client.bind(Watch).hold.begin(f"{key}-inner").result(LIMIT))
        self._results[key] = status
        self._gates[key].set()

    @manager
    def nested_later(self, call: ServerCall, endpoint: str, key: str) -> None:
        call.complete()
        with Client(endpoint) as client:
            binding = client.bind(Watch)
            self._results[key] = [binding.time_left(), binding.metadata()]
        self._gates[key].set()

    # Desk

    def arrived(self, key: str) -> None:
        self._gates.wait(key)

    def result(self, key: str) -> Any:
        self._gates.wait(key)
        return self._results[key]

    def subscribe(self, key: str, kinds: list[int], how: str) -> int:
        held = self._held[key]
        kind: Any = kinds[0] if len(kinds) == 1 else kinds
        return status_of(lambda: held.call.subscribe(kind, held.target(how)))

    def unsubscribe(self, key: str, kind: int) -> int:
        """The number of notifications, or -status."""
        try:
            return self._held[key].call.unsubscribe(EventKind(kind))
        except EngineError as error:
            return -int(error.status)

    def told(self, key: str, how: str) -> list[Any]:
        held = self._held[key]
        if how == "event":
            return [held.event.wait(LIMIT)]
        if how in ("port", "given"):
            packet = held.port.get(LIMIT)
            over = packet.overlapped
            return [packet.key, packet.transferred, "call" if over is held.call else over]
        with blocking():
            wait_until(lambda: held.told)
        return held.told

    def told_nothing(self, key: str, how: str) -> bool:
        held = self._held[key]
        if how == "event":
            return not held.event.wait(0)
        if how == "port":
            return held.port.statistics().posted == 0
        return not held.told

    def close(self, key: str, how: str) -> int:
        call = self._held[key].call
        return status_of(lambda: call.complete("done") if how == "complete" else call.abort(4711))

    def close_when_queued(self, key: str) -> list[Any]:
        """Close a call whose cancel is queued to a thread that does not listen yet; then let it listen."""
        held = self._held[key]
        began, listen = threading.Event(), threading.Event()

        def run() -> None:
            began.set()
            listen.wait(LIMIT)
            sleep(0, alertable=True)

        thread = threading.Thread(target=run)
        thread.start()
        began.wait(LIMIT)
        held.call.subscribe(EventKind.CLIENT_CANCEL, apc(held.note, thread=thread))
        with blocking():
            wait_until(held.call.test_cancel)
        held.call.complete("done")
        listen.set()
        thread.join(LIMIT)
        return held.told

    def seen_cancelled(self, key: str) -> None:
        with blocking():
            wait_until(self._held[key].call.test_cancel)

    def seen_disconnected(self, key: str) -> None:
        with blocking():
            wait_until(self._held[key].call.disconnected)


class Diary:
    """The state behind a handle."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: list[str] = []
        self.users = 0


class Storing:
    """Implements `Store` and `Keeper`."""

    def __init__(self) -> None:
        self._gates = Gates()
        self._opened: dict[str, tuple[ServerCall, Context[Diary]]] = {}
        self._lock = threading.Lock()
        self._rundowns: Counter[str] = Counter()

    def _open(self, name: str) -> Context[Diary]:
        return current_call().open_context(Diary(name), self._run_down)

    def _run_down(self, diary: Diary) -> None:
        with self._lock:
            self._rundowns[diary.name] += 1
        assert diary.users == 0, "run down while a call used it"
        self._gates[f"rundown {diary.name}"].set()

    def open(self, name: str) -> Context[Diary]:
        return self._open(name)

    def open_nested(self, name: str) -> dict[str, list[Context[Diary]]]:
        return {"both": [self._open(name), self._open(name)]}

    def open_and_fail(self, name: str) -> Context[Diary]:
        self._open(name)
        raise ValueError("after all not")

    def open_unsendable(self, name: str) -> Any:
        return self._open(name), object()

    def unsendable(self, journal: Context[Diary]) -> Any:
        return [memoryview(bytes(9))[::2]]

    @manager
    def open_held(self, call: ServerCall, name: str) -> None:
        self._opened[name] = call, call.open_context(Diary(name), self._run_down)
        self._gates[f"entered {name}"].set()
        self._gates[name].set()

    def add(self, journal: Context[Diary], line: str) -> int:
        diary = journal.state
        diary.users += 1
        assert diary.users == 1, "calls on one handle overlap"
        diary.lines.append(line)
        diary.users -= 1
        return len(diary.lines)

    async def add_async(self, journal: Context[Diary], line: str) -> int:
        journal.state.lines.append(line)
        return len(journal.state.lines)

    @manager
    def add_managed(self, call: ServerCall, journal: Context[Diary], line: str) -> None:
        journal.state.lines.append(line)
        threading.Thread(target=call.complete, args=(len(journal.state.lines),)).start()

    def lines(self, journal: Context[Diary]) -> list[str]:
        return journal.state.lines

    def lines_or_none(self, journal: Context[Diary] | None = None) -> list[str] | None:
        return None if journal is None else journal.state.lines

    def move(self, source: Context[Diary], target: Context[Diary]) -> None:
        target.state.lines += source.state.lines
        source.state.lines.clear()

    def block(self, journal: Context[Diary], key: str) -> None:
        journal.state.users += 1
        self._gates[f"entered {key}"].set()
        self._gates.wait(f"release {key}")
        journal.state.users -= 1

    block_shared = block

    def fail(self, journal: Context[Diary]) -> None:
        journal.state.lines.append("changed")
        raise ValueError("changed it all the same")

    def close(self, journal: Context[Diary]) -> None:
        journal.close()

    def close_and_fail(self, journal: Context[Diary]) -> None:
        journal.close()
        raise ValueError("closed it all the same")

    # Keeper

    def entered(self, key: str) -> None:
        self._gates.wait(f"entered {key}")

    def is_entered(self, key: str) -> bool:
        return self._gates[f"entered {key}"].is_set()

    def release(self, key: str) -> None:
        self._gates[f"release {key}"].set()

    def release_opened(self, name: str) -> None:
        self._gates.wait(name)
        call, context = self._opened[name]
        with blocking():
            wait_until(call.disconnected)
        call.complete(context)

    def rundowns(self, name: str) -> int:
        return self._rundowns[name]

    def wait_rundown(self, name: str) -> int:
        self._gates.wait(f"rundown {name}")
        return self._rundowns[name]


class Ordering:
    """Implements `Order`."""

    def __init__(self) -> None:
        self._entered: list[int] = []
        self._gates = Gates()

    def _enter(self, number: int) -> None:
        self._entered.append(number)
        self._gates[f"entered {number}"].set()

    def quick(self, number: int) -> None:
        self._enter(number)

    def slow(self, number: int) -> None:
        self._enter(number)
        time.sleep(0.001)  # What the routine does; no test waits by it.

    def stuck(self, number: int, key: str) -> None:
        self._enter(number)
        if not self._gates[key].wait(LIMIT):
            raise TimeoutError(key)

    def entered(self) -> list[int]:
        return self._entered

    def wait_entered(self, number: int) -> None:
        self._gates.wait(f"entered {number}")

    def open(self, key: str) -> None:
        self._gates[key].set()


def make_server(*endpoints: str, **options: Any) -> Server:
    """Return a server of all of this that does not listen yet."""
    server = Server(*endpoints, workers=options.pop("workers", 8), **options)
    watching, storing = Watching(), Storing()
    server.register(Watch, watching)
    server.register(Desk, watching)
    server.register(Store, storing)
    server.register(Keeper, storing)
    server.register(Order, Ordering())
    return server


if __name__ == "__main__":
    serve(make_server)
