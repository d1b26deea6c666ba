"""Waits: one object, any of several, all of them, signal and wait."""

import asyncio
import gc
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from engine import (
    MAXIMUM_WAIT_OBJECTS,
    AbandonedWait,
    Alerted,
    CompletionPort,
    EngineError,
    Event,
    InvalidArgumentType,
    InvalidHandle,
    InvalidParameter,
    LimitExceeded,
    Mutex,
    NotOwner,
    Semaphore,
    Status,
    Waitable,
    WaitableTimer,
    WaitResult,
    WaitTimeout,
    queue_apc,
    register_wait,
    signal_and_wait,
    sleep,
    wait_all,
    wait_any,
)
from engine.testing import LIMIT, Gate, ManualClock, wait_until, wait_until_blocked

from .helpers import Actor, asleep, error, result

Make = Callable[[], Actor]


@pytest.fixture
def event() -> Iterator[Event]:
    """An auto-reset event, nonsignaled."""
    with Event() as made:
        yield made


@pytest.fixture
def manual() -> Iterator[Event]:
    """A manual-reset event, nonsignaled."""
    with Event(manual_reset=True) as made:
        yield made


def events(number: int, signaled: bool = False) -> list[Event]:
    return [Event(signaled=signaled) for _ in range(number)]


def close(objects: list[Event]) -> None:
    for each in objects:
        each.close()


class TestSingle:
    """Section 11: a wait for one object."""

    def test_it_consumes_that_object_only(self, event: Event) -> None:
        """Waiting for an auto-reset event makes it nonsignaled."""
        event.set()
        assert event.wait(0)
        assert not event.is_signaled()

    def test_a_timed_out_wait_changes_nothing(self, event: Event, manual: Event) -> None:
        """After a timeout the state is as before."""
        for each in (event, manual):
            assert not each.wait(0) and not each.wait(0.001)
            assert not each.is_signaled()

    def test_it_waits_for_the_signal(self, event: Event, actor: Make) -> None:
        """A thread that waits is released by the signal."""
        waiting = asleep(actor(), event.wait)
        event.set()
        assert result(waiting) is True

    @pytest.mark.parametrize("timeout", [-1, float("nan"), 10**400])
    def test_a_negative_timeout_is_refused(self, event: Event, timeout: float) -> None:
        """A timeout that is negative, undefined or beyond all floats is error 87, and consumes nothing."""
        for _ in range(2):
            with pytest.raises(InvalidParameter):
                event.wait(timeout)
            event.set()
        assert event.is_signaled()

    @pytest.mark.parametrize("timeout", ["1", "", Decimal(1)])
    def test_a_timeout_of_another_type_is_refused(self, event: Event, timeout: Any) -> None:
        """A timeout that is no number is error 87 and a TypeError, signaled or not, and consumes nothing."""
        for _ in range(2):
            for wait in (
                event.wait, sleep, lambda limit: wait_any([event], limit), lambda limit: wait_all([event], limit),
                lambda limit: register_wait(event, print, limit),
            ):  # fmt: skip
                with pytest.raises(InvalidArgumentType):
                    wait(timeout)
            event.set()
        assert event.is_signaled()

    def test_a_huge_timeout_waits(self, event: Event, actor: Make) -> None:
        """A timeout longer than any system call allows is a wait all the same."""
        waiting = asleep(actor(), event.wait, 1e12)
        event.set()
        assert result(waiting)


class TestAny:
    """Section 11: a wait for any of several objects."""

    def test_the_lowest_signaled_index_wins(self) -> None:
        """Of several signaled objects the lowest index satisfies the wait."""
        objects = events(3)
        objects[2].set()
        objects[1].set()
        assert wait_any(objects, 0) == 1
        assert [each.is_signaled() for each in objects] == [False, False, True]
        close(objects)

    def test_only_that_one_is_consumed(self) -> None:
        """The other objects stay as they are."""
        objects = events(3, signaled=True)
        assert wait_any(objects, 0) == 0
        assert [each.is_signaled() for each in objects] == [False, True, True]
        close(objects)

    def test_it_waits_for_the_first(self, actor: Make) -> None:
        """The object that is signaled first satisfies the wait, and is consumed."""
        objects = events(3)
        waiting = asleep(actor(), wait_any, objects)
        objects[2].set()
        assert result(waiting) == 2
        assert not objects[2].is_signaled()
        close(objects)

    def test_nothing_in_time_is_a_timeout(self) -> None:
        """Error 258, and nothing has changed."""
        objects = events(2)
        for timeout in (0, 0.001):
            with pytest.raises(WaitTimeout) as raised:
                wait_any(objects, timeout)
            assert raised.value.status == 258
        assert [each.statistics().waiting for each in objects] == [0, 0]
        close(objects)

    def test_a_satisfied_wait_leaves_the_other_lists(self, actor: Make) -> None:
        """After the wait no object remembers it."""
        objects = events(3)
        waiting = asleep(actor(), wait_any, objects)
        assert [each.statistics().waiting for each in objects] == [1, 1, 1]
        objects[0].set()
        result(waiting)
        assert [each.statistics().waiting for each in objects] == [0, 0, 0]
        close(objects)

    def test_the_result_is_an_index(self, event: Event) -> None:
        """The result is an int, and tells Windows' number."""
        event.set()
        found = wait_any([event])
        assert isinstance(found, WaitResult) and found == 0 and found.status == 0 and not found.abandoned

    def test_objects_of_all_kinds_mix(self, event: Event) -> None:
        """Events, semaphores, mutexes and timers may be waited for together."""
        semaphore, mutex = Semaphore(0, 1), Mutex()
        with WaitableTimer() as timer:
            assert wait_any([event, timer, semaphore, mutex], 0) == 3
            semaphore.release()
            assert wait_any([event, timer, semaphore], 0) == 2
            mutex.release()

    def test_many_waiters_on_one_auto_reset_event(self, event: Event, actor: Make) -> None:
        """One set satisfies exactly one of several waits."""
        waiting = [asleep(actor(), wait_any, [event]) for _ in range(3)]
        for number in range(1, 4):
            event.set()
            wait_until(lambda: sum(each.done() for each in waiting) == number)  # noqa: B023  # called in this turn
        assert not event.is_signaled()


class TestAll:
    """Section 11: a wait for all of several objects."""

    def test_all_are_consumed_at_once(self) -> None:
        """When all are signaled, all are consumed."""
        objects = events(3, signaled=True)
        assert wait_all(objects, 0) == 0
        assert [each.is_signaled() for each in objects] == [False] * 3
        close(objects)

    def test_nothing_is_held_while_waiting(self, actor: Make) -> None:
        """Until all are signaled none is taken: others may have them."""
        objects = events(2)
        waiting = asleep(actor(), wait_all, objects)
        objects[0].set()
        assert objects[0].is_signaled() and not waiting.done()
        assert objects[0].wait(0)  # Taken from under it.
        objects[1].set()
        assert not waiting.done() and objects[1].is_signaled()
        objects[0].set()
        assert result(waiting) == 0
        assert [each.is_signaled() for each in objects] == [False, False]
        close(objects)

    def test_a_timeout_takes_nothing(self) -> None:
        """After a timeout the signaled ones are still signaled."""
        objects = events(2)
        objects[0].set()
        for timeout in (0, 0.001):
            with pytest.raises(WaitTimeout):
                wait_all(objects, timeout)
        assert objects[0].is_signaled()
        close(objects)

    def test_two_waits_share_no_half(self, actor: Make) -> None:
        """Of two waits for the same pair one gets both signals, the other none."""
        objects = events(2)
        waiting = [asleep(actor(), wait_all, objects) for _ in range(2)]
        objects[0].set()
        objects[1].set()
        wait_until(lambda: any(each.done() for each in waiting))
        assert sum(each.done() for each in waiting) == 1
        objects[1].set()
        objects[0].set()
        assert [result(each) for each in waiting] == [0, 0]
        close(objects)

    def test_a_semaphore_and_an_event(self, event: Event) -> None:
        """Each object is consumed in its own way."""
        semaphore = Semaphore(2, 2)
        event.set()
        wait_all([semaphore, event], 0)
        assert semaphore.release() == 1
        assert not event.is_signaled()


class TestLists:
    """Section 11: what lists of objects are refused."""

    @pytest.mark.parametrize("wait", [wait_any, wait_all])
    def test_an_empty_list_is_refused(self, wait: Callable[..., object]) -> None:
        """No object is error 87."""
        with pytest.raises(InvalidParameter) as raised:
            wait([], 0)
        assert raised.value.status == 87

    @pytest.mark.parametrize("wait", [wait_any, wait_all])
    def test_a_duplicate_is_refused(self, wait: Callable[..., object], event: Event) -> None:
        """The same object twice is error 87, and consumes nothing."""
        event.set()
        with pytest.raises(InvalidParameter):
            wait([event, event], 0)
        assert event.is_signaled()

    @pytest.mark.parametrize("wait", [wait_any, wait_all])
    def test_64_objects_are_the_limit(self, wait: Callable[..., object]) -> None:
        """64 objects are taken, 65 are error 87."""
        objects = events(65, signaled=True)
        assert MAXIMUM_WAIT_OBJECTS == 64
        with pytest.raises(InvalidParameter):
            wait(objects, 0)
        assert objects[0].is_signaled()
        assert wait(objects[:64], 0) == 0
        close(objects)

    @pytest.mark.parametrize("thing", [1, None, "event", object()])
    def test_what_cannot_be_waited_for_is_refused(self, thing: Any) -> None:
        """Anything else is error 87."""
        for wait in (wait_any, wait_all):
            with pytest.raises(InvalidArgumentType) as raised:
                wait([thing], 0)
            assert raised.value.status == 87

    def test_a_closed_object_is_refused(self, event: Event) -> None:
        """A closed object is error 6, and the others are not consumed."""
        event.set()
        with Event() as closed:
            pass
        for wait in (wait_any, wait_all):
            with pytest.raises(InvalidHandle):
                wait([event, closed], 0)
        assert event.is_signaled()


class TestOrderInsideAWait:
    """Section 11: object, then APCs, then the time, then sleep."""

    def test_a_signaled_object_beats_an_apc(self, event: Event) -> None:
        """A signal that is there is taken; the APC stays queued."""
        ran: list[int] = []
        event.set()
        queue_apc(ran.append, 1)
        assert event.wait(0, alertable=True) is True
        assert ran == []
        assert sleep(0, alertable=True) == 192

    @pytest.mark.parametrize("timeout", [0, 5, None])
    def test_an_apc_beats_the_time(self, event: Event, timeout: float | None) -> None:
        """Without a signal pending APCs run, with a timeout of 0 as well, and nothing is consumed."""
        ran: list[int] = []
        for wait in (
            lambda: event.wait(timeout, alertable=True),
            lambda: wait_any([event], timeout, alertable=True),
            lambda: wait_all([event], timeout, alertable=True),
        ):
            queue_apc(ran.append, 1)
            with pytest.raises(Alerted) as raised:
                wait()
            assert raised.value.status == 192
        assert ran == [1, 1, 1]

    def test_a_plain_wait_never_runs_apcs(self, event: Event, actor: Make) -> None:
        """A wait that is not alertable leaves APCs alone and is not ended by them."""
        worker, ran = actor(), list[int]()
        waiting = asleep(worker, event.wait)
        queue_apc(ran.append, 1, thread=worker.thread)
        event.set()
        assert result(waiting) is True
        assert ran == []

    def test_a_polling_wait_that_is_not_alertable_is_a_timeout(self, event: Event) -> None:
        """A plain poll with an APC pending is a timeout."""
        ran: list[int] = []
        queue_apc(ran.append, 1)
        assert event.wait(0) is False and ran == []
        assert sleep(0, alertable=True) == 192


class TestAutoResetEvent:
    """Section 11: auto-reset events."""

    def test_it_stays_signaled_until_consumed(self, event: Event) -> None:
        """A set that finds no waiter stays until one wait takes it."""
        event.set()
        assert event.is_signaled()
        assert event.wait(0) and not event.wait(0)

    def test_repeated_sets_coalesce(self, event: Event) -> None:
        """Several sets without a wait satisfy one wait."""
        for _ in range(3):
            event.set()
        assert event.wait(0) and not event.wait(0)

    def test_one_set_releases_one_thread(self, event: Event, actor: Make) -> None:
        """With waiters exactly one goes, and the event is nonsignaled."""
        waiting = [asleep(actor(), event.wait) for _ in range(2)]
        event.set()
        wait_until(lambda: sum(each.done() for each in waiting) == 1)
        assert not event.is_signaled()
        event.set()
        assert all(result(each) for each in waiting)

    def test_reset_takes_the_signal_away(self, event: Event) -> None:
        """After a reset nobody is satisfied."""
        event.set()
        event.reset()
        assert not event.wait(0)

    def test_it_may_begin_signaled(self) -> None:
        """The first state is chosen at creation."""
        with Event(signaled=True) as event:
            assert event.wait(0) and not event.wait(0)


class TestManualResetEvent:
    """Section 11: manual-reset events."""

    def test_it_stays_signaled(self, manual: Event) -> None:
        """It satisfies every wait until it is reset."""
        manual.set()
        assert manual.wait(0) and manual.wait(0) and manual.is_signaled()
        manual.reset()
        assert not manual.wait(0)

    def test_a_set_releases_every_thread(self, manual: Event, actor: Make) -> None:
        """All waiting threads go."""
        waiting = [asleep(actor(), manual.wait) for _ in range(3)]
        manual.set()
        assert all(result(each) for each in waiting)

    def test_it_knows_what_it_is(self, manual: Event, event: Event) -> None:
        """Both kinds tell which they are."""
        assert manual.manual_reset and not event.manual_reset
        assert "manual-reset" in repr(manual) and "auto-reset" in repr(event)


class TestSemaphore:
    """Section 11: semaphores."""

    def test_a_wait_takes_one(self) -> None:
        """Each satisfied wait takes 1 of the count."""
        semaphore = Semaphore(2, 5)
        assert semaphore.wait(0) and semaphore.acquire(0) and not semaphore.wait(0)

    def test_release_returns_the_count_before(self) -> None:
        """Releasing tells the count there was."""
        semaphore = Semaphore(0, 5)
        assert [semaphore.release(), semaphore.release(3), semaphore.release()] == [0, 1, 4]

    def test_the_maximum_is_not_passed(self) -> None:
        """Error 298, and nothing has changed."""
        semaphore = Semaphore(1, 2)
        with pytest.raises(LimitExceeded) as raised:
            semaphore.release(2)
        assert raised.value.status == 298
        assert semaphore.release() == 1

    def test_a_release_of_n_satisfies_n(self, actor: Make) -> None:
        """As many waits go as the count allows."""
        semaphore = Semaphore(0, 5)
        waiting = [asleep(actor(), semaphore.wait) for _ in range(3)]
        semaphore.release(2)
        wait_until(lambda: sum(each.done() for each in waiting) == 2)
        assert semaphore.release() == 0
        assert all(result(each) for each in waiting)

    @pytest.mark.parametrize(("initial", "maximum"), [(-1, 1), (2, 1), (0, 0), (0, -1)])
    def test_counts_out_of_range_are_refused(self, initial: int, maximum: int) -> None:
        """Error 87."""
        with pytest.raises(InvalidParameter):
            Semaphore(initial, maximum)

    @pytest.mark.parametrize("count", [0, -1, 1.0])
    def test_a_release_is_of_one_or_more(self, count: Any) -> None:
        """Releasing less than 1 is error 87."""
        with pytest.raises(InvalidParameter):
            Semaphore(0, 1).release(count)

    def test_as_a_context_manager_it_is_taken_and_given_back(self) -> None:
        """Entering takes 1, leaving gives it back."""
        semaphore = Semaphore(1, 1)
        with semaphore:
            assert not semaphore.is_signaled()
        assert semaphore.is_signaled()


class TestMutex:
    """Section 11: mutexes."""

    def test_a_wait_makes_the_owner(self, actor: Make) -> None:
        """After a satisfied wait nobody else gets it."""
        mutex = Mutex()
        assert mutex.wait(0)
        assert not actor().do(mutex.wait, 0)
        mutex.release()
        assert actor().do(mutex.wait, 0)

    def test_it_is_recursive(self, actor: Make) -> None:
        """The owner gets it again at once; as many releases are needed."""
        mutex = Mutex()
        assert mutex.acquire() and mutex.acquire() and mutex.acquire()
        for _ in range(3):
            assert not actor().do(mutex.wait, 0)
            mutex.release()
        assert actor().do(mutex.wait, 0)

    def test_one_release_more_is_refused(self) -> None:
        """Error 288."""
        mutex = Mutex()
        mutex.wait()
        mutex.release()
        with pytest.raises(NotOwner) as raised:
            mutex.release()
        assert raised.value.status == 288

    def test_only_the_owner_releases(self, actor: Make) -> None:
        """A release by another thread is error 288 and changes nothing."""
        mutex = Mutex(initially_owned=True)
        assert isinstance(error(actor().start(mutex.release)), NotOwner)
        assert not actor().do(mutex.wait, 0)
        mutex.release()

    def test_a_release_hands_it_on(self, actor: Make) -> None:
        """A waiting thread becomes the owner."""
        mutex, worker = Mutex(initially_owned=True), actor()
        waiting = asleep(worker, mutex.wait)
        mutex.release()
        assert result(waiting) and not mutex.wait(0)
        worker.do(mutex.release)
        assert mutex.wait(0)
        mutex.release()

    def test_an_owner_that_ends_abandons_it(self, actor: Make) -> None:
        """The next wait is satisfied, owns it, and is told 0x80 plus the index."""
        mutex, worker = Mutex(), actor()
        worker.do(mutex.wait)
        worker.end()
        with Event() as event:
            found = wait_any([event, mutex], 0)
        assert (found, found.abandoned, found.status) == (1, True, 0x81)
        mutex.release()  # Ownership was granted.

    def test_abandonment_shows_on_the_mutex(self, actor: Make) -> None:
        """A wait on the one object returns True; `abandoned` tells, until it is released."""
        mutex, worker = Mutex(), actor()
        worker.do(mutex.wait)
        worker.end()
        assert mutex.wait(0) is True
        assert mutex.abandoned
        mutex.release()
        assert not mutex.abandoned
        assert mutex.wait(0) and not mutex.abandoned
        mutex.release()

    def test_a_waiting_thread_inherits_it(self, actor: Make) -> None:
        """A thread that waits when the owner ends becomes the owner."""
        mutex, owner, heir = Mutex(), actor(), actor()
        owner.do(mutex.wait)
        owner.do(mutex.wait)
        waiting = asleep(heir, wait_any, [mutex])
        owner.end()
        assert result(waiting).abandoned
        assert not mutex.wait(0)

    def test_waiting_for_all_tells_abandonment(self, actor: Make) -> None:
        """A wait for all tells the lowest abandoned mutex."""
        first, second, worker = Mutex(), Mutex(), actor()
        worker.do(second.wait)
        worker.end()
        found = wait_all([first, second], 0)
        assert found.abandoned and found.status == 0x81
        first.release()
        second.release()

    def test_a_joined_thread_has_abandoned(self) -> None:
        """Once the owner was joined the mutex is free: nothing is left to happen later."""
        for _ in range(20):
            mutex = Mutex()
            thread = threading.Thread(target=mutex.wait)
            thread.start()
            thread.join()
            assert mutex.wait(0) and mutex.abandoned
            mutex.release()

    def test_a_released_mutex_is_not_abandoned(self, actor: Make) -> None:
        """A thread that released in time leaves nothing behind."""
        mutex, worker = Mutex(), actor()
        worker.do(mutex.wait)
        worker.do(mutex.release)
        worker.end()
        assert not wait_any([mutex], 0).abandoned
        mutex.release()

    def test_as_a_context_manager_it_is_owned(self, actor: Make) -> None:
        """Entering acquires, leaving releases."""
        mutex = Mutex()
        with mutex:
            assert not actor().do(mutex.wait, 0)
        assert actor().do(mutex.wait, 0)

    def test_callbacks_cannot_own_it(self) -> None:
        """A registered wait on a mutex is error 87: it has no thread to own it."""
        with pytest.raises(InvalidParameter):
            register_wait(Mutex(), lambda status: None)


class TestSignalAndWait:
    """Section 11: signal and wait."""

    def test_it_signals_then_waits(self, event: Event, actor: Make) -> None:
        """The first object is signaled, the second waited for."""
        with Event() as other:
            waiting = asleep(actor(), signal_and_wait, event, other)
            assert event.wait(0)
            other.set()
            assert result(waiting) == 0

    def test_a_failed_signal_does_not_wait(self, event: Event) -> None:
        """If signalling fails there is no wait, and nothing is consumed."""
        event.set()
        with pytest.raises(LimitExceeded):
            signal_and_wait(Semaphore(1, 1), event, 0)
        with pytest.raises(NotOwner):
            signal_and_wait(Mutex(), event, 0)
        assert event.is_signaled()

    def test_the_same_event_twice(self, event: Event) -> None:
        """Signalling and waiting on one auto-reset event returns 0 and leaves it nonsignaled."""
        assert signal_and_wait(event, event, 0) == 0
        assert not event.is_signaled()

    def test_a_semaphore_and_a_mutex_are_released(self, event: Event) -> None:
        """A semaphore is released by 1, a mutex is released."""
        event.set()
        semaphore, mutex = Semaphore(0, 1), Mutex(initially_owned=True)
        signal_and_wait(semaphore, event, 0)
        assert semaphore.wait(0)
        event.set()
        signal_and_wait(mutex, event, 0)
        with pytest.raises(NotOwner):
            mutex.release()

    def test_a_timeout_comes_after_the_signal(self, event: Event) -> None:
        """If the wait times out the signal was given all the same."""
        with Event() as other, pytest.raises(WaitTimeout):
            signal_and_wait(event, other, 0)
        assert event.is_signaled()

    def test_it_is_alertable(self, event: Event) -> None:
        """With `alertable` pending APCs end the wait."""
        ran: list[int] = []
        queue_apc(ran.append, 1)
        with Event() as other, pytest.raises(Alerted):
            signal_and_wait(event, other, None, alertable=True)
        assert ran == [1]

    def test_it_wakes_who_waits(self, event: Event, actor: Make) -> None:
        """A thread that waits for the first object goes."""
        waiting = asleep(actor(), event.wait)
        with Event(signaled=True) as other:
            signal_and_wait(event, other, 0)
        assert result(waiting)

    @pytest.mark.parametrize("thing", [1, None])
    def test_what_cannot_be_signaled_is_refused(self, event: Event, thing: Any) -> None:
        """Other things, and timers, are error 87."""
        with pytest.raises(EngineError) as raised:
            signal_and_wait(thing, event, 0)
        assert raised.value.status == 87
        with WaitableTimer() as timer, pytest.raises(InvalidParameter):
            signal_and_wait(timer, event, 0)


class TestClosingObjects:
    """Section 15: closed objects."""

    @pytest.mark.parametrize("make", [Event, lambda: Semaphore(0, 1), Mutex, WaitableTimer])
    def test_use_after_close_is_an_invalid_handle(self, make: Callable[[], Waitable]) -> None:
        """Error 6, for every kind of object."""
        thing = make()
        thing.close()
        thing.close()
        for use in (lambda: thing.wait(0), thing.is_signaled, lambda: wait_any([thing], 0)):
            with pytest.raises(InvalidHandle) as raised:
                use()
            assert raised.value.status == 6
        assert thing.statistics().closed

    def test_signalling_after_close_is_an_invalid_handle(self) -> None:
        """Error 6."""
        event, semaphore, mutex = Event(), Semaphore(0, 1), Mutex()
        for each in (event, semaphore, mutex):
            each.close()
        for use in (event.set, event.reset, semaphore.release, mutex.release):
            with pytest.raises(InvalidHandle):
                use()

    def test_a_pending_wait_is_abandoned(self, actor: Make) -> None:
        """A thread that waits when the object closes gets 735; the other objects forget it."""
        with Event() as other:
            event = Event()
            waiting = asleep(actor(), wait_any, [other, event])
            event.close()
            assert isinstance(error(waiting), AbandonedWait)
            assert other.statistics().waiting == 0

    def test_a_forgotten_event_is_reported(self) -> None:
        """An event or timer that is dropped open is reported as a ResourceWarning."""
        for make in (Event, WaitableTimer):
            thing = make()
            with pytest.warns(ResourceWarning, match="without close"):
                del thing
                gc.collect()

    def test_a_closed_event_is_dropped_in_silence(self) -> None:
        """A closed one is not."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            event = Event()
            event.close()
            del event

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_an_inherited_object_is_refused(self, event: Event, actor: Make) -> None:
        """In a forked child an inherited object raises Forked; new ones work."""
        waiting = asleep(actor(), event.wait)
        child = os.fork()
        if not child:
            code = 1
            try:
                try:
                    event.set()
                except InvalidHandle as raised:
                    assert type(raised).__name__ == "Forked"
                    with Event() as own:
                        own.set()
                        code = 0 if own.wait(0) and not own.wait(0.001) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        event.set()
        assert result(waiting)


class TestRegisteredWaits:
    """A function called when something is signaled: no thread is spent on it."""

    def test_it_is_told_of_the_signal(self, event: Event) -> None:
        """The callback gets OK, and the signal is consumed."""
        told: list[Status] = []
        register_wait(event, told.append)
        assert told == []
        event.set()
        assert told == [Status.OK] and not event.is_signaled()

    def test_it_is_told_once(self, event: Event) -> None:
        """One registration is for one signal."""
        told: list[Status] = []
        register_wait(event, told.append)
        event.set()
        event.set()
        assert told == [0] and event.is_signaled()

    def test_it_is_told_at_once_if_signaled(self, event: Event) -> None:
        """If the object is signaled already the callback runs inside the call."""
        told: list[Status] = []
        event.set()
        handle = register_wait(event, told.append)
        assert told == [0] and not handle.cancel()

    def test_it_is_told_of_the_timeout(self, event: Event) -> None:
        """When the time is up the callback gets TIMEOUT, and later signals are not consumed."""
        clock, told = ManualClock(), list[Status]()
        register_wait(event, told.append, 2.0, clock=clock)
        clock.advance(1.9)
        assert told == []
        clock.advance(0.1)
        assert told == [Status.TIMEOUT]
        event.set()
        assert event.is_signaled() and told == [258]

    def test_a_timeout_by_the_system_clock(self, event: Event) -> None:
        """Without a clock of its own the wait times out by the machine's."""
        told: list[Status] = []
        register_wait(event, told.append, 0.005)
        wait_until(lambda: told)
        assert told == [258]

    def test_zero_looks_once(self, event: Event) -> None:
        """A timeout of 0 decides inside the call."""
        told: list[Status] = []
        register_wait(event, told.append, 0)
        event.set()
        register_wait(event, told.append, 0)
        assert told == [258, 0]

    def test_a_signal_cancels_the_timeout(self, event: Event) -> None:
        """After the signal no timeout is told."""
        clock, told = ManualClock(), list[Status]()
        register_wait(event, told.append, 1.0, clock=clock)
        event.set()
        clock.advance(5)
        assert told == [0] and clock.pending == 0

    def test_cancel_withdraws(self, event: Event) -> None:
        """After a cancel in time nothing is told and nothing consumed; a second cancel is late."""
        clock, told = ManualClock(), list[Status]()
        handle = register_wait(event, told.append, 1.0, clock=clock)
        assert handle.cancel() and not handle.cancel()
        event.set()
        clock.advance(5)
        assert told == [] and event.is_signaled() and clock.pending == 0

    def test_closing_is_told(self) -> None:
        """If the object is closed the callback gets 735."""
        told: list[Status] = []
        event = Event()
        register_wait(event, told.append)
        event.close()
        assert told == [735]

    def test_512_waits_cost_no_thread(self) -> None:
        """Hundreds of waits may be pending at once, without a thread each."""
        before, told = threading.active_count(), list[int]()
        objects = events(512)
        for index, each in enumerate(objects):
            register_wait(each, partial(lambda index, status: told.append(index), index))
        assert threading.active_count() <= before + 1
        for each in objects:
            each.set()
        assert told == list(range(512))
        close(objects)

    def test_many_waits_on_one_object(self, manual: Event) -> None:
        """One set of a manual-reset event is told to all who wait for it."""
        told: list[Status] = []
        for _ in range(512):
            register_wait(manual, told.append)
        manual.set()
        assert told == [0] * 512

    def test_a_callback_may_register_again_and_again(self, manual: Event) -> None:
        """A callback that registers itself again, while the object is signaled, is called as often as it does."""
        manual.set()
        told: list[Status] = []

        def again(status: Status) -> None:
            told.append(status)
            if len(told) < 5000:
                register_wait(manual, again)

        register_wait(manual, again)
        assert told == [0] * 5000

    def test_a_callback_that_fails_harms_nobody(self, manual: Event, caplog: pytest.LogCaptureFixture) -> None:
        """What a callback raises is logged; the others are told all the same."""
        told: list[Status] = []
        register_wait(manual, lambda status: 1 / 0)
        register_wait(manual, told.append)
        manual.set()
        assert told == [0] and "ZeroDivisionError" in caplog.text

    def test_a_callback_may_use_the_object(self, event: Event) -> None:
        """No lock is held while the callback runs."""
        told: list[bool] = []
        register_wait(event, lambda status: told.append(event.is_signaled()))
        event.set()
        assert told == [False]

    def test_a_callback_must_be_callable(self, event: Event) -> None:
        """Anything else is error 87."""
        with pytest.raises(InvalidArgumentType):
            register_wait(event, None)  # type: ignore[arg-type]  # wrong on purpose


class TestThreadsAndFutures:
    """Threads and futures are signaled once they have ended."""

    def test_a_thread_that_runs_is_not_signaled(self) -> None:
        """A wait for a running thread times out; for an ended one it is satisfied, again and again."""
        gate = Gate()
        thread = threading.Thread(target=gate.pass_through)
        thread.start()
        with pytest.raises(WaitTimeout):
            wait_any([thread], 0)
        with pytest.raises(WaitTimeout):
            wait_any([thread], 0.005)
        gate.open()
        assert wait_any([thread]) == 0
        assert not thread.is_alive()
        assert wait_any([thread], 0) == 0

    def test_a_thread_that_uses_the_library(self, actor: Make, event: Event) -> None:
        """The end of a thread that has used the library is noticed too."""
        worker = actor()
        worker.do(event.wait, 0)
        waiting = asleep(actor(), wait_any, [event, worker.thread])
        worker.end()
        assert result(waiting) == 1

    def test_a_thread_that_has_not_started_is_not_signaled(self) -> None:
        """A thread becomes signaled by ending, not by never having begun."""
        thread = threading.Thread(target=int)
        with pytest.raises(WaitTimeout):
            wait_any([thread], 0.005)
        thread.start()
        assert wait_any([thread], LIMIT) == 0

    def test_a_callback_is_told_of_a_threads_end(self) -> None:
        """A registered wait works for threads."""
        gate, told = Gate(), list[Status]()
        thread = threading.Thread(target=gate.pass_through)
        thread.start()
        register_wait(thread, told.append)
        gate.open()
        wait_until(lambda: told)
        assert told == [0] and not thread.is_alive()

    def test_a_future_is_signaled_when_done(self, event: Event) -> None:
        """A future that has a result, an exception or was cancelled is signaled."""
        futures: list[Future[int]] = [Future() for _ in range(3)]
        with pytest.raises(WaitTimeout):
            wait_any(futures, 0)
        futures[1].set_exception(KeyError())
        assert wait_any([event, *futures], 0) == 2
        futures[0].set_result(1)
        futures[2].cancel()
        assert wait_all(futures, 0) == 0

    def test_a_future_wakes_a_waiting_thread(self, actor: Make) -> None:
        """A thread that waits for a future goes when it is done."""
        future: Future[int] = Future()
        waiting = asleep(actor(), wait_any, [future])
        future.set_result(1)
        assert result(waiting) == 0

    def test_repeated_waits_leave_no_callbacks(self) -> None:
        """However often a future is waited for, it is given one callback."""
        future: Future[int] = Future()
        for _ in range(10):
            with pytest.raises(WaitTimeout):
                wait_any([future], 0.0001)
        assert len(future._done_callbacks) == 1  # type: ignore[attr-defined]  # the standard library's own

    def test_the_same_future_twice_is_refused(self) -> None:
        """Duplicates are found among foreign things too."""
        future: Future[int] = Future()
        with pytest.raises(InvalidParameter):
            wait_any([future, future], 0)


class Reply:
    """A future of somebody else's: what others have that is no `concurrent.futures.Future`."""

    def __init__(self, key: str = "") -> None:
        self.key = key
        self.told: list[Callable[[Any], object]] = []
        self.over = False

    def done(self) -> bool:
        with Event(signaled=True) as event:
            return event.wait(0) and self.over  # Takes locks of the library, as any code may.

    def add_done_callback(self, fn: Callable[[Any], object], /) -> None:
        self.told.append(fn)

    def end(self) -> None:
        self.over = True
        for fn in self.told:
            fn(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reply) and self.key == other.key

    __hash__ = None  # type: ignore[assignment]  # so are classes that cannot be hashed made


class TestFuturesOfOthers:
    """Whatever has `done` and `add_done_callback` is waited for as a future."""

    def test_it_completes_on_a_port(self) -> None:
        """Its end arrives as one packet, whether it ends before the wait or after."""
        early, late = Reply(), Reply()
        early.end()
        with CompletionPort() as port:
            assert port.associate_wait(early, key=1).already_signaled
            assert not port.associate_wait(late, key=2).already_signaled
            late.end()
            assert [port.get(LIMIT).key, port.get(LIMIT).key] == [1, 2]
            with pytest.raises(WaitTimeout):
                port.get(0)

    def test_its_end_wakes_a_thread_among_others(self, actor: Make, event: Event) -> None:
        """A thread that waits for several things goes when it is done, and has its index."""
        reply = Reply()
        waiting = asleep(actor(), wait_any, [event, reply])
        reply.end()
        assert result(waiting) == 1

    def test_equal_ones_are_two(self) -> None:
        """Two that are equal, as Dask's of one key are, are told apart, and no hash is needed."""
        one, other = Reply("same"), Reply("same")
        with CompletionPort() as port:
            port.associate_wait(one, key=1)
            port.associate_wait(other, key=2)
            other.end()
            assert port.get(LIMIT).key == 2
            with pytest.raises(WaitTimeout):
                port.get(0)
            one.end()
            assert port.get(LIMIT).key == 1

    def test_a_look_needs_no_callback(self) -> None:
        """One that is done, and has yet to say so, is signaled to a wait that begins now."""
        reply = Reply()
        with pytest.raises(WaitTimeout):
            wait_any([reply], 0)
        reply.over = True
        assert wait_any([reply], 0) == 0

    def test_one_that_cannot_be_asked(self) -> None:
        """What its own code raises comes out of the wait, which then is not pending; a later wait works."""
        reply = Reply()
        with pytest.MonkeyPatch.context() as broken, CompletionPort() as port:
            broken.setattr(Reply, "add_done_callback", lambda self, fn: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                port.associate_wait(reply)
            broken.undo()
            port.associate_wait(reply, key=3)
            reply.end()
            assert port.get(LIMIT).key == 3

    def test_nothing_keeps_it(self) -> None:
        """A wait that is over keeps no future alive, and one that is gone takes no room."""
        reply = Reply()
        with pytest.raises(WaitTimeout):
            wait_any([reply], 0)
        gone = weakref.ref(reply)
        del reply
        gc.collect()
        assert gone() is None

    def test_asyncio_keeps_its_own(self) -> None:
        """A future of asyncio's, which only its loop's thread may touch, is refused."""

        async def main() -> None:
            future = asyncio.get_running_loop().create_future()
            with pytest.raises(InvalidArgumentType, match="cannot wait for a Future"), CompletionPort() as port:
                port.associate_wait(future)
            future.cancel()

        asyncio.run(main())

    def test_it_must_be_known_weakly(self) -> None:
        """One that cannot be referred to weakly is refused, with an error that names its type."""

        class Slotted:
            __slots__ = ()
            done = add_done_callback = Reply.done

        with pytest.raises(InvalidArgumentType, match="cannot wait for a Slotted"):
            wait_any([Slotted()], 0)

    def test_one_thing_alone(self) -> None:
        """What waits for a single thing says of a wrong one what it is, and nothing of others."""
        with CompletionPort() as port, pytest.raises(InvalidArgumentType, match="an int here: it is no Waitable"):
            port.associate_wait(5)


class TestSlotsInWaits:
    """Section 4: waits and the port's slots."""

    def test_a_wait_for_all_releases_the_slot(self, actor: Make) -> None:
        """A thread that waits for several objects is not active."""
        objects = events(2)
        with CompletionPort(1) as port:
            worker = actor()
            worker.start(port.get, 0)
            waiting = asleep(worker, wait_all, objects)
            assert port.statistics().active == 0
            for each in objects:
                each.set()
            result(waiting)
            assert port.statistics().active == 1
        close(objects)

    def test_is_signaled_is_no_wait(self, event: Event) -> None:
        """Asking consumes nothing."""
        event.set()
        assert event.is_signaled() and event.is_set() and event.wait(0)

    def test_statistics_count_pending_waits(self, event: Event, actor: Make) -> None:
        """Threads and callbacks that wait are counted."""
        waiting = asleep(actor(), event.wait)
        handle = register_wait(event, lambda status: None)
        wait_until_blocked(event, 2)
        assert event.statistics().waiting == 2 and not event.statistics().signaled
        handle.cancel()
        event.set()
        result(waiting)
        assert event.statistics().waiting == 0


def test_sleeping_takes_the_time_it_says() -> None:
    """A sleep is never shorter than asked."""
    start = time.monotonic()
    assert sleep(0.02) == 0
    assert time.monotonic() - start >= 0.02
