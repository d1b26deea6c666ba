"""Overlapped file descriptors, by the sections of the completion port's reference; and all kinds on one port."""

import errno
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq

from engine import CompletionPort, Event, WaitableTimer, sleep
from engine.testing import LIMIT
from examples.one_port import main
from tests.transport.overlapped import (
    Told,
    Wires,
    assert_empty,
    assert_idle,
    assert_packet,
    fill,
    is_open,
    take,
)
from transport import (
    SKIP_PORT_ON_SUCCESS,
    InvalidOperation,
    OperationFailed,
    OperationNotFound,
    OverlappedDescriptor,
    SourceClosed,
    TooManyOperations,
)

Pair = tuple[OverlappedDescriptor, OverlappedDescriptor]


def a_pipe() -> tuple[Any, Any]:
    return os.pipe()


def a_socket_pair() -> tuple[Any, Any]:
    return socket.socketpair()


def a_tcp_connection() -> tuple[Any, Any]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    return one, other


@pytest.fixture(params=[a_pipe, a_socket_pair, a_tcp_connection])
def ends(request: pytest.FixtureRequest, wires: Wires, port: CompletionPort) -> Pair:
    """The reading and the writing end of a stream, associated under "in" and "out"."""
    make: Callable[[], tuple[Any, Any]] = request.param
    reader, writer = (wires.keep(OverlappedDescriptor(end)) for end in make())
    port.associate(reader, "in")
    port.associate(writer, "out")
    return reader, writer


@pytest.fixture
def pipe(wires: Wires) -> "tuple[OverlappedDescriptor, int]":
    """The reading end of a pipe as a source that is not associated, and the writing end's descriptor."""
    reader, writer = os.pipe()
    wires.keep(os.fdopen(writer, "wb", 0))
    return wires.keep(OverlappedDescriptor(reader)), writer


class TestStreams:
    """Pipes and stream sockets alike."""

    def test_what_was_written_is_read(self, ends: Pair, port: CompletionPort) -> None:
        """A read that pends completes with what is written later; both have a packet with the byte count."""
        reader, writer = ends
        read = reader.begin_read()
        assert not read.done
        write = writer.begin_write(b"hello")
        packets = {packet.key: packet for packet in (take(port), take(port))}
        assert (packets["out"].overlapped, packets["out"].transferred, packets["out"].status) == (write, 5, 0)
        assert (packets["in"].overlapped, packets["in"].transferred, packets["in"].status) == (read, 5, 0)
        assert (read.result(), write.result()) == (b"hello", 5)
        assert_empty(port)

    def test_a_read_takes_what_there_is(self, ends: Pair) -> None:
        """A read ends with what there is, up to its size; the rest is for the next."""
        reader, writer = ends
        writer.begin_write(b"hello")
        assert reader.begin_read(3).result() == b"hel"
        assert reader.begin_read(3).result() == b"lo"

    def test_into_a_buffer(self, ends: Pair, port: CompletionPort) -> None:
        """A read into the caller's buffer results in a view of what was filled."""
        reader, writer = ends
        buffer = bytearray(8)
        writer.begin_write(b"hello", packet=False)
        read = reader.begin_read(buffer)
        assert_packet(port, key="in", transferred=5)
        assert (bytes(read.result()), bytes(buffer), read.result().obj) == (b"hello", b"hello\0\0\0", buffer)

    def test_reads_are_served_in_order(self, ends: Pair, port: CompletionPort) -> None:
        """The first read begun gets the first bytes."""
        reader, writer = ends
        for number in range(5):
            reader.begin_read(1, overlapped=number)
        writer.begin_write(b"abcde", packet=False)
        for number in range(5):
            assert assert_packet(port, key="in", transferred=1).overlapped == number

    def test_a_write_takes_all_its_data(self, ends: Pair, port: CompletionPort) -> None:
        """A write larger than the system's buffer goes on as the other end reads, and completes when all left."""
        reader, writer = ends
        data = os.urandom(1 << 20) * 8
        write = writer.begin_write(data)
        assert not write.done
        got = bytearray()
        while len(got) < len(data):
            reader.begin_read(1 << 16)
            packet = take(port)
            if packet.key == "in":
                got += packet.overlapped.result()
        assert bytes(got) == data
        while not write.done:
            take(port)
        assert write.transferred == len(data)

    def test_the_end_of_the_stream(self, ends: Pair, port: CompletionPort) -> None:
        """Closing the other end fails a pending read with 38; so does a read begun after it, as a packet."""
        reader, writer = ends
        pending = reader.begin_read()
        writer.close()
        assert assert_packet(port, key="in", status=38, transferred=0).overlapped is pending
        late = reader.begin_read()
        assert not late.completed_synchronously
        assert assert_packet(port, key="in", status=38).overlapped is late
        with pytest.raises(OperationFailed) as caught:
            late.result()
        assert caught.value.status == 38

    def test_nobody_to_write_to(self, ends: Pair, port: CompletionPort) -> None:
        """A write when the other end is closed is a failed packet: 109, or 64 where a connection was reset."""
        reader, writer = ends
        writer.begin_write(b"x", packet=False)
        reader.close()
        statuses = set()
        for _ in range(3):
            writer.begin_write(b"y")
            statuses.add(assert_packet(port, key="out").status)
        assert 109 in statuses
        assert statuses <= {0, 64, 109}

    def test_a_write_that_fails_midway(self, ends: Pair, port: CompletionPort) -> None:
        """A pending write whose reader goes fails, and tells how much had been taken."""
        reader, writer = ends
        write = writer.begin_write(bytes(8 << 20))
        reader.close()
        packet = assert_packet(port, key="out", overlapped=write)
        assert packet.status in (64, 109)
        assert 0 < packet.transferred < 8 << 20

    def test_both_directions_of_a_socket(self, wires: Wires, port: CompletionPort) -> None:
        """Reads and writes of one socket do not wait for each other."""
        mine, other = socket.socketpair()
        wires.keep(other)
        source = wires.keep(OverlappedDescriptor(mine))
        port.associate(source)
        fill(mine.fileno())
        source.begin_read(overlapped="read")
        source.begin_write(b"more", overlapped="write")
        assert_empty(port)
        other.send(b"x")
        assert_packet(port, overlapped="read", status=0)
        while other.recv(1 << 20)[-4:] != b"more":
            pass
        assert_packet(port, overlapped="write", status=0)

    def test_a_connection_that_is_reset(self, wires: Wires, port: CompletionPort) -> None:
        """A pending read of a connection that the peer resets fails with 64."""
        mine, other = a_tcp_connection()
        source = wires.keep(OverlappedDescriptor(mine))
        port.associate(source)
        source.begin_read()
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        other.close()
        assert_packet(port, status=64)

    def test_bytes_that_nobody_asked_for_are_kept(self, ends: Pair, port: CompletionPort) -> None:
        """With nothing to read for, bytes stay in the stream, and a thread that waits sleeps."""
        reader, writer = ends
        reader.begin_read(1)
        writer.begin_write(b"abc", packet=False)
        assert_packet(port, key="in", transferred=1)
        assert_idle(port)
        assert reader.begin_read().result() == b"bc"

    def test_a_file(self, wires: Wires, port: CompletionPort, tmp_path: Path) -> None:
        """Operations on a regular file complete when they are begun; its end is 38."""
        path = tmp_path / "file"
        path.write_bytes(b"content")
        source = wires.keep(OverlappedDescriptor(path.open("r+b", 0)))
        port.associate(source)
        assert source.begin_read(4).completed_synchronously
        assert_packet(port, transferred=4, status=0)
        assert source.begin_read().result() == b"ent"
        assert_packet(port, transferred=3, status=0)
        source.begin_read()
        assert_packet(port, transferred=0, status=38)
        source.begin_write(b"!")
        assert_packet(port, transferred=1, status=0)
        assert path.read_bytes() == b"content!"

    @pytest.mark.parametrize("what", [0, -1, b"readonly", bytearray(), None])
    def test_what_cannot_be_read_into(self, pipe: Any, what: Any) -> None:
        """No bytes, or a buffer that cannot be filled, fails with 87."""
        with pytest.raises(InvalidOperation) as caught:
            pipe[0].begin_read(what)
        assert caught.value.status == 87

    @pytest.mark.parametrize("thing", [-1, 10**6, None, "file"])
    def test_what_is_no_descriptor(self, thing: Any) -> None:
        """What has no open descriptor is refused with 87."""
        with pytest.raises(InvalidOperation) as caught:
            OverlappedDescriptor(thing)
        assert caught.value.status == 87

    def test_only_bytes_can_be_written(self, ends: Pair, port: CompletionPort) -> None:
        """Anything but contiguous bytes fails with 87; writing none succeeds."""
        _, writer = ends
        for data in ("text", 3, None, memoryview(bytearray(8))[::2]):
            with pytest.raises(InvalidOperation):
                writer.begin_write(data)
        assert_empty(port)
        writer.begin_write(b"")
        assert_packet(port, key="out", transferred=0, status=0)


class TestDirections:
    """What a descriptor is not open for."""

    @pytest.mark.parametrize("way", ["read", "write"])
    def test_the_other_direction(self, wires: Wires, port: CompletionPort, way: str) -> None:
        """A read of what is open for writing only is refused with 5, a write of what is for reading only too; the
        source stays open, and does what it can.
        """
        reader, writer = (wires.keep(OverlappedDescriptor(end)) for end in os.pipe())
        port.associate(reader, "in")
        port.associate(writer, "out")
        with pytest.raises(OperationFailed) as caught:
            if way == "read":
                writer.begin_read()
            else:
                reader.begin_write(b"x")
        assert caught.value.status == 5
        assert not reader.closed and not writer.closed
        writer.begin_write(b"still there")
        assert_packet(port, key="out", transferred=11)
        assert reader.begin_read().result() == b"still there"


class TestLending:
    """`exclusive`."""

    def test_others_go_on(self, pipe: Any, port: CompletionPort) -> None:
        """While an object is lent that has something to read, other sources and waits go on."""
        reader, writer = pipe
        port.associate(reader, "in")
        reader.begin_read()
        with reader.exclusive():
            os.write(writer, b"meanwhile")
            found: list[bool] = []
            waiting = threading.Thread(target=lambda: found.append(sleep(0.05) == 0))
            waiting.start()
            waiting.join(LIMIT)
            assert found == [True]
        assert_packet(port, key="in", transferred=9)


class TestAssociation:
    """Section 2: creating, associating, lifetime."""

    def test_reads_in_flight_complete_to_the_port(self, pipe: Any, port: CompletionPort) -> None:
        """A read that was begun before the association has its packet."""
        source, writer = pipe
        read = source.begin_read()
        os.write(writer, b"x")
        port.associate(source, 9)
        assert assert_packet(port, key=9, transferred=1).overlapped is read

    def test_progress_without_a_waiting_thread(self, ends: Pair) -> None:
        """A pending read completes though no thread waits in the library."""
        reader, writer = ends
        told = threading.Event()
        read = reader.begin_read(event=told)
        writer.begin_write(b"x")
        assert told.wait(LIMIT)
        assert read.result() == b"x"


class TestClosing:
    """Section 7: closing."""

    def test_each_pending_operation_fails_once(self, ends: Pair, port: CompletionPort) -> None:
        """Closing completes pending reads with 995, once each, and closes the descriptor."""
        reader, _ = ends
        begun = [reader.begin_read() for _ in range(3)]
        reader.close()
        reader.close()
        for read in begun:
            assert assert_packet(port, key="in", status=995).overlapped is read
        assert_empty(port)
        with pytest.raises(SourceClosed):
            reader.begin_read()

    def test_the_descriptor_is_closed(self) -> None:
        """A descriptor is closed with its source; so is an object that has one."""
        reader, writer = os.pipe()
        file = os.fdopen(writer, "wb", 0)
        with OverlappedDescriptor(reader), OverlappedDescriptor(file):
            assert is_open(reader)
        assert not is_open(reader)
        assert file.closed

    def test_detach_gives_it_back(self, ends: Pair, port: CompletionPort) -> None:
        """Detaching aborts what is pending and returns what was given, open and blocking as it was."""
        reader, writer = ends
        reader.begin_read()
        file = reader.detach()
        assert_packet(port, key="in", status=995)
        writer.begin_write(b"x")
        fd = file if isinstance(file, int) else file.fileno()
        assert os.get_blocking(fd)
        assert os.read(fd, 1) == b"x"
        os.close(fd) if isinstance(file, int) else file.close()

    def test_a_descriptor_closed_behind_its_back(self, wires: Wires, port: CompletionPort) -> None:
        """A source whose descriptor is gone says so when an operation is begun."""
        reader, writer = os.pipe()
        source = wires.keep(OverlappedDescriptor(reader))
        port.associate(source)
        os.close(reader)
        os.close(writer)
        with pytest.raises(SourceClosed):
            source.begin_read()


class TestModesAndCancelling:
    """Sections 8 and 10, as for every source."""

    def test_skip_port_on_success(self, ends: Pair, port: CompletionPort) -> None:
        """A success at once has no packet; a pending read has one, and so has the end of the stream."""
        reader, writer = ends
        reader.set_completion_modes(SKIP_PORT_ON_SUCCESS)
        writer.set_completion_modes(SKIP_PORT_ON_SUCCESS)
        reader.begin_read(overlapped="pending")
        writer.begin_write(b"x")
        assert_packet(port, overlapped="pending", status=0)
        writer.begin_write(b"y")
        assert reader.begin_read().result() == b"y"
        writer.close()
        reader.begin_read(overlapped="end")
        assert_packet(port, overlapped="end", status=38)
        assert_empty(port)

    def test_an_operation_can_opt_out(self, ends: Pair, port: CompletionPort) -> None:
        """With packet=False only the event tells."""
        reader, writer = ends
        told = Told()
        writer.begin_write(b"x", packet=False)
        reader.begin_read(packet=False, event=told)
        assert told.count == 1
        assert_empty(port)

    def test_a_cancelled_read_takes_nothing(self, ends: Pair, port: CompletionPort) -> None:
        """Its packet says 995; the bytes go to the next read."""
        reader, writer = ends
        read = reader.begin_read()
        read.cancel()
        assert_packet(port, key="in", status=995)
        with pytest.raises(OperationNotFound):
            read.cancel()
        writer.begin_write(b"x", packet=False)
        assert reader.begin_read().result() == b"x"

    def test_a_cancelled_write_tells_how_far_it_came(self, ends: Pair, port: CompletionPort) -> None:
        """A write that was cancelled midway has 995 and the bytes that were taken."""
        _, writer = ends
        writer.begin_write(bytes(8 << 20)).cancel()
        packet = assert_packet(port, key="out", status=995)
        assert 0 < packet.transferred < 8 << 20

    def test_the_limit(self, wires: Wires) -> None:
        """At the limit of pending operations a begin fails with 1816."""
        reader, writer = os.pipe()
        wires.keep(os.fdopen(writer, "wb", 0))
        source = wires.keep(OverlappedDescriptor(reader, limit=1))
        source.begin_read()
        with pytest.raises(TooManyOperations):
            source.begin_read()


class TestOnePort:
    """A service puts all that it waits for on one port."""

    def test_every_kind_of_completion(self, wires: Wires, port: CompletionPort) -> None:
        """ZeroMQ, a socket, a pipe, an event, a timer, a process and its output arrive as packets of one port."""
        mine, other = wires.pair(zmq.ROUTER, zmq.DEALER)
        router = wires.overlapped(mine)
        port.associate(router, "zeromq")
        router.begin_recv()
        near, far = socket.socketpair()
        wires.keep(far)
        stream = wires.keep(OverlappedDescriptor(near))
        port.associate(stream, "socket")
        stream.begin_read()
        child = subprocess.Popen([sys.executable, "-c", "print('output')"], stdout=subprocess.PIPE)
        output = wires.keep(OverlappedDescriptor(child.stdout))
        port.associate(output, "output")
        output.begin_read()
        with Event() as event, WaitableTimer() as timer:
            port.associate_wait(event, "event")
            port.associate_wait(timer, "timer")
            port.associate_wait(child, "process")
            other.send(b"message")
            far.send(b"bytes")
            event.set()
            timer.set(0.01)
            packets = {packet.key: packet for packet in (take(port) for _ in range(6))}
        assert packets.keys() == {"zeromq", "socket", "output", "event", "timer", "process"}
        assert packets["zeromq"].overlapped.frames[1] == b"message"
        assert packets["socket"].overlapped.result() == b"bytes"
        assert packets["output"].overlapped.result().strip() == b"output"
        assert child.wait(LIMIT) == 0

    def test_the_example(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The example serves all its sources from one thread, and ends."""
        main()
        lines = capsys.readouterr().out.splitlines()
        assert set(lines) == {
            "request: over zeromq",
            "connection: over a socket",
            "connection: closed by the other side",
            "output: the child was here",
            "child: ended with 0",
            "timer: stopping",
            "answers: OVER ZEROMQ and OVER A SOCKET",
        }


def test_without_a_descriptor_for_the_poll_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that cannot have its poll set raises 1816, and leaves the file as it was."""

    class Refused:
        fileno = None

        def __init__(self) -> None:
            raise OSError(errno.EMFILE, "none left")

    monkeypatch.setattr("selectors.DefaultSelector", Refused)
    one, other = socket.socketpair()
    with one, other:
        with pytest.raises(TooManyOperations):
            OverlappedDescriptor(one)
        assert os.get_blocking(one.fileno())
