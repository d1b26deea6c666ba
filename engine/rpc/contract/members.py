"""What each member of a fleet serves beside its own interfaces, so that who knows one of them finds all.

A client says which list it has, and is answered when the server has another one; after a while in any case, so that
neither side waits for one that is gone.
"""

import msgspec

from ..address import Address
from .interface import Interface, operation


class Listing(msgspec.Struct, frozen=True):
    """Who the members are. `version` is another number for another list, and the same one at each member."""

    version: int = 0
    addresses: list[Address] = []


class Members(Interface, id="callport.Members", version=(1, 0)):
    """What each member of a fleet serves beside its own interfaces."""

    @operation(idempotent=True)
    def after(self, version: int) -> Listing:
        """Return the list once it is not that of this version: at once, or later; after a while whichever it is."""
        raise NotImplementedError
