"""What the tests' service offers: a probe to be called, and a control that says how held calls end."""

import dataclasses
import datetime
import enum
import uuid
from typing import Any

import msgspec

from engine import Interface, operation


class Point(msgspec.Struct):
    """A Struct to send."""

    x: int
    y: int = 0


@dataclasses.dataclass
class Account:
    """A dataclass to send."""

    owner: str
    balance: float
    tags: list[str] = dataclasses.field(default_factory=list)


class Colour(enum.Enum):
    """An enum to send."""

    RED = "red"
    BLUE = "blue"


class Probe(Interface, id="test.Probe", version=(1, 2)):
    """Operations of every sort."""

    @operation
    def echo(self, value: Any) -> Any:
        """Return the value."""

    @operation
    def add(self, left: int, right: int = 10) -> int:
        """Return the sum."""

    @operation
    def nothing(self) -> None:
        """Return nothing."""

    @operation
    def hold(self, key: str) -> Any:
        """A manager routine: keeps the call until the control ends it."""

    @operation
    def hold_coroutine(self, key: str) -> Any:
        """An `async def` routine that waits until the control ends it."""

    @operation
    def fail(self, kind: str, text: str) -> int:
        """Raise the exception of that name."""

    @operation
    def fail_with_status(self, status: int) -> int:
        """Raise a RemoteFault that carries `status`."""

    @operation
    def mistyped(self) -> int:
        """Return what the annotation does not allow."""

    @operation
    def unsendable(self, kind: str) -> Any:
        """Return something that cannot be encoded."""

    @operation
    def point(self, point: Point) -> Point:
        """Return the point mirrored."""

    @operation
    def account(self, account: Account) -> Account:
        """Return the account with its balance doubled."""

    @operation
    def plain(
        self, colour: Colour, day: datetime.date, number: uuid.UUID, maybe: int | None, many: dict[str, list[int]]
    ) -> tuple[Colour, datetime.date, uuid.UUID, int | None, dict[str, list[int]]]:
        """Return the arguments."""

    @operation
    def checksum(self, data: bytes) -> int:
        """Return the sum of the bytes."""

    @operation
    def reversed_bytes(self, data: bytes) -> bytes:
        """Return the bytes backwards."""

    @operation
    def zeros(self, size: int) -> bytes:
        """Return so many."""

    @operation
    def filled(self, size: int) -> bytes:
        """Return so many, which are no zeros."""

    @operation
    def viewed(self, data: memoryview) -> memoryview:
        """Return the same bytes."""

    @operation
    def two_large(self, left: bytes, name: str, right: bytes) -> tuple[int, str, int]:
        """Return the lengths."""

    @operation
    def who(self) -> dict[str, Any]:
        """Return the attributes of the call, and what `current_call` says of it."""

    @operation
    def time_left(self) -> float | None:
        """Return how long the client waits."""

    @operation
    def nested(self, endpoint: str, depth: int) -> int:
        """Call `nested` of the server at `endpoint` with one depth less; return the depth reached."""

    @operation(name="renamed")
    def other_name(self) -> str:
        """An operation with a name of its own on the wire."""

    @operation(idempotent=True)
    def again(self, value: Any) -> Any:
        """Return the value; may run twice."""

    @operation(idempotent=True)
    def hold_again(self, key: str) -> Any:
        """As `hold`, noted, and it may run twice."""

    @operation(one_way=True)
    def note(self, key: str) -> None:
        """Count the key; nothing comes back."""


class Control(Interface, id="test.Control"):
    """Says how held calls end, and tells what the service has seen."""

    @operation
    def arrived(self, key: str) -> None:
        """Return once a call is held under `key`."""

    @operation
    def complete(self, key: str, value: Any = None) -> int:
        """Complete the held call from another thread; return the status that `complete` raised, or 0."""

    @operation
    def abort(self, key: str, status: int, text: str = "") -> int:
        """Abort the held call; return the status that `abort` raised, or 0."""

    @operation
    def close_twice(self, key: str, first: str, second: str) -> tuple[int, int]:
        """Close the held call by two of "complete" and "abort"; return both statuses."""

    @operation
    def close_at_once(self, key: str, threads: int) -> list[int]:
        """Complete the held call from several threads at once; return their statuses, sorted."""

    @operation
    def seen(self, key: str) -> tuple[bool, bool, int]:
        """Return of the held call: cancelled, disconnected, and the status in its attributes."""

    @operation
    def seen_cancelled(self, key: str) -> None:
        """Return once the held call was seen to be cancelled."""

    @operation
    def seen_disconnected(self, key: str) -> None:
        """Return once the client of the held call was seen to be gone."""

    @operation
    def noted(self, key: str) -> int:
        """Return how many notes of `key` there were, once there is one."""

    @operation
    def echoed(self) -> list[Any]:
        """Return what `echo` was given, in that order."""


class Adder(Interface, id="test.Adder", version=(2, 3)):
    """A small contract."""

    @operation
    def add(self, left: int, right: int) -> int:
        """Return the sum."""
