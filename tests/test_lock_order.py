"""The order of locks is data, and each lock of the library has its place in it."""

import threading

from engine.kernel.dispatcher import dispatcher_lock
from engine.testing import LIMIT, Gate
from transport.lock import Lock
from transport.log import Log

from . import lock_order


def test_every_lock_has_a_rank() -> None:
    """The order names each place where the library makes a lock, once, and nothing else."""
    assert sorted(lock_order.ORDER) == sorted(set(lock_order.makers()))


def test_a_lock_taken_against_the_order_is_found() -> None:
    """A thread that has a lock and takes one that stands above it, or beside it, fails the test."""
    first, second = Lock(), Lock()  # Made here, they have no rank: no lock may be taken inside them.
    with first, dispatcher_lock:
        assert lock_order.found.pop() == (
            "engine.kernel.dispatcher:dispatcher_lock is taken while the thread has "
            "tests.test_lock_order:test_a_lock_taken_against_the_order_is_found"
        )
        with second:
            assert len(lock_order.found) == 2
            lock_order.found.clear()


def test_a_lock_that_is_only_tried_is_left_alone() -> None:
    """What does not wait for a lock cannot wait for ever."""
    lock = Lock()
    with dispatcher_lock:
        assert lock.acquire(False)
        lock.release()
    assert not lock_order.found


def test_the_locks_of_other_threads_are_theirs() -> None:
    """A lock that another thread has is nothing to this one."""
    lock, taken, go_on = Lock(), Gate(), Gate()

    def hold() -> None:
        with lock:
            taken.open()
            go_on.pass_through()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.pass_through()
    with dispatcher_lock:
        assert not lock_order.found
    go_on.open()
    thread.join(LIMIT)


def test_a_handler_of_a_log_under_a_lock_is_found() -> None:
    """A record that reaches handlers while its thread has a lock fails the test; `later` has it wait."""
    log = Log("transport.tests")
    with dispatcher_lock:
        log.warning("handed over at once")
        assert lock_order.found.pop().endswith("logs while the thread has engine.kernel.dispatcher:dispatcher_lock")
        log.warning("handed to a thread", later=True)
    assert not lock_order.found
