"""I/O objects."""

from collections.abc import Iterator
from typing import Any

import pytest

from engine import (
    CleanupGroup,
    CompletionPacket,
    Environment,
    InvalidHandle,
    InvalidParameter,
    InvalidState,
    Io,
    PacketSink,
    Status,
    ThreadPool,
)
from engine.testing import LIMIT, wait_until_blocked
from tests.transport.overlapped import Wires

from .helpers import Recorder, in_thread, joined, occupy, settle


class Pipe:
    """A source of overlapped operations that completes when told to."""

    def __init__(self) -> None:
        self.port: Any = None
        self.key: Any = None

    def bind_port(self, port: PacketSink, key: Any) -> None:
        if self.port is not None:
            raise InvalidParameter("bound already")
        self.port, self.key = port, key

    def complete(self, overlapped: Any, transferred: int = 0, status: int = 0) -> None:
        self.port.deliver([CompletionPacket(self.key, transferred, overlapped, status)])


@pytest.fixture
def pipe() -> Pipe:
    return Pipe()


class TestIo:
    """Section 10."""

    def test_each_announced_completion_calls_back(self, pool: ThreadPool, pipe: Pipe) -> None:
        """Each completion of an announced operation gives one callback with its packet."""
        recorder = Recorder()
        with Io(pipe, recorder, "mine", pool=pool) as io:
            io.start()
            pipe.complete("operation", 17)
            assert io.wait(LIMIT)
            ((mine, packet),) = recorder.calls
            assert mine == "mine"
            assert (packet.overlapped, packet.transferred, packet.status) == ("operation", 17, 0)

    def test_a_cancelled_operation_calls_back(self, pool: ThreadPool, pipe: Pipe) -> None:
        """An operation that was cancelled calls back with 995."""
        recorder = Recorder()
        with Io(pipe, recorder, pool=pool) as io:
            io.start()
            pipe.complete("operation", 0, Status.OPERATION_ABORTED)
            assert io.wait(LIMIT)
        assert recorder.calls[0][0].status == 995

    def test_waiting_begins_with_start(self, pool: ThreadPool, pipe: Pipe) -> None:
        """The wait blocks from the moment of the start, before the operation is issued."""
        with Io(pipe, print, pool=pool) as io:
            assert io.wait(0)
            io.start()
            assert not io.wait(0.01)
            io.cancel()
            assert io.wait(0)

    def test_cancel_takes_an_announcement_back(self, pool: ThreadPool, pipe: Pipe) -> None:
        """Start, cancel, then a packet: nothing was announced, no callback."""
        recorder = Recorder()
        with Io(pipe, recorder, pool=pool) as io:
            io.start()
            io.cancel()
            pipe.complete("operation")
            settle(pool)
            seen = io.io_statistics()
        assert (seen.started, seen.announced, seen.cancelled, seen.dropped) == (1, 0, 1, 1)
        assert recorder.count == 0

    def test_a_packet_that_nobody_announced_is_dropped_and_reported(
        self, pool: ThreadPool, pipe: Pipe, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A packet with nothing announced is dropped without a callback, and reported."""
        recorder = Recorder()
        with Io(pipe, recorder, pool=pool) as io:
            pipe.complete("operation")
            settle(pool)
            assert io.io_statistics().dropped == 1
        assert recorder.count == 0
        assert "announced" in caplog.text

    def test_cancelling_nothing_is_refused(self, pool: ThreadPool, pipe: Pipe) -> None:
        """Taking back what was not announced is a mistake, and says so."""
        with Io(pipe, print, pool=pool) as io, pytest.raises(InvalidState):
            io.cancel()

    def test_wait_with_cancel_forgets_announced_operations(self, pool: ThreadPool, pipe: Pipe) -> None:
        """With cancel announced operations are forgotten, their later packets swallowed; the next pair calls back."""
        recorder = Recorder()
        with Io(pipe, recorder, pool=pool) as io:
            io.start()
            io.start()
            assert io.wait(LIMIT, cancel_pending=True)
            io.start()
            for name in ("first", "second", "third"):
                pipe.complete(name)
            assert io.wait(LIMIT)
            seen = io.io_statistics()
        assert [packet.overlapped for (packet,) in recorder.calls] == ["third"]
        assert (seen.started, seen.announced, seen.completed, seen.forgotten, seen.dropped) == (3, 0, 1, 2, 0)

    def test_a_forgotten_operation_may_be_taken_back(self, pool: ThreadPool, pipe: Pipe) -> None:
        """An operation that was forgotten and then fails at once has no packet to swallow."""
        recorder = Recorder()
        with Io(pipe, recorder, pool=pool) as io:
            io.start()
            assert io.wait(LIMIT, cancel_pending=True)
            io.cancel()
            io.start()
            pipe.complete("next")
            assert io.wait(LIMIT)
        assert recorder.count == 1

    def test_queued_callbacks_can_be_discarded(self, single: ThreadPool, pipe: Pipe) -> None:
        """With cancel a callback that is queued is discarded."""
        blocker, recorder = occupy(single), Recorder()
        with Io(pipe, recorder, pool=single) as io:
            io.start()
            pipe.complete("operation")
            assert not io.wait(0)
            assert io.wait(LIMIT, cancel_pending=True)
            blocker.release()
            settle(single)
        assert recorder.count == 0

    def test_a_packet_after_the_pool_stopped_ends_the_waiting(self, pipe: Pipe) -> None:
        """A stopped pool runs no callback for a packet, and whoever waits for it is released."""
        recorder = Recorder()
        with ThreadPool() as pool, Io(pipe, recorder, pool=pool) as io:
            io.start()
            assert pool.stop(LIMIT)
            sleeper = in_thread(io.wait)
            wait_until_blocked(io)
            pipe.complete("operation")
            joined(sleeper)
        assert recorder.count == 0

    def test_packets_after_the_close_still_call_back(self, pool: ThreadPool, pipe: Pipe) -> None:
        """Closing with announcements outstanding defers the end: their packets still call back."""
        recorder = Recorder()
        io = Io(pipe, recorder, pool=pool)
        io.start()
        io.close()
        pipe.complete("operation")
        recorder.wait_for(1)
        with pytest.raises(InvalidHandle):
            io.start()

    def test_a_source_is_bound_once(self, pool: ThreadPool, pipe: Pipe) -> None:
        """A source is bound to one object for life; a failed creation leaves nothing behind."""
        with Io(pipe, print, pool=pool):
            with pytest.raises(InvalidParameter):
                Io(pipe, print, pool=pool)

    def test_posted_packets_call_back_too(self, pool: ThreadPool, pipe: Pipe) -> None:
        """What a source posts instead of delivering is treated the same."""
        recorder = Recorder()
        with Io(pipe, recorder, pool=pool) as io:
            io.start()
            pipe.port.post(1, 2, 3, 4)
            assert io.wait(LIMIT)
        assert recorder.calls[0][0] == CompletionPacket(1, 2, 3, 4)

    def test_io_objects_join_groups(self, pool: ThreadPool, pipe: Pipe) -> None:
        """An I/O object is a member of its group; releasing with cancel forgets what it announced."""
        cancelled: list[Any] = []
        group = CleanupGroup()
        environment = Environment(
            pool=pool, cleanup_group=group, cancel_callback=lambda context, cleanup: cancelled.append(context)
        )
        io = Io(pipe, print, environment=environment, context="io")
        io.start()
        group.close_members(True)
        assert cancelled == ["io"]
        assert io.closed

    def test_callbacks_of_one_source_run_in_parallel(self, pool: ThreadPool, pipe: Pipe) -> None:
        """Callbacks for one source run in parallel."""
        from .helpers import Blocker

        blocker = Blocker()
        with Io(pipe, blocker, pool=pool) as io:
            for number in range(3):
                io.start()
                pipe.complete(number)
            blocker.wait_until_running(3)
            blocker.release()
            assert io.wait(LIMIT)


class TestForgotten:
    """`wait(cancel_pending=True)` on a source that says which operations were begun: an overlapped socket."""

    @pytest.fixture
    def wires(self) -> Iterator[Wires]:
        """Makes sockets, which are closed at the end."""
        made = Wires()
        yield made
        made.close()

    def test_one_that_was_never_begun(self, pool: ThreadPool, wires: Wires) -> None:
        """An announcement whose operation was not begun owes nothing: the next pair gives exactly one callback."""
        recorder = Recorder()
        mine, _ = wires.pair()
        source = wires.overlapped(mine)
        with Io(source, recorder, pool=pool) as io:
            io.start()
            assert io.wait(10, cancel_pending=True)
            io.start()
            operation = source.begin_send([b"sent"])
            assert io.wait(LIMIT)
            seen = io.io_statistics()
        assert [packet.overlapped for (packet,) in recorder.calls] == [operation]
        assert (seen.started, seen.announced, seen.completed, seen.forgotten, seen.dropped) == (2, 0, 1, 1, 0)

    def test_one_that_is_begun_and_pending(self, pool: ThreadPool, wires: Wires) -> None:
        """The packet of a forgotten operation is swallowed, even if one that was begun later is complete before it."""
        recorder = Recorder()
        mine, other = wires.pair()
        source = wires.overlapped(mine)
        with Io(source, recorder, pool=pool) as io:
            io.start()
            forgotten = source.begin_recv()
            assert io.wait(10, cancel_pending=True)
            io.start()
            sent = source.begin_send([b"sent"])
            assert io.wait(LIMIT)
            assert [packet.overlapped for (packet,) in recorder.calls] == [sent]
            other.send(b"received")
            io.start()
            received = source.begin_recv()
            other.send(b"received too")
            assert io.wait(LIMIT)
            settle(pool)
            seen = io.io_statistics()
        assert forgotten.done and received.done
        assert [packet.overlapped for (packet,) in recorder.calls] == [sent, received]
        assert (seen.started, seen.announced, seen.completed, seen.forgotten, seen.dropped) == (3, 0, 2, 1, 0)

    def test_one_that_then_fails_at_once(self, pool: ThreadPool, wires: Wires) -> None:
        """It may be taken back though it was forgotten; more than that is a mistake."""
        mine, _ = wires.pair()
        source = wires.overlapped(mine)
        with Io(source, print, pool=pool) as io:
            io.start()
            assert io.wait(10, cancel_pending=True)
            io.cancel()
            with pytest.raises(InvalidState):
                io.cancel()

    def test_several(self, pool: ThreadPool, wires: Wires) -> None:
        """Of several announced at once those that were begun are owed, and no others, however often it is forgotten."""
        recorder = Recorder()
        mine, other = wires.pair()
        source = wires.overlapped(mine)
        with Io(source, recorder, pool=pool) as io:
            for _ in range(3):
                io.start()
                io.start()
                source.begin_recv()
                assert io.wait(10, cancel_pending=True)
            io.start()
            last = source.begin_recv()
            for number in range(4):
                other.send(b"%d" % number)
            assert io.wait(LIMIT)
            settle(pool)
        assert [packet.overlapped for (packet,) in recorder.calls] == [last]
        assert last.result() == [b"3"]

    def test_a_cancelled_one(self, pool: ThreadPool, wires: Wires) -> None:
        """A forgotten operation that is cancelled afterwards has its packet swallowed too."""
        recorder = Recorder()
        mine, _ = wires.pair()
        source = wires.overlapped(mine)
        with Io(source, recorder, pool=pool) as io:
            io.start()
            source.begin_recv()
            assert io.wait(10, cancel_pending=True)
            source.cancel()
            io.start()
            source.begin_send([b"sent"])
            assert io.wait(LIMIT)
            assert io.io_statistics().dropped == 0
        assert [packet.status for (packet,) in recorder.calls] == [0]
