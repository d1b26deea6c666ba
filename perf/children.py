"""Measuring processes, seen from their parent: started fresh, listened to, never waited for without a limit.

A process that fails, hangs or says something else than expected raises `ChildFailed`, with what it wrote to
standard error; one that hangs is first asked for the stacks of its threads.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from types import TracebackType
from typing import Any, Self

START_TIMEOUT = 30.0  # Seconds from start to the first line; imports on a loaded machine take a few.
END_TIMEOUT = 10.0  # Seconds to end after the parent wanted it.
DUMP_TIME = 1.0  # Seconds to write stacks.
STDERR_LINES = 60  # What is shown of a failed process's last words.

Progress = Callable[[int, int], None]


class ChildFailed(Exception):
    """A measuring process did not do what it was started for."""


class Child:
    """One process that runs `target` ("module:function") with `settings`. Use as a context manager.

    `prefix` is a command to run it under, a profiler's say; `environment` is added to this process's.
    """

    def __init__(
        self,
        target: str,
        settings: dict[str, Any],
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._name = f"{target} {json.dumps(settings)}"
        self._stderr = tempfile.TemporaryFile()
        self._out, pipe = os.pipe()
        try:
            self._process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "perf", "worker", target, json.dumps(settings), str(pipe)],
                stdin=subprocess.PIPE, stdout=self._stderr, stderr=self._stderr, pass_fds=(pipe,), bufsize=0,
                start_new_session=True,  # Ctrl-C is the parent's; and what it starts ends with it.
                env=os.environ | {"PYTHONFAULTHANDLER": "1"} | dict(environment or {}),
            )  # fmt: skip
        finally:
            os.close(pipe)
        assert self._process.stdin is not None
        self._in = self._process.stdin
        self._buffer = b""
        self.pid = self._process.pid

    def receive(self, kind: str, timeout: float, progress: Progress | None = None) -> Any:
        """Wait for the object of this kind, reporting progress on the way, and return what it holds."""
        deadline = monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._out, selectors.EVENT_READ)
            while True:
                line, newline, rest = self._buffer.partition(b"\n")
                if newline:
                    self._buffer = rest
                    message = json.loads(line)
                    if kind in message:
                        return message[kind]
                    if "progress" not in message:
                        raise self._failure(f"said {line.decode()!r} where {kind!r} was expected")
                    if progress is not None:
                        progress(*message["progress"])
                elif not selector.select(max(0.0, deadline - monotonic())):
                    raise self._failure(f"did nothing for {timeout:g} s", hung=True)
                else:
                    chunk = os.read(self._out, 1 << 16)
                    if not chunk:
                        self._wait(END_TIMEOUT)
                        raise self._failure(f"ended with exit code {self._process.poll()}")
                    self._buffer += chunk

    def _failure(self, what: str, hung: bool = False) -> ChildFailed:
        return ChildFailed(f"{self._name} {what}\n{self._last_words(hung)}")

    def _last_words(self, stacks: bool) -> str:
        """Return the end of what the process wrote; first ask it for its `stacks`, if wanted."""
        if stacks and self._process.poll() is None:
            self._process.send_signal(signal.SIGUSR1)
            self._wait(DUMP_TIME)
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return "\n".join(f"    {line}" for line in lines[-STDERR_LINES:])

    def _wait(self, timeout: float) -> bool:
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, ChildFailed):
            # Another process of the same run: what this one has to say may be the cause.
            error.add_note(f"meanwhile {self._name}:\n{self._last_words(stacks=True)}")
        try:
            self._in.close()
            # After a failure or Ctrl-C nobody wants its answer any more.
            if kind is None and not self._wait(END_TIMEOUT):
                raise self._failure(f"did not end within {END_TIMEOUT:g} s", hung=True)
            if kind is None and self._process.returncode:
                raise self._failure(f"ended with exit code {self._process.returncode}")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
            os.close(self._out)
            self._stderr.close()
