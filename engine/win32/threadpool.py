"""Thread pools, callbacks and their environment, cleanup groups, and what a running callback may say of itself.

Theory of operation. A callback gets the running instance first, then the context that its object was made with. What
can fail for a parameter fails when the object is made: the function returns None and sets the last error. Functions
that return nothing cannot fail on Windows; here they raise what the engine raises if they are misused (an object that
was closed, a wait in its own callback, which on Windows would hang). `TP_CALLBACK_ENVIRON` is the engine's
`Environment`, read when an object is made: later changes do not reach that object, a wrong value fails its making.

Source: "CreateThreadpool", "CloseThreadpool", "SetThreadpoolThreadMaximum", "SetThreadpoolThreadMinimum",
"SetThreadpoolStackInformation", "TrySubmitThreadpoolCallback", "CreateThreadpoolWork", "CreateThreadpoolCleanupGroup",
"CallbackMayRunLong", "InitializeThreadpoolEnvironment", "DestroyThreadpoolEnvironment", the
"SetThreadpoolCallback..." family, and their siblings.
"""

from collections.abc import Callable
from typing import Any

from .. import (
    CallbackInstance,
    CleanupGroup,
    Environment,
    Event,
    Mutex,
    Semaphore,
    ThreadPool,
    Work,
    current_callback,
    submit_callback,
)
from .constants import ERROR_NOT_SUPPORTED, ERROR_TOO_MANY_THREADS
from .errors import SetLastError, fails_with
from .values import routine, word

__all__ = [
    "CallbackMayRunLong", "CloseThreadpool", "CloseThreadpoolCleanupGroup", "CloseThreadpoolCleanupGroupMembers",
    "CloseThreadpoolWork", "CreateThreadpool", "CreateThreadpoolCleanupGroup", "CreateThreadpoolWork",
    "DestroyThreadpoolEnvironment", "DisassociateCurrentThreadFromCallback", "FreeLibraryWhenCallbackReturns",
    "InitializeThreadpoolEnvironment", "LeaveCriticalSectionWhenCallbackReturns", "QueryThreadpoolStackInformation",
    "ReleaseMutexWhenCallbackReturns", "ReleaseSemaphoreWhenCallbackReturns", "SetEventWhenCallbackReturns",
    "SetThreadpoolCallbackCleanupGroup", "SetThreadpoolCallbackLibrary", "SetThreadpoolCallbackPersistent",
    "SetThreadpoolCallbackPool", "SetThreadpoolCallbackPriority", "SetThreadpoolCallbackRunsLong",
    "SetThreadpoolStackInformation", "SetThreadpoolThreadMaximum", "SetThreadpoolThreadMinimum",
    "SubmitThreadpoolWork", "TP_CALLBACK_ENVIRON", "TP_CALLBACK_INSTANCE", "TP_CLEANUP_GROUP", "TP_POOL", "TP_WORK",
    "TrySubmitThreadpoolCallback", "WaitForThreadpoolWorkCallbacks",
]  # fmt: skip

TP_CALLBACK_ENVIRON = Environment


def InitializeThreadpoolEnvironment(pcbe: Environment) -> None:
    """Give an environment its defaults: the process's pool, normal priority, no group."""
    defaults = Environment()
    for name in Environment.__struct_fields__:
        setattr(pcbe, name, getattr(defaults, name))


def DestroyThreadpoolEnvironment(pcbe: Environment) -> None:
    """Be done with an environment; objects made with it are not touched. It refers to nothing any more."""
    InitializeThreadpoolEnvironment(pcbe)


def SetThreadpoolCallbackPool(pcbe: Environment, ptpp: ThreadPool) -> None:
    """Have callbacks run in this pool."""
    pcbe.pool = ptpp


def SetThreadpoolCallbackPriority(pcbe: Environment, Priority: int) -> None:
    """Set the priority: `TP_CALLBACK_PRIORITY_HIGH`, `..._NORMAL` or `..._LOW`; making an object fails with another."""
    pcbe.priority = Priority


def SetThreadpoolCallbackRunsLong(pcbe: Environment) -> None:
    """Treat each callback as one that may run long."""
    pcbe.runs_long = True


def SetThreadpoolCallbackPersistent(pcbe: Environment) -> None:
    """Have callbacks run on threads that never exit."""
    pcbe.persistent = True


def SetThreadpoolCallbackLibrary(pcbe: Environment, mod: object) -> None:
    """Keep `mod`, any object, alive as long as an object made with the environment."""
    pcbe.keep_alive = mod


def SetThreadpoolCallbackCleanupGroup(
    pcbe: Environment, ptpcg: CleanupGroup, pfng: Callable[[Any, Any], object] | None
) -> None:
    """Have objects join a cleanup group, which calls `pfng(object_context, cleanup_context)` when it cancels one."""
    pcbe.cleanup_group = ptpcg
    pcbe.cancel_callback = pfng


TP_POOL = ThreadPool
TP_WORK = Work
TP_CLEANUP_GROUP = CleanupGroup
TP_CALLBACK_INSTANCE = CallbackInstance


# Pools


@fails_with(None)
def CreateThreadpool(reserved: None) -> ThreadPool | None:
    """Make a pool of at most 500 threads, which is closed by `CloseThreadpool`."""
    return ThreadPool()


def CloseThreadpool(ptpp: ThreadPool) -> None:
    """Close a pool: what is queued still runs, then its threads end. Returns at once."""
    ptpp.close()


def SetThreadpoolThreadMaximum(ptpp: ThreadPool, cthrdMost: int) -> None:
    """Have at most so many threads; 0 is taken as 1."""
    ptpp.set_maximum(word("cthrdMost", cthrdMost))


@fails_with(False)
def SetThreadpoolThreadMinimum(ptpp: ThreadPool, cthrdMic: int) -> bool:
    """Keep at least so many threads, started now. Returns: False if they could not be started."""
    return ptpp.set_minimum(word("cthrdMic", cthrdMic))


def SetThreadpoolStackInformation(ptpp: ThreadPool, ptpsi: object) -> bool:
    """Refuse to set the size of the threads' stacks: Python has one size for the process, `threading.stack_size`.

    Returns: False, with the last error 50.
    """
    SetLastError(ERROR_NOT_SUPPORTED)
    return False


def QueryThreadpoolStackInformation(ptpp: ThreadPool, ptpsi: object) -> bool:
    """Refuse to tell the size of the threads' stacks, as it cannot be set. Returns: False, with the last error 50."""
    SetLastError(ERROR_NOT_SUPPORTED)
    return False


# Simple callbacks


def _run_simple(pfns: Callable[[CallbackInstance, Any], object], pv: Any) -> None:
    pfns(current_callback(), pv)


@fails_with(False)
def TrySubmitThreadpoolCallback(
    pfns: Callable[[CallbackInstance, Any], object], pv: Any, pcbe: Environment | None
) -> bool:
    """Queue `pfns(instance, pv)` once. Returns: True; or False with the last error 87, 6 or 1816 (queue full)."""
    submit_callback(_run_simple, routine("pfns", pfns), pv, environment=pcbe, context=pv)
    return True


# Work


def run_with_object(function: Callable[[CallbackInstance, Any, Any], object], pv: Any) -> None:
    """Run the callback of a work or timer object."""
    instance = current_callback()
    function(instance, pv, instance.source)


@fails_with(None)
def CreateThreadpoolWork(
    pfnwk: Callable[[CallbackInstance, Any, Work], object], pv: Any, pcbe: Environment | None
) -> Work | None:
    """Make a work object: each submission calls `pfnwk(instance, pv, work)`.

    Returns: it; or None with the last error 87 or 6.
    """
    return Work(run_with_object, routine("pfnwk", pfnwk), pv, environment=pcbe, context=pv)


def SubmitThreadpoolWork(pwk: Work) -> None:
    """Queue the callback once more. Blocks: only while a million callbacks are queued."""
    pwk.submit()


def WaitForThreadpoolWorkCallbacks(pwk: Work, fCancelPendingCallbacks: bool) -> None:
    """Wait until no callback of the object is queued or running, first discarding what is queued if so told."""
    pwk.wait(cancel_pending=bool(fCancelPendingCallbacks))


def CloseThreadpoolWork(pwk: Work) -> None:
    """Close the object; what is queued still runs. Does not wait."""
    pwk.close()


# Cleanup groups


@fails_with(None)
def CreateThreadpoolCleanupGroup() -> CleanupGroup | None:
    """Make a cleanup group, which objects join through their environment."""
    return CleanupGroup()


def CloseThreadpoolCleanupGroupMembers(
    ptpcg: CleanupGroup, fCancelPendingCallbacks: bool, pvCleanupContext: Any
) -> None:
    """Release all members: wait for their callbacks, or discard what is queued and call their cancel callbacks."""
    ptpcg.close_members(bool(fCancelPendingCallbacks), pvCleanupContext)


def CloseThreadpoolCleanupGroup(ptpcg: CleanupGroup) -> None:
    """Close a group, which must have no members."""
    ptpcg.close()


# The running callback, said by its own thread


@fails_with(False)
def CallbackMayRunLong(pci: CallbackInstance) -> bool:
    """Say that this callback will take long, so that it holds up no other.

    Returns: False, with the last error 565, if there is no thread for the others: information, not refusal.
    """
    if pci.may_run_long():
        return True
    SetLastError(ERROR_TOO_MANY_THREADS)
    return False


def DisassociateCurrentThreadFromCallback(pci: CallbackInstance) -> None:
    """Stop counting for those who wait for the object's callbacks; the cleanup group still counts this one."""
    pci.disassociate()


def SetEventWhenCallbackReturns(pci: CallbackInstance, evt: Event) -> None:
    """Set the event after this callback."""
    pci.set_event_when_returns(evt)


def ReleaseSemaphoreWhenCallbackReturns(pci: CallbackInstance, sem: Semaphore, crel: int) -> None:
    """Release the semaphore by `crel` after this callback."""
    pci.release_semaphore_when_returns(sem, crel)


def ReleaseMutexWhenCallbackReturns(pci: CallbackInstance, mut: Mutex) -> None:
    """Release the mutex, which this thread owns, after this callback."""
    pci.release_mutex_when_returns(mut)


def LeaveCriticalSectionWhenCallbackReturns(pci: CallbackInstance, pcs: Any) -> None:
    """Release `pcs`, a lock that this thread holds, after this callback."""
    pci.leave_when_returns(pcs)


def FreeLibraryWhenCallbackReturns(pci: CallbackInstance, mod: Callable[[], object]) -> None:
    """Call `mod()` last after this callback. Different from Windows, where it is a module to unload."""
    pci.call_when_returns(mod)
