"""Threads that outlast a test: started before the tests of a package count threads, ended after the last of them."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from engine import default_pool
from engine.testing import LIMIT
from transport import bind, connect


@contextmanager
def lasting_threads() -> Iterator[None]:
    """Have pyzmq's thread, and two of the default pool's; the latter end afterwards, for they would harvest too."""
    pool = default_pool()
    pool.set_maximum(2)
    pool.set_minimum(2)
    server, client = bind("inproc://lasting-threads"), connect("inproc://lasting-threads")
    for link in (client, server):
        with link.lock:
            link.close()
    done = threading.Event()
    pool.submit(done.set)
    assert done.wait(LIMIT)
    yield
    end_default_pool()


def end_default_pool() -> None:
    """End the default pool if there is one: the next to ask gets a new one. No public name does so."""
    owner: Any = sys.modules["engine.pool.pool"]
    pool, owner._default = owner._default, None
    if pool is not None:
        pool._permanent = False
        assert pool.stop(LIMIT)
