"""What shares a message: calls, or answers, that wait behind one that leaves anyway.

Theory of operation. What waits to be sent is a plain tuple if its values are short and not encoded yet, an
`EncodedCall` or `EncodedReply` (tuples too) if they are encoded, and no tuple if it is a message of its own. Mostly all
are plain: then they are taken in one call of C code.

Assumes: `deque.popleft` and `extendleft` are atomic; one thread at a time takes, others may append, and take out.
"""

from collections import deque
from itertools import repeat, starmap
from typing import Any

COALESCE_RECORDS = 128  # Most of them in one message: a message costs ~100 us of both sides' time, a call ~5.
COALESCE_BYTES = 64 * 1024  # A message of this size leaves: its first record has waited long enough for the others.
FEW_CALLS = 4  # As long as no more are outstanding, none waits to be batched.

_PLAIN = {tuple}


def take_together(queue: deque[Any], taken: list[Any], most: int = COALESCE_RECORDS) -> None:
    """Move records from `queue` to `taken`, which holds the first: those that may share its message, `most` in all."""
    if type(taken[0]) is tuple:
        try:
            taken += starmap(queue.popleft, repeat((), min(len(queue), most - 1)))
        except IndexError:
            pass  # Others have taken some out: what was taken until then is in the list.
        if set(map(type, taken)) == _PLAIN:
            return
        queue.extendleft(reversed(taken[1:]))
        del taken[1:]
    size = _size(taken[0])
    while len(taken) < most and size < COALESCE_BYTES:
        try:
            further = queue.popleft()
        except IndexError:
            break
        if not isinstance(further, tuple):
            queue.appendleft(further)
            break
        taken.append(further)
        size += _size(further)


def _size(record: tuple[Any, ...]) -> int:
    """The bytes of what is encoded; what is not is short."""
    return 0 if type(record) is tuple else len(memoryview(record[2]))


def batch_threshold(outstanding: int) -> int:
    """How many calls may wait to be batched, when so many are outstanding: more than a few."""
    return min(outstanding >> 1, COALESCE_RECORDS - 1)
