"""What goes wrong with the calls of a server, to order.

Theory of operation. `Faults` is an interceptor of the server. Each order is for one call, the next that arrives; orders
are met one after the other.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial

from ..errors import CallError
from ..kernel.checks import check_callable, check_count, check_duration
from ..kernel.lock import Lock
from ..kernel.thread import blocking
from ..rpc.errors import ServerTooBusy
from ..rpc.server.call import ServerCall
from ..rpc.server.intercepting import IncomingCall
from ..rpc.server.server import Server

# What is done to a call; True: it goes no further.
Fault = Callable[[IncomingCall], bool]


class Faults:
    """Makes calls of a server fail, one for each order that is given.

        faults = Faults(server)
        faults.refuse(2)        # the next two calls end with `ServerTooBusy`
        faults.drop()           # the one after them is never answered

    Args: `server`: any; a `Pair` has faults for its own.
    Threads: any. Orders that no call has met yet are forgotten by `clear`.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lock = Lock()
        # Guarded by _lock: the operations that orders are for ("" is any), and what is to be done.
        self._orders: list[tuple[str, Fault]] = []
        # The handles of calls that were dropped: without one the call would end. Appended by single operations.
        self._dropped: list[ServerCall] = []
        server.add_interceptor(self._intercept)

    def refuse(self, times: int = 1, *, error: Callable[[], CallError] | None = None, operation: str = "") -> None:
        """The next `times` calls, of the named operation if there is one, end before their routines are entered.

        `error()` makes what they end with; None: `ServerTooBusy`, which says that they did not run.
        """
        if error is not None:
            check_callable("error", error)
        self._order(times, operation, partial(_refused, error or _too_busy))

    def drop(self, times: int = 1, *, operation: str = "") -> None:
        """The next calls are not answered: they end by their clients' time limits, or as the server closes."""
        self._order(times, operation, self._drop)

    def delay(self, seconds: float, times: int = 1, *, operation: str = "") -> None:
        """The next calls enter their routines so much later. Each holds its worker, or its event loop, meanwhile."""
        self._order(times, operation, partial(_delayed, check_duration("seconds", seconds)))

    def lose_connection(self, times: int = 1, *, operation: str = "") -> None:
        """The next calls run, and the connections of all clients are lost before they are answered: `CallFailed`."""
        self._order(times, operation, self._lose)

    def clear(self) -> None:
        """Forget the orders that no call has met, and end the calls that were dropped."""
        with self._lock:
            self._orders.clear()
        self._dropped.clear()

    @property
    def pending(self) -> int:
        """How many orders no call has met yet."""
        with self._lock:
            return len(self._orders)

    @property
    def dropped(self) -> int:
        """How many calls are dropped and not cleared. Those whose clients have given them up are among them."""
        return len(self._dropped)

    def _order(self, times: int, operation: str, fault: Fault) -> None:
        check_count("times", times, 1)
        with self._lock:
            self._orders += [(operation, fault)] * times

    def _intercept(self, call: IncomingCall) -> Iterator[None]:
        fault = self._next(call.operation)
        if fault is None or not fault(call):
            yield

    def _next(self, operation: str) -> Fault | None:
        with self._lock:
            return _take(self._orders, operation)

    def _drop(self, call: IncomingCall) -> bool:
        self._dropped.append(call.keep())
        return True

    def _lose(self, call: IncomingCall) -> bool:
        for peer in self._server.peers:
            self._server.disconnect(peer, "a test has lost it")
        return False


def _take(orders: list[tuple[str, Fault]], operation: str) -> Fault | None:
    for at, (wanted, fault) in enumerate(orders):
        if wanted in ("", operation):
            del orders[at]
            return fault
    return None


def _too_busy() -> CallError:
    return ServerTooBusy("a test has refused it")


def _refused(error: Callable[[], CallError], call: IncomingCall) -> bool:
    raise error()


def _delayed(seconds: float, call: IncomingCall) -> bool:
    with blocking():
        time.sleep(seconds)
    return False
