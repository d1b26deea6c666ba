"""The library's own threads: each runs one service, is started when that is needed, and again if it is found dead.

Theory of operation. A service is a function that one thread at a time runs. Code that needs it calls `ensure`. The
system may refuse to start a thread, now or for long; then `ensure` says so, and nothing pretends to be a thread. It is
tried again when the service is next needed, but not before a pause is over, which grows from one refusal to the next:
at once, 1 ms, 2 ms, and so on up to `LONGEST`. An exception that leaves the function is reported, and the same thread
runs the function again, after such a pause.

    none --ensure--> starting --refused--> none          starting --the thread begins--> running --returns--> none

Guarantees: at most one thread runs the function. What was needed before the function returned is not forgotten: the
thread asks `more` after it has said that it ends.

Assumes: attribute stores and loads are not reordered across a lock operation.
"""

import threading
from _thread import get_ident
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from time import sleep

from transport.lock import Lock
from transport.realtime import monotonic

FIRST, LONGEST = 0.001, 1.0  # Seconds between attempts: the least that is worth waiting, and the most that is borne.

# The identifiers of the threads that run services which others depend on. Single-element operations only.
vital: set[int] = set()


@contextmanager
def depended_on() -> Iterator[None]:
    """Within this context nothing of a user's holds the calling thread up, as others depend on it (see `log.py`)."""
    me = get_ident()
    try:
        vital.add(me)
        yield
    finally:
        vital.discard(me)


def is_ending(refusal: BaseException | None) -> bool:
    """Whether a thread was refused because the interpreter shuts down: then it is not worth a report."""
    return refusal is not None and "interpreter shutdown" in str(refusal)


class Pause:
    """When to try again what was refused. Guarded by its owner."""

    __slots__ = ("length", "until")

    def __init__(self) -> None:
        # Seconds that the present pause lasts in all; 0 while nothing was refused, and after the first refusal.
        self.length: float = 0.0
        # Monotonic time.
        self.until: float = 0.0

    def refused(self) -> float:
        """It was refused once more: return for how many seconds to leave it alone, 0 the first time."""
        first = not self.until
        self.length = 0.0 if first else min(max(2 * self.length, FIRST), LONGEST)
        self.until = monotonic() + self.length
        return self.length

    def granted(self) -> None:
        """It went well."""
        self.length = self.until = 0.0

    def left(self) -> float:
        """How many seconds are left of the pause."""
        return max(0.0, self.until - monotonic()) if self.until else 0.0


class Service:
    """A function that a thread runs whenever it is needed.

    Args:
        name: the thread's.
        function: what it runs.
        report: `report(text, error)`, called with an exception that left the function.
        more: asked after the function has returned; True: it is needed again.
        depended_on: others wait for this thread, so nothing of a user's may hold it up (see `log.py`).
    """

    def __init__(
        self, name: str, function: Callable[[], object], report: Callable[[str, BaseException], object],
        *, more: Callable[[], bool] = lambda: False, depended_on: bool = True,
    ) -> None:  # fmt: skip
        self.name = name
        self._function = function
        self._report = report
        self._more = more
        self._depended_on = depended_on
        self._lock = Lock()
        # All below: guarded by _lock; read anywhere. Whether a thread runs the function, or is being started to.
        self.running: bool = False
        self.thread: threading.Thread | None = None
        # The one that was started last, which may not have begun. Written by who started it.
        self._latest: threading.Thread | None = None
        # Why there is no thread although one was needed; None: there is, or none was.
        self.refusal: BaseException | None = None
        self._pause = Pause()

    def ensure(self) -> bool:
        """See to it that a thread runs the function; False if none could be started. Costs an attribute when one does.

        A thread that was started for it is enough, though it may have run the function to its end by now.

        Any thread; never blocks for longer than starting a thread takes.
        """
        while not self.running:
            if self._lock.owned():
                return True  # A signal handler, which interrupted this very thing: it goes on.
            if self._pause.left():
                return False
            if self._try():
                return True
        return True

    def pause_left(self) -> float:
        """For how many seconds it is of no use to call `ensure` again."""
        return self._pause.left()

    def _try(self) -> bool:
        """Start a thread, unless another one does; False if that was refused."""
        try:
            thread = threading.Thread(target=self._main, name=self.name, daemon=True)
            with self._lock:
                if self.running:
                    return True
                self.running = True
            thread.start()
            self._latest = thread
        except BaseException as error:
            with self._lock:
                # Interrupted, it may have started all the same: then it says so itself.
                self.running = self.thread is not None
                if isinstance(error, Exception):
                    self.refusal = error
                    self._pause.refused()
            if not isinstance(error, Exception):
                raise
            return False
        return True

    def _main(self) -> None:
        while self._begin():
            try:
                with depended_on() if self._depended_on else nullcontext():
                    self._run()
            finally:
                with self._lock:
                    self.running = False
                    self.thread = None
            if not self._more():
                return

    def _begin(self) -> bool:
        with self._lock:
            if self.thread is not None:
                return False  # Another one was started, after an interrupt that left it open whether this one was.
            self.thread = threading.current_thread()
            self.running = True
            self.refusal = None
            self._pause.granted()
            return True

    def _run(self) -> None:
        pause = Pause()
        while True:
            began = monotonic()
            try:
                self._function()
                return
            except BaseException as error:  # Also what was raised into the thread from outside.
                self._report(f"{self.name} was interrupted, and goes on", error)
                if monotonic() - began > LONGEST:
                    pause.granted()
                sleep(pause.refused())

    def __str__(self) -> str:
        return f"the thread {self.name} cannot be started now ({self.refusal})" if self.refusal else self.name

    def join(self, timeout: float | None) -> bool:
        """Wait until the thread has ended that runs the function, or is about to; False if `timeout` ran out first."""
        thread = self.thread or self._latest
        if thread is None:
            return True
        thread.join(timeout if timeout is None else min(timeout, threading.TIMEOUT_MAX))
        return not thread.is_alive()
