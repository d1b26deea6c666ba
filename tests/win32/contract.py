"""What the tests' service offers."""

from typing import Any

from engine import Context, Interface, operation


class Desk(Interface, id="test.win32.Desk"):
    """A desk where calls are left lying until somebody ends them."""

    @operation
    def echo(self, value: Any) -> Any:
        """Return the value."""

    @operation
    def nothing(self) -> None:
        """Return nothing, asynchronously."""

    @operation
    def hold(self, key: str) -> Any:
        """Keep the call until it is finished or given up."""

    @operation
    def finish(self, key: str, value: Any) -> int:
        """Complete the call held under `key`; return what completing returned."""

    @operation
    def give_up(self, key: str, code: int) -> int:
        """Abort the call held under `key`; return what aborting returned."""

    @operation
    def misused(self, key: str) -> list[int]:
        """Return what the client's functions say of the handle held under `key`."""

    @operation
    def asked(self, key: str, until: bool) -> int:
        """Return what testing the held call for a cancel returns; `until` it is cancelled, if so told."""

    @operation
    def status_of(self, key: str) -> int:
        """Return the call status in the attributes of the held call."""

    @operation
    def raising(self, code: int) -> int:
        """Raise an exception with that number."""

    @operation
    def who(self) -> dict[str, Any]:
        """Return what the call attributes say."""

    @operation
    def server(self) -> dict[str, Any]:
        """Return what the process says of its server."""

    @operation
    def stop(self) -> int:
        """Stop listening."""

    @operation
    def allow(self, operations: list[int] | None) -> int:
        """Let clients use these management operations only; None: the default."""


class Watch(Interface, id="test.win32.Watch"):
    """Calls whose server wants to know of a cancel or a disconnect."""

    @operation
    def hold(self, key: str) -> Any:
        """Keep the call until it is finished."""

    @operation
    def patient(self, key: str) -> Any:
        """Work until the client cancels or goes; then give up."""

    @operation
    def plain(self, key: str) -> list[Any]:
        """Wait, in a routine that is not asynchronous, until the client cancels; return what it was told."""

    @operation
    def entered(self, key: str) -> None:
        """Wait until the call of that key is being served."""

    @operation
    def subscribe(self, key: str, notification: int, kind: int) -> int:
        """Subscribe the held call; return what that returned."""

    @operation
    def unsubscribe(self, key: str, notification: int) -> list[Any]:
        """Unsubscribe; return what that returned, and the count."""

    @operation
    def told(self, key: str, kind: int) -> list[Any]:
        """Wait until the held call's subscriber was told; return what it was told."""

    @operation
    def finish(self, key: str) -> int:
        """Complete the held call; return what that returned."""


class Drawer(Interface, id="test.win32.Drawer"):
    """Sheets of paper, by context handles."""

    @operation
    def open(self, name: str) -> Context[Any]:
        """Take out a new sheet."""

    @operation
    def write(self, sheet: Context[Any], line: str) -> int:
        """Add a line; return how many there are."""

    @operation(shared_context=True)
    def study(self, sheet: Context[Any], key: str) -> list[int]:
        """Share the sheet until the gate of `key` is open, lock it until that of `key leaving` is; share it again.

        Return what locking returned.
        """

    @operation
    def close(self, sheet: Context[Any]) -> None:
        """Put the sheet away."""

    @operation
    def arrived(self, key: str, count: int) -> None:
        """Wait until so many calls share a sheet under `key`."""

    @operation
    def go_on(self, key: str) -> None:
        """Open the gate of `key`."""

    @operation
    def dropped(self, name: str) -> None:
        """Wait until the sheet of that name was run down."""
