"""The completion port, section by section."""

import gc
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest

from engine import (
    UNSET,
    AbandonedWait,
    Alerted,
    CompletionPacket,
    CompletionPort,
    EngineError,
    Event,
    InvalidArgumentType,
    InvalidHandle,
    InvalidParameter,
    PacketSink,
    QueueFull,
    Status,
    WaitTimeout,
    blocking,
    queue_apc,
    sleep,
)
from engine.testing import Gate, wait_until, wait_until_blocked

from .helpers import Actor, active, asleep, depth, error, getter, join_as_active, result

Make = Callable[[], Actor]


class Source:
    """A source that remembers what it was bound to."""

    def __init__(self, refusal: BaseException | None = None) -> None:
        self.bound: tuple[PacketSink, Any] | None = None
        self.refusal = refusal

    def bind_port(self, port: PacketSink, key: Any) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.bound = port, key


@contextmanager
def keeping_the_slot(port: CompletionPort, actor: Make) -> Iterator[Actor]:
    """A thread that has the only slot, and keeps another from the packet that is there, at the end too."""
    worker = actor()
    join_as_active(worker, port)
    sleeper = getter(actor(), port)
    port.post(1)
    yield worker
    assert not sleeper.done() and active(port) == 1
    port.close()
    assert isinstance(error(sleeper), AbandonedWait)


class TestVocabulary:
    """Section 1: packets and numbers."""

    def test_a_packet_has_four_values(self) -> None:
        """A packet is (key, transferred, overlapped, status)."""
        packet = CompletionPacket(1, 2, "o", 38)
        assert (packet.key, packet.transferred, packet.overlapped, packet.status) == (1, 2, "o", 38)

    def test_a_packet_cannot_be_changed(self) -> None:
        """A packet is a value: its fields cannot be assigned."""
        with pytest.raises(AttributeError):
            CompletionPacket().key = 1  # type: ignore[misc]  # wrong on purpose

    @pytest.mark.parametrize(
        ("name", "number"),
        [
            ("ERROR_SUCCESS", 0), ("WAIT_OBJECT_0", 0), ("ERROR_INVALID_HANDLE", 6), ("ERROR_GEN_FAILURE", 31),
            ("ERROR_HANDLE_EOF", 38), ("ERROR_NETNAME_DELETED", 64), ("ERROR_INVALID_PARAMETER", 87),
            ("WAIT_ABANDONED_0", 128), ("WAIT_IO_COMPLETION", 192), ("WAIT_TIMEOUT", 258), ("ERROR_NOT_OWNER", 288),
            ("ERROR_TOO_MANY_POSTS", 298), ("ERROR_ABANDONED_WAIT_0", 735), ("ERROR_OPERATION_ABORTED", 995),
            ("ERROR_IO_INCOMPLETE", 996), ("ERROR_IO_PENDING", 997), ("ERROR_NOT_FOUND", 1168),
        ],
    )  # fmt: skip
    def test_statuses_have_windows_numbers(self, name: str, number: int) -> None:
        """Each status is known by its Windows name and number."""
        assert Status[name] == number

    def test_errors_carry_their_numbers(self) -> None:
        """Each error tells its Windows number."""
        assert (WaitTimeout.status, Alerted.status, AbandonedWait.status) == (258, 192, 735)
        assert (InvalidHandle.status, InvalidParameter.status, InvalidArgumentType.status) == (6, 87, 87)


class TestCreating:
    """Section 2: creating, associating, lifetime."""

    def test_zero_means_the_number_of_processors(self) -> None:
        """A concurrency value of 0 is the number of logical processors."""
        with CompletionPort() as port, CompletionPort(0) as other:
            assert port.concurrency == other.concurrency == os.cpu_count()

    def test_the_concurrency_value_is_kept(self) -> None:
        """The concurrency value is what was given, and cannot be assigned."""
        with CompletionPort(7) as port:
            assert port.concurrency == 7
            with pytest.raises(AttributeError):
                port.concurrency = 3  # type: ignore[misc]  # wrong on purpose

    @pytest.mark.parametrize("value", [-1, -100])
    def test_a_negative_concurrency_value_is_refused(self, value: int) -> None:
        """A negative concurrency value is error 87."""
        with pytest.raises(InvalidParameter, match="concurrency") as raised:
            CompletionPort(value)
        assert raised.value.status == 87

    @pytest.mark.parametrize("value", ["2", 2.0, True, None])
    def test_a_concurrency_value_is_an_int(self, value: Any) -> None:
        """A concurrency value of another type is error 87, and a TypeError."""
        with pytest.raises(TypeError) as raised:
            CompletionPort(value)
        assert isinstance(raised.value, EngineError) and raised.value.status == 87

    def test_a_new_port_is_empty(self, port: CompletionPort) -> None:
        """A new port has no packet, no waiting and no active thread."""
        statistics = port.statistics()
        assert (statistics.depth, statistics.active, statistics.waiting, len(port)) == (0, 0, 0, 0)

    def test_associate_binds_and_returns_the_port(self, port: CompletionPort) -> None:
        """Associating binds the source under its key and returns the same port."""
        source = Source()
        assert port.associate(source, key="k") is port
        assert source.bound == (port, "k")

    def test_create_and_associate_in_one_step(self) -> None:
        """A port may be created with its first source."""
        source = Source()
        with CompletionPort(3, source=source, key=5) as port:
            assert source.bound == (port, 5)
            assert port.concurrency == 3

    def test_a_failed_bind_leaves_no_port(self) -> None:
        """If the source refuses while a port is created with it, there is no port: it was closed again."""
        made: list[Any] = []

        class Refusing(Source):
            def bind_port(self, port: PacketSink, key: Any) -> None:
                made.append(port)
                raise InvalidParameter("not overlapped")

        with pytest.raises(InvalidParameter):
            CompletionPort(source=Refusing())
        assert made[0].closed

    def test_no_source_with_a_port_is_refused(self, port: CompletionPort) -> None:
        """Associating nothing with a port is error 87."""
        with pytest.raises(EngineError) as raised:
            port.associate(None)  # type: ignore[arg-type]  # wrong on purpose
        assert raised.value.status == 87

    def test_what_cannot_complete_to_a_port_is_refused(self, port: CompletionPort) -> None:
        """Something that is not an overlapped source is error 87."""
        with pytest.raises(EngineError) as raised:
            port.associate(object())  # type: ignore[arg-type]  # wrong on purpose
        assert raised.value.status == 87

    def test_a_source_has_one_port(self, port: CompletionPort) -> None:
        """A second bind of a source is error 87, to the same port or another, and changes nothing."""
        source = Source()
        port.associate(source, 1)
        with CompletionPort() as other:
            for target in (port, other):
                with pytest.raises(InvalidParameter) as raised:
                    target.associate(source, 2)
                assert raised.value.status == 87
        assert source.bound == (port, 1)

    def test_a_source_keeps_its_port_after_it_closed(self) -> None:
        """There is no unbinding: a source whose port was closed cannot be bound to another."""
        source = Source()
        with CompletionPort() as first:
            first.associate(source)
        with CompletionPort() as second, pytest.raises(InvalidParameter):
            second.associate(source)

    def test_a_refused_source_may_be_bound_later(self, port: CompletionPort) -> None:
        """A source whose bind failed is not bound."""
        source = Source(InvalidParameter("not yet"))
        with pytest.raises(InvalidParameter):
            port.associate(source)
        source.refusal = None
        port.associate(source, 9)
        assert source.bound == (port, 9)

    @pytest.mark.parametrize(
        ("status", "kind"), [(6, InvalidHandle), (87, InvalidParameter), (1816, QueueFull), (50, EngineError)]
    )
    def test_a_refusal_is_told_as_the_engines(self, port: CompletionPort, status: int, kind: type[EngineError]) -> None:
        """A source of another library may refuse with its own error: its number is told by the engine's."""

        class Refusal(Exception):
            pass

        refusal = Refusal("not now")
        refusal.status = status  # type: ignore[attr-defined]  # there for the test only
        with pytest.raises(EngineError, match="not now") as raised:
            port.associate(Source(refusal))
        assert type(raised.value) is kind and raised.value.status == status
        assert raised.value.__cause__ is refusal

    def test_other_exceptions_of_a_source_are_its_own(self, port: CompletionPort) -> None:
        """An exception without a number, and one of the engine's, comes out as it is."""
        for refusal in (KeyError("broken"), InvalidParameter("no")):
            with pytest.raises(type(refusal)) as raised:
                port.associate(Source(refusal))
            assert raised.value is refusal

    @pytest.mark.parametrize("kind", [ValueError, SystemExit])
    def test_one_whose_attributes_raise(self, port: CompletionPort, kind: type[BaseException]) -> None:
        """So does one whose attributes cannot be read, whatever reading them raises."""

        class Refusal(Exception):
            @property
            def status(self) -> int:
                raise kind("the status has code of its own")

        refusal = Refusal("broken")
        with pytest.raises(Refusal) as raised:
            port.associate(Source(refusal))
        assert raised.value is refusal

    def test_many_sources_share_a_port(self, port: CompletionPort) -> None:
        """Many sources may have the same port, and even the same key."""
        sources = [Source() for _ in range(3)]
        for source in sources:
            port.associate(source, 4)
        assert [source.bound for source in sources] == [(port, 4)] * 3

    def test_a_closed_port_binds_nothing(self, port: CompletionPort) -> None:
        """Associating with a closed port is error 6."""
        port.close()
        with pytest.raises(InvalidHandle):
            port.associate(Source())

    def test_the_source_keeps_the_port(self) -> None:
        """A port lives as long as a source that is bound to it, even if nobody else holds it."""
        source = Source()
        port = CompletionPort(1)
        port.associate(source)
        alive = weakref.ref(port)
        del port
        gc.collect()
        kept = alive()
        assert kept is not None
        kept.close()

    def test_a_forgotten_port_is_reported(self) -> None:
        """A port that is dropped without being closed is reported as a ResourceWarning."""
        port = CompletionPort(1)
        with pytest.warns(ResourceWarning, match="without close"):
            del port
            gc.collect()

    def test_a_thread_does_not_keep_its_port(self) -> None:
        """A port that was used and is dropped open is reported too: association does not keep it alive."""
        port = CompletionPort(1)
        port.post()
        port.get()
        with pytest.warns(ResourceWarning, match="without close"):
            del port
            gc.collect()

    def test_a_closed_port_is_dropped_in_silence(self) -> None:
        """A closed port that is dropped is not reported."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            port = CompletionPort(1)
            port.close()
            del port
            gc.collect()


class TestTwoOrders:
    """Section 3: packets first in, first out; threads last in, first out."""

    def test_packets_leave_in_order_of_arrival(self, port: CompletionPort) -> None:
        """The oldest packet is always taken first."""
        for number in range(5):
            port.post(number)
        assert [port.get().key for _ in range(5)] == [0, 1, 2, 3, 4]

    def test_packets_of_many_posters_leave_in_order(self, port: CompletionPort, actor: Make) -> None:
        """Order is that of the posts, whichever thread posted."""
        first, second = actor(), actor()
        for number in range(6):
            (first, second)[number % 2].do(port.post, number)
        assert [packet.key for packet in port.get_many(6)] == [0, 1, 2, 3, 4, 5]

    def test_threads_are_released_newest_first(self, actor: Make) -> None:
        """The thread that blocked last is released first, and gets the oldest packet."""
        with CompletionPort(3) as port:
            waiting = [getter(actor(), port) for _ in range(3)]
            for number in (1, 2, 3):
                port.post(number)
            assert [result(each).key for each in waiting] == [3, 2, 1]

    def test_a_running_thread_does_not_queue_behind_sleepers(self, port: CompletionPort, actor: Make) -> None:
        """A thread that comes back for more takes a queued packet without blocking, though others sleep."""
        sleeper = getter(actor(), port)
        runner = actor()
        join_as_active(runner, port)  # Holds the only slot, so that what is posted stays queued.
        port.post(1)
        port.post(2)
        assert runner.do(port.get, 0).key == 1
        assert runner.do(port.get, 0).key == 2
        assert not sleeper.done()
        port.close()
        assert isinstance(error(sleeper), AbandonedWait)

    def test_one_thread_may_do_all_the_work(self, port: CompletionPort, actor: Make) -> None:
        """With a limit of 1 a busy thread serves every packet while the others sleep."""
        sleepers = [getter(actor(), port) for _ in range(2)]
        runner = actor()
        join_as_active(runner, port)
        for number in range(50):
            port.post(number)
            assert runner.do(port.get).key == number
        assert not any(each.done() for each in sleepers)
        port.close()
        assert all(isinstance(error(each), AbandonedWait) for each in sleepers)


class TestSlots:
    """Section 4: concurrency accounting."""

    def test_a_post_goes_straight_to_a_waiter(self, port: CompletionPort, actor: Make) -> None:
        """With a waiter and a free slot the packet is handed over: it is never queued, and the slot is counted."""
        taken = getter(actor(), port)
        port.post(5)
        assert (depth(port), active(port)) == (0, 1)
        assert result(taken).key == 5

    def test_a_post_without_a_free_slot_is_queued(self, port: CompletionPort, actor: Make) -> None:
        """With a waiter but no free slot the packet is queued and the waiter sleeps on."""
        join_as_active(actor(), port)
        sleeper = getter(actor(), port)
        port.post()
        assert (depth(port), active(port), sleeper.done()) == (1, 1, False)
        port.close()
        assert isinstance(error(sleeper), AbandonedWait)

    def test_a_first_dequeue_gives_nothing_back(self, port: CompletionPort, actor: Make) -> None:
        """A thread that is new to the port had no slot there: its first call takes one and returns none."""
        port.post()
        actor().do(port.get)
        assert active(port) == 1
        port.post()
        newcomer = actor()
        assert isinstance(error(newcomer.start(port.get, 0)), WaitTimeout)  # The only slot is taken.
        assert active(port) == 2

    def test_a_second_dequeue_gives_the_slot_back_first(self, port: CompletionPort, actor: Make) -> None:
        """A thread that dequeues again returns its slot before it tries, so a limit of 1 lets it go on."""
        worker = actor()
        for number in range(3):
            port.post(number)
            assert worker.do(port.get, 0).key == number
            assert active(port) == 1

    def test_a_blocked_dequeue_holds_no_slot(self, port: CompletionPort, actor: Make) -> None:
        """While a thread waits for a packet it is not active."""
        worker = actor()
        join_as_active(worker, port)
        assert active(port) == 1
        taken = getter(worker, port)
        assert active(port) == 0
        port.post()
        result(taken)

    def test_a_timed_out_poll_takes_a_slot(self, port: CompletionPort) -> None:
        """A dequeue that finds nothing counts the thread as active all the same."""
        with pytest.raises(WaitTimeout):
            port.get(0)
        assert active(port) == 1

    def test_a_timed_out_wait_takes_a_slot(self, port: CompletionPort) -> None:
        """A dequeue that waited in vain leaves the waiters and counts the thread as active."""
        with pytest.raises(WaitTimeout):
            port.get(0.001)
        statistics = port.statistics()
        assert (statistics.active, statistics.waiting) == (1, 0)

    def test_a_poller_starves_others(self, port: CompletionPort, actor: Make) -> None:
        """Under a limit of 1 a thread that polled in vain keeps a waiting thread from a packet."""
        sleeper = getter(actor(), port)
        poller = actor()
        join_as_active(poller, port)
        port.post(1)
        assert not sleeper.done() and depth(port) == 1
        port.close()
        assert isinstance(error(sleeper), AbandonedWait)

    def test_an_associated_thread_that_blocks_lets_another_in(self, port: CompletionPort, actor: Make) -> None:
        """When a thread blocks in another wait, the oldest packet goes to the newest waiter."""
        worker = actor()
        join_as_active(worker, port)
        older, newer = getter(actor(), port), getter(actor(), port)
        port.post(1)
        port.post(2)
        with Event() as event:
            waiting = asleep(worker, event.wait)
            assert result(newer).key == 1
            assert not older.done()
            event.set()
            assert result(waiting)
            assert active(port) == 2
        port.close()
        assert isinstance(error(older), AbandonedWait)

    def overshoot(self, port: CompletionPort, actor: Make) -> tuple[Actor, Actor]:
        """Make two threads that are active at a port with one slot: the first was away when the second took it."""
        worker, other = actor(), actor()
        join_as_active(worker, port)
        with Event() as event:
            waiting = asleep(worker, event.wait)
            join_as_active(other, port)
            event.set()
            result(waiting)
        assert active(port) == 2
        return worker, other

    def test_waking_up_may_overshoot(self, port: CompletionPort, actor: Make) -> None:
        """A thread that becomes runnable again is active at once, past the limit if need be."""
        self.overshoot(port, actor)

    def test_takeable_is_not_queued(self, port: CompletionPort, actor: Make) -> None:
        """After an overshoot a poll times out though a packet is queued."""
        worker, _ = self.overshoot(port, actor)
        port.post(1)
        assert isinstance(error(worker.start(port.get, 0)), WaitTimeout)
        assert depth(port) == 1

    def test_a_dequeue_sleeps_on_a_non_empty_port(self, port: CompletionPort, actor: Make) -> None:
        """After an overshoot a dequeue sleeps though a packet is queued; the excess drains, then it gets it."""
        worker, other = self.overshoot(port, actor)
        with Event() as event:
            port.post(1)
            sleeper = getter(worker, port)
            assert (depth(port), active(port)) == (1, 1)
            blocked = asleep(other, event.wait)  # The other one blocks: now a slot is free.
            assert result(sleeper).key == 1
            event.set()
            result(blocked)

    def test_a_wait_that_is_satisfied_at_once_keeps_the_slot(self, port: CompletionPort, actor: Make) -> None:
        """Only real waits release: one on a signaled object does not let another thread in."""
        with keeping_the_slot(port, actor) as worker, Event(signaled=True) as event:
            assert worker.do(event.wait)

    def test_a_poll_of_an_object_keeps_the_slot(self, port: CompletionPort, actor: Make) -> None:
        """A wait with a timeout of 0 does not release the slot, satisfied or not."""
        with keeping_the_slot(port, actor) as worker, Event() as event:
            assert not worker.do(event.wait, 0)

    def test_a_wait_that_only_runs_apcs_keeps_the_slot(self, port: CompletionPort, actor: Make) -> None:
        """An alertable wait that finds APCs pending does not block, and so does not release the slot."""
        with keeping_the_slot(port, actor) as worker, Event() as event:
            for wait in (lambda: event.wait(alertable=True), lambda: sleep(None, alertable=True) and 1 / 0):
                queue_apc(int, thread=worker.thread)
                assert isinstance(error(worker.start(wait)), (Alerted, ZeroDivisionError))

    def test_a_sleep_of_zero_keeps_the_slot(self, port: CompletionPort, actor: Make) -> None:
        """A zero-length sleep is only a yield."""
        with keeping_the_slot(port, actor) as worker:
            worker.do(sleep, 0)

    def test_a_timed_sleep_releases_the_slot(self, port: CompletionPort, actor: Make) -> None:
        """A sleep that lasts lets another thread in."""
        worker = actor()
        join_as_active(worker, port)
        other = getter(actor(), port)
        port.post(1)
        sleeping = worker.start(sleep, None, alertable=True)
        assert result(other).key == 1
        queue_apc(lambda: None, thread=worker.thread)
        assert result(sleeping) == 192
        assert active(port) == 2

    def test_posting_takes_no_slot(self, port: CompletionPort, actor: Make) -> None:
        """Posting neither takes nor releases a slot, whoever posts."""
        worker = actor()
        join_as_active(worker, port)
        worker.do(port.post, 1)
        actor().do(port.post, 2)
        assert active(port) == 1

    def test_a_batch_is_one_slot(self, port: CompletionPort) -> None:
        """However many packets a batch has, it takes one slot."""
        for number in range(10):
            port.post(number)
        assert len(port.get_many(10)) == 10
        assert active(port) == 1

    def test_a_batch_after_a_wait_is_one_slot(self, port: CompletionPort, actor: Make) -> None:
        """A batched dequeue that had to wait takes one slot as well."""
        worker = actor()
        batch = worker.start(port.get_many, 10)
        wait_until_blocked(port)
        port.post(1)
        port.post(2)
        assert [packet.key for packet in result(batch)][0] == 1
        assert active(port) == 1

    def test_moving_to_another_port_frees_the_slot(self, port: CompletionPort, actor: Make) -> None:
        """A thread that dequeues from another port leaves the first one for good, which may release a waiter."""
        worker = actor()
        join_as_active(worker, port)
        sleeper = getter(actor(), port)
        port.post(1)
        with CompletionPort(1) as other:
            join_as_active(worker, other)
            assert result(sleeper).key == 1
            assert (active(port), active(other)) == (1, 1)
            with Event() as event:
                waiting = asleep(worker, event.wait)  # Blocks for the other port only.
                assert (active(port), active(other)) == (1, 0)
                event.set()
                result(waiting)
            assert (active(port), active(other)) == (1, 1)

    def test_a_thread_that_ends_frees_its_slot(self, port: CompletionPort, actor: Make) -> None:
        """When an active thread ends, a queued packet goes to a waiter."""
        worker = actor()
        join_as_active(worker, port)
        sleeper = getter(actor(), port)
        port.post(1)
        worker.end()
        assert result(sleeper).key == 1
        assert active(port) == 1

    def test_joined_threads_hold_no_slot(self, port: CompletionPort) -> None:
        """Once a thread was joined its slot is free: nothing is left to happen later."""
        for _ in range(20):
            threads = [threading.Thread(target=lambda: pytest.raises(WaitTimeout, port.get, 0)) for _ in range(5)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert active(port) == 0

    def test_leaving_a_closed_port_takes_no_slot_along(self, actor: Make) -> None:
        """A thread that was active on a port when it closed has no slot to give back elsewhere."""
        worker = actor()
        with CompletionPort(1) as first:
            join_as_active(worker, first)
        with CompletionPort(1) as second:
            join_as_active(worker, second)
            assert active(second) == 1
            second.post(1)
            assert worker.do(second.get, 0).key == 1
            assert active(second) == 1

    def test_at_rest_nothing_waits_that_could_run(self, actor: Make) -> None:
        """There is never a waiter, a queued packet and a free slot at once."""
        with CompletionPort(2) as port:
            sleepers = [getter(actor(), port) for _ in range(3)]
            for number in range(3):
                port.post(number)
            assert (depth(port), active(port), port.statistics().waiting) == (1, 2, 1)
            port.close()
            assert sum(isinstance(error(each), AbandonedWait) for each in sleepers) == 1


class TestBlockingScope:
    """Section 15: slots are released in the library's own waits, and in a `blocking()` scope."""

    def test_the_scope_frees_the_slot(self, port: CompletionPort, actor: Make) -> None:
        """Inside the scope another thread may take a packet."""
        worker, gate = actor(), Gate()

        def work() -> None:
            with blocking():
                gate.pass_through()

        join_as_active(worker, port)
        sleeper = getter(actor(), port)
        port.post(1)
        working = worker.start(work)
        assert result(sleeper).key == 1
        gate.open()
        result(working)
        assert active(port) == 2

    def test_the_slot_is_kept_outside_it(self, port: CompletionPort, actor: Make) -> None:
        """A thread that blocks in any other way keeps its slot."""
        gate = Gate()
        with keeping_the_slot(port, actor) as worker:
            working = worker.start(gate.pass_through)
            gate.wait_for_arrivals()
        gate.open()
        result(working)

    def test_scopes_nest(self, port: CompletionPort) -> None:
        """Only the outermost scope moves the slot."""
        port.post()
        port.get()
        with blocking():
            with blocking():
                assert active(port) == 0
            assert active(port) == 0
        assert active(port) == 1

    def test_a_scope_belongs_to_the_thread_that_enters_it(self, actor: Make) -> None:
        """One scope serves many threads: each gives its own slot back, whoever made the scope."""
        scope, worker = blocking(), actor()
        with CompletionPort(2) as port:
            for each in (worker, actor()):
                join_as_active(each, port)
            with scope:  # This thread has no slot.
                assert active(port) == 2
                worker.do(scope.__enter__)
                assert active(port) == 1
            assert active(port) == 1
            worker.do(scope.__exit__, None, None, None)
            assert active(port) == 2

    def test_a_scope_nests_in_itself(self, port: CompletionPort) -> None:
        """A scope that is kept may be entered again, one after the other and inside itself."""
        port.post()
        port.get()
        scope = blocking()
        for _ in range(2):
            with scope:
                with scope:
                    assert active(port) == 0
                assert active(port) == 0
            assert active(port) == 1

    def test_a_scope_left_by_another_thread_moves_nothing(self, actor: Make) -> None:
        """A thread that leaves a scope which it did not enter (of a generator, say) keeps what it has."""
        inside, outside, scope = actor(), actor(), blocking()
        with CompletionPort(2) as port:
            for each in (inside, outside):
                join_as_active(each, port)
                each.do(blocking().__enter__)
            inside.do(scope.__enter__)
            outside.do(scope.__exit__, None, None, None)
            assert active(port) == 0

    def test_scopes_may_be_left_out_of_order(self, port: CompletionPort) -> None:
        """Leaving a scope leaves those inside it, which generators may do: the slot is taken back once."""
        port.post()
        port.get()
        outer, inner = blocking(), blocking()
        outer.__enter__()
        inner.__enter__()
        outer.__exit__(None, None, None)
        assert active(port) == 1
        inner.__exit__(None, None, None)
        with outer:
            assert active(port) == 0
        assert active(port) == 1

    def test_a_wait_inside_a_scope_moves_nothing(self, port: CompletionPort) -> None:
        """A library wait inside the scope finds the slot released already, and leaves it so."""
        port.post()
        port.get()
        with blocking(), Event() as event:
            assert not event.wait(0.001)
            assert active(port) == 0
        assert active(port) == 1

    def test_a_dequeue_inside_a_scope_is_counted(self, port: CompletionPort) -> None:
        """A packet taken inside the scope takes a slot; a wait after it releases that one."""
        port.post()
        port.get()
        with blocking(), Event() as event:
            port.post()
            port.get()
            assert active(port) == 1
            with blocking():
                assert active(port) == 0
            assert active(port) == 1
            assert not event.wait(0)
        assert active(port) == 1

    def test_an_exception_takes_the_slot_back(self, port: CompletionPort) -> None:
        """However the scope is left, the slot is taken back."""
        port.post()
        port.get()
        with pytest.raises(KeyError), blocking():
            raise KeyError
        assert active(port) == 1

    def test_without_a_port_the_scope_does_nothing(self, actor: Make) -> None:
        """A thread that is associated with no port may enter the scope."""

        def work() -> str:
            with blocking():
                return "done"

        assert actor().do(work) == "done"


class TestSingleDequeue:
    """Section 5: what `get` returns and raises."""

    def test_a_successful_packet_is_returned(self, port: CompletionPort) -> None:
        """A packet comes back with the values it was posted with."""
        port.post("key", 12, "overlapped")
        assert port.get(0) == CompletionPacket("key", 12, "overlapped", 0)

    def test_a_packet_may_have_no_overlapped(self, port: CompletionPort) -> None:
        """A posted packet whose overlapped is None is a packet."""
        port.post(1, 0, None)
        packet = port.get(0)
        assert packet.overlapped is None and packet.status == 0

    def test_a_failed_packet_is_a_packet(self, port: CompletionPort) -> None:
        """The packet of a failed operation is returned, not raised; its status tells."""
        port.post(1, 0, "o", Status.ERROR_HANDLE_EOF)
        assert port.get(0).status == 38

    def test_a_failed_packet_without_overlapped_is_a_packet(self, port: CompletionPort) -> None:
        """A failed packet whose overlapped is None cannot be mistaken for no packet."""
        port.post(1, 0, None, 64)
        assert port.get(0).status == 64

    def test_zero_never_blocks(self, port: CompletionPort) -> None:
        """A timeout of 0 polls: error 258 if there is nothing."""
        with pytest.raises(WaitTimeout) as raised:
            port.get(0)
        assert raised.value.status == 258
        assert isinstance(raised.value, TimeoutError)

    def test_a_timeout_removes_nothing(self, port: CompletionPort) -> None:
        """After a timeout everything posted is still to be had."""
        with pytest.raises(WaitTimeout):
            port.get(0.001)
        port.post(1)
        assert port.get(0).key == 1

    def test_none_waits_for_ever(self, port: CompletionPort, actor: Make) -> None:
        """Without a timeout the wait lasts until a packet comes."""
        waiting = getter(actor(), port)
        port.post(3)
        assert result(waiting).key == 3

    @pytest.mark.parametrize("timeout", [1e10, float("inf")])
    def test_a_huge_timeout_waits(self, port: CompletionPort, actor: Make, timeout: float) -> None:
        """A timeout longer than any system call allows is a wait all the same."""
        waiting = getter(actor(), port, timeout=timeout)
        port.post(3)
        assert result(waiting).key == 3

    @pytest.mark.parametrize("timeout", [-1, -0.001, float("nan"), float("-inf"), 10**400])
    def test_a_negative_timeout_is_refused(self, port: CompletionPort, timeout: float) -> None:
        """A timeout that is negative, undefined or beyond all floats is error 87, packet or not; nothing is taken."""
        for _ in range(2):
            with pytest.raises(InvalidParameter):
                port.get(timeout)
            with pytest.raises(InvalidParameter):
                port.get_many(1, timeout)
            port.post(1)
        assert depth(port) == 2

    @pytest.mark.parametrize("timeout", ["1", "", [], Decimal(1)])
    def test_a_timeout_of_another_type_is_refused(self, port: CompletionPort, timeout: Any) -> None:
        """A timeout that is no number is error 87 and a TypeError, whether packets are there or not."""
        for _ in range(2):
            with pytest.raises(InvalidArgumentType):
                port.get(timeout)
            with pytest.raises(InvalidArgumentType):
                port.get_many(1, timeout)
            port.post(1)
        assert depth(port) == 2

    def test_a_closed_port_is_an_invalid_handle(self, port: CompletionPort) -> None:
        """Error 6 if the port was closed before."""
        port.close()
        for timeout in (0, 0.01, None):
            with pytest.raises(InvalidHandle) as raised:
                port.get(timeout)
            assert raised.value.status == 6


class TestBatchedDequeue:
    """Section 5: what `get_many` returns and raises."""

    def test_it_takes_what_is_there(self, port: CompletionPort) -> None:
        """A batch has what is queued now, in order, and does not wait to be filled."""
        for number in range(3):
            port.post(number)
        assert [packet.key for packet in port.get_many(64)] == [0, 1, 2]

    def test_it_takes_no_more_than_asked(self, port: CompletionPort) -> None:
        """A batch has at most as many packets as asked for; the rest stays."""
        for number in range(5):
            port.post(number)
        assert [packet.key for packet in port.get_many(2)] == [0, 1]
        assert [packet.key for packet in port.get_many(64)] == [2, 3, 4]

    def test_it_blocks_only_for_the_first(self, port: CompletionPort, actor: Make) -> None:
        """With nothing to take it waits, and returns with at least one packet."""
        waiting = actor().start(port.get_many, 64)
        wait_until_blocked(port)
        port.post(1)
        assert result(waiting)[0].key == 1

    def test_a_failed_entry_does_not_fail_the_call(self, port: CompletionPort) -> None:
        """Each packet's own status tells; the call succeeds."""
        port.post(1, 0, "a", 0)
        port.post(2, 0, "b", Status.ERROR_OPERATION_ABORTED)
        assert [packet.status for packet in port.get_many(8)] == [0, 995]

    def test_posted_entries_report_success(self, port: CompletionPort) -> None:
        """The status of a posted packet is 0 unless the poster says otherwise."""
        port.post(1)
        assert port.get_many(1)[0].status == 0

    @pytest.mark.parametrize("maximum", [0, -1, 1.5, "3"])
    def test_a_batch_has_room_for_one(self, port: CompletionPort, maximum: Any) -> None:
        """A batch size below 1 is error 87, and takes nothing."""
        port.post(1)
        with pytest.raises(EngineError) as raised:
            port.get_many(maximum, 0)
        assert raised.value.status == 87
        assert depth(port) == 1

    def test_nothing_in_time_is_a_timeout(self, port: CompletionPort) -> None:
        """Error 258 if nothing came."""
        for timeout in (0, 0.001):
            with pytest.raises(WaitTimeout):
                port.get_many(4, timeout)

    def test_a_closed_port_is_an_invalid_handle(self, port: CompletionPort) -> None:
        """Error 6 if the port was closed before."""
        port.close()
        with pytest.raises(InvalidHandle):
            port.get_many(4, 0)

    def test_many_threads_share_without_loss(self, actor: Make) -> None:
        """Threads that take batches at once get each packet once."""
        with CompletionPort(4) as port:
            workers = [actor() for _ in range(4)]

            def take() -> list[int]:
                got: list[int] = []
                while len(got) < 500:
                    try:
                        got += [packet.key for packet in port.get_many(7, 0.05)]
                    except WaitTimeout:
                        break
                return got

            taking = [worker.start(take) for worker in workers]
            for number in range(1000):
                port.post(number)
            taken = sorted(key for each in taking for key in result(each))
            assert taken == list(range(1000))


class TestAlertableDequeue:
    """Section 6: packet or APC first?"""

    def test_associated_with_a_packet_takes_the_packet(self, port: CompletionPort) -> None:
        """For a thread of this port a takeable packet comes first; the APC stays queued."""
        ran: list[int] = []
        port.post(1)
        port.get()
        port.post(2)
        queue_apc(ran.append, 1)
        assert port.get_many(4, 0, alertable=True)[0].key == 2
        assert ran == []
        assert sleep(0, alertable=True) == 192 and ran == [1]

    @pytest.mark.parametrize("timeout", [0, 5, None])
    def test_associated_without_a_packet_runs_apcs(self, port: CompletionPort, timeout: float | None) -> None:
        """With nothing takeable pending APCs run and the call ends with 192, with a timeout of 0 as well."""
        ran: list[int] = []
        with pytest.raises(WaitTimeout):
            port.get(0)
        queue_apc(ran.append, 1)
        with pytest.raises(Alerted) as raised:
            port.get_many(4, timeout, alertable=True)
        assert raised.value.status == 192 and ran == [1]

    def test_a_queued_packet_that_is_not_takeable_lets_apcs_run(self, port: CompletionPort, actor: Make) -> None:
        """A packet that the slots do not let this thread take does not hold its APCs back."""
        worker = actor()
        join_as_active(worker, port)
        join_as_active(actor(), port)
        port.post(1)
        ran: list[int] = []
        queue_apc(ran.append, 1, thread=worker.thread)
        assert isinstance(error(worker.start(port.get_many, 1, 0, alertable=True)), Alerted)
        assert (ran, depth(port)) == ([1], 1)

    def test_a_new_thread_runs_apcs_first(self, port: CompletionPort) -> None:
        """For a thread that is not of this port pending APCs come before a packet, and it is not associated."""
        ran: list[int] = []
        port.post(1)
        queue_apc(ran.append, 1)
        with pytest.raises(Alerted):
            port.get_many(4, 0, alertable=True)
        statistics = port.statistics()
        assert (ran, statistics.depth, statistics.active) == ([1], 1, 0)

    def test_a_thread_of_another_port_runs_apcs_first(self, port: CompletionPort) -> None:
        """That holds for a thread that is associated elsewhere, too: it stays there."""
        ran: list[int] = []
        with CompletionPort(1) as other:
            with pytest.raises(WaitTimeout):
                other.get(0)
            port.post(1)
            queue_apc(ran.append, 1)
            with pytest.raises(Alerted):
                port.get_many(4, None, alertable=True)
            assert (ran, depth(port), active(port), active(other)) == ([1], 1, 0, 1)

    def test_without_apcs_a_new_thread_takes_the_packet(self, port: CompletionPort) -> None:
        """Without APCs the packet is taken and the thread associated."""
        port.post(1)
        assert port.get_many(4, 0, alertable=True)[0].key == 1
        assert active(port) == 1

    def test_a_packet_ends_an_alertable_wait(self, port: CompletionPort, actor: Make) -> None:
        """With neither it waits; a packet that comes first is returned."""
        waiting = actor().start(port.get_many, 4, None, alertable=True)
        wait_until_blocked(port)
        port.post(1)
        assert result(waiting)[0].key == 1

    def test_an_apc_ends_an_alertable_wait(self, port: CompletionPort, actor: Make) -> None:
        """With neither it waits; an APC that comes first runs, and the thread is active again."""
        worker, ran = actor(), []
        waiting = worker.start(port.get_many, 4, None, alertable=True)
        wait_until_blocked(port)
        queue_apc(lambda: ran.append(threading.current_thread()), thread=worker.thread)
        assert isinstance(error(waiting), Alerted)
        statistics = port.statistics()
        assert (ran, statistics.active, statistics.waiting) == ([worker.thread], 1, 0)

    @pytest.mark.parametrize("timeout", [0, 0.001])
    def test_other_dequeues_never_run_apcs(self, port: CompletionPort, timeout: float) -> None:
        """`get`, and `get_many` without `alertable`, leave APCs alone, whatever is pending."""
        ran: list[int] = []
        queue_apc(ran.append, 1)
        with pytest.raises(WaitTimeout):
            port.get(timeout)
        with pytest.raises(WaitTimeout):
            port.get_many(4, timeout)
        assert ran == []
        assert sleep(0, alertable=True) == 192

    def test_an_apc_does_not_end_a_plain_dequeue(self, port: CompletionPort, actor: Make) -> None:
        """A thread in `get` sleeps through an APC queued to it."""
        worker, ran = actor(), list[int]()
        waiting = getter(worker, port)
        queue_apc(ran.append, 1, thread=worker.thread)
        port.post(1)
        assert result(waiting).key == 1
        assert ran == []
        assert worker.do(sleep, 0, alertable=True) == 192

    def test_an_alertable_timeout_is_a_timeout(self, port: CompletionPort) -> None:
        """Without APCs the time runs out as ever."""
        for timeout in (0, 0.001):
            with pytest.raises(WaitTimeout):
                port.get_many(4, timeout, alertable=True)

    def test_a_closed_port_is_told_before_apcs_run(self, port: CompletionPort) -> None:
        """Error 6 comes first: the APC stays queued."""
        ran: list[int] = []
        port.close()
        queue_apc(ran.append, 1)
        with pytest.raises(InvalidHandle):
            port.get_many(4, 0, alertable=True)
        assert ran == []
        assert sleep(0, alertable=True) == 192


class TestClosing:
    """Section 7: closing."""

    def test_every_blocked_thread_is_released(self, actor: Make) -> None:
        """Threads that wait when the port closes get 735, in single, batched and alertable dequeues."""
        port = CompletionPort(2)
        waiting = [getter(actor(), port), getter(actor(), port, timeout=60)]
        waiting.append(actor().start(port.get_many, 4))  # type: ignore[arg-type]  # it returns several
        waiting.append(actor().start(port.get_many, 4, None, alertable=True))  # type: ignore[arg-type]  # likewise
        wait_until_blocked(port, 4)
        port.close()
        for each in waiting:
            raised = error(each)
            assert isinstance(raised, AbandonedWait) and raised.status == 735

    def test_a_later_dequeue_is_an_invalid_handle(self, port: CompletionPort) -> None:
        """A dequeue that begins after the close gets 6."""
        port.close()
        with pytest.raises(InvalidHandle):
            port.get()

    def test_a_thread_of_the_port_gets_six_too(self, port: CompletionPort) -> None:
        """So does a thread that was associated and active."""
        port.post()
        port.get()
        port.post()
        port.close()
        with pytest.raises(InvalidHandle):
            port.get(0)

    def test_queued_packets_are_dropped(self, port: CompletionPort) -> None:
        """What is queued when the port closes goes silently."""
        port.post(1)
        port.close()
        assert depth(port) == 0 and port.statistics().closed

    def test_posting_to_a_closed_port_fails(self, port: CompletionPort) -> None:
        """Posting to a closed port is error 6."""
        port.close()
        with pytest.raises(InvalidHandle):
            port.post()
        assert not port.deliver([CompletionPacket()])

    def test_closing_twice_does_nothing(self, port: CompletionPort) -> None:
        """The second close is harmless."""
        port.close()
        port.close()
        assert port.closed

    def test_closing_disassociates_threads(self, port: CompletionPort, actor: Make) -> None:
        """A thread of a closed port blocks and wakes without regard to it."""
        worker = actor()
        join_as_active(worker, port)
        port.close()
        with Event() as event:
            waiting = asleep(worker, event.wait)
            event.set()
            assert result(waiting)
        assert active(port) == 0

    def test_leaving_the_scope_closes(self) -> None:
        """As a context manager the port is closed at the end."""
        with CompletionPort(1) as port:
            assert not port.closed
        assert port.closed
        assert "closed" in repr(port)


class TestPosting:
    """Section 9: posting."""

    @pytest.mark.parametrize("value", [0, -1, 2**70, None, "text", b"bytes", 1.5, [], object()])
    def test_values_pass_verbatim(self, port: CompletionPort, value: Any) -> None:
        """The three values come back as the very objects they were, whatever they are."""
        port.post(value, value, value)
        packet = port.get(0)
        assert packet.key is value and packet.transferred is value and packet.overlapped is value

    def test_any_status_may_be_posted(self, port: CompletionPort) -> None:
        """A status is carried verbatim, known or not."""
        for status in (0, 38, 0xC0000120, -5):
            port.post(status=status)
        assert [packet.status for packet in port.get_many(8)] == [0, 38, 0xC0000120, -5]

    def test_values_need_no_comparison(self, port: CompletionPort) -> None:
        """Values are not compared: what cannot be compared passes."""

        class Prickly:
            def __eq__(self, other: object) -> bool:
                raise AssertionError("compared")

            __hash__ = None  # type: ignore[assignment]  # hostile on purpose

        value = Prickly()
        port.post(value, value, value)
        assert port.get(0).key is value

    def test_depth_counts_queued_packets_only(self, port: CompletionPort, actor: Make) -> None:
        """Packets already handed to a thread are not counted in the depth."""
        taken = getter(actor(), port)
        port.post(1)
        port.post(2)
        result(taken)
        assert depth(port) == len(port) == 1

    def test_a_full_port_refuses_posts(self) -> None:
        """Beyond `capacity` a post raises QueueFull and queues nothing; room again, posts again."""
        with CompletionPort(1, capacity=2) as port:
            port.post(1)
            port.post(2)
            with pytest.raises(QueueFull):
                port.post(3)
            assert port.get().key == 1
            port.post(4)
            assert [packet.key for packet in port.get_many(4)] == [2, 4]

    def test_accepted_operations_are_never_refused(self) -> None:
        """`deliver` queues the packets of operations however full the port is."""
        with CompletionPort(1, capacity=1) as port:
            assert port.deliver([CompletionPacket(number) for number in range(5)])
            assert [packet.key for packet in port.get_many(9)] == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize("capacity", [0, -1, 1.5])
    def test_capacity_is_positive(self, capacity: Any) -> None:
        """A capacity below 1 is error 87."""
        with pytest.raises(InvalidParameter):
            CompletionPort(1, capacity=capacity)

    def test_delivered_packets_go_to_waiters(self, actor: Make) -> None:
        """`deliver` hands packets to waiters as posts do, newest waiter first."""
        with CompletionPort(2) as port:
            older, newer = getter(actor(), port), getter(actor(), port)
            port.deliver([CompletionPacket(1), CompletionPacket(2), CompletionPacket(3)])
            assert (result(newer).key, result(older).key, depth(port)) == (1, 2, 1)

    def test_statistics_count_posts_and_takes(self, port: CompletionPort, actor: Make) -> None:
        """What was posted is queued or was taken."""
        taken = getter(actor(), port)
        port.post()
        result(taken)
        port.post()
        port.post()
        statistics = port.statistics()
        assert (statistics.posted, statistics.taken, statistics.depth) == (3, 1, 2)

    def test_an_empty_port_is_true(self, port: CompletionPort) -> None:
        """A port is true, however many packets it holds."""
        assert port and len(port) == 0

    def test_a_template_carries_the_three_values(self, port: CompletionPort) -> None:
        """`packet` describes what an operation shall post; overlapped is the operation itself unless given."""
        template = port.packet(7, 8)
        assert (template.port, template.key, template.transferred, template.overlapped) == (port, 7, 8, UNSET)
        assert port.packet(overlapped=None).overlapped is None

    def test_templates_without_values_are_one(self) -> None:
        """While it is used, a template without values of its own is one for all; one with values, equal ones too, is
        not. It does not keep its port.
        """
        port = CompletionPort()
        one = port.packet()
        assert port.packet(0, 0) is one
        assert port.packet(False) is not one
        assert type(port.packet(False).key) is bool
        assert port.packet(0.0, Decimal(0)) is not one
        assert port.packet(overlapped=None) is not one
        with CompletionPort() as other:
            assert other.packet() is not one
        port.close()
        watched = weakref.ref(port)
        del port, one
        assert watched() is None


class TestFork:
    """Section 15: what a forked child inherits fails with a clear error; nothing hangs."""

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_an_inherited_port_is_refused(self, port: CompletionPort, actor: Make) -> None:
        """In the child an inherited port raises Forked (6), for every operation; a new one works."""
        waiting = getter(actor(), port)
        child = os.fork()
        if not child:
            code = 1
            try:
                for operation in (port.post, port.get, port.get_many, lambda: port.associate(Source())):
                    try:
                        operation()
                    except InvalidHandle as raised:
                        assert type(raised).__name__ == "Forked" and raised.status == 6
                    else:
                        raise AssertionError
                with CompletionPort(1) as own:
                    own.post(1)
                    assert own.get(0).key == 1
                    try:
                        own.get(0.001)
                    except WaitTimeout:
                        code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        port.post(1)
        assert result(waiting).key == 1


class TestThreadEnd:
    """Section 12 and 4: a thread that ends."""

    def test_a_thread_that_ends_asleep_nowhere_leaves_no_waiter(self, port: CompletionPort, actor: Make) -> None:
        """A thread that was released and ended leaves the port as if it had never been there."""
        worker = actor()
        taken = getter(worker, port)
        port.post()
        result(taken)
        worker.end()
        wait_until(lambda: active(port) == 0)
        assert port.statistics().waiting == 0
