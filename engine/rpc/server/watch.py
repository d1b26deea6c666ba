"""Routines that do not return: who is inside one for too long is named once, with its stack.

Theory of operation. A thread that is about to enter a slow routine, or that the monitor finds inside one, is noted.
While any are, the monitor looks at them every `LOOK` seconds. A thread that is still inside the same call as at the
look before has been so for that long; past `limit` seconds it is *stuck*, logged with its stack, and counted until it
returns. An `async def` routine is not noted: it has no thread. When all workers are stuck, so that no other call is
run, that is logged with what to do about it, once until one returns.

If the monitor itself comes late for its look, either the machine is overloaded or the interpreter was not to be had: a
routine in C code that does not let go of it, or many threads that compute. Then the routines that run are named, too.

Assumes: stores and loads of attributes, and single operations of dictionaries, are atomic.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from transport.foreign import stack_of
from transport.log import Log
from transport.realtime import monotonic

from ...kernel.driver import driver
from ..serving import ServingSlot

log: Log = Log("engine.rpc")

LOOK = 1.0  # Seconds.
LATE = 1.0  # Seconds that a look may come too late; arbitrary: a busy machine's are some hundredths.
FRAMES = 20  # Of a stack that is logged.
RUNNER = str(Path(__file__).with_name("runner.py"))  # Enters routines: above it a stack has only the library's frames.


class _Inside:
    """A thread inside a routine, as it was first seen."""

    __slots__ = ("call_id", "logged", "since", "work")

    def __init__(self, slot: ServingSlot, since: float) -> None:
        self.call_id = slot.call_id
        self.work: Any = slot.running
        self.since = since
        self.logged = False

    def is_still(self, slot: ServingSlot) -> bool:
        return slot.call_id == self.call_id and slot.running is self.work


class Watch:
    """Watches the threads of one server.

    Args: a routine that takes more than `limit` seconds is stuck; `name` is the server's; `jam` is given the clients of
        the calls whose routines are stuck, and returns what to say if these are all workers, else "".
    """

    def __init__(self, limit: float, name: str, jam: Callable[[Sequence[Any]], str]) -> None:
        self._limit = limit
        self._name = name
        self._jam = jam
        # Whether it was logged that all workers are stuck. Of the monitor alone.
        self._jam_told = False
        # Added to by any thread, taken out by the monitor.
        self._slots: dict[ServingSlot, _Inside | None] = {}
        # Whether a look is due. Set by any thread; a lost update is a look more.
        self.armed: bool = False
        # When the next look is due. Of the monitor alone.
        self._due = 0.0
        # How many threads are stuck, and how often looks came late. Written by the monitor, read anywhere.
        self.stuck: int = 0
        self.late: int = 0

    def note(self, slot: ServingSlot) -> None:
        """This thread is inside a routine, or about to be."""
        self._slots.setdefault(slot, None)
        if not self.armed:
            self.armed = True
            self._call_again()

    def _call_again(self) -> None:
        self._due = monotonic() + LOOK
        driver().monitor.call_at(self._due, self._look)

    def _look(self) -> None:
        now = monotonic()
        if now - self._due > LATE:
            self.late += 1
            self._log_delay(now - self._due)
        stuck = [seen for slot in list(self._slots) if (seen := self._look_at(slot, now)) is not None]
        self.stuck = len(stuck)
        if what := self._jam([seen.work.peer for seen in stuck]) if stuck else "":
            if not self._jam_told:
                log.warning("%s: %s", self._name, what, later=True)
        self._jam_told = bool(what)
        if self._slots:
            self._call_again()
        else:
            self.armed = False
            if self._slots:  # One came just now.
                self.armed = True
                self._call_again()

    def _look_at(self, slot: ServingSlot, now: float) -> _Inside | None:
        """Return what this thread is inside, if it is stuck there."""
        seen = self._slots.get(slot)
        if slot.call_id is None:
            self._slots.pop(slot, None)
            return None
        if seen is None or not seen.is_still(slot):
            self._slots[slot] = _Inside(slot, now)
            return None
        if now - seen.since < self._limit:
            return None
        if not seen.logged:
            seen.logged = True
            text = "%s: a routine, %s, has not returned for %.0f s:\n%s"
            log.warning(text, self._name, _name_of(seen.work), now - seen.since, _stack_of(slot), later=True)
        return seen

    def _log_delay(self, seconds: float) -> None:
        names = sorted({_name_of(work) for slot in list(self._slots) if (work := slot.running) is not None})
        log.warning(
            "%s: the interpreter was not to be had for %.1f s, or the machine is overloaded; running: %s",
            self._name, seconds, ", ".join(names) or "no routine", later=True,
        )  # fmt: skip


def _name_of(work: Any) -> str:
    target = work.entry.spec.target
    return f"{target.interface}.{target.operation}"


def _stack_of(slot: ServingSlot) -> str:
    frame = sys._current_frames().get(slot.ident)
    return stack_of(frame, min(FRAMES, _depth(frame))) if frame is not None else "(its thread has ended)"


def _depth(frame: FrameType | None) -> int:
    """How many frames a routine has by now, and what it has called."""
    depth = 0
    while frame is not None and frame.f_code.co_filename != RUNNER:
        depth += 1
        frame = frame.f_back
    return max(depth, 1)
