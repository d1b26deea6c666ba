"""Cleanup groups: callback objects that are released together.

Theory of operation. Releasing the group takes all members out of it, stops their sources, discards what they
have queued (with cancel), waits for each until nothing of it is queued or running, disassociated callbacks
included, and closes it in the same step, so that a callback which armed its own object again brings no other.
Then it calls the cancel callback of each that was not closed before, on the thread that releases.

A member that is closed individually is a member no longer, and gets no cancel callback; but what it still has
queued or running is discarded and waited for as a member's is.

Source: "CreateThreadpoolCleanupGroup", "CloseThreadpoolCleanupGroupMembers", "CloseThreadpoolCleanupGroup".
"""

import weakref
from collections.abc import Iterable
from types import TracebackType

from transport.realtime import monotonic

from ..errors import Deadlock, Forked, InvalidHandle, InvalidState, WaitTimeout
from ..kernel.checks import check_flag, check_timeout
from ..lifecycle import Closeable
from .callback_object import CallbackObject
from .workers import listed


class CleanupGroup(Closeable):
    """A set of callback objects: each one made through an environment that names the group joins it.

    A member leaves when it is closed, though a release still waits for its callbacks; a simple callback leaves
    when it has run.
    Threads: every method may be called from any thread.
    """

    __slots__ = ("__weakref__", "_closed", "_leaving", "_members")

    def __init__(self) -> None:
        self._closed = False
        # In order of creation. Single-key operations and copying only, which are atomic.
        self._members: dict[CallbackObject, None] = {}
        # Those that were closed individually: as long as they live, which what they have queued or running sees to.
        self._leaving: weakref.WeakSet[CallbackObject] = weakref.WeakSet()

    def __len__(self) -> int:
        """The number of members."""
        return len(self._members)

    def __bool__(self) -> bool:
        """A group is true, however many members it has."""
        return True

    def __repr__(self) -> str:
        return f"<CleanupGroup {'closed' if self._closed else f'members={len(self._members)}'}>"

    def close_members(self, cancel: bool = False, context: object = None, *, timeout: float | None = None) -> None:
        """Release all members: stop their sources, wait for their callbacks, close them.

        Args: `cancel` discards what is queued and calls each member's cancel callback, once for each object,
            whatever it had queued, as `cancel_callback(object_context, context)`; not for an object that
            was closed before or a simple callback that ran. `timeout` in seconds for all of it, None for ever.
        Raises: `Deadlock` inside a callback of a member; `WaitTimeout` when the time is up: the members that
            were not released are in the group again, disarmed; `InvalidHandle` if the group is closed; `Forked`
            in a child of the process that made the members.
        Blocks: until no callback of a member is queued or running, nor one of an object that was a member until it
        was closed. Others on the same pool are not waited for. What a cancel callback raises goes to the error
        handler of the member's pool. The group can be refilled afterwards.
        Source: "CloseThreadpoolCleanupGroupMembers".
        """
        check_flag("cancel", cancel)
        timeout = check_timeout(timeout)
        if self._closed:
            raise InvalidHandle("the cleanup group is closed")
        members = list(self._members)
        everybody = members + listed(self._leaving)
        if _inherited(everybody):
            raise Forked("the members of the cleanup group were made before fork(): make new ones in the child")
        if any(each._runs_here(whole=True) for each in everybody):
            raise Deadlock("a callback cannot release its own cleanup group: it would wait for itself")
        deadline = None if timeout is None else monotonic() + timeout
        for member in members:
            self._members.pop(member, None)
            member._disarm()
        if cancel:
            for each in everybody:
                each._port.discard(each)
        for done, each in enumerate(everybody):
            try:
                retired = each._retire_when_quiet(deadline)
                if retired is None:
                    raise WaitTimeout(f"{len(everybody) - done} members were not released within {timeout} s")
            except BaseException:
                self._take_back(everybody[done:])
                raise
            if not retired:
                continue
            each._disarm()  # Its last callback may have armed it again.
            if cancel and each._cancel_callback is not None:
                try:
                    each._cancel_callback(each._context, context)
                except BaseException as error:
                    each._port.fail(error, each._owner())

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

    def _take_back(self, members: list[CallbackObject]) -> None:
        for member in members:
            self._members[member] = None
            if member.closed:
                self._leave(member)

    def _leave(self, member: CallbackObject) -> None:
        self._leaving.add(member)
        self._members.pop(member, None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not _inherited(self._members):  # In a forked child there is nothing to wait for.
            self.close_members(cancel=kind is not None)
            self.close()


def _inherited(members: Iterable[CallbackObject]) -> bool:
    return any(member._port.forked for member in members)
