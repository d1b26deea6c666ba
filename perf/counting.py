"""How many steps a call takes, counted where they are taken: figures that do not depend on a machine's speed.

A profile function in each thread counts Python and C calls, in counters of that thread's own: no count is lost, and
a thread's name tells what its calls are for. That slows a process down severalfold. The kernel counts switches and
system calls, and is asked from outside, about processes that nothing slows down.

Calls that time decides, not a message, are counted apart: those of the monitor, which has a beat, and the polls of
a thread that stays awake until its answer is there.

Not seen: what C code calls (the inside of a Cython library), and constructors of C types.
"""

import ctypes
import itertools
import json
import os
import platform
import socket
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from perf.measure import family
from perf.subject import load
from perf.worker import Control

STEPS = ("python_calls", "c_calls", "timed_calls")
TIMED_THREADS = ("engine:monitor",)
TIMED_FUNCTIONS = ("_poll_awake",)


class Profile:
    """Counts the calls of the thread that installs it, and of all that start afterwards."""

    def __init__(self) -> None:
        # Appending is atomic. The counters of a thread that has ended stay.
        self._counters: list[tuple[Any, Any, Any]] = []

    def install(self) -> None:
        """Count from now on."""
        threading.setprofile(self._begin)
        sys.setprofile(self._counter())

    def read(self) -> list[int]:
        """Return what was counted until now, a figure for each of `STEPS`."""
        return [sum(map(standing, column)) for column in zip(*self._counters, strict=True)]

    def _begin(self, frame: Any, event: str, argument: Any) -> None:
        """A thread's first event: from here on it has counters of its own."""
        count = self._counter()
        sys.setprofile(count)
        count(frame, event, argument)

    def _counter(self) -> Callable[[Any, str, Any], None]:
        python, c, timed = counters = (itertools.count(), itertools.count(), itertools.count())
        self._counters.append(counters)
        if threading.current_thread().name in TIMED_THREADS:
            python = c = timed

        def count(frame: Any, event: str, argument: Any) -> None:
            if event == "call":
                next(python)
            elif event == "c_call":
                next(timed if frame.f_code.co_name in TIMED_FUNCTIONS else c)

        return count


def standing(counter: Any) -> int:
    """Return where a counter stands, and leave it there."""
    return int(repr(counter)[len("count(") : -1])


def serve(settings: dict[str, Any], control: Control) -> None:
    """Worker function: the server of settings["served"], which counts, and tells who connects to settings["counts"]."""
    profile = Profile()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(settings["counts"])
    listener.listen()

    def answer() -> None:
        while True:
            peer, _ = listener.accept()
            with peer:
                peer.sendall(json.dumps(profile.read()).encode())

    # It starts before the profile is there, and so is not counted itself.
    threading.Thread(target=answer, name="perf:counts", daemon=True).start()
    profile.install()
    load(settings["served"]).serve(settings, control)


def ask(path: str) -> list[int]:
    """Return what the server at `path` has counted until now."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(path)
        found: list[int] = json.loads(b"".join(iter(lambda: peer.recv(1 << 16), b"")))
        return found


def switches(pid: int) -> int:
    """Return how often the threads of a process have gone to sleep."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                total += int(line.split()[1])
    return total


# perf_event_open(2) has no wrapper in the C library, and a number of its own on each kind of processor.
_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
_EVENT_ID = Path("/sys/kernel/tracing/events/raw_syscalls/sys_enter/id")
_TRACEPOINT, _ATTR_SIZE, _INHERIT, _CLOSE_ON_EXEC = 2, 64, 2, 8


class SystemCalls:
    """Counts the system calls of a process, its children, and all their threads, those that start later too.

    The kernel counts, which slows nothing down. Raises `OSError` if it may not be asked.
    """

    def __init__(self, pid: int) -> None:
        event = int(_EVENT_ID.read_text())
        self._files = [
            _open_event(event, int(task.name))
            for member in family(pid)
            for task in Path(f"/proc/{member}/task").iterdir()
        ]

    def read(self) -> int:
        """Return how many there were until now."""
        return sum(struct.unpack("Q", os.read(file, 8))[0] for file in self._files)

    def close(self) -> None:
        """Count no more."""
        for file in self._files:
            os.close(file)


def _open_event(event: int, thread: int) -> int:
    number = _PERF_EVENT_OPEN.get(platform.machine())
    if number is None:
        raise OSError(f"the number of perf_event_open on {platform.machine()} is not known here")
    attributes = ctypes.create_string_buffer(_ATTR_SIZE)
    struct.pack_into("=IIQ", attributes, 0, _TRACEPOINT, _ATTR_SIZE, event)
    struct.pack_into("=Q", attributes, 40, _INHERIT)
    system = ctypes.CDLL(None, use_errno=True)
    file: int = system.syscall(number, attributes, thread, -1, -1, _CLOSE_ON_EXEC)
    if file < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return file


def system_calls_missing() -> str | None:
    """Say why system calls cannot be counted here; None if they can."""
    try:
        SystemCalls(os.getpid()).close()
    except OSError as error:
        return f"the kernel does not count them for this user ({error}): run as root, or with CAP_PERFMON"
    return None
