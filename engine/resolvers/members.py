"""The members of a fleet, as each of them reports them: one list, which waiting clients get when it changes.

Theory of operation. A server of a fleet serves `Members` beside its own interfaces. A client says which list it has,
and is answered when the server has another one; after a while in any case, so that neither side waits for one that is
gone.
"""

from collections.abc import Iterable
from contextlib import suppress
from zlib import crc32

import msgspec

from ..errors import EngineError
from ..kernel.lock import Lock
from ..rpc.address import Address
from ..rpc.contract.members import Listing, Members
from ..rpc.server.call import ServerCall
from ..rpc.server.registry import manager

__all__ = ["Listing", "Members", "MembersRoutines"]


class MembersRoutines:
    """Serves `Members` for one server. Threads: any.

    Who drains or closes that server says so first, by `answer_all(closing=True)`: it would wait for those that ask.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        # All guarded by it. Those who wait are as many as calls are open: `max_calls` of the server bounds them.
        self._listing = Listing()
        self._waiting: list[ServerCall] = []
        self._closing = False

    @manager
    def after(self, call: ServerCall, version: int) -> None:
        with self._lock:
            listing = self._listing
            if not self._closing and version == listing.version:
                self._waiting.append(call)
                return
        _answer([call], listing)

    def update(self, addresses: Iterable[Address]) -> None:
        """These are the members from now on."""
        known = sorted(addresses, key=lambda address: address.endpoint)
        listing = Listing(crc32(msgspec.json.encode(known)), known)
        with self._lock:
            self._listing = listing
            waiting, self._waiting = self._waiting, []
        _answer(waiting, listing)

    def answer_all(self, closing: bool = False) -> None:
        """Answer all that wait; and, if the server is `closing`, those that come later at once."""
        with self._lock:
            self._closing = self._closing or closing
            listing = self._listing
            waiting, self._waiting = self._waiting, []
        _answer(waiting, listing)


def _answer(calls: list[ServerCall], listing: Listing) -> None:
    for call in calls:
        with suppress(EngineError):  # Its client has given up.
            call.complete(listing)
