"""One process of a service, as the supervisor sees it.

STARTING --says that it serves--> SERVING --is to leave--> LEAVING --ends--> ENDED      any --ends--> ENDED
"""

from enum import Enum
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext, SpawnProcess
from socket import socket

from transport import Endpoint
from transport.realtime import monotonic

from ..rpc.server.admission import ServerStatistics
from . import inside
from .inside import Counted, Leave, MakeServer, MembersAre, Ready


class ProcessState(Enum):
    """Where a process is in its life."""

    STARTING = "starting"
    SERVING = "serving"
    LEAVING = "leaving"
    ENDED = "ended"


class ServingProcess:
    """A process that serves. For the thread that supervises; others look at `state` and `statistics`."""

    def __init__(
        self,
        context: SpawnContext,
        number: int,
        make_server: MakeServer,
        own: Endpoint,
        shared: Endpoint,
        listening: socket,
        grace: float,
    ) -> None:
        #: Which of the processes it is, from 0.
        self.number: int = number
        self.state: ProcessState = ProcessState.STARTING
        #: Where it serves, it alone; "" before it does.
        self.endpoint: str = ""
        #: What its server had counted when it last said so.
        self.statistics: ServerStatistics | None = None
        self.began: float = monotonic()
        #: When it is killed, if it has not come further by then; None: never.
        self.deadline: float | None = None
        self.said: Connection
        self.said, theirs = context.Pipe()
        try:
            self._process: SpawnProcess = context.Process(
                target=inside.run, args=(make_server, own, shared, listening, grace, theirs), name=f"server-{number}"
            )
            self._process.start()
        except BaseException:
            self.said.close()
            raise
        finally:
            theirs.close()

    @property
    def sentinel(self) -> int:
        """What is readable once it has ended."""
        return self._process.sentinel

    @property
    def pid(self) -> int | None:
        """Its number in the system."""
        return self._process.pid

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return monotonic() - self.began

    def hear(self) -> bool:
        """Take what it has said; return whether it has just begun to serve."""
        began = False
        try:
            while self.said.poll():
                message = self.said.recv()
                if isinstance(message, Ready) and self.state is ProcessState.STARTING:
                    self.state, self.endpoint, self.deadline = ProcessState.SERVING, message.endpoint, None
                    began = True
                elif isinstance(message, Counted):
                    self.statistics = message.statistics
        except (OSError, EOFError):  # It has ended, or is about to.
            pass
        return began

    def send(self, message: MembersAre | Leave) -> None:
        """Say something to it; nothing if it is gone."""
        try:
            self.said.send(message)
        except OSError:
            pass

    def leave(self, grace: float, patience: float) -> None:
        """Have it end: `grace` seconds are for its calls, after `patience` more it is killed."""
        if self.state in (ProcessState.STARTING, ProcessState.SERVING):
            self.state = ProcessState.LEAVING
            self.deadline = monotonic() + grace + patience
            self.send(Leave(grace))

    def kill(self) -> None:
        """End it at once."""
        self.deadline = None
        self._process.kill()

    def ended(self) -> bool:
        """Whether it has ended; then it is released."""
        if self.state is not ProcessState.ENDED and self._process.exitcode is not None:
            self.hear()
            self.state = ProcessState.ENDED
            self.said.close()
            self._process.join()
        return self.state is ProcessState.ENDED

    @property
    def how(self) -> str:
        """How it ended, or that it runs."""
        code = self._process.exitcode
        return "runs" if code is None else f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
