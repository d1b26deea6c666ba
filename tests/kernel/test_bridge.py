"""Signals that arrive as packets, ports that are waited for, ends of processes, event loops."""

import asyncio
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future

import pytest

from engine import (
    AbandonedWait,
    CompletionPort,
    EngineError,
    Event,
    InvalidHandle,
    InvalidParameter,
    InvalidState,
    Mutex,
    Semaphore,
    Status,
    WaitableTimer,
    WaitPacket,
    WaitTimeout,
    register_wait,
    wait_all,
    wait_any,
)
from engine.testing import LIMIT, Gate, ManualClock, wait_until

from .helpers import Actor, asleep, depth, error, getter, join_as_active, result

Make = Callable[[], Actor]


class TestWaitPackets:
    """Section 13: wait completion packets."""

    def test_a_signal_arrives_as_a_packet(self, port: CompletionPort) -> None:
        """When the object becomes signaled one packet with the given values is queued."""
        with Event() as event:
            packet = port.associate_wait(event, "key", 3, "overlapped", 4)
            assert not packet.already_signaled and depth(port) == 0
            event.set()
            found = port.get(0)
            assert (found.key, found.transferred, found.overlapped, found.status) == ("key", 3, "overlapped", 4)
            assert not event.is_signaled()

    def test_it_goes_to_a_waiting_thread(self, port: CompletionPort, actor: Make) -> None:
        """A thread that waits on the port gets it."""
        with Event() as event:
            waiting = getter(actor(), port)
            port.associate_wait(event, 5)
            event.set()
            assert result(waiting).key == 5

    def test_an_object_that_is_signaled_already_is_told(self, port: CompletionPort) -> None:
        """The packet is queued at once, and the call says so."""
        with Event(signaled=True) as event:
            packet = WaitPacket()
            assert packet.associate(port, event, 1) is True
            assert packet.already_signaled and depth(port) == 1

    def test_it_is_one_shot(self, port: CompletionPort) -> None:
        """One association is one packet."""
        with Event() as event:
            port.associate_wait(event)
            event.set()
            event.set()
            assert depth(port) == 1 and event.is_signaled()

    def test_after_the_dequeue_it_may_be_associated_again(self, port: CompletionPort) -> None:
        """Once its packet was dequeued the same wait packet serves again."""
        packet = WaitPacket()
        with Event() as event:
            for number in range(3):
                assert packet.associate(port, event, number) is False
                event.set()
                assert port.get(0).key == number

    def test_associating_while_pending_is_an_error(self, port: CompletionPort) -> None:
        """A wait packet whose object is not signaled yet is in use: error 87."""
        with Event() as event, Event() as other:
            packet = port.associate_wait(event, 1)
            with pytest.raises(InvalidState) as raised:
                packet.associate(port, other, 2)
            assert raised.value.status == 87
            event.set()
            assert port.get(0).key == 1

    def test_associating_while_queued_is_an_error(self, port: CompletionPort) -> None:
        """So is one whose packet was not dequeued yet."""
        with Event() as event:
            packet = port.associate_wait(event, 1)
            event.set()
            with pytest.raises(InvalidState):
                packet.associate(port, event, 2)
            assert port.get(0).key == 1

    def test_cancel_withdraws_a_pending_one(self, port: CompletionPort) -> None:
        """Success: no packet will come, and the signal is not consumed."""
        with Event() as event:
            packet = port.associate_wait(event)
            assert packet.cancel() == Status.OK
            event.set()
            assert depth(port) == 0 and event.is_signaled()
            assert packet.associate(port, event) is True  # It may be used again.

    def test_cancel_of_a_queued_one_is_pending(self, port: CompletionPort) -> None:
        """A packet that is queued still comes: PENDING, and the wait packet is in use."""
        with Event() as event:
            packet = port.associate_wait(event, 1)
            event.set()
            assert packet.cancel() == Status.PENDING
            with pytest.raises(InvalidState):
                packet.associate(port, event)
            assert port.get(0).key == 1

    def test_cancel_may_pull_a_queued_one_back(self, port: CompletionPort) -> None:
        """With `remove` the packet is taken out of the port; the others stay, in order."""
        with Event() as event:
            port.post(1)
            packet = port.associate_wait(event, 2)
            event.set()
            port.post(3)
            assert packet.cancel(remove=True) == Status.OK
            assert [each.key for each in port.get_many(4)] == [1, 3]

    def test_cancel_after_the_dequeue_is_cancelled(self, port: CompletionPort) -> None:
        """A packet that was dequeued cannot be withdrawn: OPERATION_ABORTED."""
        with Event() as event:
            packet = port.associate_wait(event)
            event.set()
            port.get(0)
            assert packet.cancel() == packet.cancel(remove=True) == Status.OPERATION_ABORTED

    def test_cancel_before_any_use_is_cancelled(self) -> None:
        """So is one that was never associated, or was withdrawn before."""
        assert WaitPacket().cancel() == Status.OPERATION_ABORTED

    def test_cancelling_twice(self, port: CompletionPort) -> None:
        """The second cancel finds nothing."""
        with Event() as event:
            packet = port.associate_wait(event)
            assert [packet.cancel(), packet.cancel()] == [0, 995]

    def test_a_packet_of_the_same_values_is_not_mistaken(self, port: CompletionPort) -> None:
        """Only the very packet is pulled back, not one that looks like it."""
        with Event() as event:
            port.post(1, 0, "mine")
            packet = port.associate_wait(event, 1, 0, "other")
            event.set()
            assert packet.cancel(remove=True) == 0
            assert port.get(0).overlapped == "mine" and depth(port) == 0

    def test_closing_the_port_withdraws(self) -> None:
        """When the port closes, pending waits consume nothing any more."""
        with Event() as event:
            with CompletionPort(1) as port:
                packet = port.associate_wait(event)
            assert event.statistics().waiting == 0
            event.set()
            assert event.is_signaled()
            assert packet.cancel() == 995

    def test_a_closed_object_is_told(self, port: CompletionPort) -> None:
        """If the object is closed the packet comes with status 735."""
        event = Event()
        port.associate_wait(event, 1)
        event.close()
        packet = port.get(0)
        assert (packet.key, packet.status) == (1, 735)

    def test_closed_things_are_refused(self, port: CompletionPort) -> None:
        """A closed object or port is error 6, and the wait packet stays free."""
        packet = WaitPacket()
        with Event() as event:
            pass
        with pytest.raises(InvalidHandle):
            packet.associate(port, event)
        port.close()
        with Event() as event, pytest.raises(InvalidHandle):
            packet.associate(port, event)
        assert packet.cancel() == 995

    def test_a_mutex_is_refused(self, port: CompletionPort) -> None:
        """A packet cannot own a mutex: error 87."""
        with pytest.raises(InvalidParameter):
            port.associate_wait(Mutex())

    def test_timers_semaphores_futures_threads(self, port: CompletionPort) -> None:
        """Everything that can be waited for by a callback arrives as a packet."""
        clock, gate, future = ManualClock(), Gate(), Future[int]()
        thread = threading.Thread(target=gate.pass_through)
        thread.start()
        semaphore = Semaphore(0, 1)
        with WaitableTimer(clock=clock) as timer:
            things = [timer, semaphore, future, thread]
            for thing in things:
                port.associate_wait(thing, overlapped=thing)
            timer.set(1)
            clock.advance(1)
            semaphore.release()
            future.set_result(1)
            assert [each.overlapped for each in port.get_many(4)] == things[:3]
            gate.open()
            assert port.get(LIMIT).overlapped is thread

    def test_hundreds_cost_no_thread(self, port: CompletionPort) -> None:
        """512 waits may be pending, without a thread each, and each arrives once."""
        before = threading.active_count()
        events = [Event() for _ in range(512)]
        for index, event in enumerate(events):
            port.associate_wait(event, index)
        assert threading.active_count() <= before + 1
        for event in reversed(events):
            event.set()
        keys: list[int] = []
        while len(keys) < 512:
            keys += [packet.key for packet in port.get_many(100, 0)]
        assert keys == list(reversed(range(512)))
        for event in events:
            event.close()


class TestPortAsWaitable:
    """Section 14: the port itself as something to wait for."""

    def test_it_is_signaled_while_packets_are_queued(self, port: CompletionPort) -> None:
        """A wait succeeds while there are packets, and not when there are none."""
        with pytest.raises(WaitTimeout):
            wait_any([port], 0)
        port.post(1)
        assert wait_any([port], 0) == 0
        port.get()
        with pytest.raises(WaitTimeout):
            wait_any([port], 0.001)

    def test_a_wait_consumes_nothing(self, port: CompletionPort) -> None:
        """The packets stay, and the waiting thread is not associated."""
        port.post(1)
        assert wait_any([port], 0) == wait_any([port], 0) == 0
        assert depth(port) == 1 and port.statistics().active == 0

    def test_a_post_releases_all_who_wait(self, port: CompletionPort, actor: Make) -> None:
        """Every thread that waits for the port goes."""
        waiting = [asleep(actor(), wait_any, [port]) for _ in range(3)]
        port.post(1)
        assert [result(each) for each in waiting] == [0, 0, 0]
        assert depth(port) == 1

    def test_a_delivery_releases_them_too(self, port: CompletionPort, actor: Make) -> None:
        """So does the packet of an operation, or of a wait."""
        with Event() as event:
            waiting = asleep(actor(), wait_any, [port])
            port.associate_wait(event)
            event.set()
            assert result(waiting) == 0

    def test_a_thread_in_a_dequeue_comes_first(self, port: CompletionPort, actor: Make) -> None:
        """If a thread sleeps in a dequeue the post goes to it, and those who wait for the port sleep on."""
        waiting = asleep(actor(), wait_any, [port])
        taking = getter(actor(), port)
        port.post(1)
        assert result(taking).key == 1
        assert not waiting.done()
        port.post(2)  # Now the slot is taken: it is queued.
        assert result(waiting) == 0

    def test_closing_satisfies_them(self, port: CompletionPort, actor: Make) -> None:
        """When the port closes a wait for it is satisfied; a later one is error 6."""
        waiting = asleep(actor(), wait_any, [port])
        port.close()
        assert result(waiting) == 0
        with pytest.raises(InvalidHandle):
            wait_any([port], 0)

    def test_it_mixes_with_other_objects(self, port: CompletionPort) -> None:
        """A port may stand beside events."""
        with Event() as event:
            port.post(1)
            assert wait_any([event, port], 0) == 1
            event.set()
            assert wait_all([event, port], 0) == 0
            assert depth(port) == 1

    def test_the_accounting_is_the_same(self, port: CompletionPort, actor: Make) -> None:
        """A port that somebody waited for still hands out packets by its slots."""
        with pytest.raises(WaitTimeout):
            wait_any([port], 0)
        worker = actor()
        join_as_active(worker, port)
        sleeper = getter(actor(), port)
        port.post(1)
        assert depth(port) == 1 and not sleeper.done()
        assert worker.do(port.get, 0).key == 1
        port.close()
        assert isinstance(error(sleeper), AbandonedWait)


class TestProcesses:
    """Processes are signaled once they have ended."""

    def start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

    def test_a_process_is_signaled_when_it_ends(self) -> None:
        """A wait for a running process times out, and is satisfied by its end."""
        with self.start() as process:
            with pytest.raises(WaitTimeout):
                wait_any([process], 0)
            with pytest.raises(WaitTimeout):
                wait_any([process], 0.005)
            process.communicate(b"\n")
            assert wait_any([process], LIMIT) == 0
            assert process.returncode == 0
            assert wait_any([process], 0) == 0

    def test_its_end_wakes_a_thread(self, actor: Make) -> None:
        """A thread that waits goes, and the exit status can be had."""
        with self.start() as process, Event() as event:
            waiting = asleep(actor(), wait_any, [event, process])
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
            assert result(waiting) == 1
            assert process.poll() == 0

    def test_its_end_arrives_as_a_packet(self, port: CompletionPort) -> None:
        """Though no thread waits at that time."""
        with self.start() as process:
            port.associate_wait(process, "process")
            process.communicate(b"\n")
            wait_until(lambda: depth(port) == 1)
            assert port.get(0).key == "process"

    def test_a_withdrawn_wait_is_not_told(self, port: CompletionPort) -> None:
        """A cancelled packet does not come; a later wait is satisfied."""
        with self.start() as process:
            packet = port.associate_wait(process)
            assert packet.cancel() == 0
            process.communicate(b"\n")
            assert wait_any([process], LIMIT) == 0 and depth(port) == 0

    def test_multiprocessing_processes_too(self, port: CompletionPort) -> None:
        """A multiprocessing.Process is signaled when it has ended, not before it has started."""
        process = multiprocessing.get_context("spawn").Process(target=int)
        with pytest.raises(WaitTimeout):
            wait_any([process], 0.002)
        process.start()
        assert wait_any([process], LIMIT) == 0
        assert process.exitcode == 0
        process.close()


class TestEventLoops:
    """An asyncio task may await events, and what any thread completes."""

    def test_a_task_awaits_an_event(self, actor: Make) -> None:
        """A set by another thread resumes the task, and is consumed."""

        async def main() -> bool:
            with Event() as event:
                awaiting = asyncio.ensure_future(event.wait_async())
                await asyncio.sleep(0)
                assert event.statistics().waiting == 1
                actor().start(event.set)
                return await awaiting and not event.is_signaled()

        assert asyncio.run(main())

    def test_await_works_on_the_event_itself(self) -> None:
        """`await event` is a wait without a limit."""

        async def main() -> bool:
            with Event(signaled=True) as event:
                return await event

        assert asyncio.run(main()) is True

    def test_a_set_by_the_loops_own_thread(self) -> None:
        """A set inside the loop resumes the task."""

        async def main() -> bool:
            with Event() as event:
                asyncio.get_running_loop().call_soon(event.set)
                return await event

        assert asyncio.run(main()) is True

    def test_a_timeout_is_false(self) -> None:
        """As for a thread."""

        async def main() -> bool:
            with Event() as event:
                return await event.wait_async(0.002)

        assert asyncio.run(main()) is False

    def test_a_cancelled_task_takes_no_signal(self) -> None:
        """After the task was cancelled nothing is pending, and no signal is lost."""

        async def main() -> None:
            with Event() as event:
                awaiting = asyncio.ensure_future(event.wait_async())
                await asyncio.sleep(0)
                awaiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await awaiting
                assert event.statistics().waiting == 0
                # Signaled and cancelled in the same round of the loop: the signal goes back.
                awaiting = asyncio.ensure_future(event.wait_async())
                await asyncio.sleep(0)
                event.set()
                awaiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await awaiting
                assert event.is_signaled()

        asyncio.run(main())

    def test_closing_is_told(self) -> None:
        """A task that awaits a closed event gets AbandonedWait."""

        async def main() -> None:
            event = Event()
            awaiting = asyncio.ensure_future(event.wait_async())
            await asyncio.sleep(0)
            event.close()
            with pytest.raises(AbandonedWait):
                await awaiting

        asyncio.run(main())

    def test_many_tasks_await_many_events(self, actor: Make) -> None:
        """Hundreds of tasks, one thread that sets."""

        async def main() -> int:
            events = [Event() for _ in range(300)]
            tasks = [asyncio.ensure_future(event.wait_async()) for event in events]
            await asyncio.sleep(0)
            setting = actor().start(lambda: [event.set() for event in events])
            done = sum(await asyncio.gather(*tasks))
            result(setting)
            for event in events:
                event.close()
            return done

        assert asyncio.run(main()) == 300

    def test_two_loops_in_two_threads(self, actor: Make) -> None:
        """Each loop has its own bridge."""

        async def main(event: Event) -> bool:
            return await event

        with Event(manual_reset=True) as event:
            running = [actor().start(lambda: asyncio.run(main(event))) for _ in range(2)]
            wait_until(lambda: event.statistics().waiting == 2)
            event.set()
            assert [result(each) for each in running] == [True, True]

    def test_a_loop_that_ends_early_leaves_nothing(self) -> None:
        """A loop that is closed while tasks await can be followed by another."""

        async def main(event: Event) -> None:
            asyncio.ensure_future(event.wait_async())
            await asyncio.sleep(0)

        with Event() as event:
            asyncio.run(main(event))
            event.set()
            assert event.is_signaled() or event.statistics().waiting == 0

            async def after() -> bool:
                event.set()
                return await event

            assert asyncio.run(after())


def test_what_is_no_waitable_is_refused(port: CompletionPort) -> None:
    """Anything else is error 87."""
    for use in (lambda: port.associate_wait(3), lambda: register_wait("x", print)):
        with pytest.raises(EngineError) as raised:
            use()
        assert raised.value.status == 87
