"""Messages that are none, or are out of turn, by what is wrong with them."""

import msgspec

from transport.frames import CallGroup, CallOptions, Calls, Hello, Kind, Replies, Target, Welcome
from transport.wire.codec import encode, encode_calls

from .one_by_one import one_call, one_reply

TARGET = Target("test.Probe", 1, 2, "echo")
GOOD = bytes(encode_calls([(1, TARGET, ("good",), None)])[0])
NIL = msgspec.Raw(b"\xc0")


def prefix(kind: int, version: int = 1) -> bytes:
    """The first four bytes of a message."""
    return b"CP" + bytes((version, kind))


def calls(*records: CallGroup, targets: tuple[Target, ...] = (TARGET,)) -> bytes:
    """A message of calls, however wrong."""
    return bytes(encode(Calls(list(records), list(targets)))[0])


def call(number: int, target: int = 0, options: CallOptions | None = None) -> CallGroup:
    """One call of `echo`, with the number as its argument."""
    return one_call(number, target, msgspec.Raw(msgspec.msgpack.encode((number,))), options)


#: Frames that no peer may send in an open conversation.
GARBAGE: dict[str, list[bytes]] = {
    "nothing": [b""],
    "noise": [bytes(range(256))],
    "text": [b"GET / HTTP/1.1\r\n\r\n"],
    "another magic": [b"XX" + GOOD[2:]],
    "a prefix alone": [prefix(Kind.CALLS)],
    "half a prefix": [b"CP"],
    "truncated": [GOOD[: len(GOOD) // 2]],
    "one byte short": [GOOD[:-1]],
    "a byte too many": [GOOD + b"\0"],
    "an unknown kind": [prefix(200) + b"\x90"],
    "kind zero": [prefix(0) + b"\x90"],
    "a reply to a server": [bytes(encode(Replies([one_reply(1, 0, NIL)]))[0])],
    "a welcome to a server": [bytes(encode(Welcome(b"\3" * 16))[0])],
    "a second hello": [bytes(encode(Hello(b"\1" * 16))[0])],
    "no calls": [calls()],
    "a target out of range": [calls(call(1, 7))],
    "a target below zero": [calls(call(1, -1))],
    "one number twice": [calls(call(1), call(1))],
    "a huge count": [prefix(Kind.CALLS) + b"\x92\xdd\xff\xff\xff\xff"],
    "a huge text": [prefix(Kind.HELLO) + b"\x91\xdb\xff\xff\xff\xff"],
    "deep nesting": [prefix(Kind.CALLS) + b"\x91" * 100_000],
    "a map for an array": [prefix(Kind.CALLS) + b"\x80"],
    "frames left over": [GOOD, b"left over"],
    "many frames": [GOOD] + [b"x"] * 300,
    "blobs without frames": [calls(call(1, 0, CallOptions(blobs=[])))[:-1] + b"\xc1"],
    "a bad text": [prefix(Kind.BYE) + b"\x92\x00\xa2\xff\xff"],
    "a cancel of nothing": [prefix(Kind.CANCEL) + b"\x91\x91\x92\xff\xc3"],
    "a number that is a text": [prefix(Kind.CALLS) + b"\x92\x91\x93\xa1x\x00\x90\x90"],
    "nan for a time": [
        prefix(Kind.CALLS) + b"\x92\x91\x94\x01\x00\x90\x81\xa1t\xa1x\x91" + msgspec.msgpack.encode(TARGET)
    ],
}


#: Those that a server drops in silence: they are not ours at all, or one greeting too many. It answers the others with
#: REJECT.
SILENT = {"nothing", "noise", "text", "another magic", "a second hello"}
