"""A service that waits for the signals that end it, run as a process of its own by `test_ending.py`.

    python -m tests.rpc.server.ended ENDPOINT [WHERE]

WHERE: `main` (the default), `thread`: it listens in another thread; `own`: with a handler of its own for SIGTERM.
"""

import signal
import sys
import threading
import time

from engine import Server
from engine.testing import wait_until

# Handlers before and after, to be compared.
NUMBERS = (signal.SIGTERM, signal.SIGINT)


class Routines:
    """What the service serves."""

    def hold(self, seconds: float) -> str:
        """Answer after so long: a routine that runs as the signal comes."""
        print("running", flush=True)
        time.sleep(seconds)  # What the routine does: work, which goes on as the signal comes.
        return "answered"

    def ready(self) -> str:
        """The name of SIGTERM's handler."""
        return str(getattr(signal.getsignal(signal.SIGTERM), "__name__", signal.getsignal(signal.SIGTERM)))


def main(endpoint: str, where: str = "main") -> None:
    """Serve until a signal comes, and tell what became of it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell may have it ignored in what it runs behind.
    if where == "own":
        signal.signal(signal.SIGTERM, lambda number, frame: (print("own handler", flush=True), server.request_stop()))
    before = [signal.getsignal(number) for number in NUMBERS]
    with Server(endpoint, workers=2) as server:
        server.register("routines", Routines())
        if where == "thread":
            other = threading.Thread(target=server.listen, kwargs={"wait": True})
            other.start()
            wait_until(lambda: server.listening)
            print("unchanged", [signal.getsignal(number) for number in NUMBERS] == before, flush=True)
            server.stop()
            other.join()
            return
        try:
            server.listen(wait=True)
            print("returned", flush=True)
        except KeyboardInterrupt:
            print("KeyboardInterrupt", flush=True)
        print("restored", [signal.getsignal(number) for number in NUMBERS] == before, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
