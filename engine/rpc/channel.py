"""A link joined to the driver: which thread sends, which harvests, and how calls come to share messages.

Theory of operation. The owner (a client or a server) collects what is to be sent under its own lock. `flush` sends it:
one thread at a time holds the link's lock, and a thread that finds it held leaves its own messages to the holder, which
looks again after letting go. So what queues behind a send shares the next message, and no thread waits for a send of
another.
`defer` leaves the sending for later: to the next library wait of any thread, or to the monitor's next tick.

    begin -> sender's queue -> flush -> link.send ... link.harvest -> receiver.on_message -> sender.actions -> act

Guarantees: what was appended to the sender's queue leaves within a tick of the monitor, unless the link cannot send
now; then it leaves when the link can. The receiver's `on_message`, `on_connected` and `on_lost` run under the link's
lock, one at a time, in the order in which the link saw them; the actions (waking, posting, calling) run after the lock
was released.

What waits to be sent is a plain tuple if its values are short and not encoded yet, an `EncodedCall` or `EncodedReply`
(tuples too) if they are encoded, and no tuple if it is a message of its own. If all that share a message are plain, as
mostly, they are taken in one call of C code.

Lock order: link.lock, then the owner's lock.

Assumes: `deque.popleft` and `extendleft` are atomic; one thread at a time takes, others may append, and take out.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager, suppress
from functools import partial
from itertools import repeat, starmap
from typing import Any, Protocol

from transport import Buffer, EndpointError, Link, LinkClosed, PeerLost, Receiver
from transport.foreign import is_interrupt, shown, text_of
from transport.log import Log
from transport.realtime import monotonic

from ..kernel.driver import driver
from ..kernel.lock import Lock

log: Log = Log("engine.rpc")

COALESCE_RECORDS = 128  # Most of them in one message: a message costs ~100 us of both sides' time, a call ~5.
COALESCE_BYTES = 64 * 1024  # A message of this size leaves: its first record has waited long enough for the others.

TRIES = 8  # How often a thread waits for others that use the link before it leaves its messages to them.

_PLAIN = {tuple}
_ONCE: tuple[tuple[()], ...] = ((),)  # The arguments of one call without any.

OutgoingMessage = tuple[bytes, list[Buffer]]  # A peer and the frames of one message for it.


class Sender(Protocol):
    """Who gives a channel what is to be sent."""

    # Under link.lock: what is to be done after it was released, outside all locks. A harvest adds to it.
    actions: list[Callable[[], object]]

    def next_message(self, for_others: bool = False) -> OutgoingMessage | None:
        """Take the next message to send, or None. May take the owner's lock.

        `for_others`: the thread that asks sends what others may have left to it.
        """

    def drop(self) -> None:
        """The link is closed: nothing leaves any more. Under link.lock."""

    def keep(self, message: OutgoingMessage) -> bool:
        """The link does not take a message now: whether the sender keeps it, because others go elsewhere, and offers it
        again by and by. Otherwise the channel keeps it, and what is behind it waits. Under link.lock.
        """

    def unsendable(self, error: Exception, made: bool) -> None:
        """The message taken last cannot be sent, or, if it was not `made`, `next_message` has failed at it. It is
        dropped; but it may have left if the error is an `InterruptedError`. Under link.lock.
        """


class Arrivals(Receiver, Protocol):
    """Who takes what a channel harvests."""

    def failed(self, error: Exception) -> None:
        """A harvest failed; it is tried again. Holding nothing."""

    def silence(self) -> str:
        """Why nothing comes, as far as is known; "" if nothing is. May take the owner's lock."""


class Channel:
    """Moves the messages of an owner, a client or a server, through a link. Hashable by identity; one a link.

    Args:
        queue: what the sender has to send; true while `next_message` might have something.
        owners: the lock that the owner takes for each message.
    """

    def __init__(self, link: Link, sender: Sender, receiver: Arrivals, queue: Sized, owners: Lock) -> None:
        self.link = link
        self._lock = link.lock
        self._sender = sender
        self._receiver = receiver
        self._queue = queue
        self._owners = owners
        # Guarded by link.lock: whether `close` ran, and a message that the link could not take yet.
        self.closed: bool = False
        self._stuck: OutgoingMessage | None = None
        # True from `defer` until the next tick; a lost update costs one more registration with the monitor.
        self._ticking = False
        # True from `defer` until the next `drive` or tick, which clears it before it looks at what there is to send.
        self.deferred: bool = False
        with self._usable():
            self._driver = driver()
            self._fds = link.descriptors()

    def open(self) -> None:
        """Begin to work for the owner, which knows its channel by now: any thread may drive it from here on."""
        # An in-memory link has no descriptor. The sender calls this with its own link locked, so nothing is driven.
        # It does that itself, after letting go.
        self.link.wake = partial(self._driver.schedule, self)
        self.link.moved = self._moved
        self.link.later = self._later
        with self._usable():
            self._driver.register(self)

    @contextmanager
    def _usable(self) -> Iterator[None]:
        """Close the link if it cannot be polled, and say so as of an endpoint that cannot be used."""
        try:
            yield
        except BaseException as error:
            with self._lock:
                self.link.close()
            if isinstance(error, OSError):  # No descriptor is left, for one.
                raise EndpointError(f"{self.link.endpoint} cannot be used: {text_of(error)}") from error
            raise

    # Sending

    def flush(self) -> None:
        """Send what is waiting, or leave it to the thread that is using the link. Never blocks for long."""
        queue, lock, link, unschedule = self._queue, self._lock, self.link, self._driver.unschedule
        arrived = sent = False
        while queue or self._stuck is not None:
            # The thread that uses the link looks again before it polls. It may not be going to poll: then the tick.
            if lock.owned() or self._owners.owned():  # In a signal handler.
                self.defer()
                break
            left = False
            try:
                if not lock.acquire(False):
                    self.defer()
                    break
                # `_send_locked`, for one message.
                if self.closed:
                    self._sender.drop()
                else:
                    message = self._stuck
                    try:
                        if message is None:
                            message = self._sender.next_message()
                        if message is not None:
                            # First unschedule, then send and look: what arrives in between is seen, and what arrives
                            # later schedules again. What is appended from here on this loop sees, or `defer` schedules
                            # it. (Sending may consume the edge of an arrival, which no poll will show then.)
                            self.deferred = False
                            unschedule(self, None)
                            left = link.send(*message) or self._sender.keep(message)
                            if left:
                                arrived = bool(link.arrived)
                            else:
                                self._driver.schedule(self)
                    except BaseException as error:
                        arrived = left = self._drop_locked(message, error)
                    self._stuck = None if left else message
                sent = sent or left
            except BaseException as error:
                if lock.owned():
                    lock.release()
                if not isinstance(error, LinkClosed):
                    self._driver.schedule(self)
                    raise
                self._broken(error)
                break
            lock.release()
            if not left:
                break
        if arrived:
            self._driver.mark_ready(self)
        elif sent and not self._fds:
            self._driver.run_scheduled()  # The other end of an in-memory link is due now.

    def flush_now(self) -> None:
        """As `flush`, but wait for a thread that uses the link just now, which may not come to send for a while.

        So who makes much does not make more before it has left. Blocks: for as long as others use the link.
        """
        self.flush()
        for _ in range(TRIES):
            if not self._queue or self._lock.owned() or self._owners.owned():
                return
            with self._lock:
                pass
            self.flush()

    def defer(self) -> None:
        """What is waiting may be sent a little later: before the next wait, or at the next tick."""
        self.deferred = True
        self._driver.schedule(self)
        if not self._ticking:
            self._ticking = True
            self._driver.monitor.watch(self)

    def tick(self) -> bool:
        """The monitor's tick: send what was deferred."""
        self._ticking = self.deferred = False
        self.flush()
        return False

    def _send_locked(self) -> bool:
        """Send until nothing is left or the link cannot; return whether anything left."""
        progress = False
        while not self.closed:
            message = self._stuck
            try:
                if message is None:
                    message = self._sender.next_message(True) if self._queue else None
                    if message is None:
                        break
                taken = self.link.send(*message) or self._sender.keep(message)
            except BaseException as error:
                taken = self._drop_locked(message, error)
            self._stuck = None if taken else message
            if not taken:
                break
            progress = True
        return progress

    def _drop_locked(self, message: OutgoingMessage | None, error: BaseException) -> bool:
        """A message cannot be sent, or not be made: it is dropped, and returned that nothing of it is left to send."""
        if isinstance(error, LinkClosed):
            raise error
        if not isinstance(error, Exception):
            if message is not None:
                self._stuck = None
                self._sender.unsendable(InterruptedError("something broke in as it was sent"), True)
                self._later(0.0)
            raise error
        # If the peer is gone, so is all that was meant for it.
        if not isinstance(error, PeerLost):
            # No memory for it, for one.
            log.error("a message cannot be sent", exc_info=error, later=True)
            self._sender.unsendable(error, message is not None)
            self._later(0.0)
        return True

    # Receiving

    def descriptors(self) -> Sequence[int]:
        """What the driver polls."""
        return self._fds

    def silence(self) -> str:
        """Why nothing comes, as far as the owner knows."""
        return self._receiver.silence()

    def drive(self, readable: bool, sends: bool = True) -> bool:
        """Send what is waiting, if it `sends`, and harvest what has arrived; return whether there may be more."""
        sender, lock = self._sender, self._lock
        if lock.owned() or self._owners.owned():  # By what a signal handler, which asks this, has interrupted.
            self._driver.schedule(self)
            return False
        arrived = more = sent = False
        # What is to be done after the harvest, and was not begun.
        left: Iterable[Callable[[], object]] = ()
        actions: list[Callable[[], object]] = []
        try:
            # `with` in line, as the `except` stands here anyway.
            lock.acquire()
            if self.closed:
                lock.release()
                return False
            self.deferred = False
            # A readable descriptor is answer enough: asking the link as well costs 1.6 us.
            arrived = readable or self.link.ready()
            if not arrived:
                # Nothing has arrived: what waits here leaves. The send may have consumed the edge of an arrival.
                sent = self._send_locked()
                arrived = sent and self.link.ready()
            if arrived:
                more = self.link.harvest(self._receiver)
                if sends and self._stuck is not None:
                    sent = more = self._send_locked() or more
            if sender.actions:
                left, actions, sender.actions = sender.actions, sender.actions, []
            lock.release()
            if sent and not self._fds:
                self._driver.run_scheduled()  # The other end of an in-memory link is due now.
            if len(actions) == 1:
                # `_perform` in line: the way of most messages.
                left = ()
                try:
                    actions[0]()
                except BaseException as error:
                    _after_harvest(actions[0], error)
            elif actions:
                left = iter(actions)
                self._perform(left)
        except BaseException as error:
            if lock.owned():
                lock.release()
            if isinstance(error, LinkClosed):
                self._broken(error)
                return False
            with lock:  # A signal handler raised: what was not done yet is for the next time.
                sender.actions[:0] = left
            raise
        # What arrived comes first: what it makes the waiting thread begin can share a message with what waits here.
        return more or (sends and arrived and bool(self._queue) and self._stuck is None)

    def failed(self, error: Exception) -> None:
        """For the driver: a harvest raised; it will be tried again."""
        self._receiver.failed(error)

    def _later(self, seconds: float) -> None:
        """Have the link harvested in so many seconds, though no thread may wait then."""
        self._driver.monitor.call_at(monotonic() + seconds, self._due)

    def _due(self) -> None:
        self._driver.mark_ready(self)
        self._driver.look_around()

    def _broken(self, error: LinkClosed) -> None:
        """The link was closed, but not by us. Holding nothing."""
        sender = self._sender
        with self._lock:
            self.closed, before = True, self.closed
            if before or error.__cause__ is None:
                return  # The process ends, and the transport with it.
            self._receiver.on_lost(b"", str(error))  # Its socket was taken away. What had been sent over it is lost.
            left, sender.actions = sender.actions, []
        self._driver.unregister(self)
        with self._lock:
            self.link.close()  # The thread that ends the context waits for that.
        log.error("%r: %s: nothing is sent or received any more", self.link, error)
        self._perform(left)

    def _perform(self, actions: Iterable[Callable[[], object]]) -> None:
        """Do what a harvest brought to be done."""
        for act in actions:
            try:
                act()
            except BaseException as error:
                _after_harvest(act, error)

    def take_back(self) -> bool:
        """Forget a message that the link did not take, if there is one; its owner has it. Under link.lock."""
        stuck, self._stuck = self._stuck, None
        return stuck is not None

    def _moved(self) -> None:
        self._fds = self.link.descriptors()
        self._driver.moved(self)

    # End

    def needs_progress(self, wanted: bool) -> None:
        """Say whether progress is needed even while no thread waits."""
        self._driver.needs_progress(self, wanted)

    def close(self) -> None:
        """Send what can be sent now, then close the link."""
        self._driver.unregister(self)
        with self._lock:
            with suppress(LinkClosed):  # Before us.
                self._send_locked()
            self.closed = True
            self.link.close()


def _after_harvest(act: Callable[[], object], error: BaseException) -> None:
    """What was to be done after a harvest has failed: log it, unless it is an interrupt."""
    if is_interrupt(error):
        raise error
    log.error("%s failed after a harvest", shown(act), exc_info=error)


# What shares a message: calls, or answers, that wait behind one that leaves anyway.


def take_together(queue: deque[Any], taken: list[Any], most: int = COALESCE_RECORDS) -> None:
    """Move records from `queue` to `taken`, which holds the first: those that may share its message, `most` in all.

    An interrupt leaves each of them in `taken` or in `queue`, or in both.
    """
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
            taken += starmap(queue.popleft, _ONCE)
        except IndexError:
            break
        further = taken[-1]
        if not isinstance(further, tuple):
            queue.appendleft(further)
            taken.pop()
            break
        size += _size(further)


def _size(record: tuple[Any, ...]) -> int:
    """The bytes of what is encoded; what is not is short."""
    return 0 if type(record) is tuple else len(memoryview(record[2]))
