"""A small service: the engine embedded, state under a lock, slow work in the background, and a graceful stop.

    python -m examples.thesaurus.service [ENDPOINT]

Stop it with Ctrl-C or SIGTERM: it takes no new calls, finishes the running ones, tells its clients and ends.
"""

import logging
import signal
import sys
import threading
from collections import Counter, defaultdict
from types import FrameType

from engine import Event, Server, ServerCall, ThreadPool, manager
from examples.thesaurus.contract import Entry, Thesaurus

log = logging.getLogger("thesaurus")

LOOK = 1.0  # Seconds: CPython runs the handler of a signal that comes just before a system call only after that call.
GRACE = 10.0  # Seconds that running calls get after the stop; below the usual 30 s between SIGTERM and SIGKILL.


class Words:
    """Implements `Thesaurus`. Routines run on several threads at once, so the state has a lock."""

    def __init__(self, background: ThreadPool) -> None:
        self._lock = threading.Lock()
        # Guarded by _lock.
        self._synonyms: defaultdict[str, list[str]] = defaultdict(list)
        self._lookups: Counter[str] = Counter()
        self._background = background
        for word, synonym in (("quick", "fast"), ("quick", "swift"), ("fast", "rapid"), ("rapid", "brisk")):
            self.add(word, synonym)

    def synonyms(self, word: str) -> list[str]:
        with self._lock:
            self._lookups[word] += 1
            return list(self._synonyms.get(word, ()))

    def entry(self, word: str) -> Entry:
        with self._lock:
            if word not in self._synonyms:
                raise KeyError(word)
            return Entry(word, list(self._synonyms[word]), self._lookups[word])

    def add(self, word: str, synonym: str) -> None:
        with self._lock:
            self._synonyms[word].append(synonym)

    @manager
    def longest_chain(self, call: ServerCall, word: str) -> None:
        # An asynchronous manager routine: it hands the call on and returns; the answer comes from another thread.
        self._background.submit(self._follow, call, word)

    def _follow(self, call: ServerCall, word: str) -> None:
        try:
            call.complete(self._chain(word, (word,), call))
        except InterruptedError:
            call.abort(1818, "nobody waits for the answer any more")

    def _chain(self, word: str, path: tuple[str, ...], call: ServerCall) -> list[str]:
        if call.test_cancel() or call.disconnected():
            raise InterruptedError
        with self._lock:
            onward = [synonym for synonym in self._synonyms.get(word, ()) if synonym not in path]
        chains = [self._chain(synonym, (*path, synonym), call) for synonym in onward]
        return max(chains, key=len, default=list(path))


def main() -> None:
    """Serve until Ctrl-C or SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    endpoint = sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5555"
    with (
        Event(manual_reset=True) as ending,
        ThreadPool(maximum=4, name="chains") as background,
        Server(endpoint, workers=4) as server,
    ):

        def end(number: int, frame: FrameType | None) -> None:
            # Both may be called in a signal handler; a second signal does no harm.
            server.request_stop()
            ending.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        server.register(Thesaurus, Words(background))
        server.listen()
        # Whoever reads this may send the signal at once.
        print(f"listening on {server.endpoint}", flush=True)
        while not ending.wait(LOOK):
            pass
        log.info("stopping: %d calls are open", server.statistics().active)
        server.close(GRACE)
    log.info("stopped")


if __name__ == "__main__":
    main()
