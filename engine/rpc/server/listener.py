"""The arrivals of one endpoint of a server: its peers, and the calls that come from them.

Theory of operation. A harvest decodes a message, enters its calls in their peer's table and in its queue, which is run
by the server's pool, and answers what is to be refused.

    link.harvest -> on_message -> peer's table, peer's calls -> ring ... routine -> `answers.py`

Assumes: insertion and removal of one key of a `dict` are atomic and are not reordered.

One class, because what is taken, counted, refused and withdrawn of one message is decided together, under one lock, in
a quick way and a general one that have to agree: hence the length.
"""

import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import chain, repeat
from typing import Any

import msgspec

from transport import Buffer, Link, LinkClosed
from transport.errors import RemoteProtocolError
from transport.frames import (
    MAX_RECORDS,
    NO_LANE,
    PREFIX_BYTES,
    VERSION,
    Bye,
    CallGroup,
    CallOptions,
    Calls,
    Cancel,
    CancelledCall,
    Chunks,
    Credit,
    Fault,
    Hello,
    Reject,
    Welcome,
)
from transport.log import Log
from transport.realtime import monotonic, sleep
from transport.wire.codec import CALLS_PREFIX, decode, encode, read_calls, split_args
from transport.wire.large import LARGE_BYTES
from transport.wire.session import Received, ServerSession

from ...kernel.lock import each
from ...status import Status
from ..channel import Channel
from ..errors import CallCancelled, CallFailed
from ..limits import size_of
from ..notify import EventKind
from . import pipes as pipe_server
from .answers import Answers
from .backlog import Backlog
from .helped import HelpedRunner
from .open_call import Batch, CloseReason, OpenCall, Peer
from .peers import ServerPeer, shown_peer
from .pipes import ServerPipes
from .policy import Refusal, is_local
from .registry import Registry
from .routines import Entry
from .runner import CallRunner, LooseRunner
from .turns import Account, Scheduler

log: Log = Log("engine.rpc")

# Seconds that a closing listener waits for threads that are just entering a routine, and between two looks at them.
SETTLING, SETTLING_LOOK = 0.1, 50e-6


def _part_from(peer: Peer) -> None:
    peer.parting = True
    peer.session.part()


def _leave_calls_of(peer: Peer) -> None:
    peer.session.part()


class Listener:
    """Takes what arrives at one endpoint. The server makes one for each endpoint that it listens on.

    Args: `answers` closes the calls that arrive here; `scheduler` has them run; `welcome(heartbeat)` is what is said to
        a client that greets, over a link with such a heartbeat; `pipe_window`: bytes that a client may push ahead;
        `max_body_bytes`: the largest frame that is decoded; `most_waiting`: bytes of calls that may wait for one
        client, and for all.
    """

    def __init__(
        self,
        link: Link,
        answers: Answers,
        registry: Registry,
        scheduler: Scheduler,
        welcome: Callable[[float], Welcome],
        pipe_window: int,
        max_body_bytes: int,
        most_waiting: tuple[int, int],
    ) -> None:
        self._link = link
        # What closes the calls that arrive here, and what decides how many are taken.
        self.answers: Answers = answers
        self._admission = answers.admission
        self._counters = answers.counters
        self._contexts = answers.contexts
        self._registry = registry
        self._scheduler = scheduler
        self._welcome = welcome
        self._pipe_window = pipe_window
        self._max_body_bytes = max_body_bytes
        self.peers: dict[bytes, Peer] = {}
        self._counters.clients = self.peers
        self._counters.link = link
        self._backlog = self._counters.backlog = Backlog(self.peers, *most_waiting, self._admission.clients)
        # Those that are gone while calls of theirs still run. Under link.lock.
        self._departed: weakref.WeakSet[Peer] = weakref.WeakSet()
        # All three under link.lock, of the message that is being taken: how many of its calls count as active and are
        # not entered yet (stored as they are counted, with nothing in between that an interrupt could come in at); the
        # batch or call that is just being entered; the number of the one that is just being refused.
        self._entering = 0
        self._entered: Batch | OpenCall | None = None
        self._refused: int | None = None
        # No calls are taken any more, and no greetings. Under link.lock.
        self._drains = False
        self.endpoint: str = link.endpoint
        # Over this link a client is in the same process, and so may run calls itself.
        self._runner = HelpedRunner if self.endpoint.startswith("loopback:") else CallRunner
        self._channel = answers.channel = Channel(link, answers, self, answers.outgoing, self._admission.lock)
        try:
            self._channel.open()
            self._channel.needs_progress(True)
        except BaseException:
            self._channel.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether the endpoint works still."""
        return not self._channel.closed

    def shown_peers(self) -> list[ServerPeer]:
        """Return what is shown of the clients. Any thread."""
        return [shown_peer(self.endpoint, peer) for peer in list(self.peers.values())]

    def disconnect(self, peer: bytes, reason: str) -> bool:
        """End the connection of a client; False if it is not connected any more. Any thread."""
        with self._channel.link.lock:
            found = peer in self.peers and not self._channel.closed
            if found:
                self._link.disconnect(peer, reason)
        return found

    def silence(self) -> str:
        """Nothing: a server waits for no particular client."""
        return ""

    # The channel's side: receiving. Under link.lock, one at a time.

    def on_connected(self, peer: bytes) -> None:
        """A client was heard of."""
        info = self._link.peer_info(peer)
        session = ServerSession(self._greeting)
        local, parting = is_local(self.endpoint, info.address), self.answers.closing
        account = Account()
        turns = self._runner(self._scheduler, account, self.answers)
        loose = LooseRunner(self._scheduler, account, self.answers)
        self.peers[peer] = Peer(
            peer, turns, loose, session, info.address, info.user, local, parting,
            since=monotonic(), look_at=self._backlog.first_look,
        )  # fmt: skip

    def on_lost(self, peer: bytes, reason: str, evicted: bool = False) -> None:
        """A client is gone. Its running calls go on; their answers will go nowhere."""
        with self._admission.lock:
            known = self.peers.pop(peer, None)
            if known is None:
                return
            noted, known.lost, known.parting = known.lost, True, True
        if evicted and not noted:  # Otherwise it was logged as this side ended the connection.
            self._counters.evicted += 1
            self._admission.complaints.warning(
                "%s: disconnected the client at %s: %s", self.endpoint, known.address or peer.hex(), reason
            )
        self.answers.actions += self._part(known, f"the client is gone: {reason}")
        self.answers.actions += _interrupts(known.calls.copy().values(), "the client is gone")

    def _part(self, peer: Peer, why: str) -> list[Callable[[], object]]:
        """What is to be done after a client has gone: end pipes, notify subscribers, run contexts down."""
        acts: list[Callable[[], object]] = []
        if peer.calls:
            self._departed.add(peer)
        # Calls without a record have no subscribers.
        for call in [call for call in peer.calls.copy().values() if isinstance(call, OpenCall)]:
            if call.pipes is not None:
                acts += call.pipes.fail(CallFailed, why)
            if call.extra is not None:
                acts.append(partial(_notify, call, EventKind.CLIENT_DISCONNECT))
        acts += self._contexts.leave(peer.key, peer)
        return acts

    def on_connect_failed(self, reason: str, vain: bool = False) -> None:
        """A stranger was turned away; or has to wait."""
        if vain:
            self._counters.strangers += 1
            self._admission.complaints.warning("%s: refused a connection from %s", self.endpoint, reason)
        else:
            self._admission.complaints.warning("%s: accepts no connection: %s", self.endpoint, reason)

    def on_message(self, peer: bytes, frames: list[Buffer]) -> bool:
        """Take one message from a client. True: more is hardly there, so the harvest may end."""
        known = self.peers.get(peer)
        if known is None:
            return False
        try:
            self._counters.messages_in += 1
            # This is the way of nearly every message. It refuses what is more than ordinary calls of one operation,
            # which `_receive` takes.
            session = known.session
            if (
                len(frames) != 1
                or not session.is_open
                or type(head := frames[0]) is not bytes
                or head[:PREFIX_BYTES] != CALLS_PREFIX
                or (size := len(head)) > LARGE_BYTES
            ):
                return self._receive(known, frames)
            try:
                # Copying a small body is cheaper than two views.
                message = read_calls(head[PREFIX_BYTES:] if size < 2048 else memoryview(head)[PREFIX_BYTES:])
                (group,) = message.groups
                (target,) = message.targets
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
                return self._receive(known, frames)
            table, ids = known.calls, group.ids
            count = len(ids)
            entry = self._registry.found.get(target)
            backlog = self._backlog
            if (
                type(entry) is not Entry
                or not entry.plain
                or group.options is not None
                or group.target
                or not table.keys().isdisjoint(ids)
                or known.bytes_in + size > known.look_at
                or backlog.arrived + size > backlog.look_at
                or (count != 1 and (len(set(ids)) != count or not 0 < count <= MAX_RECORDS))
            ):
                return self._receive(known, frames)
            known.bytes_in += size
            backlog.arrived += size
            session.calls_taken += 1
            counters = self._counters
            counters.calls_in += count
            counters.open += count
            self._entering = count
            if counters.open > self._admission.plenty:  # Counted first, looked second.
                room, full = self._admission.examine(counters, count, len(table))
                if full is not None:
                    self._take_groups(known, message, None, count, room, full)
                    return True
            self._entered = batch = Batch(self.answers, known, entry, group)
            if count == 1:
                table[ids[0]] = batch
            else:
                table.update(zip(ids, repeat(batch), strict=False))
            turns = known.turns
            turns.calls.append(batch)
            self._entered = None
            self._entering = 0
            turns.arrived()
        except BaseException as error:
            self._fail_at(known, error)
            return False
        # The only client waits for its only call: look for more after that was answered.
        return len(table) == 1 and len(self.peers) == 1

    def _receive(self, peer: Peer, frames: list[Buffer]) -> bool:
        """Take one message, whatever it is; as `on_message`."""
        size = size_of(frames)
        peer.bytes_in += size
        self._backlog.arrived += size
        session = peer.session
        refused = None if session.is_open else session.screen(frames)
        if refused is not None:
            self._take(peer, refused)
            return False
        try:
            message = decode(frames, max_body_bytes=self._max_body_bytes)
        except RemoteProtocolError as error:
            self._count_garbage(peer, error)
            self.answers.reply_with(peer, session.unreadable(error, frames))
            return False
        except BaseException as error:
            self._break_off(peer, error)
            return False
        try:
            if type(message) is Calls and session.is_open:
                session.calls_taken += 1
                large = len(frames) > 1 or len(frames[0]) > LARGE_BYTES
                refuses = self._take_calls(peer, message, frames[1:] if large else None)
                return refuses or (len(peer.calls) == 1 and len(self.peers) == 1)
            if session.is_open and (type(message) is Chunks or type(message) is Credit):
                self.answers.actions += pipe_server.take(peer.calls, message)
            else:
                self._take(peer, session.receive(message))
        except RemoteProtocolError as error:
            self._count_garbage(peer, error)
        except BaseException as error:
            self._fail_at(peer, error)
        return False

    def _fail_at(self, peer: Peer, error: BaseException) -> None:
        """A message could not be taken: what was entered before runs, the others are withdrawn and count no longer."""
        work, refused = self._entered, self._refused
        self._entered = self._refused = None
        if work is not None and not _withdrawn(peer, work):
            self._entering -= len(work.group.ids) if isinstance(work, Batch) else 1
        if refused is not None and self.answers.answered(peer, refused):
            self._entering -= 1
        not_entered, self._entering = self._entering, 0
        self._counters.count_off(not_entered)
        self.answers.actions += (peer.turns.post, peer.loose.post)
        self._break_off(peer, error)

    def _break_off(self, peer: Peer, error: BaseException) -> None:
        """A message of a client is lost: have it begin another conversation. The others are served all the same.

        There was no memory for the message, for one. Raises the error anew if it is an interrupt.
        """
        self.answers.fail(peer, error)
        if not isinstance(error, Exception):
            raise error

    def failed(self, error: Exception) -> None:
        """A harvest failed, at no message in particular; it will be tried again."""
        self._counters.failures += 1

    def _greeting(self) -> Welcome | Reject:
        """Return the answer to a client that greets."""
        if self.answers.closing or self._drains:
            return Reject([VERSION], Status.SERVER_UNAVAILABLE, "the server is closing")
        return self._welcome(self._link.heartbeat)

    def _take(self, peer: Peer, received: Received) -> None:
        """Take what the session of a client has made of a message."""
        if received.error is not None:
            self._count_garbage(peer, received.error)
        self.answers.reply_with(peer, received)
        message = received.message
        if type(message) is Hello:
            peer.association = message.association
            peer.process = message.pid
            peer.host = message.host
            peer.metadata = message.metadata
            self._contexts.join(peer.key, peer)
        elif type(message) is Cancel:
            self._cancel(peer, message)
        elif type(message) is Chunks or type(message) is Credit:
            self.answers.actions += pipe_server.take(peer.calls, message)
        elif type(message) is Bye:
            self.on_lost(peer.id, message.reason)

    def _count_garbage(self, peer: Peer, error: RemoteProtocolError) -> None:
        self._counters.garbage += 1
        where = peer.address or peer.id.hex()
        self._admission.complaints.warning("%s: dropped a message from %s: %s", self.endpoint, where, error)

    def _take_calls(self, peer: Peer, message: Calls, blobs: list[Buffer] | None) -> bool:
        """Take calls; `blobs`, which may be none, if decoding their arguments takes long, else None.

        Returns: whether some are refused for want of room: then the harvest ends, for they count as open until that was
            sent.
        """
        groups = message.groups
        count = len(groups[0].ids) if len(groups) == 1 else sum(len(group.ids) for group in groups)
        counters = self._counters
        counters.calls_in += count
        counters.open += count
        self._entering = count
        room, full = count, None
        if counters.open > self._admission.plenty:  # Counted first, looked second.
            room, full = self._admission.examine(counters, count, len(peer.calls))
        if full is None and (full := self._backlog.look(peer)) is not None:
            room = 0
        self._take_groups(peer, message, blobs, count, room, full)
        return full is not None

    def _take_groups(
        self, peer: Peer, message: Calls, blobs: list[Buffer] | None, most: int, room: int, full: Refusal | None
    ) -> None:
        """Take the `most` calls of a message, for `room` of which there is room; `blobs` as in `_take_calls`."""
        calls = peer.turns.calls
        for group in message.groups:
            entry = self._registry.find(message.targets[group.target])
            if (
                full is None
                and group.options is None
                and type(entry) is Entry
                and entry.plain
                and peer.calls.keys().isdisjoint(group.ids)
            ):
                # The usual way.
                count = len(group.ids)
                self._entered = batch = Batch(self.answers, peer, entry, group, large=blobs is not None)
                peer.calls.update(zip(group.ids, repeat(batch), strict=False))
                calls.append(batch)
                self._entered = None
                self._entering -= count
            else:
                room -= self._take_one_by_one(peer, group, entry, room if full else most, full, blobs)
        if self._entering:  # Dropped.
            self._counters.count_off(self._entering)
            self._entering = 0
        self.answers.actions.append(peer.turns.post)
        if full is not None:
            self.answers.actions.append(self._channel.flush)

    def _take_one_by_one(
        self,
        peer: Peer,
        group: CallGroup,
        entry: Entry | Refusal,
        room: int,
        full: Refusal | None,
        blobs: list[Buffer] | None,
    ) -> int:
        """Take, one by one, calls that need a record, or are refused; return how many took of `room`."""
        options = group.options
        try:
            all_args = split_args(group)
        except msgspec.MsgspecError as error:
            if isinstance(entry, Entry):
                entry = Refusal(Status.BAD_STUB_DATA, f"the arguments cannot be read: {error}")
            all_args = [group.args] * len(group.ids)
        took = turned_away = 0
        for call_id, args in zip(group.ids, all_args, strict=True):
            refusal: Refusal | None = None
            if isinstance(entry, Refusal):
                refusal = entry
            elif entry.auto is None and took >= room:
                refusal = full
                turned_away += 1
            elif call_id in peer.calls:
                # Whose call is it? Both ends would be wrong for one of them.
                self._counters.garbage += 1
                continue
            elif entry.auto is not None and (refusal := self._admission.enter(entry.auto)) is not None:
                turned_away += 1
            if refusal is not None:
                if options is None or not options.one_way:
                    self._refused = call_id
                    self.answers.fault(peer, call_id, refusal.status, Fault("", refusal.text))
                    self._refused = None
                    self._entering -= 1
                continue
            assert isinstance(entry, Entry)
            if options is None:
                call = OpenCall(self.answers, peer, call_id, entry, args, None, blobs, begun=False)
            else:
                call = self._call_with_options(peer, call_id, entry, args, options, blobs)
            self._entered = call
            peer.calls[call_id] = call
            if entry.auto is None:
                took += 1
            else:
                call.add_done_callback(partial(self._admission.leave, entry.auto))
            # Last: a thread that finds it there may run and close it at once.
            turns = peer.loose if options is not None and options.lane == NO_LANE else peer.turns
            turns.calls.append(call)
            self._entered = None
            self._entering -= 1
            if turns is peer.loose:
                self.answers.actions.append(turns.post)
        if turned_away:
            self._admission.turn_away(turned_away)
        return took

    def _call_with_options(
        self, peer: Peer, call_id: int, entry: Any, args: Any, options: CallOptions, blobs: list[Buffer] | None
    ) -> OpenCall:
        left = options.time_left
        # A time that is no number, or has no end, is none.
        deadline = monotonic() + left if left is not None and left - left == 0 else None
        call = OpenCall(self.answers, peer, call_id, entry, args, options, blobs, deadline, begun=False)
        if options.pipes is not None and options.pipes == entry.spec.directions:
            call.pipes = ServerPipes(self.answers, call, self._pipe_window)
        return call

    def _cancel(self, peer: Peer, message: Cancel) -> None:
        with self._admission.lock:
            each(partial(self._cancel_locked, peer), message.calls)

    def _cancel_locked(self, peer: Peer, asked: CancelledCall) -> None:
        call = peer.calls.get(asked.id)
        if isinstance(call, Batch):
            call = call.open(asked.id)
        if not isinstance(call, OpenCall):
            return
        call.cancelled = True
        call.aborted |= asked.abort
        if asked.abort:
            if call.pipes is not None:
                self.answers.actions += call.pipes.fail(CallCancelled, "the client has cancelled the call")
            self.answers.actions += _interrupts((call,), "the client has cancelled the call")
        if call.extra is not None:
            self.answers.actions.append(partial(_notify, call, EventKind.CLIENT_CANCEL))

    def drain(self) -> None:
        """Take no calls any more: those that arrive are left, and who greets is refused. What was taken goes on."""
        with self._channel.link.lock:
            self._drains = True
            each(_leave_calls_of, list(self.peers.values()))

    def close(self) -> None:
        """Tell every client that this endpoint goes away, send what can be sent at once, and close.

        Calls that were taken and have not begun end with `ServerUnavailable`, and never run. Closing again goes on
        where it was broken off.
        """
        with self._channel.link.lock:
            self.answers.closing = True
            peers = list(self.peers.values())
            each(_part_from, peers)
        deadline = monotonic() + SETTLING
        for peer in peers:
            self._give_up_waiting(peer, deadline)
        with self._channel.link.lock:
            if not self._channel.closed:  # By a closing that was broken off.
                with suppress(LinkClosed):  # Before us, as the process ends.
                    self._link.harvest(self)  # A client that has greeted meanwhile gets the goodbye, too.
            each(self._say_goodbye, list(self.peers.values()))
        self._channel.close()
        with self._channel.link.lock:
            each(self._lose, list(self.peers.values()))
        # No other thread takes them any more.
        while self.answers.actions:
            self.answers.actions.pop(0)()

    def _lose(self, peer: Peer) -> None:
        peer.lost = True
        self.answers.actions += self._part(peer, "the server was closed")
        del self.peers[peer.id]

    def _give_up_waiting(self, peer: Peer, deadline: float) -> None:
        """Close the calls of a parting client that were not begun."""
        # Threads that are just about to begin one see to it that they do not, or that it shows.
        while peer.calls and not (peer.turns.is_settled() and peer.loose.is_settled()) and monotonic() < deadline:
            sleep(SETTLING_LOOK)
        waiting = [call for call in peer.calls.copy().values() if isinstance(call, OpenCall) and not call.begun]
        for call in [*waiting, *peer.turns.waiting()]:
            self.answers.give_up(call)

    def forked(self) -> None:
        """In a forked child: the calls are the parent's to answer. Takes no lock, for who had it may not be there."""
        self.answers.forked()
        for peer in [*self.peers.values(), *self._departed]:
            for call in peer.calls.values():
                if isinstance(call, OpenCall) and call.pipes is not None:
                    call.pipes.forked()
            peer.calls.clear()

    def _say_goodbye(self, peer: Peer) -> None:
        """Tell a client that nothing of it is taken from here on. Under link.lock."""
        bye = peer.session.leave(Status.SERVER_UNAVAILABLE, "the server closed")
        if bye is not None:
            self.answers.send_alone(peer, encode(bye))

    def running(self, entries: set[Entry]) -> list[OpenCall]:
        """Return the open calls of these operations, those of clients that are gone included."""
        with self._channel.link.lock:
            peers = [*self.peers.values(), *self._departed]
            return list(chain.from_iterable(map(partial(_running, entries=entries), peers)))


def _withdrawn(peer: Peer, work: Batch | OpenCall) -> bool:
    """Take calls that were just being entered out of their table again; False if they were entered already."""
    table = peer.calls
    if isinstance(work, Batch):
        if work.rows is not None or work in peer.turns.calls:
            return False
        for call_id in work.group.ids:
            if table.get(call_id) is work:
                del table[call_id]
        return True
    if work.begun or work in peer.turns.calls or work in peer.loose.calls:
        return False
    if table.pop(work.id, None) is not work:
        return False  # Closed by now: its answer is counted off as it leaves.
    if work.extra is not None:
        work.extra.run_callbacks(CloseReason.FAILED)
    return True


def _running(peer: Peer, entries: set[Entry]) -> list[OpenCall]:
    """Return the open calls of `peer` that are of these operations."""
    return [
        call.open(call_id) if isinstance(call, Batch) else call
        for call_id, call in list(peer.calls.items())
        if call.entry in entries
    ]


def _interrupts(calls: Iterable[Batch | OpenCall], why: str) -> list[Callable[[], object]]:
    """What ends the tasks that run the routines of these calls: no client waits for them any more."""
    return [
        partial(call.runner.interrupt, call, why)
        for call in calls
        if isinstance(call, OpenCall) and call.runner is not None
    ]


def _notify(call: OpenCall, kind: EventKind) -> None:
    """Notify the subscribers of a call, if it has any."""
    if call.extra is not None and call.extra.subscriptions is not None:
        call.extra.subscriptions.notify(kind)
