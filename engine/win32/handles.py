"""Handles: the engine's own objects stand for them, so there is no table and nothing to look up.

Source: "CloseHandle", "GetCurrentThread".
"""

import threading
from typing import Any

from transport.foreign import shown

from .. import CompletionPort, InvalidHandle, Waitable, WaitPacket
from .errors import fails_with
from .names import is_last_handle

__all__ = ["CloseHandle", "GetCurrentThread", "GetCurrentThreadId"]


@fails_with(False)
def CloseHandle(hObject: Any) -> bool:
    """Close a port, an event or another dispatcher object, a source, a wait packet, or a thread's or process's handle.

    Returns: True; or False with the last error 6 for what is closed already, or is no handle.
    A thread or process does not end by it. A port's or object's waiters do, with 735. An object has one handle here,
    unless it has a name: then as many as it was created and opened, and it is closed with the last.
    """
    if isinstance(hObject, CompletionPort):
        closed = hObject.closed
    elif isinstance(hObject, Waitable):
        closed = hObject.statistics().closed
    elif isinstance(hObject, threading.Thread) or hasattr(hObject, "pid"):
        return True
    elif isinstance(hObject, WaitPacket):
        hObject.cancel()
        return True
    else:
        closed = getattr(hObject, "closed", False)
        if not callable(getattr(hObject, "close", None)):
            raise InvalidHandle(f"{shown(hObject)} is not a handle")
    if closed:
        raise InvalidHandle(f"{shown(hObject)} is closed already")
    if not isinstance(hObject, Waitable) or is_last_handle(hObject):
        hObject.close()
    return True


def GetCurrentThread() -> threading.Thread:
    """Return the calling thread's handle. Different from Windows: it may be given to another thread."""
    return threading.current_thread()


def GetCurrentThreadId() -> int:
    """Return the calling thread's identifier."""
    return threading.get_ident()
