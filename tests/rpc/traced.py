"""A server that says which functions of the library a worker has called: `python -m tests.rpc.traced ENDPOINT`."""

import sys
import threading
from _thread import get_ident
from collections import defaultdict
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from engine import Server

ROOT = Path(__file__).resolve().parents[2]
ROOTS = tuple(str(ROOT / each) for each in ("engine", "transport", "tests"))


class Recorder:
    """A profile function: notes each function of the library, and of the tests, that is called, by threads.

    It does little: a routine that takes long for being recorded would be passed on to another worker.
    """

    def __init__(self) -> None:
        self._called: dict[int, list[CodeType]] = defaultdict(list)

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            self._called[get_ident()].append(frame.f_code)

    def take(self) -> list[str]:
        """Return what this thread has called since it called this last, as "path name"."""
        codes = self._called.pop(get_ident(), [])
        return [name_of(code) for code in codes if code.co_filename.startswith(ROOTS)]


def name_of(code: CodeType) -> str:
    """Return "path name" of a function; what is made inside one counts as that."""
    path = Path(code.co_filename).relative_to(ROOT).as_posix()
    return f"{path} {code.co_qualname.partition('.<locals>')[0]}"


class Routines:
    """What is called."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def echo(self, value: bytes) -> bytes:
        """Return the value."""
        return value

    def called(self) -> list[str]:
        """Return what this thread has called since it ran this last."""
        return self._recorder.take()


def main(endpoint: str) -> None:
    """Serve until the standard input ends."""
    recorder = Recorder()
    threading.setprofile(recorder)
    with Server(endpoint) as server:
        server.register("traced", Routines(recorder))
        server.listen()
        print("ready", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
