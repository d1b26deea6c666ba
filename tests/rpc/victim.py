"""The service that attacks are made on: routines that are slow, hold the interpreter, or answer at length.

python -m tests.rpc.victim OPTIONS     see `serving.py`
"""

import ctypes
import sys
import time
from typing import Any

from engine import Server

from .serving import serve


class Victim:
    """Served as "victim", without a contract."""

    def echo(self, value: Any) -> Any:
        return value

    def slow(self, seconds: float) -> None:
        time.sleep(seconds)  # What the routine does: clients keep it busy by this.

    def stick(self, seconds: float) -> None:
        """Hold the interpreter, as C code does that does not let go of it."""
        print("stuck", file=sys.stderr, flush=True)
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))  # Nothing waits for it to have passed.

    def much(self, size: int) -> bytes:
        return bytes(size)


def make_server(*endpoints: str, **options: Any) -> Server:
    server = Server(*endpoints, **options)
    server.register("victim", Victim())
    return server


if __name__ == "__main__":
    sys.setswitchinterval(0.001)
    serve(make_server)
