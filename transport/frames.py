"""Message values <-> lists of byte frames.

A message is a list of frames. Frame 0 is a prefix of four bytes (`CP`, the version, the kind) and a
MessagePack body; every further frame is one out-of-band blob. `PROTOCOL.md` is the full description; the
structs below are its tables in code.

The structs are arrays on the wire, except the two option maps. A reader ignores elements and keys that it
does not know, and takes the default for those that are missing at the end, so a field may be added at the end
without a new version. (A tuple in their place would refuse elements more than it knows.) `gc=False`: no value here can
be part of a reference cycle, and the collector need not walk 100,000 outstanding calls.
"""

from enum import IntEnum
from typing import Annotated, Any, Final

import msgspec

Buffer = bytes | bytearray | memoryview

#: Name and version of this implementation.
LIBRARY: Final = "callport 0.2.0"

MAGIC: Final = b"CP"
VERSION: Final = 1
PREFIX_BYTES: Final = 4

#: Largest message taken from a peer, all frames together, in bytes. Arbitrary: room for a large array, and a bound.
MAX_MESSAGE_BYTES: Final = 256 * 1024 * 1024
#: Largest frame 0 that a server decodes, in bytes, unless options say otherwise: 0.1 s of decoding at the worst.
MAX_BODY_BYTES: Final = 1024 * 1024
#: Most calls, replies or chunks in one message taken from a peer. Far above what a sender coalesces (about a hundred).
MAX_RECORDS: Final = 65536
#: Most out-of-band blobs of one message.
MAX_BLOBS: Final = 256
#: Largest HELLO: all that is read of a peer that has not greeted.
MAX_GREETING_BYTES: Final = 64 * 1024
#: Most characters of the name of an interface or an operation, and of an endpoint.
MAX_NAME: Final = 1024
#: Most texts in the metadata of a connection, a call or a reply.
MAX_METADATA: Final = 1024
#: Most servers that a WELCOME names.
MAX_MEMBERS: Final = 1024
#: Most dimensions of an array, and most pipes of a call. NumPy allows 64.
MAX_DIMENSIONS: Final = 64
MAX_PIPES: Final = 256
#: Most characters of the text for the type of an array's items. NumPy's longest is that of dates, "<M8[25us/1000]".
MAX_DTYPE: Final = 64
#: Bytes of encoded elements that a pipe's receiver lets a sender push before it says more.
PIPE_WINDOW_BYTES: Final = 256 * 1024


#: A call's number, an index, a count. (Negative indexes mean something else in Python: they must not come in.)
Natural = Annotated[int, msgspec.Meta(ge=0)]

# Limits that are part of a type are looked at in the head of what they bound, before any element is read.
_RECORDS: Final = msgspec.Meta(max_length=MAX_RECORDS)
_PIPES: Final = msgspec.Meta(max_length=MAX_PIPES)

#: The name of an interface or an operation, or an endpoint.
Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME)]

#: The endpoints of servers.
Endpoints = Annotated[list[Name], msgspec.Meta(max_length=MAX_MEMBERS)]

#: Texts for the other side's program.
Metadata = Annotated[dict[str, str], msgspec.Meta(max_length=MAX_METADATA)]

#: The numbers of calls.
Ids = Annotated[list[int], _RECORDS]

#: What distinguishes clients, and servers: 16 random bytes.
Identity = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]


class Kind(IntEnum):
    """What a message is; the fourth byte of its prefix."""

    HELLO = 1
    WELCOME = 2
    REJECT = 3
    CALLS = 4
    REPLIES = 5
    CANCEL = 6
    BYE = 7
    PIPE = 8
    CREDIT = 9


class Limits(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What the sender of a HELLO or WELCOME takes; 0 stands for no limit."""

    message_bytes: Natural = MAX_MESSAGE_BYTES
    records: Natural = MAX_RECORDS
    outstanding_calls: Natural = 0
    pipe_window_bytes: Natural = PIPE_WINDOW_BYTES


class Hello(msgspec.Struct, array_like=True, gc=False):
    """The client's first message on a connection. `association` is the same on every connection of one client."""

    association: Identity
    pid: int = 0
    host: str = ""
    library: str = ""
    heartbeat: float = 0.0
    limits: Limits = Limits()
    metadata: Metadata = {}


class Welcome(msgspec.Struct, array_like=True, gc=False):
    """The server's answer to a HELLO. `instance` is another one whenever the server is another process; `body_bytes` is
    the most that it takes of frame 0, 0 standing for no limit but that of the whole message. `members` are the
    endpoints of servers that serve the same, which the client may as well call; it is left out where there are none.
    """

    instance: Identity
    pid: int = 0
    host: str = ""
    library: str = ""
    heartbeat: float = 0.0
    limits: Limits = Limits()
    metadata: Metadata = {}
    body_bytes: Natural = 0
    members: Endpoints = []


class Reject(msgspec.Struct, array_like=True, gc=False):
    """The server does not talk, or not any more. Before a WELCOME: nothing that was sent has run.

    Its layout is the same in every version of the protocol, present and future.
    """

    versions: Annotated[list[Natural], msgspec.Meta(max_length=256)]
    status: int
    reason: str = ""


class Target(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The operation that a call is for."""

    interface: Name
    major: Natural
    minor: Natural
    operation: Name


class Blob(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """One out-of-band value. `position` is that of the argument (0 for a result), which is nil in the body.

    `kind` is "b" for bytes, "a" for an array: then `dtype` is NumPy's text for it (byte order and item size
    in it) and `shape` its extents, the frame holding the items in C order.
    """

    position: Natural
    kind: str
    dtype: str = ""
    shape: tuple[Natural, ...] = ()


#: The lane of a call that has no place in any order.
NO_LANE: Final = -1


class PipeArgument(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Says that an argument is a pipe. `direction`: "i" to the server, "o" from it, "b" both."""

    position: Natural
    direction: str


class CallOptions(msgspec.Struct, omit_defaults=True, gc=False, kw_only=True):
    """What few calls need, for each call of a group. A map with short keys on the wire; absent means the default.

    `time_left` is in seconds, counted from the sending. `lane` names the sequence of calls that this one
    keeps its place in; None: that of the connection, `NO_LANE`: no order. `attempt` is above 0 when an
    idempotent call is sent again. `pipes` are the arguments that are pipes. `blobs` describes the out-of-band
    arguments, in the order of their frames.
    """

    time_left: float | None = msgspec.field(default=None, name="t")
    metadata: Metadata | None = msgspec.field(default=None, name="m")
    lane: int | None = msgspec.field(default=None, name="l")
    one_way: bool = msgspec.field(default=False, name="w")
    attempt: Natural = msgspec.field(default=0, name="r")
    pipes: Annotated[list[PipeArgument], _PIPES] | None = msgspec.field(default=None, name="p")
    blobs: Annotated[list[Blob], _RECORDS] | None = msgspec.field(default=None, name="b")


class CallGroup(msgspec.Struct, array_like=True, gc=False):
    """Calls of one operation, in the order in which they were begun.

    `target` is an index into the message's targets; `args` is an encoded array that holds an array of arguments for
    each of `ids`.
    """

    target: int
    ids: Ids
    args: msgspec.Raw
    options: CallOptions | None = None


class Calls(msgspec.Struct, array_like=True, gc=False):
    """Calls that travel together. They are independent of each other but for their lanes."""

    groups: Annotated[list[CallGroup], _RECORDS]
    targets: Annotated[list[Target], _RECORDS]


class ReplyOptions(msgspec.Struct, omit_defaults=True, gc=False, kw_only=True):
    """What few replies need, for each reply of a group.

    `outputs`: how many outputs the operation has: the value is an array then, the result and they. `blobs` as in
    `CallOptions`, where a position is that in this array; without outputs there is at most one, with position 0.
    """

    metadata: Metadata | None = msgspec.field(default=None, name="m")
    blobs: Annotated[list[Blob], _RECORDS] | None = msgspec.field(default=None, name="b")
    outputs: Natural = msgspec.field(default=0, name="o")


class ReplyGroup(msgspec.Struct, array_like=True, gc=False):
    """Outcomes of calls that ended alike: `values` holds, for each of `ids`, the result if `status` is 0, an encoded
    `Fault` or nil otherwise.
    """

    ids: Ids
    values: Annotated[list[msgspec.Raw], _RECORDS]
    status: int = 0
    options: ReplyOptions | None = None


class Replies(msgspec.Struct, array_like=True, gc=False):
    """Outcomes that travel together, in no order."""

    groups: Annotated[list[ReplyGroup], _RECORDS]


class Fault(msgspec.Struct, array_like=True, gc=False):
    """Why a call failed, for people: the type's name and text of the exception, perhaps its traceback,
    perhaps data of the application.
    """

    type: str
    text: str = ""
    traceback: str | None = None
    data: Any = None


class CancelledCall(msgspec.Struct, array_like=True, gc=False):
    """The client asks to end a call. With `abort` it waits no longer, and will drop the reply."""

    id: Natural
    abort: bool


class Cancel(msgspec.Struct, array_like=True, gc=False):
    """Calls that ought to end."""

    calls: Annotated[list[CancelledCall], _RECORDS]


class Bye(msgspec.Struct, array_like=True, gc=False):
    """The sender's last message on this connection.

    `taken`, from a server: how many of the conversation's CALLS messages it has taken. The calls of the later ones did
    not run. None: it does not say.
    """

    status: int = 0
    reason: str = ""
    taken: Natural | None = None


class PipeChunk(msgspec.Struct, array_like=True, gc=False):
    """Elements of one pipe of one call. `end`: no more will follow.

    `elements` is an encoded array of them, as bytes: so its length, which is what counts for the window, is known
    without reading it. No bytes stand for no elements.
    """

    id: Natural
    pipe: Natural
    end: bool
    elements: memoryview


class Chunks(msgspec.Struct, array_like=True, gc=False):
    """Chunks that travel together; those of one pipe are in order."""

    chunks: Annotated[list[PipeChunk], _RECORDS]


class Grant(msgspec.Struct, array_like=True, gc=False):
    """The receiver of a pipe took elements: so many bytes of them may be sent besides."""

    id: Natural
    pipe: Natural
    size: Natural


class Credit(msgspec.Struct, array_like=True, gc=False):
    """Room in pipes. Without a grant it is a probe: a receiver that does not know the conversation says so."""

    grants: Annotated[list[Grant], _RECORDS]


Message = Hello | Welcome | Reject | Calls | Replies | Cancel | Bye | Chunks | Credit

KIND_OF: Final[dict[type[Any], Kind]] = {
    Hello: Kind.HELLO,
    Welcome: Kind.WELCOME,
    Reject: Kind.REJECT,
    Calls: Kind.CALLS,
    Replies: Kind.REPLIES,
    Cancel: Kind.CANCEL,
    Bye: Kind.BYE,
    Chunks: Kind.PIPE,
    Credit: Kind.CREDIT,
}
