"""A server that echoes, in a process that may open few more descriptors than it has.

    python -m tests.transport.few_descriptors ENDPOINT

It prints its endpoint, then does what the lines say that it reads, and prints each when that is done:

    few   wait until it has warned that few are left
    eat   open all that may still be opened
    free  close those
"""

import logging
import os
import resource
import select
import sys
import threading
from contextlib import suppress

from tests.transport.helpers import Party
from transport import PeerLost, bind

FEW = 30


class Server(Party):
    """A party that says so in the log, once, if its link has connections wait. (Over ZeroMQ the link does itself.)"""

    warned = False

    def on_connect_failed(self, reason: str, vain: bool = False) -> None:
        if not vain and not self.warned:
            self.warned = True
            logging.getLogger("transport").warning(reason)


def main() -> None:
    warned = threading.Event()

    class Handler(logging.StreamHandler):  # type: ignore[type-arg]  # of anything
        def emit(self, record: logging.LogRecord) -> None:
            super().emit(record)
            warned.set()

    logging.getLogger("transport").addHandler(Handler())
    open_now = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + FEW, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    server = Server(bind(sys.argv[1]))
    print(server.link.endpoint, flush=True)
    asked = False
    answered = 0
    eaten: list[int] = []
    while True:
        with server.link.lock:
            found = server.link.descriptors()
        readable, _, _ = select.select([sys.stdin, *found], [], [], 0.01)
        if sys.stdin in readable:
            word = sys.stdin.readline().strip()
            if not word:
                break
            if word == "few":
                asked = True
            else:
                eat(eaten) if word == "eat" else free(eaten)
                print(word, flush=True)
        while server.harvest():
            pass
        for peer, frames in server.messages[answered:]:
            with suppress(PeerLost):
                server.send(peer, list(frames))
            answered += 1
        if asked and warned.is_set():
            print("few", flush=True)
            asked = False
    server.close()


def eat(eaten: list[int]) -> None:
    with suppress(OSError):
        while True:
            eaten.append(os.open(os.devnull, os.O_RDONLY))


def free(eaten: list[int]) -> None:
    while eaten:
        os.close(eaten.pop())


if __name__ == "__main__":
    main()
