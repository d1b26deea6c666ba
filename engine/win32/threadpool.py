"""Thread pools: work, timers, waits, I/O, their environment, cleanup groups, what a running callback may say of itself.

Theory of operation. A callback gets the running instance first, then the context that its object was made with. What
can fail for a parameter fails when the object is made: the function returns None and sets the last error. Functions
that return nothing cannot fail on Windows; here they raise what the engine raises if they are misused (an object that
was closed, a wait in its own callback, which on Windows would hang). `TP_CALLBACK_ENVIRON` is the engine's
`Environment`, read when an object is made: later changes do not reach that object, a wrong value fails its making.

Due times and time limits are in units of 100 ns, as in a FILETIME: negative counts from now, positive is absolute, 0 is
now, and None disarms (a timer) or is no limit (a wait).

Source: "CreateThreadpool", "CloseThreadpool", "SetThreadpoolThreadMaximum", "SetThreadpoolThreadMinimum",
"SetThreadpoolStackInformation", "TrySubmitThreadpoolCallback", "CreateThreadpoolWork", "CreateThreadpoolCleanupGroup",
"CallbackMayRunLong", "InitializeThreadpoolEnvironment", "DestroyThreadpoolEnvironment", the
"SetThreadpoolCallback..." family, "CreateThreadpoolTimer", "SetThreadpoolTimer", "SetThreadpoolTimerEx",
"IsThreadpoolTimerSet", "CreateThreadpoolWait", "SetThreadpoolWait", "SetThreadpoolWaitEx", "CreateThreadpoolIo",
"StartThreadpoolIo", "CancelThreadpoolIo" and their siblings.
"""

from collections.abc import Callable
from typing import Any

from .. import (
    CallbackInstance,
    CleanupGroup,
    CompletionPacket,
    Environment,
    Event,
    Io,
    Mutex,
    Semaphore,
    Status,
    ThreadPool,
    Timer,
    Wait,
    Work,
    current_callback,
    submit_callback,
)
from .constants import ERROR_NOT_SUPPORTED, ERROR_TOO_MANY_THREADS
from .errors import SetLastError, fails_with
from .values import due_time, named, routine, word

__all__ = [
    "CallbackMayRunLong", "CancelThreadpoolIo", "CloseThreadpool", "CloseThreadpoolCleanupGroup",
    "CloseThreadpoolCleanupGroupMembers", "CloseThreadpoolIo", "CloseThreadpoolTimer", "CloseThreadpoolWait",
    "CloseThreadpoolWork", "CreateThreadpool", "CreateThreadpoolCleanupGroup", "CreateThreadpoolIo",
    "CreateThreadpoolTimer", "CreateThreadpoolWait", "CreateThreadpoolWork", "DestroyThreadpoolEnvironment",
    "DisassociateCurrentThreadFromCallback", "FreeLibraryWhenCallbackReturns", "InitializeThreadpoolEnvironment",
    "IsThreadpoolTimerSet", "LeaveCriticalSectionWhenCallbackReturns", "QueryThreadpoolStackInformation",
    "ReleaseMutexWhenCallbackReturns", "ReleaseSemaphoreWhenCallbackReturns", "SetEventWhenCallbackReturns",
    "SetThreadpoolCallbackCleanupGroup", "SetThreadpoolCallbackLibrary", "SetThreadpoolCallbackPersistent",
    "SetThreadpoolCallbackPool", "SetThreadpoolCallbackPriority", "SetThreadpoolCallbackRunsLong",
    "SetThreadpoolStackInformation", "SetThreadpoolThreadMaximum", "SetThreadpoolThreadMinimum", "SetThreadpoolTimer",
    "SetThreadpoolTimerEx", "SetThreadpoolWait", "SetThreadpoolWaitEx", "StartThreadpoolIo", "SubmitThreadpoolWork",
    "TP_CALLBACK_ENVIRON", "TP_CALLBACK_INSTANCE", "TP_CLEANUP_GROUP", "TP_IO", "TP_POOL", "TP_TIMER", "TP_WAIT",
    "TP_WORK", "TrySubmitThreadpoolCallback", "WaitForThreadpoolIoCallbacks", "WaitForThreadpoolTimerCallbacks",
    "WaitForThreadpoolWaitCallbacks", "WaitForThreadpoolWorkCallbacks",
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
    """Refuse to say the size of the threads' stacks, as it cannot be set. Returns: False, with the last error 50."""
    SetLastError(ERROR_NOT_SUPPORTED)
    return False


# Simple callbacks


def _simple(function: Callable[..., object]) -> Callable[..., None]:
    def callback(pv: Any) -> None:
        function(current_callback(), pv)

    return named(callback, function)


@fails_with(False)
def TrySubmitThreadpoolCallback(
    pfns: Callable[[CallbackInstance, Any], object], pv: Any, pcbe: Environment | None
) -> bool:
    """Queue `pfns(instance, pv)` once. Returns: True; or False with the last error 87, 6 or 1816 (queue full)."""
    submit_callback(_simple(routine("pfns", pfns)), pv, environment=pcbe, context=pv)
    return True


# Work


def _with_object(function: Callable[..., object]) -> Callable[..., None]:
    def callback(pv: Any) -> None:
        instance = current_callback()
        function(instance, pv, instance.source)

    return named(callback, function)


@fails_with(None)
def CreateThreadpoolWork(
    pfnwk: Callable[[CallbackInstance, Any, Work], object], pv: Any, pcbe: Environment | None
) -> Work | None:
    """Make a work object: each submission calls `pfnwk(instance, pv, work)`.

    Returns: it; or None with the last error 87 or 6.
    """
    return Work(_with_object(routine("pfnwk", pfnwk)), pv, environment=pcbe, context=pv)


def SubmitThreadpoolWork(pwk: Work) -> None:
    """Queue the callback once more. Blocks: only while a million callbacks are queued."""
    pwk.submit()


def WaitForThreadpoolWorkCallbacks(pwk: Work, fCancelPendingCallbacks: bool) -> None:
    """Wait until no callback of the object is queued or running, first discarding what is queued if asked to."""
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


TP_TIMER = Timer
TP_WAIT = Wait
TP_IO = Io

# Timers


@fails_with(None)
def CreateThreadpoolTimer(
    pfnti: Callable[[CallbackInstance, Any, Timer], object], pv: Any, pcbe: Environment | None
) -> Timer | None:
    """Make a timer: each expiry calls `pfnti(instance, pv, timer)`. Returns: it; or None, last error 87 or 6."""
    return Timer(_with_object(routine("pfnti", pfnti)), pv, environment=pcbe, context=pv)


def SetThreadpoolTimer(pti: Timer, pftDueTime: int | None, msPeriod: int, msWindowLength: int) -> None:
    """Set a timer, or disarm it with None; what is queued already still runs."""
    SetThreadpoolTimerEx(pti, pftDueTime, msPeriod, msWindowLength)


def SetThreadpoolTimerEx(pti: Timer, pftDueTime: int | None, msPeriod: int, msWindowLength: int) -> bool:
    """Set a timer, or disarm it with None.

    Args:
        msPeriod: milliseconds between later expiries, 0 for one only.
        msWindowLength: milliseconds by which one may be late, so that it can be grouped with others.
    Returns: True if an expiry was withdrawn; False: a callback may be queued or running.
    """
    due = None if pftDueTime is None else due_time(pftDueTime)
    return pti.set(due, word("msPeriod", msPeriod) / 1000, word("msWindowLength", msWindowLength) / 1000)


def IsThreadpoolTimerSet(pti: Timer) -> bool:
    """Whether the timer has a setting: True even after a one-shot expired."""
    return pti.is_set()


def WaitForThreadpoolTimerCallbacks(pti: Timer, fCancelPendingCallbacks: bool) -> None:
    """Wait until no callback of the timer is queued or running; one that is not due is not waited for."""
    pti.wait(cancel_pending=bool(fCancelPendingCallbacks))


def CloseThreadpoolTimer(pti: Timer) -> None:
    """Close the timer. The safe order is: set to None, wait with cancel, close."""
    pti.close()


# Waits


def _with_result(function: Callable[..., object]) -> Callable[..., None]:
    def callback(pv: Any, status: Status) -> None:
        instance = current_callback()
        function(instance, pv, instance.source, status)

    return named(callback, function)


@fails_with(None)
def CreateThreadpoolWait(
    pfnwa: Callable[[CallbackInstance, Any, Wait, int], object], pv: Any, pcbe: Environment | None
) -> Wait | None:
    """Make a wait object: each wait that ends calls `pfnwa(instance, pv, wait, result)`, with 0 or 258.

    The result is 735 if what was waited for was closed. Returns: it; or None with the last error 87 or 6.
    """
    return Wait(_with_result(routine("pfnwa", pfnwa)), pv, environment=pcbe, context=pv)


def SetThreadpoolWait(pwa: Wait, h: Any, pftTimeout: int | None) -> None:
    """Wait once for `h`, or with None for nothing any more; a signal that comes later stays in its object."""
    SetThreadpoolWaitEx(pwa, h, pftTimeout)


def SetThreadpoolWaitEx(pwa: Wait, h: Any, pftTimeout: int | None) -> bool:
    """Wait once for `h`, or with None for nothing any more.

    Args: `pftTimeout` is the time limit, None for none; it is not looked at if `h` is None.
    Returns: True if a pending wait was withdrawn; False: a callback may be queued or running.
    """
    if h is None or pftTimeout is None:
        return pwa.set(h)
    return pwa.set(h, due_time(pftTimeout) if pftTimeout else 0.0)


def WaitForThreadpoolWaitCallbacks(pwa: Wait, fCancelPendingCallbacks: bool) -> None:
    """Wait until no callback of the object is queued or running; the registered wait itself is not waited for."""
    pwa.wait(cancel_pending=bool(fCancelPendingCallbacks))


def CloseThreadpoolWait(pwa: Wait) -> None:
    """Close the object. The safe order is: set to None, wait with cancel, close."""
    pwa.close()


# I/O


def _with_packet(function: Callable[..., object]) -> Callable[..., None]:
    def callback(pv: Any, packet: CompletionPacket) -> None:
        instance = current_callback()
        function(instance, pv, packet.overlapped, packet.status, packet.transferred, instance.source)

    return named(callback, function)


@fails_with(None)
def CreateThreadpoolIo(
    fl: Any,
    pfnio: Callable[[CallbackInstance, Any, Any, int, Any, Io], object],
    pv: Any,
    pcbe: Environment | None,
) -> Io | None:
    """Bind a source to a new I/O object.

    Each announced operation that completes calls `pfnio(instance, pv, overlapped, result, transferred, io)`; `result`
    is 0 or its error number, 995 if it was cancelled.
    Returns: it; or None with the last error 87 for a source that is bound already or cannot be, 6 for one that is
        closed.
    """
    return Io(fl, _with_packet(routine("pfnio", pfnio)), pv, environment=pcbe, context=pv)


def StartThreadpoolIo(pio: Io) -> None:
    """Announce one operation, before beginning it."""
    pio.start()


def CancelThreadpoolIo(pio: Io) -> None:
    """Take an announcement back: the operation failed at once, or completed at once without a packet."""
    pio.cancel()


def WaitForThreadpoolIoCallbacks(pio: Io, fCancelPendingCallbacks: bool) -> None:
    """Wait until no operation is announced and no callback queued or running; with cancel forget what is announced."""
    pio.wait(cancel_pending=bool(fCancelPendingCallbacks))


def CloseThreadpoolIo(pio: Io) -> None:
    """Close the object, after its source."""
    pio.close()
