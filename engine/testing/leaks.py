"""What a test has opened and left open."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from transport import OverlappedSource
from transport.foreign import shown

from ..kernel.port import CompletionPort
from ..kernel.waitable import Waitable
from ..pool.callback_object import CallbackObject
from ..pool.pool import ThreadPool, default_pool
from ..rpc.call import Call
from ..rpc.client.client import Client
from ..rpc.server.server import Server
from ..rpc.state import State

KINDS: Final = (Call, Client, Server, CompletionPort, ThreadPool, CallbackObject, OverlappedSource, Waitable)


@contextmanager
def no_leaks() -> Iterator[None]:
    """Within this context, what is opened is closed: clients, servers, ports, pools, events and other objects that are
    waited on, overlapped sources; and calls have ended.

    What is left open by then and still referred to is named by an `AssertionError`. What nothing refers to any more has
    warned of itself (`ResourceWarning`). It looks at all objects of the process, so not many times a second.
    """
    default_pool()  # Else it might be made within.
    before = {id(thing): thing for thing in _open_things()}
    yield
    left = [thing for thing in _open_things() if before.get(id(thing)) is not thing]
    if left:
        raise AssertionError(f"left open: {', '.join(sorted(shown(thing, 200) for thing in left))}")


def _open_things() -> list[Any]:
    gc.collect()
    things = gc.get_objects()
    # By their own types: what a proxy says of its class may run the program's code.
    kinds = {kind for kind in set(map(type, things)) if issubclass(kind, KINDS)}
    return [thing for thing in things if type(thing) in kinds and _is_open(thing)]


def _is_open(thing: Any) -> bool:
    if isinstance(thing, Call):
        return State.PENDING <= thing.state <= State.CANCELLING
    try:
        closed: bool | None = getattr(thing, "closed", None)
        return not (thing.statistics().closed if closed is None else closed)
    except AttributeError:  # It could not be made.
        return False
