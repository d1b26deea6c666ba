"""Things of which each use is a step of an explorer's run: containers, attributes, locks and gates.

They are the real ones, or behave as these do, and are put in their places: the code that uses them is the library's
own. Used by a thread that is no actor they take no step.
"""

from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from . import explorer

LOOKING = (
    "__len__",
    "__getitem__",
    "__reversed__",
    "__contains__",
    "copy",
    "get",
    "items",
    "keys",
    "values",
)
CHANGING = (
    "__setitem__", "__delitem__", "append", "appendleft", "extend", "extendleft", "insert", "pop", "popitem", "popleft",
    "remove", "clear", "rotate", "add", "discard", "setdefault", "update",
)  # fmt: skip


def _stepping(name: str, real: Callable[..., Any], changes: bool) -> Callable[..., Any]:
    def use(self: Any, *args: Any) -> Any:
        explorer.step(self, changes)
        return real(self, *args)

    use.__name__ = name
    return use


def _watched(base: type) -> type:
    uses = {name: _stepping(name, getattr(base, name), False) for name in LOOKING if hasattr(base, name)}
    uses |= {name: _stepping(name, getattr(base, name), True) for name in CHANGING if hasattr(base, name)}

    def iterate(self: Any) -> Iterator[Any]:
        explorer.step(self, False)
        return iter(tuple(base.__iter__(self)))  # type: ignore[attr-defined]  # all of these have it

    uses["__iter__"] = iterate  # In one step, as `list` and `sorted` do it.
    return type(base.__name__.capitalize(), (base,), {"__slots__": (), "__hash__": object.__hash__, **uses})


Deque: Any = _watched(deque)
List: Any = _watched(list)
Dict: Any = _watched(dict)
Set: Any = _watched(set)


class Attribute:
    """An attribute that is in a slot of a base class."""

    def __init__(self, base: type, name: str, part: str | None = None) -> None:
        self._slot = base.__dict__[name]
        # What the steps call it; "": it is watched as one with others of its holder.
        self._part = name if part is None else part

    def __get__(self, holder: object, kind: type | None = None) -> Any:
        explorer.step(holder, False, None, self._part)
        return self._slot.__get__(holder, kind)

    def __set__(self, holder: object, value: object) -> None:
        explorer.step(holder, True, None, self._part)
        self._slot.__set__(holder, value)


class Field:
    """An attribute of a class without slots."""

    def __init__(self, part: str) -> None:
        self._part = part

    def __get__(self, holder: Any, kind: type | None = None) -> Any:
        explorer.step(holder, False, None, self._part)
        return holder.__dict__[self._part]

    def __set__(self, holder: Any, value: object) -> None:
        explorer.step(holder, True, None, self._part)
        holder.__dict__[self._part] = value


class Lock:
    """As `engine.kernel.lock.Lock`. An actor that tries in vain waits for it: it would have to try again anyway."""

    def __init__(self) -> None:
        self._owner: explorer.Actor | None = None
        self._held = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        explorer.step(self, True, self._is_free)
        assert not self._held, "the thread has the lock, and waits for it"
        self._held = True
        self._owner = None if explorer.running is None else explorer.running.current
        return True

    def _is_free(self) -> bool:
        return not self._held

    def release(self) -> None:
        assert self._held
        self._held = False
        self._owner = None
        if explorer.running is not None:
            explorer.running.note_release(self)

    def owned(self) -> bool:
        run = explorer.running
        return self._held and (run is None or self._owner is run.current)

    def locked(self) -> bool:
        return self._held

    def refuse(self) -> None:
        raise AssertionError("the thread has the lock already")

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._held:
            self.release()


class Gate:
    """As the lock at which a thread sleeps until another one opens it. `expires`: its time is up at once."""

    expires = False

    def __init__(self) -> None:
        self._open = True
        self._new = True

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._new:  # By who has made it.
            self._new = False
            self._open = False
            return True
        explorer.step(self, True, lambda: self._open or not blocking or (self.expires and timeout >= 0))
        was_open, self._open = self._open, False
        return was_open

    def release(self) -> None:
        explorer.step(self, True)
        if self._open:
            raise RuntimeError("release unlocked lock")
        self._open = True
