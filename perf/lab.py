"""What a scenario's `run` is handed: processes, each started for it alone, and how hard to try."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from perf import certificates
from perf.children import START_TIMEOUT, Child, Progress
from perf.subject import subject_module

T = TypeVar("T")

# Seconds that a measuring process may take; the longest scenario in --full takes two minutes.
MEASURE_TIMEOUT = 300.0


@dataclass(frozen=True)
class Effort:
    """How hard a run tries. `rounds` overrides what each scenario takes for right."""

    name: str  # "quick", "normal" or "full"
    seconds: float  # for each figure of each round
    rounds: int  # pairs of runs

    def pick(self, quick: T, normal: T, full: T) -> T:
        """Return the one that this effort stands for."""
        return {"quick": quick, "normal": normal, "full": full}[self.name]


EFFORTS = {
    "quick": Effort("quick", 0.4, 3),
    "normal": Effort("normal", 1.0, 5),
    "full": Effort("full", 1.5, 5),
}


class ServerProcess(NamedTuple):
    """A server that listens."""

    endpoint: str
    pid: int


class Lab:
    """Starts processes for one run of a scenario.

    `transport` is "ipc" or "tcp", or one of these with "native+" before it, or "tls". `scratch` is a folder that all
    runs of the scenario share; it goes when they are over. `prefix` gives the command to run a target under, a
    profiler's say.
    """

    def __init__(
        self,
        effort: Effort,
        scratch: Path,
        transport: str = "ipc",
        progress: Progress | None = None,
        prefix: Callable[[str], Sequence[str]] = lambda target: (),
    ) -> None:
        self.effort = effort
        self.scratch = scratch
        self.transport = transport
        self.progress = progress
        self.lacking: dict[str, str] = {}
        self._prefix = prefix
        # What the processes have in theirs besides: the certificates, once there are some.
        self._environment: dict[str, str] = {}

    def lacks(self, what: str, reason: str) -> None:
        """Have the record say that `what` could not be measured, and why."""
        self.lacking[what] = reason

    def endpoint(self, folder: str) -> str:
        """Return where a server is to be, over this transport; a socket with a name is in `folder`."""
        return f"{self.transport}://{f'{folder}/s' if self.transport.endswith('ipc') else '127.0.0.1:0'}"

    def _child(self, target: str, settings: dict[str, Any]) -> Child:
        if self.transport == "tls" and not self._environment:
            self._environment = certificates.issue(self.scratch)
        return Child(target, settings, self._prefix(target), self._environment)

    @contextmanager
    def server(self, subject: str, **settings: Any) -> Iterator[ServerProcess]:
        """Run a subject's server, or any worker function ("module:function"), in its own process."""
        target = subject if ":" in subject else f"{subject_module(subject)}:serve"
        with tempfile.TemporaryDirectory(prefix="perf-") as folder:
            # Short: the path of a Unix socket has room for some hundred characters.
            with self._child(target, {"endpoint": self.endpoint(folder)} | settings) as child:
                ready = child.receive("ready", START_TIMEOUT)
                yield ServerProcess(ready["endpoint"], ready["pid"])

    def measure(
        self,
        target: str,
        server: ServerProcess | None = None,
        *,
        limit: float = MEASURE_TIMEOUT,
        **settings: Any,
    ) -> Any:
        """Run a worker function in a process of its own and return its result; `limit` in seconds."""
        if server is not None:
            settings |= {"endpoint": server.endpoint, "server_pid": server.pid}
        settings.setdefault("seconds", self.effort.seconds)
        settings.setdefault("effort", self.effort.name)
        with self._child(target, settings) as child:
            return child.receive("result", limit, self.progress)

    def together(self, target: str, server: ServerProcess, each: Sequence[dict[str, Any]]) -> list[Any]:
        """Run a worker function in several processes at once, and return their results in this order.

        Each has its own settings, and waits in `Control.wait_for_start(settings["start"])` until all are there.
        """
        with tempfile.TemporaryDirectory(prefix="perf-") as folder, ExitStack() as running:
            start = Path(folder) / "start"
            common = {"endpoint": server.endpoint, "server_pid": server.pid, "start": str(start)}
            children = [running.enter_context(self._child(target, own | common)) for own in each]
            for child in children:
                child.receive("ready", START_TIMEOUT)
            start.touch()
            return [child.receive("result", MEASURE_TIMEOUT) for child in children]
