"""Overlapped ZeroMQ sockets: messages, sockets of each type, bounds, threads and interruptions."""

import threading
from typing import Any

import pytest
import zmq

from engine import (
    CompletionPort,
    Io,
    ThreadPool,
)
from engine.testing import LIMIT, wait_until
from tests.transport.overlapped import (
    ByHand,
    Wires,
    assert_empty,
    assert_idle,
    assert_packet,
    take,
)
from transport import (
    InvalidOperation,
    OperationFailed,
    OperationNotFound,
    OverlappedError,
    OverlappedSocket,
    TooManyOperations,
)

Peer = tuple[OverlappedSocket, "zmq.Socket[bytes]"]


class TestReceiving:
    """Messages and their frames."""

    def test_frames_without_a_copy(self, peer: Peer) -> None:
        """With copy=False the frames are ZeroMQ's own, views of its memory."""
        source, other = peer
        other.send_multipart([b"a", bytes(100_000)])
        frames = source.begin_recv(copy=False).result()
        assert [type(frame) for frame in frames] == [zmq.Frame, zmq.Frame]
        assert len(frames[1].buffer) == 100_000

    def test_into_a_buffer(self, peer: Peer, port: CompletionPort) -> None:
        """The first frame goes into the caller's buffer; its result is a view of what was filled."""
        source, other = peer
        port.associate(source)
        buffer = bytearray(b"." * 8)
        operation = source.begin_recv(buffer)
        other.send_multipart([b"hello", b"more"])
        assert_packet(port, transferred=9, status=0)
        view, rest = operation.result()
        assert (bytes(view), rest, bytes(buffer)) == (b"hello", b"more", b"hello...")
        assert view.obj is buffer

    def test_a_buffer_for_each_frame(self, peer: Peer) -> None:
        """A list has a buffer for each frame, or None where an ordinary frame will do."""
        source, other = peer
        buffers = bytearray(4), bytearray(4)
        other.send_multipart([b"id", b"one", b"two", b"three"])
        frames = source.begin_recv([None, *buffers]).result()
        assert [bytes(frame) for frame in frames] == [b"id", b"one", b"two", b"three"]
        assert (bytes(buffers[0]), bytes(buffers[1])) == (b"one\0", b"two\0")

    def test_a_frame_that_finds_no_room_is_cut(self, peer: Peer, port: CompletionPort) -> None:
        """A frame larger than its buffer fills it; the status is 234, the rest of the frame is lost."""
        source, other = peer
        port.associate(source)
        buffer = bytearray(3)
        operation = source.begin_recv(buffer)
        other.send_multipart([b"hello", b"x"])
        other.send(b"next")
        assert_packet(port, transferred=4, status=234)
        assert [bytes(frame) for frame in operation.frames] == [b"hel", b"x"]
        with pytest.raises(OperationFailed):
            operation.result()
        assert source.begin_recv(buffer).status == 234
        assert bytes(buffer) == b"nex"

    def test_buffers_are_filled_by_any_pyzmq(self, peer: Peer) -> None:
        """Where pyzmq cannot receive into a buffer, frames are copied into it, with the same results."""
        source, other = peer
        source._device.handle.recv_into = None  # As before pyzmq 26.4.
        other.send_multipart([b"hello", b"more"])
        buffer = bytearray(8)
        operation = source.begin_recv([buffer, bytearray(2)])
        assert (operation.status, operation.transferred) == (234, 7)
        assert [bytes(frame) for frame in operation.frames] == [b"hello", b"mo"]
        assert buffer == b"hello\0\0\0"

    @pytest.mark.parametrize("buffer", [b"readonly", bytearray(), "text", [3], memoryview(bytearray(8))[::2]])
    def test_what_cannot_be_filled_is_refused(self, peer: Peer, buffer: Any) -> None:
        """A buffer that is read-only, empty, scattered or none at all fails with 87."""
        source, _ = peer
        with pytest.raises(InvalidOperation) as caught:
            source.begin_recv(buffer)
        assert caught.value.status == 87

    def test_receives_take_messages_in_order(self, peer: Peer, port: CompletionPort) -> None:
        """The first receive begun gets the first message."""
        source, other = peer
        port.associate(source)
        for number in range(100):
            source.begin_recv(overlapped=number)
        for number in range(100):
            other.send(b"%d" % number)
        for number in range(100):
            assert_packet(port, overlapped=number, transferred=len(str(number)))

    def test_a_send_only_socket(self, wires: Wires) -> None:
        """A PUSH or PUB socket cannot receive: 50."""
        for kind in (zmq.PUSH, zmq.PUB):
            with pytest.raises(InvalidOperation) as caught:
                wires.overlapped(wires.plain(kind)).begin_recv()
            assert caught.value.status == 50


class TestSending:
    """Sends complete when ZeroMQ has taken the message."""

    def test_a_send_waits_until_the_socket_can(self, wires: Wires, port: CompletionPort) -> None:
        """With nobody to send to, sends pend; they leave in order once there is."""
        source = wires.overlapped(wires.plain(zmq.PUSH))
        with source.exclusive() as socket:
            socket.bind("inproc://late")
        port.associate(source)
        for number in range(3):
            assert not source.begin_send(b"%d" % number, overlapped=number).done
        assert_empty(port)
        pull = wires.plain(zmq.PULL)
        pull.connect("inproc://late")
        for number in range(3):
            assert_packet(port, overlapped=number, status=0, transferred=1)
        assert [pull.recv() for _ in range(3)] == [b"0", b"1", b"2"]

    def test_a_full_queue_holds_sends_up(self, wires: Wires, port: CompletionPort) -> None:
        """At the high-water mark sends pend, and go on as the peer reads."""
        pull = wires.plain(zmq.PULL, RCVHWM=1)
        pull.bind("inproc://narrow")
        push = wires.plain(zmq.PUSH, SNDHWM=1)
        push.connect("inproc://narrow")
        source = wires.overlapped(push)
        port.associate(source)
        begun = [source.begin_send(b"%d" % number) for number in range(20)]
        assert not begun[-1].done
        for number in range(20):
            assert take(port).overlapped is begun[number]
            assert pull.recv() == b"%d" % number

    def test_sends_and_receives_do_not_wait_for_each_other(self, wires: Wires, port: CompletionPort) -> None:
        """A send that pends holds up no receive."""
        mine, other = wires.pair(zmq.ROUTER, zmq.DEALER)
        source = wires.overlapped(mine)
        port.associate(source)
        mine_too = wires.overlapped(wires.plain(zmq.DEALER))
        port.associate(mine_too)
        mine_too.begin_send(b"to nobody")
        source.begin_recv(overlapped="in")
        other.send(b"x")
        assert_packet(port, overlapped="in", status=0)

    def test_what_a_frame_may_be(self, peer: Peer) -> None:
        """Frames are bytes, other bytes-like objects, or ZeroMQ's own; copied or not."""
        source, other = peer
        frames = [b"bytes", bytearray(b"array"), memoryview(b"view"), zmq.Frame(b"frame"), b"", bytearray(100_000)]
        for copy in (True, False):
            operation = source.begin_send(frames, copy=copy)
            assert operation.result() == operation.transferred == 100_019
            assert [len(frame) for frame in other.recv_multipart()] == [5, 5, 4, 5, 0, 100_000]

    @pytest.mark.parametrize("frames", [None, [], "text", 3, [b"x", "y"], memoryview(bytearray(8))[::2]])
    def test_what_cannot_be_sent_is_refused(self, peer: Peer, port: CompletionPort, frames: Any) -> None:
        """A message without frames, or with something else among them, fails with 87; nothing leaves."""
        source, other = peer
        port.associate(source)
        with pytest.raises(InvalidOperation) as caught:
            source.begin_send(frames)
        assert caught.value.status == 87
        assert_empty(port)
        assert not other.poll(0)

    def test_a_receive_only_socket(self, wires: Wires) -> None:
        """A PULL or SUB socket cannot send: 50."""
        for kind in (zmq.PULL, zmq.SUB):
            with pytest.raises(InvalidOperation) as caught:
                wires.overlapped(wires.plain(kind)).begin_send(b"x")
            assert caught.value.status == 50

    def router_of_one(self, wires: Wires, port: CompletionPort) -> Peer:
        """A mandatory ROUTER with limits of one message, and its peer, "d"."""
        router = wires.plain(zmq.ROUTER, ROUTER_MANDATORY=1, SNDHWM=1)
        router.bind("inproc://router")
        dealer = wires.plain(zmq.DEALER, RCVHWM=1)
        dealer.routing_id = b"d"
        dealer.connect("inproc://router")
        source = wires.overlapped(router)
        port.associate(source)
        return source, dealer

    def test_a_full_peer_of_a_router(self, wires: Wires, port: CompletionPort) -> None:
        """A mandatory ROUTER that cannot reach a peer now pends too, and goes on as the peer reads."""
        source, dealer = self.router_of_one(wires, port)
        begun = [source.begin_send([b"d", b"%d" % number]) for number in range(10)]
        assert not begun[-1].done
        for number in range(10):
            assert take(port).overlapped is begun[number]
            assert dealer.recv() == b"%d" % number

    def test_a_peer_that_goes_fails_what_waits_for_it(self, wires: Wires, port: CompletionPort) -> None:
        """An accepted send whose peer vanishes has a failed packet, 1232."""
        source, dealer = self.router_of_one(wires, port)
        begun = [source.begin_send([b"d", b"x"]) for _ in range(5)]
        taken = sum(operation.done for operation in begun)
        assert taken < 5
        dealer.close()
        statuses = [take(port).status for _ in begun]
        assert statuses == [0] * taken + [1232] * (5 - taken)


class TestSockets:
    """Sockets of every type, and what ZeroMQ's descriptors are like."""

    @pytest.mark.parametrize("transport", ["inproc", "tcp"])
    @pytest.mark.parametrize(
        "kinds", [(zmq.PAIR, zmq.PAIR), (zmq.REP, zmq.REQ), (zmq.PULL, zmq.PUSH), (zmq.DEALER, zmq.DEALER)]
    )
    def test_a_message_gets_across(
        self, wires: Wires, port: CompletionPort, kinds: tuple[int, int], transport: str
    ) -> None:
        """Each type sends and receives, over each transport."""
        receiver, sender = (wires.overlapped(socket) for socket in wires.pair(*kinds, transport))
        port.associate(receiver, "in")
        port.associate(sender, "out")
        receiver.begin_recv()
        sender.begin_send([b"a", b"b"])
        packets = {packet.key: packet for packet in (take(port), take(port))}
        assert packets["in"].overlapped.frames == [b"a", b"b"]
        assert packets["out"].transferred == 2

    def test_publish_and_subscribe(self, wires: Wires, port: CompletionPort) -> None:
        """A subscription made through `exclusive` is received by the publisher as a message."""
        publisher, subscriber = (wires.overlapped(socket) for socket in wires.pair(zmq.XPUB, zmq.SUB))
        port.associate(publisher)
        port.associate(subscriber)
        publisher.begin_recv()
        with subscriber.exclusive() as socket:
            socket.subscribe(b"news")
        assert take(port).overlapped.frames == [b"\x01news"]
        subscriber.begin_recv()
        publisher.begin_send(b"news!", packet=False)
        assert take(port).overlapped.frames == [b"news!"]

    def test_operations_wait_for_their_turn(self, wires: Wires, port: CompletionPort) -> None:
        """On REQ the receive may be begun before the send, and the next send before the reply."""
        rep, req = (wires.overlapped(socket) for socket in wires.pair(zmq.REP, zmq.REQ))
        port.associate(rep, "rep")
        port.associate(req, "req")
        for _ in range(2):
            req.begin_recv(overlapped="reply")
            req.begin_send(b"question", packet=False)
        for _ in range(2):
            rep.begin_recv(overlapped="question")
            assert_packet(port, overlapped="question")
            rep.begin_send(b"answer", packet=False)
            assert_packet(port, overlapped="reply", transferred=6)

    def test_a_send_does_not_hide_an_arrival(self, wires: Wires, port: CompletionPort) -> None:
        """Another thread's send may use up the descriptor's edge: the arrival is seen nevertheless."""
        mine, other = wires.pair(zmq.DEALER, zmq.DEALER, "tcp")
        source = wires.overlapped(mine)
        port.associate(source)
        done = threading.Event()

        def receive() -> None:
            for number in range(500):
                source.begin_recv()
                assert take(port).overlapped.frames == [b"%d" % number]
            done.set()

        def echo() -> None:
            for number in range(500):
                assert other.poll(int(LIMIT * 1000))
                assert other.recv() == b"q"
                other.send(b"%d" % number)

        threads = [threading.Thread(target=receive), threading.Thread(target=echo)]
        for thread in threads:
            thread.start()
        for _ in range(500):
            source.begin_send(b"q", packet=False)
        for thread in threads:
            thread.join(LIMIT)
        assert done.is_set()

    def test_progress_without_a_waiting_thread(self, wires: Wires, port: CompletionPort) -> None:
        """A pending send leaves though no thread waits in the library."""
        source = wires.overlapped(wires.plain(zmq.PUSH))
        with source.exclusive() as socket:
            socket.bind("inproc://alone")
        port.associate(source)
        source.begin_send(b"x")
        pull = wires.plain(zmq.PULL)
        pull.connect("inproc://alone")
        assert pull.poll(int(LIMIT * 1000))
        assert pull.recv() == b"x"

    def test_arrivals_that_nobody_asked_for_are_kept(self, peer: Peer, port: CompletionPort) -> None:
        """Messages wait in the socket until a receive is begun; a thread that waits is not kept busy."""
        source, other = peer
        port.associate(source)
        for _ in range(3):
            other.send(b"x")
        assert_idle(port)
        assert [source.begin_recv().status for _ in range(3)] == [0, 0, 0]

    def test_other_uses_of_the_socket(self, peer: Peer, port: CompletionPort) -> None:
        """After `exclusive` operations go on, though the use in it consumed the descriptor's edge."""
        source, other = peer
        port.associate(source)
        source.begin_recv()
        with source.exclusive() as socket:
            other.send(b"x")
            assert socket.poll(int(LIMIT * 1000))
        assert_packet(port, status=0)


class TestBounds:
    """Every queue has a bound."""

    @pytest.mark.parametrize("limit", [0, -1, 1.5, True, None])
    def test_the_limit_is_a_positive_number(self, wires: Wires, limit: Any) -> None:
        """Other limits fail with 87."""
        with pytest.raises(InvalidOperation):
            OverlappedSocket(wires.plain(zmq.PAIR), limit=limit)

    def test_pending_operations(self, wires: Wires, port: CompletionPort) -> None:
        """At the limit of pending operations a begin fails with 1816; when one completes there is room."""
        mine, other = wires.pair()
        source = wires.overlapped(mine, limit=2)
        port.associate(source)
        source.begin_recv()
        source.begin_recv()
        for begin in (source.begin_recv, lambda: source.begin_send(b"x")):
            with pytest.raises(TooManyOperations) as caught:
                begin()
            assert caught.value.status == 1816
        other.send(b"x")
        assert_packet(port, status=0)
        source.begin_recv()
        assert source.statistics().pending == 2

    def test_packets_in_the_port(self, wires: Wires) -> None:
        """With the port's capacity of packets queued a begin fails with 1816, until some are dequeued."""
        mine, _ = wires.pair()
        source = wires.overlapped(mine)
        with CompletionPort(capacity=2) as port:
            port.associate(source)
            source.begin_send(b"x")
            source.begin_send(b"y")
            with pytest.raises(TooManyOperations) as caught:
                source.begin_send(b"z")
            assert caught.value.status == 1816
            take(port)
            source.begin_send(b"z")

    def test_statistics(self, peer: Peer) -> None:
        """The snapshot counts what was accepted, is pending, succeeded and failed."""
        source, _ = peer
        source.begin_send(b"x")
        source.begin_recv().cancel()
        source.begin_recv()
        seen = source.statistics()
        assert (seen.accepted, seen.pending, seen.succeeded, seen.failed) == (3, 1, 1, 1)

    def test_errors_name_their_number(self, peer: Peer) -> None:
        """Each error is an OverlappedError, and its text ends with its number."""
        source, _ = peer
        with pytest.raises(OverlappedError, match=r"\[NOT_FOUND 1168\]$"):
            source.cancel()


class TestThreads:
    """Many threads use one source."""

    def test_each_operation_completes_once(self, wires: Wires, port: CompletionPort) -> None:
        """Four threads begin sends and receives on two sources, two take the packets: one each, none lost."""
        mine, other = wires.pair(zmq.DEALER, zmq.DEALER, "tcp")
        ends = wires.overlapped(mine), wires.overlapped(other)
        for end in ends:
            port.associate(end)
        count = 250
        seen: list[Any] = []
        rest = threading.Semaphore(0)

        def begin(end: OverlappedSocket, name: int) -> None:
            for number in range(count):
                end.begin_recv(overlapped=(name, "in", number))
                end.begin_send(b"x", overlapped=(name, "out", number))

        def collect() -> None:
            while (packet := take(port)).key is not rest:
                seen.append((packet.overlapped, packet.status))

        beginners = [threading.Thread(target=begin, args=(ends[name % 2], name)) for name in range(4)]
        collectors = [threading.Thread(target=collect) for _ in range(2)]
        for thread in beginners + collectors:
            thread.start()
        for thread in beginners:
            thread.join(LIMIT)
        wait_until(lambda: len(seen) >= 4 * 2 * count)
        for _ in collectors:
            port.post(rest)
        for thread in collectors:
            thread.join(LIMIT)
        expected = {(name, way, number) for name in range(4) for way in ("in", "out") for number in range(count)}
        assert len(seen) == len(expected)
        assert {value for value, status in seen if status == 0} == expected

    def test_cancel_against_completion(self, peer: Peer, port: CompletionPort) -> None:
        """A cancel that races with an arrival: one packet, and the message is either in it or still there."""
        source, other = peer
        port.associate(source)
        for _ in range(200):
            operation = source.begin_recv()
            thread = threading.Thread(target=other.send, args=(b"x",))
            thread.start()
            try:
                operation.cancel()
            except OperationNotFound:
                pass
            thread.join(LIMIT)
            if assert_packet(port).status == 995:
                assert source.begin_recv().completed_synchronously
                assert_packet(port, status=0)
            assert_empty(port)

    def test_an_io_object_of_a_pool(self, peer: Peer) -> None:
        """An I/O object takes the place of the port: a callback for each announced operation."""
        source, other = peer
        seen: list[Any] = []
        with ThreadPool(1, 1) as pool, Io(source, seen.append, pool=pool) as io:
            io.start()
            source.begin_recv()
            other.send(b"x")
            assert io.wait(LIMIT)
        assert [packet.overlapped.frames for packet in seen] == [[b"x"]]


class TestInterrupts:
    """Section 15: a signal handler raises (KeyboardInterrupt) in the midst of an operation."""

    @staticmethod
    def interrupt(source: OverlappedSocket, name: str, after: int) -> None:
        """Have a handler raise just after that call of the socket's, as pyzmq lets it: ZeroMQ has done its part."""
        genuine = getattr(source._device.handle, name)
        calls = iter(range(after + 1))

        def call(*args: Any, **named: Any) -> Any:
            result = genuine(*args, **named)
            if next(calls, None) == after:
                raise KeyboardInterrupt
            return result

        setattr(source._device.handle, name, call)

    @pytest.mark.parametrize("after", [0, 1])
    def test_beginning_a_receive(self, peer: Peer, port: CompletionPort, after: int) -> None:
        """The receive was not begun; the message is lost as a whole, the next one is whole."""
        source, other = peer
        port.associate(source)
        other.send_multipart([b"a", b"b", b"c"])
        other.send_multipart([b"d", b"e"])
        self.interrupt(source, "recv", after)
        with pytest.raises(KeyboardInterrupt):
            source.begin_recv()
        assert source.statistics().pending == 0
        assert_empty(port)
        assert source.begin_recv().result() == [b"d", b"e"]

    def test_a_pending_receive(self, peer: Peer) -> None:
        """The thread that drives gets the exception; the receive stays pending, and takes the next message."""
        source, other = peer
        services = ByHand(source)
        operation = source.begin_recv()
        self.interrupt(source, "recv", 0)
        other.send_multipart([b"a", b"b"])
        other.send_multipart([b"c", b"d"])
        with pytest.raises(KeyboardInterrupt):
            services.drive()
        assert services.outcomes == []
        services.drive()
        assert [(outcome[2], outcome[3]) for outcome in services.outcomes] == [(operation, 0)]
        assert operation.frames == [b"c", b"d"]

    def test_arrivals_are_not_forgotten(self, peer: Peer) -> None:
        """A begin that was interrupted may have used up the descriptor's edge: the source is due to be driven."""
        source, other = peer
        services = ByHand(source)
        first = source.begin_recv()
        other.send(b"lost")
        other.send(b"kept")
        self.interrupt(source, "recv", 0)
        with pytest.raises(KeyboardInterrupt):
            source.begin_send(b"y")
        services.drive_due()
        assert first.frames == [b"kept"]
        assert services.outcomes == [("key", 4, first, 0)]

    @pytest.mark.parametrize("after", [0, 1])
    def test_beginning_a_send(self, peer: Peer, port: CompletionPort, after: int) -> None:
        """The send was not begun, and has no packet; its message is ended, so that the next one is whole."""
        source, other = peer
        port.associate(source)
        self.interrupt(source, "send", after)
        with pytest.raises(KeyboardInterrupt):
            source.begin_send([b"a", b"b", b"c"])
        assert_empty(port)
        source.begin_send([b"d"])
        assert other.recv_multipart()[-1] == b""
        assert other.recv_multipart() == [b"d"]
        assert_packet(port, status=0, transferred=1)

    def test_a_pending_send(self, wires: Wires) -> None:
        """A pending send that was interrupted fails with 31: nobody knows whether it left."""
        source = wires.overlapped(wires.plain(zmq.PUSH))
        with source.exclusive() as socket:
            socket.bind("inproc://later")
        services = ByHand(source)
        operation = source.begin_send(b"x")
        self.interrupt(source, "send", 0)
        wires.plain(zmq.PULL).connect("inproc://later")
        with pytest.raises(KeyboardInterrupt):
            services.drive()
        services.drive_due()
        assert [(outcome[2], outcome[3]) for outcome in services.outcomes] == [(operation, 31)]
