"""What a server counts, and its snapshot.

Source: "RpcMgmtInqStats": calls in, calls out, packets in, packets out.
"""

import msgspec


class Counters(msgspec.Struct):
    """What a server counts; guarded by the server's lock, except that `messages_in`, `garbage` and `failures` are
    counted under link.lock.
    """

    calls_in: int = 0
    calls_out: int = 0
    messages_in: int = 0
    messages_out: int = 0
    faults: int = 0
    refused: int = 0
    garbage: int = 0
    failures: int = 0


class ServerStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a server. `active` counts calls that arrived and are not closed; the counters only grow.

    The four that Windows has are `calls_in`, `calls_out` (calls that routines have begun), `messages_in` and
    `messages_out` (its packets). `failures` counts messages that this side could not deal with: there was no
    memory for one, for example.
    """

    phase: str
    active: int
    calls_in: int
    calls_out: int
    messages_in: int
    messages_out: int
    faults: int
    refused: int
    garbage_received: int
    failures: int
