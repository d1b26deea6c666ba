"""Words for what the tests do: threads that follow orders, and ports seen from outside."""

import queue
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import FrameType
from typing import Any, TypeVar

from engine import CompletionPacket, CompletionPort
from engine.testing import LIMIT, wait_until_blocked

T = TypeVar("T")


class Actor:
    """A thread that does what it is told, one thing at a time."""

    def __init__(self, name: str = "actor") -> None:
        self._orders: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while (order := self._orders.get()) is not None:
            future, function = order
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)
            del order, future, function

    def start(self, function: Callable[..., T], *args: Any, **named: Any) -> "Future[T]":
        """Begin `function(*args, **named)` in the thread; the result tells how it ended."""
        future: Future[T] = Future()
        self._orders.put((future, lambda: function(*args, **named)))
        return future

    def do(self, function: Callable[..., T], *args: Any, **named: Any) -> T:
        """Have the thread call `function(*args, **named)`, and return what it returned."""
        return self.start(function, *args, **named).result(LIMIT)

    def end(self) -> None:
        """Have the thread end, and see it gone."""
        self._orders.put(None)
        self.thread.join(LIMIT)


def result(future: "Future[T]") -> T:
    """What an actor's order came to."""
    return future.result(LIMIT)


def error(future: "Future[Any]") -> BaseException | None:
    """What an actor's order raised."""
    return future.exception(LIMIT)


def asleep(actor: Actor, function: Callable[..., T], *args: Any, **named: Any) -> "Future[T]":
    """Have the actor begin a wait, and return once it sleeps in it."""
    future = actor.start(function, *args, **named)
    wait_until_blocked(actor.thread)
    return future


def getter(actor: Actor, port: CompletionPort, **named: Any) -> "Future[CompletionPacket]":
    """Have the actor wait for a packet, and return once it sleeps on the port."""
    waiting = port.statistics().waiting
    future = actor.start(port.get, **named)
    wait_until_blocked(port, waiting + 1)
    return future


def active(port: CompletionPort) -> int:
    return port.statistics().active


def depth(port: CompletionPort) -> int:
    return port.statistics().depth


def join_as_active(actor: Actor, port: CompletionPort) -> None:
    """Have the actor take a slot of the port: by polling, which counts even though it finds nothing."""
    assert depth(port) == 0
    with_error = actor.start(port.get, 0).exception(LIMIT)
    assert with_error is not None


def interleaved(function: Callable[[], T], other: Callable[[], object]) -> "Iterator[Future[T]]":
    """Call `function` again and again, `other` being called by another thread at a later line of it each time.

    Yields what each call came to; ends when `other` would come after the last line of the library's code.
    """
    line = 1
    while (outcome := _interrupted(function, other, line)) is not None:
        yield outcome
        line += 1


def _interrupted(function: Callable[[], T], other: Callable[[], object], line: int) -> "Future[T] | None":
    thread = threading.Thread(target=other)
    left = line

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if not frame.f_globals["__name__"].startswith("engine."):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                thread.start()
                thread.join(0.05)  # It cannot end if it needs a lock that this thread holds here.
        return trace

    outcome: Future[T] = Future()
    former = sys.gettrace()
    sys.settrace(trace)
    try:
        outcome.set_result(function())
    except Exception as error:
        outcome.set_exception(error)
    finally:
        sys.settrace(former)
    if left > 0:
        return None
    thread.join(LIMIT)
    return outcome
