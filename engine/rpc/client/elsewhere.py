"""What a connection asks of the other servers of its client, if it has several. A client of one has none to ask."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from ..call import Call

Actions = list[Callable[[], object]]


class Elsewhere(Protocol):
    """Where the calls of one connection may go. `_locked`: under the lock that all tables of the client share.

    What is to be done outside all locks goes to `actions`.
    """

    def may_move(self, call: Call[Any]) -> bool:
        """Whether a call that has not run may go to another server."""

    def move_locked(self, call_ids: Iterable[int], actions: Actions) -> None:
        """Have calls of this connection, which are in its table, and in its queue or in none, sent by another.

        An interrupt does not keep them from that.
        """

    def answered_locked(self, status: int, call_ids: Iterable[int], actions: Actions) -> set[int]:
        """The server has answered calls with a failure; return those that go to another one instead."""

    def greeted_locked(self, actions: Actions) -> None:
        """The server takes calls."""

    def lost_locked(self, goodbye: bool, actions: Actions) -> None:
        """The server takes no calls: it has said `goodbye`, or the connection is gone."""

    def unreachable(self, reason: str) -> None:
        """An attempt to connect has failed."""
