"""Overlapped ZeroMQ sockets, by the sections of the completion port's reference."""

import gc
import os
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import zmq
import zmq.asyncio

from engine import (
    Alerted,
    CompletionPort,
    Event,
    InvalidArgumentType,
    InvalidHandle,
    InvalidParameter,
    WaitTimeout,
    queue_apc,
    register_wait,
    wait_any,
)
from engine.testing import LIMIT, wait_until_blocked
from tests.transport.overlapped import (
    Told,
    Wires,
    assert_empty,
    assert_packet,
    in_thread,
    take,
)
from transport import (
    SKIP_PORT_ON_SUCCESS,
    SKIP_SET_EVENT_ON_HANDLE,
    InvalidOperation,
    OperationFailed,
    OperationNotFound,
    OperationPending,
    OverlappedSocket,
    SourceClosed,
    SourceForked,
)

Peer = tuple[OverlappedSocket, "zmq.Socket[bytes]"]


class TestAssociation:
    """Section 2: creating, associating, lifetime."""

    def test_completions_come_under_the_key_of_the_source(self, wires: Wires, port: CompletionPort) -> None:
        """Many sources share a port; the key of each packet tells which one it is of."""
        ends = [wires.overlapped(socket) for socket in wires.pair()]
        keys = [object(), "other"]
        for source, key in zip(ends, keys, strict=True):
            port.associate(source, key)
        ends[1].begin_recv()
        ends[0].begin_send(b"over")
        assert {take(port).key, take(port).key} == set(keys)

    def test_a_port_can_be_made_around_a_socket(self, peer: Peer) -> None:
        """Creating and binding in one step is binding."""
        source, other = peer
        with CompletionPort(source=source, key=5) as port:
            other.send(b"x")
            source.begin_recv()
            assert_packet(port, key=5, transferred=1, status=0)

    def test_operations_in_flight_complete_to_the_port(self, peer: Peer, port: CompletionPort) -> None:
        """What is pending when the source is bound delivers its packet to the port, in the order begun."""
        source, other = peer
        first, second = source.begin_recv(), source.begin_recv()
        other.send(b"one")
        port.associate(source, 1)
        assert assert_packet(port, key=1).overlapped is first
        other.send(b"two")
        assert assert_packet(port, key=1).overlapped is second

    def test_what_completed_before_delivers_nothing(self, peer: Peer, port: CompletionPort) -> None:
        """An operation that was complete before the association has no packet, then or later."""
        source, other = peer
        other.send(b"early")
        operation = source.begin_recv()
        assert operation.result() == [b"early"]
        port.associate(source)
        assert_empty(port)

    def test_an_event_may_bring_the_association(self, peer: Peer, port: CompletionPort) -> None:
        """What is complete but not yet told of has no packet either."""
        source, _ = peer

        class Association:
            def set(self) -> None:
                port.associate(source, "late")

        source.begin_send(b"early", event=Association())
        assert_empty(port)
        source.begin_send(b"now")
        assert_packet(port, key="late", transferred=3)

    def test_without_a_port_pending_operations_go_on_with_the_next_begin(self, peer: Peer) -> None:
        """Before the association, beginning another operation lets those that are pending go on."""
        source, other = peer
        told = Told()
        first = source.begin_recv(event=told)
        other.send(b"one")
        assert not first.done
        source.begin_recv()
        assert first.result() == [b"one"]
        assert told.count == 1

    def test_a_second_association_is_refused(self, peer: Peer, port: CompletionPort) -> None:
        """One source, one port, for life: a second bind fails with 87 and changes nothing."""
        source, other = peer
        port.associate(source, 1)
        with CompletionPort() as another:
            for target in (another, port):
                with pytest.raises(InvalidParameter) as caught:
                    target.associate(source, 2)
                assert caught.value.status == 87
        other.send(b"x")
        source.begin_recv()
        assert_packet(port, key=1)

    def test_a_plain_socket_is_no_source(self, wires: Wires, port: CompletionPort) -> None:
        """A socket that is not overlapped cannot be bound: 87."""
        with pytest.raises(InvalidArgumentType) as caught:
            port.associate(wires.plain(zmq.PAIR))  # type: ignore[arg-type]  # wrong on purpose
        assert caught.value.status == 87

    def test_a_closed_source_cannot_be_bound(self, peer: Peer, port: CompletionPort) -> None:
        """Binding a closed source fails with 6."""
        source, _ = peer
        source.close()
        with pytest.raises(InvalidHandle) as caught:
            port.associate(source)
        assert caught.value.status == 6

    def test_a_refused_bind_leaves_the_source_free(self, peer: Peer, port: CompletionPort) -> None:
        """After a bind that failed, the source can be bound."""
        source, other = peer
        closed = CompletionPort()
        closed.close()
        with pytest.raises(InvalidHandle):
            closed.associate(source)
        port.associate(source, 3)
        other.send(b"x")
        source.begin_recv()
        assert_packet(port, key=3)

    def test_a_closed_port_drops_the_packets(self, peer: Peer) -> None:
        """Operations go on after their port was closed; their packets are dropped silently."""
        source, other = peer
        with CompletionPort() as port:
            port.associate(source)
        other.send(b"x")
        operation = source.begin_recv()
        assert operation.result() == [b"x"]

    def test_a_socket_has_one_overlapped_socket(self, peer: Peer, wires: Wires) -> None:
        """A ZeroMQ socket is taken over by one overlapped socket at a time."""
        source, _ = peer
        with pytest.raises(InvalidOperation), source.exclusive() as socket:
            OverlappedSocket(socket)
        again = wires.overlapped(source.detach())
        assert not again.begin_recv().done

    @pytest.mark.parametrize("thing", [None, 3, "socket"])
    def test_other_things_are_refused(self, thing: Any) -> None:
        """What is not a plain ZeroMQ socket is refused with 87."""
        with pytest.raises(InvalidOperation) as caught:
            OverlappedSocket(thing)
        assert caught.value.status == 87

    def test_asyncio_sockets_and_closed_ones_are_refused(self, wires: Wires) -> None:
        """A socket of `zmq.asyncio` has another driver, and a closed one none."""
        socket = wires.plain(zmq.PAIR)
        with pytest.raises(InvalidOperation):
            OverlappedSocket(zmq.asyncio.Socket(shadow=socket.underlying))
        socket.close()
        with pytest.raises(InvalidOperation):
            OverlappedSocket(socket)


class TestPackets:
    """Section 5: what a packet carries."""

    def test_the_byte_count_covers_all_frames(self, peer: Peer, port: CompletionPort) -> None:
        """Transferred is the size of the message, over all its frames, sending and receiving."""
        source, other = peer
        port.associate(source, "k")
        source.begin_send([b"abc", b"", b"defg"])
        assert_packet(port, key="k", transferred=7, status=0)
        other.send_multipart([b"12", b"3"])
        source.begin_recv()
        assert_packet(port, key="k", transferred=3, status=0)

    def test_the_operation_identifies_itself(self, peer: Peer, port: CompletionPort) -> None:
        """The packet carries the operation object, with its result, if nothing else was given."""
        source, other = peer
        port.associate(source)
        operation = source.begin_recv()
        other.send_multipart([b"a", b"b"])
        packet = take(port)
        assert packet.overlapped is operation is operation.overlapped
        assert operation.result() == operation.frames == [b"a", b"b"]
        assert operation.source is source

    @pytest.mark.parametrize("value", [None, 0, "mine", (1, 2)])
    def test_the_callers_own_value_comes_back(self, peer: Peer, port: CompletionPort, value: Any) -> None:
        """The caller's overlapped value comes back verbatim, None too."""
        source, _ = peer
        port.associate(source)
        operation = source.begin_send(b"x", overlapped=value)
        assert take(port).overlapped is value is operation.overlapped

    def test_a_pending_result_is_incomplete(self, peer: Peer) -> None:
        """Asking for the result while it is pending says 996 and harms nothing; the status is 997."""
        source, other = peer
        operation = source.begin_recv()
        assert (operation.status, operation.done, operation.frames) == (997, False, [])
        with pytest.raises(OperationPending) as caught:
            operation.result()
        assert caught.value.status == 996
        other.send(b"x")
        source.begin_recv()
        assert operation.result() == [b"x"]

    def test_a_failed_packet_is_a_packet(self, peer: Peer, port: CompletionPort) -> None:
        """A failed operation is dequeued like another, with its status; its result raises that."""
        source, _ = peer
        port.associate(source, 4)
        operation = source.begin_recv()
        operation.cancel()
        assert assert_packet(port, key=4, transferred=0, status=995).overlapped is operation
        with pytest.raises(OperationFailed) as caught:
            operation.result()
        assert caught.value.status == 995

    def test_the_outcome_is_final_before_the_packet(self, peer: Peer, port: CompletionPort) -> None:
        """A thread that waits on the port receives, and finds the operation complete."""
        source, other = peer
        port.associate(source)
        source.begin_recv()
        found: list[Any] = []

        def work() -> None:
            found.append(take(port).overlapped.result())

        thread = threading.Thread(target=work)
        thread.start()
        wait_until_blocked(thread)
        other.send(b"late")
        thread.join(LIMIT)
        assert found == [[b"late"]]


class TestWaiting:
    """Section 11: waiting for an operation, as "GetOverlappedResultEx" does; a port is not needed."""

    def test_until_it_completes(self, peer: Peer) -> None:
        """A wait for an operation ends when it completes, and has its source polled."""
        source, other = peer
        operation = source.begin_recv()
        sending = threading.Timer(0.01, other.send, (b"x",))
        sending.start()
        assert wait_any([operation], LIMIT) == 0
        assert operation.result() == [b"x"]
        assert wait_any([operation], 0) == 0
        sending.join()

    def test_a_time_that_runs_out(self, peer: Peer) -> None:
        """258, and the operation is still pending; a poll takes what is there."""
        source, other = peer
        operation = source.begin_recv()
        for timeout in (0, 0.001):
            with pytest.raises(WaitTimeout):
                wait_any([operation], timeout)
        other.send(b"x")
        assert wait_any([operation], 0) == 0 and operation.done

    def test_alertably(self, peer: Peer) -> None:
        """APCs end an alertable wait, 192."""
        operation = peer[0].begin_recv()
        queue_apc(int)
        with pytest.raises(Alerted):
            wait_any([operation], LIMIT, alertable=True)
        assert not operation.done

    def test_with_other_objects(self, peer: Peer) -> None:
        """Operations and other objects are waited for together; a failed operation is complete, too."""
        source, _ = peer
        first, second = source.begin_recv(), source.begin_recv()
        with Event() as event:
            second.cancel()
            assert wait_any([event, first, second], LIMIT) == 2
            event.set()
            assert wait_any([event, first, second], LIMIT) == 0

    def test_without_a_thread(self, peer: Peer, port: CompletionPort) -> None:
        """Callbacks and wait packets take operations, whose source goes on though nobody waits."""
        source, other = peer
        called = threading.Event()
        register_wait(source.begin_recv(), lambda status: called.set())
        port.associate_wait(source.begin_recv(), "second")
        other.send(b"one")
        assert called.wait(LIMIT)
        other.send(b"two")
        assert_packet(port, key="second")

    def test_the_source_is_polled_from_then_on(self, peer: Peer) -> None:
        """After one wait for an operation, an event tells of the next ones without a port."""
        source, other = peer
        with pytest.raises(WaitTimeout):
            wait_any([source.begin_recv()], 0)
        with Event() as event:
            source.begin_recv(event=event)
            other.send(b"one")
            other.send(b"two")
            assert event.wait(LIMIT)

    def test_the_association_may_come_later(self, peer: Peer, port: CompletionPort) -> None:
        """What is pending when the port comes delivers its packet; what completed before does not."""
        source, other = peer
        first, second = source.begin_recv(), source.begin_recv()
        other.send(b"one")
        assert wait_any([first], LIMIT) == 0
        port.associate(source, "late")
        other.send(b"two")
        assert assert_packet(port, key="late").overlapped is second
        assert wait_any([second], 0) == 0
        assert_empty(port)


class TestClosing:
    """Section 7: closing."""

    def test_each_pending_operation_fails_once(self, peer: Peer, port: CompletionPort) -> None:
        """Closing the source completes each pending operation with 995, in order, once each."""
        source, _ = peer
        port.associate(source, 1)
        begun = [source.begin_recv() for _ in range(3)]
        source.close()
        source.close()
        for operation in begun:
            assert assert_packet(port, key=1, status=995, transferred=0).overlapped is operation
        assert_empty(port)

    def test_without_pending_operations_nothing_comes(self, peer: Peer, port: CompletionPort) -> None:
        """Closing a source that has nothing pending produces nothing."""
        source, other = peer
        port.associate(source)
        other.send(b"x")
        source.begin_recv()
        source.close()
        assert_packet(port, status=0)
        assert_empty(port)

    def test_a_closed_source_accepts_nothing(self, peer: Peer) -> None:
        """Every use of a closed source fails with 6."""
        source, _ = peer
        source.close()
        for use in (
            source.begin_recv, lambda: source.begin_send(b"x"), source.cancel, source.cancel_own, source.detach,
            lambda: source.set_completion_modes(1), lambda: source.exclusive().__enter__(),
        ):  # fmt: skip
            with pytest.raises(SourceClosed) as caught:
                use()
            assert caught.value.status == 6
        assert "closed" in repr(source)

    def test_it_tells_whether_it_is_closed(self, wires: Wires) -> None:
        """`closed` is True after `close` and after `detach`, and once its socket was found to be gone."""
        closed, detached, lost = (wires.overlapped(wires.plain(zmq.PAIR)) for _ in range(3))
        assert not (closed.closed or detached.closed or lost.closed)
        closed.close()
        detached.detach()
        with lost.exclusive() as socket:
            socket.close()
        with pytest.raises(SourceClosed):
            lost.begin_recv()
        assert closed.closed and detached.closed and lost.closed

    def test_closing_wakes_a_thread_that_waits_for_the_packet(self, peer: Peer, port: CompletionPort) -> None:
        """A thread blocked in a dequeue gets the packet of what the close aborted."""
        source, _ = peer
        port.associate(source)
        source.begin_recv()
        statuses: list[int] = []
        thread = threading.Thread(target=lambda: statuses.append(take(port).status))
        thread.start()
        wait_until_blocked(thread)
        source.close()
        thread.join(LIMIT)
        assert statuses == [995]

    def test_the_socket_is_closed_too(self, wires: Wires) -> None:
        """Leaving the source's scope closes its socket."""
        socket = wires.plain(zmq.PAIR)
        with OverlappedSocket(socket):
            assert not socket.closed
        assert socket.closed

    def test_detach_gives_the_socket_back(self, peer: Peer, port: CompletionPort) -> None:
        """Detaching aborts what is pending and returns the socket, open."""
        source, other = peer
        port.associate(source)
        source.begin_recv()
        socket = source.detach()
        assert_packet(port, status=995)
        other.send(b"mine again")
        assert socket.recv() == b"mine again"
        with pytest.raises(SourceClosed):
            source.begin_recv()

    def test_terminating_the_context_ends_what_is_pending(self, port: CompletionPort) -> None:
        """A context that is terminated aborts the operations on its sockets, and ends."""
        context: zmq.Context[Any] = zmq.Context()
        source = OverlappedSocket(context.socket(zmq.PULL))
        port.associate(source)
        source.begin_recv()
        thread = threading.Thread(target=context.term)
        thread.start()
        assert_packet(port, status=995)
        thread.join(LIMIT)
        assert not thread.is_alive()
        with pytest.raises(SourceClosed):
            source.begin_recv()

    def test_a_socket_closed_behind_its_back(self, wires: Wires, port: CompletionPort) -> None:
        """A source whose socket is gone says so when an operation is begun, and is closed itself."""
        socket = wires.plain(zmq.PAIR)
        source = wires.overlapped(socket)
        port.associate(source)
        socket.close()
        with pytest.raises(SourceClosed):
            source.begin_recv()
        assert_empty(port)

    def test_a_forgotten_source_is_reported(self, wires: Wires, port: CompletionPort) -> None:
        """A source that is dropped open is a ResourceWarning, associated or not."""
        socket = wires.plain(zmq.PAIR)
        source = OverlappedSocket(socket)
        port.associate(source)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            del source
            gc.collect()
        assert [warning.category for warning in seen] == [ResourceWarning]
        assert_empty(port)

    def test_pending_operations_keep_their_source(self, wires: Wires, port: CompletionPort) -> None:
        """A source with pending operations lives until they are complete, whoever forgot it."""
        mine, other = wires.pair()
        source = OverlappedSocket(mine)
        port.associate(source)
        source.begin_recv()
        del source
        gc.collect()
        other.send(b"x")
        assert_packet(port, transferred=1).overlapped.source.close()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_a_forked_child(self, peer: Peer, port: CompletionPort) -> None:
        """In a forked child an inherited source is refused with a clear error; the parent's goes on."""
        source, other = peer
        port.associate(source)
        source.begin_recv()
        child = os.fork()
        if child == 0:
            try:
                source.begin_recv()
            except SourceForked:
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        other.send(b"x")
        assert_packet(port, status=0)


class TestModes:
    """Section 8: which operations produce a packet."""

    def test_a_pending_operation_produces_one(self, peer: Peer, port: CompletionPort) -> None:
        """Accepted and pending: exactly one packet."""
        source, other = peer
        port.associate(source)
        operation = source.begin_recv()
        assert not operation.done
        assert_empty(port)
        other.send(b"x")
        assert assert_packet(port, status=0).overlapped is operation
        assert not operation.completed_synchronously
        assert_empty(port)

    def test_a_synchronous_success_produces_one_as_well(self, peer: Peer, port: CompletionPort) -> None:
        """Succeeded at once: one packet, unless the mode says otherwise."""
        source, other = peer
        port.associate(source)
        other.send(b"x")
        for operation in (source.begin_recv(), source.begin_send(b"y")):
            assert operation.completed_synchronously
            assert assert_packet(port, status=0).overlapped is operation
        assert_empty(port)

    def test_skip_port_on_success(self, peer: Peer, port: CompletionPort) -> None:
        """With skip-port-on-success an operation that succeeds at once has no packet."""
        source, other = peer
        port.associate(source)
        source.set_completion_modes(SKIP_PORT_ON_SUCCESS)
        other.send(b"x")
        operation = source.begin_recv()
        assert operation.completed_synchronously
        assert operation.result() == [b"x"]
        assert_empty(port)

    def test_pending_operations_are_unaffected(self, peer: Peer, port: CompletionPort) -> None:
        """An operation that pends delivers its packet whatever the mode, set before or after it was begun."""
        source, other = peer
        port.associate(source)
        source.begin_recv(overlapped="before")
        source.set_completion_modes(SKIP_PORT_ON_SUCCESS)
        source.begin_recv(overlapped="after")
        other.send(b"x")
        other.send(b"y")
        assert_packet(port, overlapped="before", status=0)
        assert_packet(port, overlapped="after", status=0)

    def test_a_failure_is_not_skipped(self, peer: Peer, port: CompletionPort) -> None:
        """Skip-port-on-success skips successes: a cancelled operation has its packet."""
        source, _ = peer
        port.associate(source)
        source.set_completion_modes(SKIP_PORT_ON_SUCCESS)
        source.begin_recv().cancel()
        assert_packet(port, status=995)

    def test_modes_are_sticky(self, peer: Peer, port: CompletionPort) -> None:
        """Setting 0 later does not clear a mode."""
        source, _ = peer
        port.associate(source)
        source.set_completion_modes(SKIP_PORT_ON_SUCCESS)
        source.set_completion_modes(SKIP_SET_EVENT_ON_HANDLE)
        source.set_completion_modes(0)
        assert source.modes == 3
        source.begin_send(b"x")
        assert_empty(port)

    @pytest.mark.parametrize("modes", [4, -1, "1", None])
    def test_unknown_modes_are_refused(self, peer: Peer, modes: Any) -> None:
        """Other bits fail with 87 and change nothing."""
        source, _ = peer
        with pytest.raises(InvalidOperation) as caught:
            source.set_completion_modes(modes)
        assert caught.value.status == 87
        assert source.modes == 0

    def test_a_synchronous_failure_produces_none(self, wires: Wires, port: CompletionPort) -> None:
        """What fails at once raises, with its status; there is no packet, and nothing is accepted."""
        router = wires.plain(zmq.ROUTER, ROUTER_MANDATORY=1)
        router.bind("inproc://nobody")
        source = wires.overlapped(router)
        port.associate(source)
        with pytest.raises(OperationFailed) as caught:
            source.begin_send([b"stranger", b"x"])
        assert caught.value.status == 1232
        assert isinstance(caught.value.__cause__, zmq.ZMQError)
        assert_empty(port)
        assert source.statistics().accepted == 0

    def test_an_event_is_set_in_addition(self, peer: Peer, port: CompletionPort) -> None:
        """The event is set when the operation completes, and the packet comes all the same."""
        source, other = peer
        port.associate(source)
        with Event() as event:
            source.begin_recv(event=event)
            assert not event.is_set()
            other.send(b"x")
            assert event.wait(LIMIT)
            assert_packet(port, status=0)

    def test_an_operation_can_opt_out(self, peer: Peer, port: CompletionPort) -> None:
        """With packet=False only the event tells; other operations are not concerned."""
        source, other = peer
        port.associate(source)
        told = Told()
        first = source.begin_recv(event=told, packet=False)
        second = source.begin_recv()
        other.send(b"one")
        other.send(b"two")
        assert take(port).overlapped is second
        assert (told.count, first.result()) == (1, [b"one"])
        assert_empty(port)

    def test_the_event_is_set_whatever_the_mode(self, peer: Peer, port: CompletionPort) -> None:
        """The modes do not concern an operation's own event: a success at once sets it."""
        source, _ = peer
        port.associate(source)
        source.set_completion_modes(SKIP_PORT_ON_SUCCESS | SKIP_SET_EVENT_ON_HANDLE)
        told = Told()
        source.begin_send(b"x", event=told)
        assert told.count == 1

    def test_a_broken_event_costs_no_packet(
        self, peer: Peer, port: CompletionPort, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An event that cannot be set is reported; the packet comes."""
        source, _ = peer
        port.associate(source)
        event = Event()
        event.close()
        source.begin_send(b"x", event=event)
        assert_packet(port, status=0)
        assert "could not be set" in caplog.text

    def test_what_is_no_event_is_refused(self, peer: Peer, port: CompletionPort) -> None:
        """An event without `set` fails with 87; nothing is begun."""
        source, _ = peer
        port.associate(source)
        with pytest.raises(InvalidOperation):
            source.begin_send(b"x", event="event")  # type: ignore[arg-type]  # wrong on purpose
        assert_empty(port)


class TestCancelling:
    """Section 10: cancellation."""

    def test_all(self, wires: Wires, port: CompletionPort) -> None:
        """Without an argument every pending operation is cancelled, receives and sends, one packet each."""
        source = wires.overlapped(wires.plain(zmq.DEALER))
        port.associate(source)
        begun = {source.begin_recv(), source.begin_send(b"x"), source.begin_recv()}
        source.cancel()
        assert {assert_packet(port, status=995).overlapped for _ in range(3)} == begun
        assert_empty(port)

    def test_those_that_carry_a_value(self, peer: Peer, port: CompletionPort) -> None:
        """By overlapped value: two operations that carry it are both cancelled, others are not."""
        source, other = peer
        port.associate(source)
        for value in ("a", "b", "a"):
            source.begin_recv(overlapped=value)
        source.cancel("".join("a"))
        assert_packet(port, overlapped="a", status=995)
        assert_packet(port, overlapped="a", status=995)
        other.send(b"x")
        assert_packet(port, overlapped="b", status=0)

    def test_one(self, peer: Peer, port: CompletionPort) -> None:
        """An operation can be cancelled by itself, whatever value it carries."""
        source, _ = peer
        port.associate(source)
        first, second, third = (source.begin_recv(overlapped="same") for _ in range(3))
        second.cancel()
        source.cancel(third)
        assert (first.status, second.status, third.status) == (997, 995, 995)

    def test_objects_are_told_apart_by_identity(self, peer: Peer) -> None:
        """Equal objects are different overlapped values."""
        source, _ = peer
        first, second = source.begin_recv(overlapped=[1]), source.begin_recv(overlapped=[1])
        source.cancel(second.overlapped)
        assert (first.status, second.status) == (997, 995)

    def test_this_threads_own(self, peer: Peer, port: CompletionPort) -> None:
        """Only what the calling thread began is cancelled."""
        source, _ = peer
        port.associate(source)
        others = in_thread(source.begin_recv)
        own = source.begin_recv()
        assert source.cancel_own() == 1
        assert assert_packet(port, status=995).overlapped is own
        assert not others.done

    def test_to_find_none_of_ones_own_is_no_error(self, peer: Peer) -> None:
        """Cancelling one's own operations succeeds though there are none."""
        source, _ = peer
        in_thread(source.begin_recv)
        assert source.cancel_own() == 0

    def test_to_find_nothing_is_an_error(self, peer: Peer) -> None:
        """The other forms fail with 1168 when nothing is pending that they are about."""
        source, _ = peer
        done = source.begin_send(b"x", overlapped="done")
        uses: list[Callable[[], object]] = [source.cancel, lambda: source.cancel("done"), done.cancel]
        for use in uses:
            with pytest.raises(OperationNotFound) as caught:
                use()
            assert caught.value.status == 1168

    def test_a_second_cancel_finds_nothing(self, peer: Peer, port: CompletionPort) -> None:
        """Cancelling twice fails with 1168, though the packet was not dequeued yet; one packet comes."""
        source, _ = peer
        port.associate(source)
        operation = source.begin_recv()
        operation.cancel()
        with pytest.raises(OperationNotFound):
            operation.cancel()
        assert_packet(port, status=995)
        assert_empty(port)

    def test_a_queued_packet_stays(self, peer: Peer, port: CompletionPort) -> None:
        """Cancelling never removes a packet that is queued."""
        source, other = peer
        port.associate(source)
        other.send(b"x")
        source.begin_recv(overlapped="done")
        source.begin_recv(overlapped="pending")
        source.cancel()
        assert_packet(port, overlapped="done", status=0)
        assert_packet(port, overlapped="pending", status=995)

    def test_a_cancelled_receive_takes_no_message(self, peer: Peer) -> None:
        """The message that a cancelled receive would have taken is left to the next one."""
        source, other = peer  # No port: nobody drives the source before the cancel.
        operation = source.begin_recv()
        other.send(b"kept")
        operation.cancel()
        assert source.begin_recv().result() == [b"kept"]
