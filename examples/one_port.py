"""One thread and one completion port for all that a service waits for: ZeroMQ requests, a connection over TCP, a
child process and its output, a timer, and an event that ends it.

    python -m examples.one_port
"""

import socket
import subprocess
import sys
from collections.abc import Callable

import zmq

from engine import CompletionPacket, CompletionPort, Event, WaitableTimer
from transport import OverlappedDescriptor, OverlappedSocket

CHILD = [sys.executable, "-c", "print('the child was here')"]
END_OF_STREAM = 38


class Service:
    """Answers requests in capitals, until a moment after its child ended. Each key of the port is what to call."""

    def __init__(self, port: CompletionPort, requests: OverlappedSocket, connection: OverlappedDescriptor) -> None:
        self.port = port
        self.requests = requests
        self.connection = connection
        self.stop = Event()
        self.timer = WaitableTimer()
        self.child = subprocess.Popen(CHILD, stdout=subprocess.PIPE)
        self.output = OverlappedDescriptor(self.child.stdout)
        self.printed = bytearray()
        # What is begun here completes later, as packets: this thread is the only one, and never waits elsewhere.
        for source, on_packet in (
            (requests, self.on_request), (connection, self.on_bytes), (self.output, self.on_output),
        ):  # fmt: skip
            port.associate(source, on_packet)
        port.associate_wait(self.child, self.on_exit)
        port.associate_wait(self.timer, self.on_timer)
        port.associate_wait(self.stop, None)
        requests.begin_recv()
        connection.begin_read()
        self.output.begin_read()

    def run(self) -> None:
        """Call what each packet is for, until the packet of the stop event."""
        while True:
            packet = self.port.get()
            on_packet: Callable[[CompletionPacket], None] | None = packet.key
            if on_packet is None:
                break
            on_packet(packet)
        self.output.close()
        self.stop.close()
        self.timer.close()

    def on_request(self, packet: CompletionPacket) -> None:
        """A request over ZeroMQ: answer whom it came from, and receive the next."""
        client, text = packet.overlapped.frames
        print("request:", text.decode())
        self.requests.begin_send([client, text.upper()], packet=False)
        self.requests.begin_recv()

    def on_bytes(self, packet: CompletionPacket) -> None:
        """Bytes of the connection, or its end."""
        if packet.status == END_OF_STREAM:
            print("connection: closed by the other side")
            return
        data = packet.overlapped.result()
        print("connection:", data.decode())
        self.connection.begin_write(data.upper(), packet=False)
        self.connection.begin_read()

    def on_output(self, packet: CompletionPacket) -> None:
        """Some of what the child printed, or the end of it."""
        if packet.status == END_OF_STREAM:
            print("output:", self.printed.decode().strip())
            return
        self.printed += packet.overlapped.result()
        self.output.begin_read()

    def on_exit(self, packet: CompletionPacket) -> None:
        """The child has ended."""
        print("child: ended with", self.child.wait())
        self.timer.set(0.1)

    def on_timer(self, packet: CompletionPacket) -> None:
        """The moment is over."""
        print("timer: stopping")
        self.stop.set()


def main() -> None:
    """Serve two clients, which live in the same process to keep this short."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with (
        CompletionPort(1) as port,
        OverlappedSocket(context.socket(zmq.ROUTER)) as requests,
        context.socket(zmq.DEALER) as client,
    ):
        with requests.exclusive() as router:
            router.bind("inproc://requests")
        client.connect("inproc://requests")
        near, far = socket.socketpair()
        with OverlappedDescriptor(near) as connection, far:
            service = Service(port, requests, connection)
            client.send(b"over zeromq")
            far.send(b"over a socket")
            far.shutdown(socket.SHUT_WR)
            service.run()
            print("answers:", client.recv().decode(), "and", far.recv(100).decode())
    context.term()


if __name__ == "__main__":
    main()
