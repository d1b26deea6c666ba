"""Handles, which are the engine's own objects, and the names of events, semaphores, mutexes and waitable timers.

Theory of operation. Windows shares named objects between processes; here a name belongs to this process, whose threads
find the object by it. All kinds share one set of names, which keeps nothing alive: a name goes with its object. As
Windows counts the handles of an object, the table counts how often a named one was created or opened: `CloseHandle`
closes it with the last of them.

Source: "CloseHandle", "GetCurrentThread", "Object Names", "CreateEvent", "OpenEvent".
"""

import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from transport.foreign import shown, type_name

from .. import CompletionPort, EngineError, InvalidHandle, InvalidParameter, Waitable, WaitPacket
from ..kernel.lock import Lock
from ..lifecycle import in_child
from .constants import ERROR_ALREADY_EXISTS, ERROR_FILE_NOT_FOUND, ERROR_SUCCESS
from .errors import SetLastError, fails_with

__all__ = [
    "CloseHandle", "GetCurrentThread", "GetCurrentThreadId",
]  # fmt: skip


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


Kind = TypeVar("Kind", bound=Waitable)


_lock = Lock()
# Guarded by _lock.
_objects: "weakref.WeakValueDictionary[str, Waitable]" = weakref.WeakValueDictionary()
_handles: "weakref.WeakKeyDictionary[Waitable, int]" = weakref.WeakKeyDictionary()


def _find_locked(name: str, kind: type[Kind]) -> Kind | None:
    """Return the open object of that name, one handle more; raises `InvalidHandle` if it is of another kind."""
    found = _objects.get(name)
    if found is None or found.statistics().closed:
        return None
    if not isinstance(found, kind):
        raise InvalidHandle(f"{shown(name)} is the name of {found!r}, not of the kind {kind.__name__}")
    _handles[found] += 1
    return found


def _forget_locked(thing: Waitable) -> None:
    """Have the object have no name any more, if it had one."""
    if _handles.pop(thing, None) is not None:
        name = next((name for name, named in _objects.items() if named is thing), None)
        if name is not None:  # None: it was closed by itself, and another has its name.
            del _objects[name]


def create(name: str | None, kind: type[Kind], make: Callable[[], Kind]) -> Kind:
    """Return the object of that name, the last error 183; or a new one, with 0; without a name just a new one."""
    _check(name)
    if not name:
        return make()
    with _lock:
        found = _find_locked(name, kind)
        if found is None:
            _objects[name] = made = make()
            _handles[made] = 1
    SetLastError(ERROR_SUCCESS if found is None else ERROR_ALREADY_EXISTS)
    return made if found is None else found


def open_named(name: str, kind: type[Kind]) -> Kind:
    """Return the object of that name; raises `EngineError` 2 if there is none, `InvalidHandle`, `InvalidParameter`."""
    _check(name)
    if not name:
        raise InvalidParameter("a name is needed to open an object")
    with _lock:
        found = _find_locked(name, kind)
    if found is None:
        raise EngineError(f"nothing has the name {shown(name)}", status=ERROR_FILE_NOT_FOUND)
    return found


def is_last_handle(handle: Waitable) -> bool:
    """Give one handle of the object up; return whether it was the last.

    With the last one the name goes, in the same step: no thread is given an object that the caller is going to close.
    """
    with _lock:
        left = _handles.get(handle, 1) - 1
        if left:
            _handles[handle] = left
        else:
            _forget_locked(handle)
    return not left


def _check(name: str | None) -> None:
    if name is not None and not isinstance(name, str):
        raise TypeError(f"a name must be a str, not {type_name(name)}")


@in_child
def _forget_all() -> None:
    # The parent's objects are of no use in a child.
    global _objects, _handles
    _objects, _handles = weakref.WeakValueDictionary(), weakref.WeakKeyDictionary()
