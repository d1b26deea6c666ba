"""The service: `python -m examples.observed.service [ENDPOINT [METRICS-PORT]]`."""

import logging
import sys
import time

from engine import Interface, Server, operation
from examples.observed.watching import watched


class Words(Interface, id="example.observed.Words", version=(1, 0)):
    """What is served."""

    @operation(idempotent=True, raises=[LookupError])
    def spell(self, word: str) -> str:
        """Return the word letter by letter; it takes as long as it is. Raises: `LookupError` for an empty one."""
        raise NotImplementedError


class Spelling:
    """Implements `Words`."""

    def spell(self, word: str) -> str:
        if not word:
            raise LookupError("there is no such word")
        time.sleep(len(word) / 1000)
        return " ".join(word)


def main(endpoint: str = "tcp://127.0.0.1:5555", metrics: str = "9464") -> None:
    """Serve until Ctrl-C or SIGTERM."""
    logging.basicConfig(level="INFO")
    with Server(endpoint, workers=4, name="words") as server:
        with watched(server, int(metrics), service=server, workers=server.pool):
            server.register(Words, Spelling())
            print("serving at", endpoint, flush=True)
            server.listen(wait=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
