"""Cleanup groups."""

from functools import partial
from typing import Any

import pytest

from engine import (
    CleanupGroup,
    Deadlock,
    Environment,
    Event,
    InvalidHandle,
    InvalidParameter,
    InvalidState,
    ThreadPool,
    Timer,
    Wait,
    WaitTimeout,
    Work,
    current_callback,
    submit_callback,
)
from engine.testing import LIMIT, ManualClock, wait_until, wait_until_blocked

from .helpers import Blocker, Delivery, Recorder, in_thread, joined, occupy, settle


class Group:
    """A cleanup group whose cancel callbacks are noted, and an environment that names it."""

    def __init__(self, pool: ThreadPool) -> None:
        import threading

        self.group = CleanupGroup()
        self.cancelled: list[tuple[Any, Any]] = []
        self.threads: list[Any] = []

        def cancel(context: Any, cleanup_context: Any) -> None:
            self.cancelled.append((context, cleanup_context))
            self.threads.append(threading.current_thread())

        self.environment = Environment(pool=pool, cleanup_group=self.group, cancel_callback=cancel)


@pytest.fixture
def members(pool: ThreadPool) -> Group:
    return Group(pool)


class TestMembers:
    """Section 9, membership."""

    def test_objects_join_when_made(self, members: Group) -> None:
        """Each object made through an environment naming the group is a member."""
        made = [Work(print, environment=members.environment), Timer(print, environment=members.environment),
                Wait(print, environment=members.environment)]  # fmt: skip
        assert len(members.group) == 3
        members.group.close_members()
        assert len(members.group) == 0
        assert all(each.closed for each in made)

    def test_a_simple_callback_leaves_when_it_has_run(self, members: Group) -> None:
        """A simple member leaves by itself when its callback has run."""
        blocker = Blocker()
        submit_callback(blocker, environment=members.environment)
        assert len(members.group) == 1
        blocker.release()
        wait_until(lambda: len(members.group) == 0)

    def test_a_member_leaves_when_closed(self, members: Group) -> None:
        """Any member leaves when it is closed individually."""
        work = Work(print, environment=members.environment)
        work.close()
        assert len(members.group) == 0

    def test_closing_needs_an_empty_group(self, members: Group) -> None:
        """A group with members cannot be closed; a closed one takes none."""
        work = Work(print, environment=members.environment)
        with pytest.raises(InvalidState):
            members.group.close()
        work.close()
        members.group.close()
        members.group.close()
        with pytest.raises(InvalidHandle):
            Work(print, environment=members.environment)
        with pytest.raises(InvalidHandle):
            members.group.close_members()

    def test_the_group_can_be_refilled(self, members: Group) -> None:
        """The group survives a release and can be filled again."""
        for _ in range(3):
            Work(print, environment=members.environment)
            members.group.close_members()
        members.group.close()

    def test_the_with_block_releases(self, pool: ThreadPool) -> None:
        """As a context manager the group releases its members, waiting for what is queued."""
        recorder = Recorder()
        with CleanupGroup() as group:
            work = Work(recorder, environment=Environment(pool=pool, cleanup_group=group))
            for _ in range(5):
                work.submit()
        assert recorder.count == 5
        assert work.closed


class TestRelease:
    """Section 9, CloseThreadpoolCleanupGroupMembers."""

    def test_without_cancel_queued_callbacks_run(self, single: ThreadPool) -> None:
        """Without cancel the call waits for everything queued, and no cancel callback runs."""
        members, recorder = Group(single), Recorder()
        blocker = occupy(single)
        work = Work(recorder, environment=members.environment)
        for _ in range(5):
            work.submit()
        submit_callback(recorder, environment=members.environment)
        releaser = in_thread(members.group.close_members)
        blocker.release()
        joined(releaser)
        assert recorder.count == 6
        assert members.cancelled == []

    def test_with_cancel_each_object_is_cancelled_once(self, single: ThreadPool) -> None:
        """Ten posts discarded: one cancel callback, with both contexts, on the releasing thread."""
        members, recorder = Group(single), Recorder()
        blocker = occupy(single)
        work = Work(recorder, environment=members.environment, context="object")
        for _ in range(10):
            work.submit()
        members.group.close_members(True, "cleanup")
        assert members.cancelled == [("object", "cleanup")]
        import threading

        assert members.threads == [threading.current_thread()]
        assert work.statistics().discarded == 10
        blocker.release()
        settle(single)
        assert recorder.count == 0

    def test_idle_objects_are_cancelled_too(self, members: Group) -> None:
        """The cancel callback also runs for objects that had nothing queued."""
        Work(print, environment=members.environment, context="work")
        Timer(print, environment=members.environment, context="timer")
        Wait(print, environment=members.environment, context="wait")
        members.group.close_members(True)
        assert [context for context, _ in members.cancelled] == ["work", "timer", "wait"]

    def test_it_runs_after_the_running_callback(self, members: Group) -> None:
        """The cancel callback runs after the object's running callback has finished."""
        order: list[str] = []
        blocker = Blocker()

        def body() -> None:
            blocker()
            order.append("returned")

        members.environment.cancel_callback = lambda context, cleanup: order.append("cancelled")
        work = Work(body, environment=members.environment)
        work.submit()
        blocker.wait_until_running()
        releaser = in_thread(lambda: members.group.close_members(True))
        wait_until(lambda: work.statistics().waiting)
        blocker.release()
        joined(releaser)
        assert order == ["returned", "cancelled"]

    def test_not_for_an_object_that_closed_itself(self, members: Group) -> None:
        """No cancel callback for an object that closed itself in its callback."""
        blocker = Blocker()

        def body() -> None:
            blocker()
            work.close()

        work = Work(body, environment=members.environment)
        work.submit()
        blocker.wait_until_running()
        releaser = in_thread(lambda: members.group.close_members(True))
        wait_until(lambda: work.statistics().waiting)
        blocker.release()
        joined(releaser)
        assert members.cancelled == []

    @pytest.mark.parametrize("cancel", [False, True])
    def test_a_member_that_was_closed_is_waited_for(self, members: Group, cancel: bool) -> None:
        """What a member has running when it is closed is waited for, without a cancel callback, whoever closed it."""
        blocker = Blocker()
        work = Work(lambda: (work.close(), blocker()), environment=members.environment)
        work.submit()
        blocker.wait_until_running()
        assert len(members.group) == 0
        for _ in range(2):
            with pytest.raises(WaitTimeout):
                members.group.close_members(cancel, timeout=0.01)
            assert len(members.group) == 0
        releaser = in_thread(lambda: members.group.close_members(cancel))
        wait_until(lambda: work.statistics().waiting)
        blocker.release()
        joined(releaser)
        assert members.cancelled == []

    def test_queued_callbacks_of_a_member_that_was_closed(self, single: ThreadPool) -> None:
        """They are waited for, or discarded with cancel; there is no cancel callback."""
        members, recorder = Group(single), Recorder()
        for cancel in (False, True):
            blocker = occupy(single)
            work = Work(recorder, environment=members.environment)
            work.submit()
            work.close()
            releaser = in_thread(partial(members.group.close_members, cancel))
            if not cancel:
                wait_until(lambda: work.statistics().waiting)  # noqa: B023  # called in this turn
                blocker.release()
            joined(releaser)
            assert recorder.count == 1
            blocker.release()
            settle(single)
        assert recorder.count == 1
        assert members.cancelled == []

    def test_a_callback_that_arms_its_object_again(self, members: Group, clock: ManualClock) -> None:
        """A callback that arms its own timer while the group waits for it brings no other one after the release."""
        blocker, recorder = Blocker(), Recorder()
        timer = Timer(lambda: (recorder(), blocker(), timer.set(1)), environment=members.environment, clock=clock)
        timer.set(0)
        blocker.wait_until_running()
        releaser = in_thread(lambda: members.group.close_members(True))
        wait_until_blocked(timer)
        blocker.release()
        joined(releaser)
        assert clock.pending == 0
        clock.advance(1)
        assert recorder.count == 1

    def test_not_for_a_simple_callback_that_completed(self, members: Group) -> None:
        """No cancel callback for a simple callback that was running and completed."""
        blocker = Blocker()
        submit_callback(blocker, environment=members.environment)
        blocker.wait_until_running()
        releaser = in_thread(lambda: members.group.close_members(True))
        wait_until(lambda: len(members.group) == 0)
        blocker.release()
        joined(releaser)
        assert members.cancelled == []

    def test_for_a_simple_callback_that_was_discarded(self, single: ThreadPool) -> None:
        """A simple callback discarded before it started has its cancel callback run."""
        members, recorder = Group(single), Recorder()
        blocker = occupy(single)
        submit_callback(recorder, environment=members.environment, context="simple")
        members.group.close_members(True)
        assert members.cancelled == [("simple", None)]
        blocker.release()
        settle(single)
        assert recorder.count == 0

    def test_sources_are_stopped(self, members: Group, clock: ManualClock) -> None:
        """Releasing stops timers and waits: a signal that comes later stays in its object."""
        recorder = Recorder()
        with Event() as event:
            timer = Timer(recorder, environment=members.environment, clock=clock)
            wait = Wait(recorder, environment=members.environment)
            timer.set(1, 1)
            wait.set(event)
            members.group.close_members()
            clock.advance(5)
            event.set()
            assert event.is_signaled()
        assert recorder.count == 0

    def test_a_signal_that_is_being_delivered(self, members: Group, pool: ThreadPool) -> None:
        """A callback whose signal was consumed and that is not queued yet is waited for; with cancel, discarded."""
        order: list[str] = []
        members.environment.cancel_callback = lambda context, cleanup: order.append("cancelled")
        for cancel in (False, True):
            with Event(True) as event:
                delivery = Delivery(event)
                wait = Wait(lambda status: order.append("ran"), environment=members.environment)
                wait.set(event)
                delivery.begin(event.set)
                if not cancel:
                    releaser = in_thread(members.group.close_members)
                    wait_until_blocked(wait)
                    delivery.end()
                    joined(releaser)
                else:
                    members.group.close_members(True)
                    delivery.end()
                settle(pool)
        assert order == ["ran", "cancelled"]

    def test_released_objects_are_refused(self, members: Group) -> None:
        """A member must not be used after the release."""
        work = Work(print, environment=members.environment)
        members.group.close_members()
        for call in (work.submit, work.wait):
            with pytest.raises(InvalidHandle):
                call()
        work.close()

    def test_others_are_not_waited_for(self, members: Group, pool: ThreadPool) -> None:
        """Callbacks on the same pool that are not members are not waited for."""
        blocker = Blocker()
        pool.submit(blocker)
        blocker.wait_until_running()
        Work(print, environment=members.environment).submit()
        members.group.close_members()
        assert pool.statistics().queued == 0
        blocker.release()

    def test_a_disassociated_callback_is_waited_for(self, members: Group) -> None:
        """Disassociated callbacks are waited for."""
        blocker = Blocker()

        def leave() -> None:
            current_callback().disassociate()
            blocker()

        work = Work(leave, environment=members.environment)
        work.submit()
        blocker.wait_until_running()
        with pytest.raises(WaitTimeout):
            members.group.close_members(timeout=0.02)
        blocker.release()
        members.group.close_members()

    def test_a_member_cannot_release_its_group(self, members: Group) -> None:
        """Releasing the group in a member's callback raises, disassociated or not."""
        caught: list[BaseException] = []

        def release() -> None:
            for _ in range(2):
                with pytest.raises(Deadlock) as refused:
                    members.group.close_members()
                caught.append(refused.value)
                current_callback().disassociate()

        work = Work(release, environment=members.environment)
        work.submit()
        wait_until(lambda: len(caught) == 2)
        members.group.close_members()

    def test_a_member_that_was_closed_cannot_either(self, members: Group) -> None:
        """The callback of a member that was closed meanwhile cannot release the group: it would be waited for."""
        caught: list[BaseException] = []

        def release() -> None:
            work.close()
            with pytest.raises(Deadlock) as refused:
                members.group.close_members()
            caught.append(refused.value)

        work = Work(release, environment=members.environment)
        work.submit()
        wait_until(lambda: caught)
        members.group.close_members()

    def test_the_time_limit(self, members: Group) -> None:
        """When the time is up, members that were not released are members again."""
        blocker = Blocker()
        Work(print, environment=members.environment)
        work = Work(blocker, environment=members.environment)
        work.submit()
        blocker.wait_until_running()
        with pytest.raises(WaitTimeout):
            members.group.close_members(True, timeout=0.02)
        assert len(members.group) == 1
        assert len(members.cancelled) == 1
        with pytest.raises(InvalidParameter):
            members.group.close_members(timeout=-1)
        blocker.release()
        members.group.close_members(True, timeout=LIMIT)
        assert len(members.cancelled) == 2

    def test_a_cancel_callback_that_fails_is_reported(
        self, members: Group, pool: ThreadPool, errors: list[tuple[BaseException, object]]
    ) -> None:
        """What a cancel callback raises goes to the pool's handler; the others are released all the same."""
        members.environment.cancel_callback = lambda context, cleanup: 1 / 0
        works = [Work(print, environment=members.environment) for _ in range(3)]
        pool.set_maximum(1)
        blocker = occupy(pool)
        submit_callback(print, environment=members.environment)
        members.group.close_members(True)
        blocker.release()
        assert [type(error) for error, _ in errors] == [ZeroDivisionError] * 4
        assert [owner for _, owner in errors] == [*works, print]
        assert all(work.closed for work in works)
