"""What the tests' service offers."""

from typing import Any

from engine import Interface, operation


class Desk(Interface, id="test.win32.Desk"):
    """A desk where calls are left lying until somebody ends them."""

    @operation
    def echo(self, value: Any) -> Any:
        """Return the value."""
        raise NotImplementedError

    @operation
    def nothing(self) -> None:
        """Return nothing, asynchronously."""
        raise NotImplementedError

    @operation
    def hold(self, key: str) -> Any:
        """Keep the call until it is finished or given up."""
        raise NotImplementedError

    @operation
    def finish(self, key: str, value: Any) -> int:
        """Complete the call held under `key`; return what completing returned."""
        raise NotImplementedError

    @operation
    def give_up(self, key: str, code: int) -> int:
        """Abort the call held under `key`; return what aborting returned."""
        raise NotImplementedError

    @operation
    def misused(self, key: str) -> list[int]:
        """Return what the client's functions say of the handle held under `key`."""
        raise NotImplementedError

    @operation
    def asked(self, key: str, until: bool) -> int:
        """Return what testing the held call for a cancel returns; `until` it is cancelled, if so told."""
        raise NotImplementedError

    @operation
    def status_of(self, key: str) -> int:
        """Return the call status in the attributes of the held call."""
        raise NotImplementedError

    @operation
    def raising(self, code: int) -> int:
        """Raise an exception with that number."""
        raise NotImplementedError

    @operation
    def who(self) -> dict[str, Any]:
        """Return what the call attributes say."""
        raise NotImplementedError

    @operation
    def server(self) -> dict[str, Any]:
        """Return what the process says of its server."""
        raise NotImplementedError

    @operation
    def stop(self) -> int:
        """Stop listening."""
        raise NotImplementedError
