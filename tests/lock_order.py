"""The order of locks, checked while tests run: a thread that has one takes only those that stand below it.

Theory of operation. `ORDER` has one row for each lock that the library makes, by where that is: the module, and the
function or the name in it. `install` has each lock note where it was made, and look, when it is taken and would have to
be waited for, at those that its thread has. A lock taken against the order might wait for ever for a thread that
takes the two in the order: if no test hung, that was luck, so the test fails. Locks of one row are taken one after the
other only, never inside one another. Nor does a thread that has a lock hand a record to the handlers of a log, which
are foreign code (`Log` has `later=True`). What runs without tests has plain locks.
"""

import ast
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transport.lock import Lock

ROOT = Path(__file__).resolve().parents[1]

# First those that are taken first; a thread may skip rows.
ORDER = (
    "engine.win32.this_process:Process.__init__",
    "engine.win32.handles:_lock",  # Held while the object of a name is made.
    "engine.win32.waits:_RegisteredWait.__init__",
    "engine.rpc.server.server:Server.__init__",  # Held while endpoints are bound, which harvests.
    "engine.rpc.client.fleet:Fleet.__init__",  # Held while members are connected to.
    "engine.rpc.pipes.pipe:PipeState.__init__",  # Held by the thread that pulls, which may wait meanwhile.
    "engine.rpc.server.call:_subscriptions_making",
    "transport.link:BaseLink.__init__",  # Held during a harvest, and so before all that a message may concern.
    "engine.rpc.server.admission:Admission.__init__",
    "engine.rpc.client.call_table:CallTable.__init__",
    "engine.rpc.server.registry:Registry.__init__",
    "engine.rpc.server.contexts:ContextBook.__init__",
    "engine.rpc.server.open_call:_opening",
    "engine.rpc.server.open_call:_making",
    "engine.rpc.server.call:_making",
    "engine.rpc.server.coroutines:CoroutineRunner.__init__",
    "engine.rpc.server.turns:ClientTurns.__init__",
    "engine.rpc.pipes.pipe_set:PipeSet.__init__",
    "engine.rpc.pipes.signals:Signals.__init__",
    "engine.rpc.server.call:Subscriptions.__init__",
    "engine.rpc.server.complaints:Complaints.__init__",
    # Ports and pools.
    "engine.kernel.bridge:WaitPacket.__init__",
    "engine.pool.pool:_default_lock",
    "engine.pool.future:_guard",
    "engine.kernel.slots:SlotQueue.__init__",
    "engine.kernel.port_source:_lock",
    "transport.overlapped.pending:PendingOperations.__init__",
    "transport.overlapped.zmq_socket:_claims_lock",
    # What threads wait on.
    "engine.kernel.exits:_lock",
    "engine.kernel.exits:DescriptorExit.__init__",
    "engine.kernel.dispatcher:dispatcher_lock",
    "engine.kernel.apc:apc_lock",
    # Who polls.
    "engine.kernel.driver:_driver_lock",
    "engine.kernel.sources:PolledSources.__init__",
    "engine.kernel.monitor:Monitor.__init__",
    # Nothing is taken inside these.
    "engine.kernel.lock:Once.__init__",
    "engine.testing.fault_injection:Faults.__init__",
    "engine.resolvers.members:MembersRoutines.__init__",
    "transport.loopback:_registry_lock",
    "transport.zmq_link.base:_lock",
    "transport.zmq_link.door:_lock",
    "transport.security:AllowedFile.__init__",
    "transport.service:Service.__init__",
)

RANKS = {name: rank for rank, name in enumerate(ORDER)}

# By `id`: locks that are gone are replaced by those that get theirs.
_made: dict[int, str] = {}
# What was taken against the order: appended to by any thread, looked at after each test.
found: list[str] = []


class _Held(threading.local):
    locks: list[Lock] = []  # replaced, never changed


_held = _Held()
_init, _acquire, _handle = Lock.__init__, Lock.acquire, logging.Logger.handle


def name_of(lock: Lock) -> str:
    """Return where the lock was made."""
    name = _made.get(id(lock))
    if name is None:  # As its module was imported, before `install`.
        names = (
            f"{module}:{key}"
            for module, loaded in list(sys.modules.items())
            if module.partition(".")[0] in ("engine", "transport")
            for key, value in list(vars(loaded).items())
            if value is lock and getattr(loaded, "__file__", "").endswith(".py")
        )
        # The log's service, which is an object of that module, has the only other lock that is so old.
        name = _made[id(lock)] = next(
            (found for found in names if found in RANKS), "transport.service:Service.__init__"
        )
    return name


def _broke_in() -> bool:
    """Whether a finalizer, a signal handler or a test broke in on the library, whose locks the thread then has."""
    frame, outside = sys._getframe(2), False
    while frame.f_back is not None:
        frame = frame.f_back
        ours = frame.f_globals.get("__name__", "").partition(".")[0] in ("engine", "transport")
        if ours and (outside or frame.f_code.co_name == "__del__"):
            return True
        outside = outside or not ours
    return False


def _note(self: Lock) -> None:
    _init(self)
    maker = sys._getframe(1)
    if maker.f_code.co_name != "<module>":
        _made[id(self)] = f"{maker.f_globals['__name__']}:{maker.f_code.co_qualname}"
    else:
        _made.pop(id(self), None)  # It is found by its name.


def _check(self: Lock, blocking: bool = True, timeout: float = -1) -> bool:
    held = [lock for lock in _held.locks if lock.owned()]
    if held and blocking:
        mine = name_of(self)
        for lock in held:
            other = name_of(lock)
            if lock is not self and RANKS.get(other, len(ORDER)) >= RANKS.get(mine, -1) and not _broke_in():
                found.append(f"{mine} is taken while the thread has {other}")
    taken = _acquire(self, blocking, timeout)
    if taken:
        held.append(self)
    _held.locks = held
    return taken


def _hear(self: logging.Logger, record: logging.LogRecord) -> None:
    ours = self.name.partition(".")[0] in ("engine", "transport")
    for lock in _held.locks:
        if ours and lock.owned() and not _broke_in():
            found.append(f"{record.pathname}:{record.lineno} logs while the thread has {name_of(lock)}")
    _handle(self, record)


def install() -> None:
    """Check the locks of this process from here on."""
    Lock.__init__, Lock.acquire = _note, _check  # type: ignore[method-assign, assignment]  # for tests only
    logging.Logger.handle = _hear  # type: ignore[method-assign]  # likewise


def makers() -> Iterator[str]:
    """Yield where the library makes a lock, as `ORDER` names it."""
    for top in ("engine", "transport"):
        for path in sorted((ROOT / top).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            yield from _makers(ast.parse(path.read_text(encoding="utf-8")), module, "")


def _makers(node: ast.AST, module: str, within: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef):
            inner = f"{within}{child.name}"
            yield from _makers(child, module, inner + (".<locals>." if isinstance(child, ast.FunctionDef) else "."))
        elif isinstance(child, ast.Assign | ast.AnnAssign) and _is_lock(child.value):
            target: Any = child.targets[0] if isinstance(child, ast.Assign) else child.target
            yield f"{module}:{within.removesuffix('.').removesuffix('.<locals>') or target.id}"
        else:
            yield from _makers(child, module, within)


def _is_lock(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "Lock"
