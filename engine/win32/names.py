"""Names of events, semaphores, mutexes and waitable timers.

Theory of operation. Windows shares named objects between processes; here a name belongs to this process, whose threads
find the object by it. All kinds share one set of names, which keeps nothing alive: a name goes with its object. As
Windows counts the handles of an object, the table counts how often a named one was created or opened: `CloseHandle`
closes it with the last of them.

Source: "Object Names", "CreateEvent", "OpenEvent".
"""

import weakref
from collections.abc import Callable
from typing import TypeVar

from transport.foreign import shown, type_name

from .. import EngineError, InvalidHandle, InvalidParameter, Waitable
from ..kernel.lock import Lock
from ..lifecycle import in_child
from .constants import ERROR_ALREADY_EXISTS, ERROR_FILE_NOT_FOUND, ERROR_SUCCESS
from .errors import SetLastError

__all__: list[str] = []

Kind = TypeVar("Kind", bound=Waitable)


class _Names:
    """The table of the process."""

    def __init__(self) -> None:
        self.lock = Lock()
        # Guarded by lock.
        self.objects: weakref.WeakValueDictionary[str, Waitable] = weakref.WeakValueDictionary()
        self.handles: weakref.WeakKeyDictionary[Waitable, int] = weakref.WeakKeyDictionary()

    def find_locked(self, name: str, kind: type[Kind]) -> Kind | None:
        """Return the open object of that name, one handle more; raises `InvalidHandle` if it is of another kind."""
        found = self.objects.get(name)
        if found is None or found.statistics().closed:
            return None
        if not isinstance(found, kind):
            raise InvalidHandle(f"{shown(name)} is the name of {found!r}, not of the kind {kind.__name__}")
        self.handles[found] += 1
        return found

    def forget_locked(self, thing: Waitable) -> None:
        """Have the object have no name any more, if it had one."""
        if self.handles.pop(thing, None) is not None:
            name = next((name for name, named in self.objects.items() if named is thing), None)
            if name is not None:  # None: it was closed by itself, and another has its name.
                del self.objects[name]


_names = _Names()


def create(name: str | None, kind: type[Kind], make: Callable[[], Kind]) -> Kind:
    """Return the object of that name, the last error 183; or a new one, with 0; without a name just a new one."""
    _check(name)
    if not name:
        return make()
    with _names.lock:
        found = _names.find_locked(name, kind)
        if found is None:
            _names.objects[name] = made = make()
            _names.handles[made] = 1
    SetLastError(ERROR_SUCCESS if found is None else ERROR_ALREADY_EXISTS)
    return made if found is None else found


def open_named(name: str, kind: type[Kind]) -> Kind:
    """Return the object of that name; raises `EngineError` 2 if there is none, `InvalidHandle`, `InvalidParameter`."""
    _check(name)
    if not name:
        raise InvalidParameter("a name is needed to open an object")
    with _names.lock:
        found = _names.find_locked(name, kind)
    if found is None:
        raise EngineError(f"nothing has the name {shown(name)}", status=ERROR_FILE_NOT_FOUND)
    return found


def is_last_handle(handle: Waitable) -> bool:
    """Give one handle of the object up; return whether it was the last.

    With the last one the name goes, in the same step: nobody is given an object that the caller is going to close.
    """
    with _names.lock:
        left = _names.handles.get(handle, 1) - 1
        if left:
            _names.handles[handle] = left
        else:
            _names.forget_locked(handle)
    return not left


def _check(name: str | None) -> None:
    if name is not None and not isinstance(name, str):
        raise TypeError(f"a name must be a str, not {type_name(name)}")


# The parent's objects are of no use in a child.
in_child(_names.__init__)  # type: ignore[misc]  # on purpose
