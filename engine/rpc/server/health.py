"""Health: whether a server lives, and whether it is of use to send it more.

Every server that listens serves `Health`, to everybody; its routine needs no worker, so it answers though all are
stuck. Who gets no answer in time may take the server for dead; one that is stopping, or refuses calls, says so by that.
"""

from collections.abc import Callable

import msgspec

from ..contract.interface import Interface, operation


class HealthReport(msgspec.Struct, frozen=True):
    """How a server is.

    Fields:
        live: it works; False: it will hardly recover by itself, and is to be started again.
        ready: it takes calls; False: send new ones elsewhere for now.
        reasons: what is wrong, for people; empty if it is live and ready.
    """

    live: bool
    ready: bool
    reasons: list[str]


class Health(Interface, id="callport.Health", version=(1, 0)):
    """What every server serves to everybody: `client.bind(Health)`."""

    @operation
    def check(self) -> HealthReport:
        """Return how the server is."""
        raise NotImplementedError


class HealthRoutines:
    """Serves `Health` for one server."""

    def __init__(self, report: Callable[[], HealthReport]) -> None:
        self._report = report

    async def check(self) -> HealthReport:
        return self._report()
