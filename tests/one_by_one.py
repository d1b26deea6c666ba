"""Calls and replies of a message one by one, however they were grouped."""

from typing import NamedTuple

import msgspec

from transport.frames import CallGroup, CallOptions, Calls, Message, Replies, ReplyGroup, ReplyOptions, Target
from transport.wire.codec import split_args


class OneCall(NamedTuple):
    """A call, as it came."""

    id: int
    target: Target
    args: msgspec.Raw
    options: CallOptions | None


class OneReply(NamedTuple):
    """A reply, as it came."""

    id: int
    status: int
    value: msgspec.Raw
    options: ReplyOptions | None


def calls_in(message: Message) -> list[OneCall]:
    """The calls of a message, in their order."""
    assert isinstance(message, Calls)
    return [
        OneCall(number, message.targets[group.target], args, group.options)
        for group in message.groups
        for number, args in zip(group.ids, split_args(group), strict=True)
    ]


def replies_in(message: Message) -> list[OneReply]:
    """The replies of a message, in their order."""
    assert isinstance(message, Replies)
    return [
        OneReply(number, group.status, value, group.options)
        for group in message.groups
        for number, value in zip(group.ids, group.values, strict=True)
    ]


def one_call(number: int, target: int, args: msgspec.Raw, options: CallOptions | None = None) -> CallGroup:
    """A group of one call: its number, the index of its target, its encoded arguments."""
    return CallGroup(target, [number], msgspec.Raw(b"\x91" + bytes(args)), options)


def one_reply(number: int, status: int, value: msgspec.Raw, options: ReplyOptions | None = None) -> ReplyGroup:
    """A group of one reply."""
    return ReplyGroup([number], [value], status, options)
