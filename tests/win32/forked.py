"""A process that serves, and forks: what the child and the parent find, run by `test_server.py`.

python -W error -m tests.win32.forked PATH
"""

import os
import sys
import warnings

from engine.win32 import RpcMgmtIsServerListening, RpcServerListen, RpcServerUseProtseqEp


def main(path: str) -> None:
    RpcServerUseProtseqEp("ncalrpc", 0, path, None)
    RpcServerListen(1, 10, True)
    read, write = os.pipe()
    warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forks in a process with threads.
    child = os.fork()
    if not child:
        os.write(write, f"{RpcMgmtIsServerListening(None):d} {RpcServerListen(1, 10, True):d} ".encode())
        os._exit(0)
    os.waitpid(child, 0)
    print(os.read(read, 100).decode(), int(RpcMgmtIsServerListening(None)))


if __name__ == "__main__":
    main(sys.argv[1])
