"""A client that pulls from a stream without end, in a process of its own, to be killed.

python -m tests.rpc.pipes.reader ENDPOINT
"""

import sys

from engine import Client

from .interfaces import Streams


def main(endpoint: str) -> None:
    client = Client(endpoint)
    stream = client.bind(Streams).swell.stream(100_000)  # Kept: one that is dropped ends its call.
    next(stream)
    print("pulled", flush=True)
    sys.stdin.read()
    client.close()


if __name__ == "__main__":
    main(sys.argv[1])
