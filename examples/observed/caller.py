"""A caller that never rests: `python -m examples.observed.caller [ENDPOINT [METRICS-PORT [CALLS]]]`."""

import sys
from itertools import count, islice

from engine import Client, CompletionPort, EngineError
from examples.observed.service import Words
from examples.observed.watching import watched

UNDER_WAY = 4
WORDS = ("quick", "brown", "fox", "", "lazily")  # One of them is a fault.


def main(endpoint: str = "tcp://127.0.0.1:5555", metrics: str = "9465", calls: str = "") -> None:
    """Call until Ctrl-C, or so often."""
    with Client(endpoint, timeout=5.0) as client, CompletionPort() as port:
        with watched(client, int(metrics), caller=client, answers=port):
            words = client.bind(Words, causal=False)
            faults = 0
            for number in islice(count(), int(calls) if calls else None):
                words.spell.begin(WORDS[number % len(WORDS)], notify=port)
                if number >= UNDER_WAY - 1:
                    faults += failed(port)
            print(f"{faults + sum(failed(port) for _ in range(UNDER_WAY - 1))} faults", flush=True)


def failed(port: CompletionPort) -> bool:
    """Whether the next call that ends has failed."""
    try:
        port.get().overlapped.complete()
    except (LookupError, EngineError):
        return True
    return False


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        pass
