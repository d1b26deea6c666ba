"""Ctrl-C while ZeroMQ is imported for the first server of a process harms none of the later ones."""

import subprocess
import sys

import pytest

from engine.testing import LIMIT

# Interrupts the main thread when the module named is looked for; the handler runs there as soon as it can.
PROGRAM = """
import signal, sys, threading
from engine import Server

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            sys.meta_path.remove(self)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupt())
try:
    Server("tcp://127.0.0.1:*").listen()
    print("not interrupted")
except KeyboardInterrupt:
    pass
with Server("tcp://127.0.0.1:*") as server:
    server.listen()
print("served")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent to a thread")
@pytest.mark.parametrize("module", ["zmq", "zmq.backend", "zmq.sugar.frame", "zmq.sugar.socket", "transport.zmq_link"])
def test_ctrl_c_amid_the_first_import_leaves_later_servers_whole(module: str) -> None:
    """Wherever within the import the interrupt falls, the next server of the process can be made."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, module], capture_output=True, text=True, timeout=LIMIT)
    assert done.stdout == "served\n", done.stderr
