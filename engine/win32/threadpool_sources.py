"""Callback objects with a source of their own: timers, waits and I/O.

Theory of operation. Due times and time limits are in units of 100 ns, as in a FILETIME: negative counts from now,
positive is absolute, 0 is now, and None disarms (a timer) or is no limit (a wait). Otherwise as in threadpool.py.

Source: "CreateThreadpoolTimer", "SetThreadpoolTimer", "SetThreadpoolTimerEx", "IsThreadpoolTimerSet",
"CreateThreadpoolWait", "SetThreadpoolWait", "SetThreadpoolWaitEx", "CreateThreadpoolIo", "StartThreadpoolIo",
"CancelThreadpoolIo" and their siblings.
"""

from collections.abc import Callable
from typing import Any

from .. import (
    CallbackInstance,
    CompletionPacket,
    Environment,
    Io,
    Status,
    Timer,
    Wait,
    current_callback,
)
from .errors import fails_with
from .threadpool import run_with_object
from .values import due_time, routine, word

__all__ = [
    "CancelThreadpoolIo", "CloseThreadpoolIo", "CloseThreadpoolTimer", "CloseThreadpoolWait", "CreateThreadpoolIo",
    "CreateThreadpoolTimer", "CreateThreadpoolWait", "IsThreadpoolTimerSet", "SetThreadpoolTimer",
    "SetThreadpoolTimerEx", "SetThreadpoolWait", "SetThreadpoolWaitEx", "StartThreadpoolIo", "TP_IO", "TP_TIMER",
    "TP_WAIT", "WaitForThreadpoolIoCallbacks", "WaitForThreadpoolTimerCallbacks", "WaitForThreadpoolWaitCallbacks",
]  # fmt: skip

TP_TIMER = Timer
TP_WAIT = Wait
TP_IO = Io

# Timers


@fails_with(None)
def CreateThreadpoolTimer(
    pfnti: Callable[[CallbackInstance, Any, Timer], object], pv: Any, pcbe: Environment | None
) -> Timer | None:
    """Make a timer: each expiry calls `pfnti(instance, pv, timer)`. Returns: it; or None, last error 87 or 6."""
    return Timer(run_with_object, routine("pfnti", pfnti), pv, environment=pcbe, context=pv)


def SetThreadpoolTimer(pti: Timer, pftDueTime: int | None, msPeriod: int, msWindowLength: int) -> None:
    """Set a timer, or disarm it with None; what is queued already still runs."""
    SetThreadpoolTimerEx(pti, pftDueTime, msPeriod, msWindowLength)


def SetThreadpoolTimerEx(pti: Timer, pftDueTime: int | None, msPeriod: int, msWindowLength: int) -> bool:
    """Set a timer, or disarm it with None.

    Args: `msPeriod` milliseconds between later expiries, 0 for one only; `msWindowLength` milliseconds by which one
        may be late, so that it can be grouped with others.
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


def _run_wait(pfnwa: Callable[[CallbackInstance, Any, Wait, int], object], pv: Any, status: Status) -> None:
    instance = current_callback()
    pfnwa(instance, pv, instance.source, status)


@fails_with(None)
def CreateThreadpoolWait(
    pfnwa: Callable[[CallbackInstance, Any, Wait, int], object], pv: Any, pcbe: Environment | None
) -> Wait | None:
    """Make a wait object: each wait that ends calls `pfnwa(instance, pv, wait, result)`, with 0 or 258.

    The result is 735 if what was waited for was closed. Returns: it; or None with the last error 87 or 6.
    """
    return Wait(_run_wait, routine("pfnwa", pfnwa), pv, environment=pcbe, context=pv)


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


def _run_io(
    pfnio: Callable[[CallbackInstance, Any, Any, int, Any, Io], object], pv: Any, packet: CompletionPacket
) -> None:
    instance = current_callback()
    pfnio(instance, pv, packet.overlapped, packet.status, packet.transferred, instance.source)


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
    return Io(fl, _run_io, routine("pfnio", pfnio), pv, environment=pcbe, context=pv)


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
