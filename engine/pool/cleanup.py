"""Cleanup groups: callback objects that are released together.

Theory of operation. Releasing the group takes all members out of it, stops their sources, discards what they
have queued (with cancel), waits for each until nothing of it is queued or running, disassociated callbacks
included, and closes it in the same step, so that a callback which armed its own object again brings no other.
Then it calls the cancel callback of each that was not closed before, on the thread that releases.

A member that is closed individually is a member no longer, and gets no cancel callback; but what it still has
queued or running is discarded and waited for as a member's is.

Source: "CreateThreadpoolCleanupGroup", "CloseThreadpoolCleanupGroupMembers", "CloseThreadpoolCleanupGroup".
"""

from collections.abc import Iterable
from types import TracebackType

from ..errors import Deadlock, Forked, InvalidHandle, InvalidState, WaitTimeout
from ..kernel.checks import Deadline, check_flag, check_timeout
from ..lifecycle import Closeable
from .core import CallbackCore, GroupMembers
from .running import runs_here


class CleanupGroup(Closeable):
    """A set of callback objects: each one made through an environment that names the group joins it.

    A member leaves when it is closed, though a release still waits for its callbacks; a simple callback leaves
    when it has run.
    Threads: every method may be called from any thread.
    """

    __slots__ = ("__weakref__", "_members")

    def __init__(self) -> None:
        self._members = GroupMembers()

    def __len__(self) -> int:
        """The number of members."""
        return len(self._members.present)

    def __bool__(self) -> bool:
        """A group is true, however many members it has."""
        return True

    def __repr__(self) -> str:
        return f"<CleanupGroup {'closed' if self._members.closed else f'members={len(self)}'}>"

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
        group = self._members
        if group.closed:
            raise InvalidHandle("the cleanup group is closed")
        members, everybody = list(group.present), group.everybody()
        if _inherited(everybody):
            raise Forked("the members of the cleanup group were made before fork(): make new ones in the child")
        if any(runs_here(core, whole=True) for core, _ in everybody):
            raise Deadlock("a callback cannot release its own cleanup group: it would wait for itself")
        deadline = Deadline(timeout)
        for member in members:
            group.present.pop(member, None)
            member.disarm()
        if cancel:
            for core, _ in everybody:
                core.port.discard(core)
        for done, (core, owner) in enumerate(everybody):
            try:
                retired = core.retire_when_quiet(deadline)
                if retired is None:
                    raise WaitTimeout(f"{len(everybody) - done} members were not released within {timeout} s")
            except BaseException:
                group.take_back(everybody[done:])
                raise
            if not retired:
                continue
            core.disarm()  # Its last callback may have armed it again.
            if cancel and core.cancel_callback is not None:
                try:
                    core.cancel_callback(core.context, context)
                except BaseException as error:
                    core.port.fail(error, owner)

    def close(self) -> None:
        """Close the group, which must be empty.

        Raises: `InvalidState` if it has members: release them first. Closing twice does nothing.
        Source: "CloseThreadpoolCleanupGroup".
        """
        if self._members.present:
            raise InvalidState(f"the cleanup group has {len(self)} members: release them first")
        self._members.closed = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not _inherited(self._members.present.items()):  # In a forked child there is nothing to wait for.
            self.close_members(cancel=kind is not None)
            self.close()


def _inherited(members: Iterable[tuple[CallbackCore, object]]) -> bool:
    return any(core.port.forked for core, _ in members)


def members_of(group: CleanupGroup) -> GroupMembers:
    """Return what belongs to `group`: for the objects that join it."""
    return group._members
