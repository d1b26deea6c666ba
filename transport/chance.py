"""Chance, for pauses: what many processes do at once after a failure is spread out by it.

The system's, as the module `random` would cost every import of the library 3 ms.
"""

import os

_BEYOND = 1 << 32


def chance() -> float:
    """Return a number from 0 to 1, whichever, 1 not included."""
    return int.from_bytes(os.urandom(4)) / _BEYOND


def about(number: float, part: float) -> float:
    """Return `number`, more or less by chance: by so large a part of it at most."""
    return number * (1 + part * (2 * chance() - 1))
