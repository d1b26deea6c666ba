"""Cleanup groups: callback objects that are released together.

Theory of operation. Releasing the group takes all members out of it, stops their sources, discards what they
have queued (with cancel), waits for each until nothing of it is queued or running, disassociated callbacks
included, and then calls the cancel callback of each that was not closed meanwhile, on the thread that
releases.

Source: "CreateThreadpoolCleanupGroup", "CloseThreadpoolCleanupGroupMembers", "CloseThreadpoolCleanupGroup".
"""

from time import monotonic
from types import TracebackType
from typing import Self

from ..kernel.errors import Deadlock, InvalidHandle, InvalidState, WaitTimeout
from .pool import check_timeout
from .source import CallbackObject


class CleanupGroup:
    """A set of callback objects: each one made through an environment that names the group joins it.

    A member leaves when it is closed; a simple callback leaves when it has run.
    Threads: every method may be called from any thread.
    """

    __slots__ = ("__weakref__", "_closed", "_members")

    def __init__(self) -> None:
        self._closed = False
        # In order of creation. Single-key operations and copying only, which are atomic.
        self._members: dict[CallbackObject, None] = {}

    def __len__(self) -> int:
        """The number of members."""
        return len(self._members)

    def __bool__(self) -> bool:
        """A group is true, however many members it has."""
        return True

    def __repr__(self) -> str:
        return f"<CleanupGroup {'closed' if self._closed else f'members={len(self._members)}'}>"

    def close_members(
        self, cancel: bool = False, context: object = None, *, timeout: float | None = None
    ) -> None:
        """Release all members: stop their sources, wait for their callbacks, close them.

        Args: `cancel` discards what is queued and calls each member's cancel callback, once for each object,
            whatever it had queued, as `cancel_callback(object_context, context)`; not for an object that
            closed itself or a simple callback that ran. `timeout` in seconds for all of it, None for ever.
        Raises: `Deadlock` inside a callback of a member; `WaitTimeout` when the time is up: the members that
            were not released are in the group again, disarmed; `InvalidHandle` if the group is closed.
        Blocks: until no callback of a member is queued or running. Others on the same pool are not waited
        for. What a cancel callback raises goes to the error handler of the member's pool. The group can be
        refilled afterwards. Source: "CloseThreadpoolCleanupGroupMembers".
        """
        check_timeout(timeout)
        if self._closed:
            raise InvalidHandle("the cleanup group is closed")
        members = list(self._members)
        if any(member._runs_here(whole=True) for member in members):
            raise Deadlock("a callback cannot release its own cleanup group: it would wait for itself")
        deadline = None if timeout is None else monotonic() + timeout
        for member in members:
            self._members.pop(member, None)
            member._disarm()
        if cancel:
            for member in members:
                member._port.discard(member)
        for done, member in enumerate(members):
            left = None if deadline is None else max(0.0, deadline - monotonic())
            try:
                quiet = member._wait_quiet(left, whole=True)
            except BaseException:
                self._members.update(dict.fromkeys(members[done:]))
                raise
            if not quiet:
                self._members.update(dict.fromkeys(members[done:]))
                raise WaitTimeout(f"{len(members) - done} members were not released within {timeout} s")
            if member._retire() and cancel and member._cancel_callback is not None:
                try:
                    member._cancel_callback(member._context, context)
                except BaseException as error:
                    member._port.fail(error, member)

    def close(self) -> None:
        """Close the group, which must be empty.

        Raises: `InvalidState` if it has members: release them first. Closing twice does nothing.
        Source: "CloseThreadpoolCleanupGroup".
        """
        if self._members:
            raise InvalidState(f"the cleanup group has {len(self._members)} members: release them first")
        self._closed = True

    def _join(self, member: CallbackObject) -> None:
        if self._closed:
            raise InvalidHandle("the cleanup group is closed")
        self._members[member] = None

    def _leave(self, member: CallbackObject) -> None:
        self._members.pop(member, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_members(cancel=kind is not None)
        self.close()
