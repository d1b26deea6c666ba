"""A batch: ordinary calls of one operation that came together, and are run one after the other.

Theory of operation. Most calls are answered by what their routine returns, and nobody ever asks for their handle. Such
calls have none: they stay the rows of a batch, which stands for each of them in the table of their peer. Their
arguments are decoded in one step. A handle is made, and takes the batch's place in the table, for a call that somebody
wants to know of: the routine that asks for `current_call()`, a cancel, whoever waits for running calls.

    arrival: table[number] = batch     handle asked for: table[number] = handle     closing: table.pop(number)

Whoever takes a call out of the table closes it, be it the batch or the handle that is found there.

Guarantees: one handle a call, however many ask.

Assumes: insertion and removal of one key of a `dict`, and `deque.popleft`, are atomic. Putting a handle in the place of
the batch takes two steps: whoever finds nothing there asks for the handle, by the same lock, and looks again.
"""

from collections import deque
from typing import Any

from transport.frames import CallGroup
from transport.wire.codec import split_args

from ...kernel.lock import Lock
from .answers import Answers
from .entry import Entry
from .open_call import OpenCall
from .peer import Peer

_opening = Lock()  # One for all: handles of such calls are rare.


class Batch:
    """Calls that are not run yet, or just now. `listener.py` makes them, `lane.py` runs them."""

    __slots__ = ("_answers", "entry", "group", "handles", "peer", "rows")

    def __init__(self, answers: Answers, peer: Peer, entry: Entry, group: CallGroup) -> None:
        self._answers = answers
        self.entry: Entry = entry
        # As it arrived.
        self.group: CallGroup = group
        # Written under _opening, by number; read anywhere.
        self.handles: dict[int, OpenCall] = {}
        self.peer: Peer = peer
        # Number and arguments of each call that is not run yet; None before `unpack`. Taken by who has the lane.
        self.rows: deque[tuple[int, Any]] | None = None

    def unpack(self) -> bool:
        """Decode the arguments; False if those of some call cannot be read in this way."""
        group = self.group
        if self.entry.preparers:  # By now: telemetry was switched on meanwhile.
            return False
        try:
            args = self.entry.decode_many(group.args)
        except BaseException:  # Decoding runs into whatever was sent, and runs the types' own checks.
            return False
        if len(args) != len(group.ids):
            return False
        self.rows = deque(zip(group.ids, args, strict=True))
        return True

    def apart(self) -> list[OpenCall]:
        """Return a handle for each call, with its arguments as they came.

        Raises: msgspec.MsgspecError if there are not as many arguments as calls; the handles are `all_handles` then.
        """
        calls = self.all_handles()
        for call, raw in zip(calls, split_args(self.group), strict=True):
            call.args = raw
            call.begun = False
        return calls

    def waiting(self) -> list[OpenCall]:
        """Return a handle for each call that is not run yet, while nobody runs any."""
        rows = self.rows
        return self.all_handles() if rows is None else [self.open(call_id) for call_id, _ in rows.copy()]

    def all_handles(self) -> list[OpenCall]:
        """Return a handle for each call."""
        return [self.open(call_id) for call_id in self.group.ids]

    def open(self, call_id: int) -> OpenCall:
        """Return the handle of a call; made if it has none. Any thread."""
        table = self.peer.calls
        with _opening:
            call = self.handles.get(call_id)
            if call is None:
                call = self.handles[call_id] = OpenCall(self._answers, self.peer, call_id, self.entry, None)
                if table.pop(call_id, None) is self:
                    table[call_id] = call
        return call
