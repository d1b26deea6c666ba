"""Makes `transport/vectors.json`: messages, and what comes of each by PROTOCOL.md.

    python -m tests.transport.wire.vectors      writes the file; `test_vectors.py` compares it

What is written by hand here is what other implementations may send, right and wrong; what this one sends is made by its
encoders, so that a change of theirs shows. New vectors go to the end, after all others of their side: those that are
there are frozen.
"""

import json
import math
from pathlib import Path
from typing import Any, Final

import msgspec

import transport
from transport import Buffer
from transport.frames import (
    Blob,
    Bye,
    CallOptions,
    Cancel,
    CancelledCall,
    Chunks,
    Credit,
    Fault,
    Grant,
    Hello,
    Kind,
    Limits,
    Message,
    PipeArgument,
    PipeChunk,
    Reject,
    ReplyOptions,
    Target,
    Welcome,
)
from transport.wire.codec import (
    EncodedReply,
    decode,
    encode,
    encode_call,
    encode_calls,
    encode_parts,
    encode_replies,
    encode_reply,
    encode_value,
)

FILE: Final = Path(transport.__file__).parent / "vectors.json"

Frames = list[bytes]

#: What a server has that runs the vectors: version 1.2 of `vectors.Echo`.
ECHO: Final = Target("vectors.Echo", 1, 2, "echo")
ADD: Final = Target("vectors.Echo", 1, 2, "add")
TOTAL: Final = Target("vectors.Echo", 1, 2, "total")
_TARGETS: Final = [list(msgspec.structs.astuple(target)) for target in (ECHO, ADD, TOTAL)]

#: Elements that version 1 did not have when it was frozen: no meaning shows them.
LATER: Final = {(Welcome, "members")}

_packed: Final = msgspec.msgpack.encode
_VECTORS: list[dict[str, Any]] = []


def prefix(kind: int, version: int = 1) -> bytes:
    """The first four bytes of a message."""
    return b"CP" + bytes((version, kind))


def raw(kind: int, *body: object) -> Frames:
    """A message with these elements for a body."""
    return [prefix(kind) + _packed(body)]


def calls(*groups: object, targets: object = _TARGETS) -> Frames:
    """A message of calls; targets 0, 1 and 2 are `echo`, `add` and `total`."""
    return raw(Kind.CALLS, groups, targets)


def replies(*groups: object) -> Frames:
    """A message of replies."""
    return raw(Kind.REPLIES, groups)


def plain(value: Any) -> Any:
    """A message, or a part of one, as JSON has it: arrays with all elements, options with the keys that
    say something, bytes in hex.
    """
    if isinstance(value, msgspec.Struct):
        kind = type(value)
        if kind.__struct_config__.array_like:
            return [plain(getattr(value, field)) for field in kind.__struct_fields__ if (kind, field) not in LATER]
        fields = [(field, getattr(value, field.name)) for field in msgspec.structs.fields(kind)]
        return {field.encode_name: plain(found) for field, found in fields if found != field.default}
    if isinstance(value, (bytes, memoryview, msgspec.Raw)):
        return {"hex": bytes(value).hex()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value


def _add(
    to: str, name: str, state: str, frames: list[Buffer] | Frames, consequence: str, sender: bool, **more: Any
) -> None:
    frames = [bytes(frame) for frame in frames]
    vector: dict[str, Any] = {"name": name, "to": to, "state": state, "frames": [frame.hex() for frame in frames]}
    vector["consequence"] = consequence
    if consequence in ("taken", "welcomed", "ends"):
        vector["meaning"] = plain(decode(frames))
    if sender:
        vector["sender"] = True
    _VECTORS.append({**vector, **more})


def sent(to: str, name: str, message: Message | list[Buffer], consequence: str = "taken", **more: Any) -> None:
    """A message that this implementation sends, to a peer whose conversation is open, if nothing else is said."""
    frames = message if isinstance(message, list) else encode(message)
    _add(to, name, more.pop("state", "open"), frames, consequence, True, **more)


def came(to: str, name: str, frames: Frames, consequence: str = "taken", **more: Any) -> None:
    """A message that another implementation may send."""
    _add(to, name, more.pop("state", "open"), frames, consequence, False, **more)


def answered(name: str, frames: Frames, *answers: tuple[int, int], **more: Any) -> None:
    """Calls, and what they end with at a server of `vectors.Echo`: numbers and statuses."""
    came("server", name, frames, answers=[list(answer) for answer in answers], **more)


IDENTITY: Final = bytes(range(16))
GREETING: Final = Hello(IDENTITY, 4242, "pluto", "example 1.0", 5.0, metadata={"user": "ada"})
WELCOME: Final = Welcome(
    IDENTITY[::-1], 4243, "mars", "example 1.0", 5.0, Limits(1 << 20, 1024, 100, 1 << 16), {"zone": "a"}, 1 << 20
)
_FAULT: Final = Fault("KeyError", "'slow'", "Traceback ...", {"code": 5})
_BLOB: Final = {"b": [[0, "b"]]}


def to_a_server() -> None:
    """What clients send."""
    server = "server"
    sent(server, "hello", GREETING, "welcomed", state="fresh")
    sent(server, "hello after a REJECT", GREETING, "welcomed", state="rejected")
    came(server, "hello with the least", raw(Kind.HELLO, IDENTITY), "welcomed", state="fresh")
    came(server, "hello with more", raw(Kind.HELLO, IDENTITY, 1, "h", "l", 1, [65536, 1024, 0, 0, 7, [8]], {}, "new"),
         "welcomed", state="fresh")  # fmt: skip
    came(server, "hello with short limits", raw(Kind.HELLO, IDENTITY, 1, "", "", 0, [65536]), "welcomed", state="fresh")

    sent(server, "a call", encode_call(ECHO, 7, ["quick"]), answers=[[7, 0]])
    sent(server, "calls of one operation", encode_calls([(n, ADD, (n, 1), None) for n in (1, 2, 3)]),
         answers=[[1, 0], [2, 0], [3, 0]])  # fmt: skip
    mixed: list[Any] = [
        (1, ECHO, ("a",), None),
        (2, ADD, (1, 2), CallOptions(time_left=60.0)),
        (3, ECHO, (b"b",), None),
    ]
    sent(server, "calls of two operations, one with options", encode_calls(mixed), answers=[[1, 0], [2, 0], [3, 0]])
    for name, options in {
        "a deadline": CallOptions(time_left=60.5),
        "metadata": CallOptions(metadata={"traceparent": "00-1-2-00"}),
        "a lane": CallOptions(lane=3),
        "no lane": CallOptions(lane=-1),
        "an attempt": CallOptions(attempt=2),
        "all options": CallOptions(time_left=60.0, metadata={"a": "b"}, lane=1, attempt=1),
    }.items():
        sent(server, f"a call with {name}", encode_call(ECHO, 7, [1], options), answers=[[7, 0]])
    sent(server, "a call one way", encode_call(ECHO, 7, [1], CallOptions(one_way=True)), answers=[])
    sent(server, "a call with an array", _call_with_array(), answers=[[7, 0]])
    pipes = CallOptions(pipes=[PipeArgument(0, "i")])
    sent(server, "a call with a pipe", encode_call(TOTAL, 7, [None], pipes))
    sent(server, "elements", Chunks([PipeChunk(7, 0, False, memoryview(_packed([1, 2, 300])))]))
    sent(server, "the end of a pipe", Chunks([PipeChunk(7, 0, True, memoryview(b""))]))
    sent(server, "credit", Credit([Grant(7, 0, 131072)]))
    sent(server, "a probe", Credit([]))
    sent(server, "a cancel", Cancel([CancelledCall(7, False), CancelledCall(8, True)]))
    sent(server, "a client's goodbye", Bye(0, "the client closed"), "ends")
    sent(server, "a client's goodbye without words", Bye(), "ends")

    # What others may send.
    answered("bytes out of band", [*calls([0, [7], [[None]], _BLOB]), b"blob"], (7, 0))
    answered("an empty blob", [*calls([0, [7], [[None]], _BLOB]), b""], (7, 0))
    answered("options as nil", calls([0, [7], [[1]], None]), (7, 0))
    answered("empty options", calls([0, [7], [[1]], {}]), (7, 0))
    answered("options of several", calls([0, [1, 2], [["a"], ["b"]], {"l": 2, "t": 60, "m": {}}]), (1, 0), (2, 0))
    answered("options of several, one way", calls([0, [1, 2], [["a"], ["b"]], {"w": True}], [0, [3], [[1]]]), (3, 0))
    answered("unknown options", calls([0, [7], [[1]], {"z": [1], "o": b"x", "long": None}]), (7, 0))
    answered("elements more everywhere", calls([0, [7], [[1]], {}, "new"], targets=[[*_TARGETS[0], "new"]]), (7, 0))
    answered("several groups of a target, and none", calls([1, [1], [[1]]], [1, [2], [[2]]]), (1, 0), (2, 0))
    answered("a default left out", calls([1, [7], [[1]]]), (7, 0))
    answered("an int as deadline", calls([0, [7], [[1]], {"t": 60}]), (7, 0))
    answered("the largest usual number", calls([0, [2**53 - 1], [[1]]]), (2**53 - 1, 0))
    answered("any version", calls([0, [7], [[1]]], targets=[["vectors.Echo", 0, 0, "echo"]]), (7, 0))
    answered("a lower minor version", calls([0, [7], [[1]]], targets=[["vectors.Echo", 1, 0, "echo"]]), (7, 0))
    long = b"\xdd\0\0\0\1"
    group = long[:-1] + b"\3" + b"\xcc\0" + long + b"\xcf\0\0\0\0\0\0\0\5" + long + long + b"\x07"
    target = long[:-1] + b"\4" + b"\xd9\x0cvectors.Echo" + b"\xcd\0\1" + b"\xd0\2" + b"\xdb\0\0\0\4echo"
    answered("long forms", [prefix(Kind.CALLS) + long[:-1] + b"\2" + long + group + long + target], (5, 0))
    answered("a lane below -1", calls([0, [7], [[1]], {"l": -5}]), (7, 0))

    # What is wrong with a call is its own affair.
    answered("an unknown interface", calls([0, [7], [[1]]], targets=[["vectors.None", 1, 0, "echo"]]), (7, 1717))
    answered("another major version", calls([0, [7], [[1]]], targets=[["vectors.Echo", 2, 0, "echo"]]), (7, 1717))
    answered("a higher minor version", calls([0, [7], [[1]]], targets=[["vectors.Echo", 1, 3, "echo"]]), (7, 1717))
    answered("an unknown operation", calls([0, [7], [[1]]], targets=[["vectors.Echo", 1, 2, "none"]]), (7, 1745))
    answered("too many arguments", calls([0, [7, 8], [[1, 2], [3]]]), (7, 1783), (8, 0))
    answered("too few arguments", calls([1, [7], [[]]]), (7, 1783))
    answered("an argument of another type", calls([1, [7, 8], [["x"], [1]]]), (7, 1783), (8, 0))
    answered("arguments as nil", calls([0, [7, 8], None], [0, [9], [[1]]]), (7, 1783), (8, 1783), (9, 0))
    answered("fewer arguments than calls", calls([0, [7, 8], [[1]]], [0, [9], [[1]]]), (7, 1783), (8, 1783), (9, 0))
    answered("more arguments than calls", calls([0, [7], [[1], [2]]]), (7, 1783))
    answered("no time left", calls([0, [7], [[1]], {"t": 0}]), (7, 1818))
    answered("less than no time left", calls([0, [7], [[1]], {"t": -1.5}]), (7, 1818))
    answered("a position that is not there", [*calls([0, [7], [[1]], {"b": [[4, "b"]]}]), b"blob"], (7, 1783))
    answered("a position twice", [*calls([0, [7], [[None]], {"b": [[0, "b"], [0, "b"]]}]), b"x", b"y"], (7, 1783))
    answered("an unknown kind of blob", [*calls([0, [7], [[None]], {"b": [[0, "q"]]}]), b"blob"], (7, 1783))
    short = {"b": [[0, "a", "<f8", [3]]]}
    answered("an array that is not as long as it says", [*calls([0, [7], [[None]], short]), b"blob"], (7, 1783))
    text = {"b": [[0, "a", "x" * 65, [1]]]}
    answered("a type of items that is too long", [*calls([0, [7], [[None]], text]), b"blob"], (7, 1783))
    answered("no pipes where the contract has one", calls([2, [7], [[None]]]), (7, 1783))
    answered("another direction", calls([2, [7], [[None]], {"p": [[0, "o"]]}]), (7, 1783))
    answered("another position", calls([2, [7], [[None, None]], {"p": [[1, "i"]]}]), (7, 1783))
    came(server, "a time that is no number", calls([0, [7], [[1]], {"t": math.nan}]), "taken-nan", answers=[[7, 0]])

    # What is for nobody is ignored.
    came(server, "a cancel of nobody", raw(Kind.CANCEL, [[99, True]]))
    came(server, "elements for nobody", raw(Kind.PIPE, [[99, 0, False, _packed([1])]]))
    came(server, "elements for nobody, that are none", raw(Kind.PIPE, [[99, 0, False, b"\xc1"]]))
    came(server, "credit for nobody", raw(Kind.CREDIT, [[99, 5, 1]]))
    came(server, "trailing elements of a cancel", raw(Kind.CANCEL, [[99, False, 1]], "new"))
    came(server, "trailing elements of a chunk", raw(Kind.PIPE, [[99, 0, True, b"", 1]], "new"))
    came(server, "trailing elements of a grant", raw(Kind.CREDIT, [[99, 0, 5, 1]], "new"))
    came(server, "trailing elements of a goodbye", raw(Kind.BYE, 0, "", None, "new"), "ends")


def garbage_for_a_server() -> None:
    """What a server refuses, or drops."""
    for name, frames in _garbage().items():
        came("server", name, frames, "rejected")
    for name, frames in {**_noise(), **_of_clients()}.items():
        came("server", name, frames, "dropped" if name in _noise() else "rejected")
    for kind, frames in _out_of_turn().items():
        came("server", f"{kind} to a server", frames, "rejected")
    came("server", "a second hello", raw(Kind.HELLO, IDENTITY), "dropped")
    # Strangers.
    for name, frames in {
        "calls": calls([0, [7], [[1]]]), "a cancel": raw(Kind.CANCEL, [[7, True]]), "a probe": raw(Kind.CREDIT, []),
        "elements": raw(Kind.PIPE, []), "a goodbye": raw(Kind.BYE),
        "half a hello": [prefix(Kind.HELLO) + b"\x92\xc4\x10"],
        "a short association": raw(Kind.HELLO, bytes(15)),
        "an unknown kind": raw(200), "another version": [prefix(Kind.HELLO, 9) + _packed([IDENTITY])],
        "a hello with a blob": [*raw(Kind.HELLO, IDENTITY), b"blob"],
    }.items():  # fmt: skip
        came("server", f"of a stranger: {name}", frames, "rejected", state="fresh")
        came("server", f"of a rejected one: {name}", frames, "dropped", state="rejected")
    for name, frames in _noise().items():
        came("server", f"of a stranger: {name}", frames, "dropped", state="fresh")


def to_a_client() -> None:
    """What servers send."""
    client = "client"
    sent(client, "welcome", WELCOME, state="greeted")
    came(client, "welcome with the least", raw(Kind.WELCOME, IDENTITY), state="greeted")
    members = ["tcp://10.0.0.1:5555"]
    came(client, "welcome with more", raw(Kind.WELCOME, IDENTITY, 1, "", "", 0, [0, 0, 0, 0, 9], {}, 0, members, 1),
         state="greeted")  # fmt: skip
    sent(client, "a refusal", Reject([1], 1722, "the server is closing"), "ends", state="greeted")
    came(client, "a refusal by a later version", [prefix(Kind.REJECT, 9) + _packed([[8, 9], 1728, "too old"])], "ends",
         state="greeted")  # fmt: skip
    sent(client, "a goodbye in the place of a welcome", Bye(1722, "", 0), "ends", state="greeted")
    sent(client, "a result", encode_replies([EncodedReply(1, 0, encode_value(["fast", "swift"]))]))
    sent(client, "a result of nothing", encode_replies([(1, None)]))
    sent(client, "results", encode_replies([(1, "a"), (2, 2.5), (3, None)]))
    mixed: list[Any] = [(1, 1), EncodedReply(2, 0xE0000001, encode_value(_FAULT)), (3, True)]
    sent(client, "results and a fault", encode_replies(mixed))
    sent(client, "a fault", encode_reply(1, _FAULT, 1818))
    sent(client, "a fault without words", encode_replies([EncodedReply(1, 1727, msgspec.Raw(b"\xc0"))]))
    sent(client, "metadata of a reply", encode_reply(1, 7, options=ReplyOptions(metadata={"took": "5"})))
    sent(client, "a result and outputs", encode_parts(1, [7, b"abc"]))
    large = encode_parts(1, [7, b"abc", b"blob" * (1 << 14)])
    came(client, "outputs, one out of band", [bytes(large[0]), b"blob"])
    came(client, "a result out of band", [*replies([[1], [None], 0, _BLOB]), b"blob"])
    array = {"b": [[0, "a", "<i4", [2, 1]]]}
    came(client, "an array", [*replies([[1], [None], 0, array]), bytes(8)])
    came(client, "status left out", replies([[1, 2], ["a", "b"]]))
    came(client, "options as nil", replies([[1], ["a"], 0, None]))
    came(client, "metadata of several", replies([[1, 2], ["a", "b"], 0, {"m": {"k": "v"}}]))
    came(client, "a status of the program's", replies([[1], [["Oops"]], 4711]))
    came(client, "trailing elements", raw(Kind.REPLIES, [[[1], ["a"], 0, {"z": 1}, "new"]], "new"))
    came(client, "a reply to nobody", replies([[99], ["a"]]))
    sent(client, "elements", Chunks([PipeChunk(1, 0, False, memoryview(_packed(["x"]))),
                                     PipeChunk(1, 0, True, memoryview(b""))]))  # fmt: skip
    sent(client, "credit", Credit([Grant(1, 0, 4096)]))
    sent(client, "a probe", Credit([]))
    sent(client, "a goodbye", Bye(1722, "the server closed", 12), "ends")
    came(client, "a goodbye that does not say", raw(Kind.BYE), "ends")
    came(client, "a goodbye with more", raw(Kind.BYE, 0, "", 3, "new"), "ends")
    sent(client, "broken off", Reject([1], 1728, "the body of CALLS is wrong"), "ends")
    came(client, "broken off by a later version", [prefix(Kind.REJECT, 2) + _packed([[1, 2], 1728])], "ends")
    came(client, "a reply of before", replies([[1], ["a"]]), "dropped", state="rejected")
    for name, frames in {**_garbage(), **_noise(), **_of_servers()}.items():
        came(client, name, frames, "dropped")
    for name, frames in {
        "hello": raw(Kind.HELLO, IDENTITY), "calls": calls([0, [7], [[1]]]), "cancel": raw(Kind.CANCEL, [[7, True]]),
        "welcome": raw(Kind.WELCOME, IDENTITY),
    }.items():  # fmt: skip
        came(client, f"{name} to a client", frames, "dropped")
    came(client, "replies before the welcome", replies([[1], ["a"]]), "dropped", state="greeted")
    came(client, "a short instance", raw(Kind.WELCOME, bytes(15)), "dropped", state="greeted")
    came(client, "a long instance", raw(Kind.WELCOME, bytes(17)), "dropped", state="greeted")
    named = ["tcp://10.0.0.1:5555", "tcp://10.0.0.2:5555"]
    sent(client, "welcome with members", msgspec.structs.replace(WELCOME, members=named), state="greeted")


def _call_with_array() -> list[Buffer]:
    array = Blob(0, "a", "<i4", (3,))
    options = CallOptions(blobs=[array])
    return [*encode_calls([(7, ECHO, (None,), options)]), b"\1\0\0\0\2\0\0\0\3\0\0\0"]


def _noise() -> dict[str, Frames]:
    """What is not of this protocol."""
    return {
        "an empty frame": [b""], "one byte": [b"C"], "noise": [bytes(range(256))], "text": [b"GET / HTTP/1.1\r\n\r\n"],
        "another magic": [b"XX" + calls([0, [7], [[1]]])[0][2:]],
    }  # fmt: skip


def _garbage() -> dict[str, Frames]:
    """What neither side can make use of, though it is of this protocol."""
    good = calls([0, [7], [[1]]])[0]
    return {
        "the letters alone": [b"CP"],
        "a prefix alone": [prefix(Kind.CALLS)],
        "an unknown kind": raw(200),
        "kind zero": raw(0),
        "another version": [prefix(Kind.CALLS, 2) + good[4:]],
        "cut": [good[:-1]],
        "a byte too many": [good + b"\0"],
        "two bodies": [good + good[4:]],
        "a map for an array": [prefix(Kind.CALLS) + b"\x80"],
        "nil for a body": [prefix(Kind.CALLS) + b"\xc0"],
        "deep nesting": [prefix(Kind.CALLS) + b"\x91" * 4096],
        "an array that claims to be endless": [prefix(Kind.CALLS) + b"\x92\xdd\xff\xff\xff\xff"],
        "a text that claims to be endless": [prefix(Kind.BYE) + b"\x92\0\xdb\xff\xff\xff\xff"],
        "a byte that MessagePack never has": [prefix(Kind.BYE) + b"\x91\xc1"],
        "a blob after a goodbye": [*raw(Kind.BYE), b"blob"],
        "a blob after a probe": [*raw(Kind.CREDIT, []), b"blob"],
        "a status as text": raw(Kind.BYE, "0"),
        "less than no messages taken": raw(Kind.BYE, 0, "", -1),
        "a short chunk": raw(Kind.PIPE, [[7, 0, False]]),
        "elements that are no bytes": raw(Kind.PIPE, [[7, 0, False, [1]]]),
        "an end that is no truth value": raw(Kind.PIPE, [[7, 0, 1, b""]]),
        "a negative pipe": raw(Kind.PIPE, [[7, -1, False, b""]]),
        "negative credit": raw(Kind.CREDIT, [[7, 0, -5]]),
        "a short grant": raw(Kind.CREDIT, [[7, 0]]),
        "no chunks": raw(Kind.PIPE),
    }


def _of_clients() -> dict[str, Frames]:
    """What no client may send."""
    many = list(range(257))
    return {
        "no groups": calls(),
        "no targets": raw(Kind.CALLS, [[0, [7], [[1]]]]),
        "a group without calls": calls([0, [], []]),
        "a group without calls beside others": calls([0, [7], [[1]]], [0, [], []]),
        "a group without arguments": calls([0, [7]]),
        "a group as a map": calls({"a": 1}),
        "a target that is not there": calls([3, [7], [[1]]]),
        "a target below zero": calls([-1, [7], [[1]]]),
        "a target as text": calls(["0", [7], [[1]]]),
        "a target without operation": calls([0, [7], [[1]]], targets=[["vectors.Echo", 1, 2]]),
        "a negative version": calls([0, [7], [[1]]], targets=[["vectors.Echo", -1, 2, "echo"]]),
        "a name of 1025 characters": calls([0, [7], [[1]]], targets=[["x" * 1025, 1, 2, "echo"]]),
        "a number as text": calls([0, ["7"], [[1]]]),
        "a number with a fraction": calls([0, [7.5], [[1]]]),
        "a number for an array of them": calls([0, 7, [[1]]]),
        "a number twice in a group": calls([0, [7, 7], [[1], [2]]]),
        "a number twice in two groups": calls([0, [7], [[1]]], [1, [7], [[1]]]),
        "options as an array": calls([0, [7], [[1]], []]),
        "a deadline as text": calls([0, [7], [[1]], {"t": "1"}]),
        "a lane with a fraction": calls([0, [7], [[1]], {"l": 1.5}]),
        "one way as a number": calls([0, [7], [[1]], {"w": 1}]),
        "a negative attempt": calls([0, [7], [[1]], {"r": -1}]),
        "metadata that is no text": calls([0, [7], [[1]], {"m": {"a": 1}}]),
        "metadata of 1025 texts": calls([0, [7], [[1]], {"m": {f"{n:04}": "" for n in range(1025)}}]),
        "a pipe without direction": calls([2, [7], [[None]], {"p": [[0]]}]),
        "a negative position": [*calls([0, [7], [[None]], {"b": [[-1, "b"]]}]), b"blob"],
        "a blob without description": [*calls([0, [7], [[1]]]), b"blob"],
        "a description without blob": calls([0, [7], [[None]], _BLOB]),
        "more blobs than descriptions": [*calls([0, [7], [[None]], _BLOB]), b"x", b"y"],
        "blobs of a group of several": [*calls([0, [7, 8], [[None], [None]], _BLOB]), b"blob"],
        "blobs of one of several groups": [*calls([0, [7], [[None]], _BLOB], [0, [8], [[1]]]), b"blob"],
        "257 blobs": [*calls([0, [7], [[None] * 257], {"b": [[at, "b"] for at in many]}]), *[b""] * 257],
        "a short cancel": raw(Kind.CANCEL, [[7]]),
        "a cancel of a negative number": raw(Kind.CANCEL, [[-7, True]]),
        "a cancel that is no array": raw(Kind.CANCEL, 7),
    }


def _of_servers() -> dict[str, Frames]:
    """What no server may send."""
    return {
        "no groups": replies(),
        "a group without replies": replies([[], []]),
        "a group without values": replies([[1]]),
        "fewer values than numbers": replies([[1, 2], ["a"]]),
        "more values than numbers": replies([[1], ["a", "b"]]),
        "a number twice": replies([[1, 1], ["a", "b"]]),
        "a number twice in two groups": replies([[1], ["a"]], [[1], [None], 1726]),
        "a status as text in a reply": replies([[1], ["a"], "0"]),
        "values as a map": replies([[1], {1: "a"}]),
        "options as an array": replies([[1], ["a"], 0, []]),
        "fewer than no outputs": replies([[1], [["a"]], 0, {"o": -1}]),
        "a blob without description": [*replies([[1], ["a"]]), b"blob"],
        "a description without blob": replies([[1], [None], 0, _BLOB]),
        "blobs of several replies": [*replies([[1, 2], [None, None], 0, _BLOB]), b"blob"],
        "a refusal without status": raw(Kind.REJECT, [1]),
    }


def _out_of_turn() -> dict[str, Frames]:
    """What only servers send."""
    return {
        "welcome": raw(Kind.WELCOME, IDENTITY), "a refusal": raw(Kind.REJECT, [1], 1728),
        "replies": replies([[1], ["a"]]),
    }  # fmt: skip


def generate() -> str:
    """The text of the file."""
    _VECTORS.clear()
    for part in (to_a_server, garbage_for_a_server, to_a_client):
        part()
    for vector in _VECTORS:
        if vector["consequence"] == "taken-nan":  # JSON has no such number.
            vector["consequence"] = "taken"
    lines = ",\n".join(json.dumps(vector, ensure_ascii=False) for vector in _VECTORS)
    return f'{{"version": 1, "vectors": [\n{lines}\n]}}\n'


if __name__ == "__main__":
    FILE.write_text(generate(), encoding="utf-8")
    print(f"{len(_VECTORS)} vectors in {FILE.name}")
