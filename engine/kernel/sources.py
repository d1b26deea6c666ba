"""What the driver polls: the sources that are registered, their descriptors, and those whose harvest failed.

Theory of operation. A source gives descriptors whose readability means "harvest me". They are in one poll set, with a
bell that interrupts the poll; event loops that watch have a second set, without the bell. A source that needs to be
looked at though no descriptor shows it is *scheduled*; one that needs progress though no thread waits *needs progress*.
A source whose harvest raises is polled no longer for a pause, which grows with each failure.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Protocol

from transport.foreign import type_name
from transport.log import Log
from transport.realtime import monotonic
from transport.service import LONGEST, Pause

from .lock import Lock
from .monitor import Monitor
from .poll import READABLE, Bell, PlainPoll, Poll, Unopened, make_poll

log: Log = Log("engine.kernel")

UNOPENED = Unopened()


class Source(Protocol):
    """Something the driver polls. It must be hashable by identity."""

    def descriptors(self) -> Sequence[int]:
        """The file descriptors (or, on Windows, socket handles) to watch for readability."""

    def drive(self, readable: bool) -> bool:
        """Harvest what is there; True if there may be more. On any thread; must not block or wait, nor raise.

        One that raises all the same rests for a moment, longer each time, and its `failed(error)`, if it has that, is
        called: it ends what cannot go on.

        `readable`: a descriptor of the source was just seen to be readable; else only the source itself can
        tell. In the main thread a signal handler may raise in the midst of it (KeyboardInterrupt): then it is
        called again, by this or another thread, and what it had begun is for the source to mend.
        """


class Conversing(Source, Protocol):
    """A source that also sends."""

    def drive(self, readable: bool, sends: bool = True) -> bool:
        """As any source; without `sends` it only harvests."""

    def silence(self) -> str:
        """Why nothing comes, for people, if the source knows of something; else ""."""


class PolledSources:
    """The part of the driver that knows what is polled."""

    monitor: Monitor

    def __init__(self) -> None:
        self._mutex = Lock()
        # Sources that need progress though no thread waits; guarded by _mutex.
        self._needing_progress: dict[Source, None] = {}
        # Guarded by _mutex; read by the leader without it (an entry that vanished meanwhile is skipped).
        self._by_fd: dict[int, Source] = {}
        self.sources: dict[Source, list[int]] = {}
        # Guarded by _mutex. Sources whose harvest has failed, with the pause that follows; of those that are not polled
        # meanwhile, whether they need progress.
        self._failing: dict[Source, Pause] = {}
        self._resting: dict[Source, bool] = {}
        # Sources to look at before polling. Single-key operations only, by any thread.
        self._scheduled: dict[Source, None] = {}
        # Made with the first source: waits and timers need no descriptor. Guarded by _mutex; read by threads that have
        # seen a source, or poll.
        self._bell: Bell | Unopened = UNOPENED
        self._poll: Poll = UNOPENED
        self._watch: Poll | None = None  # Made on first use; guarded by _mutex.
        # Whether what is registered while a thread polls is polled by it.
        self._live = True

    def _resume(self, source: Source) -> None:
        """The rest of a source that had failed is over: have it polled again."""
        raise NotImplementedError  # The driver's: others are to look at it.

    def _open_locked(self) -> None:
        """Have a bell and a poll set; what cannot be had now is tried again with the next source."""
        if self._bell is UNOPENED:
            self._bell = Bell()
        poll = make_poll()
        poll.register(self._bell.fd, READABLE)
        self._live = not isinstance(poll, PlainPoll)
        self._poll = poll

    def _poll_locked(self, source: Source) -> None:
        if self._poll is UNOPENED:
            self._open_locked()
        self.sources[source] = []
        try:
            self._register_locked(source)
        except BaseException:  # Not a descriptor that can be polled.
            self._forget_locked(source)
            raise

    def _register_locked(self, source: Source) -> None:
        for fd in source.descriptors():
            self._by_fd[fd] = source
            self.sources[source].append(fd)
            for poll in self._polls():
                poll.register(fd, READABLE)

    def _unpoll_locked(self, source: Source) -> None:
        for fd in self.sources.pop(source, ()):
            self._by_fd.pop(fd, None)
            for poll in self._polls():
                try:
                    poll.unregister(fd)
                except (OSError, KeyError, ValueError):
                    log.debug("descriptor %d was closed before its source was unregistered", fd, later=True)

    def _forget_locked(self, source: Source) -> None:
        self._unpoll_locked(source)
        self._needing_progress.pop(source, None)
        self._scheduled.pop(source, None)

    def _polls(self) -> "Iterator[Poll]":
        yield self._poll
        if self._watch is not None:
            yield self._watch

    def _needs_progress_locked(self, source: Source, wanted: bool) -> None:
        if wanted:
            self._needing_progress[source] = None
        else:
            self._needing_progress.pop(source, None)

    def _failed(self, source: Source, error: BaseException) -> None:
        """A harvest raised: stop it, or go on raising."""
        if not isinstance(error, Exception):  # A signal handler raised: what was there to be seen is still there.
            self._scheduled[source] = None
            raise error
        try:
            outcome = f"it is polled again in {self._rest(source):g} s"
        except Exception as failure:  # No memory, for one: it is polled as before, by all who wait.
            self._scheduled[source] = None
            outcome = f"it is polled on, because it cannot be left alone ({type_name(failure)})"
        log.error("the source %r failed; %s", source, outcome, exc_info=error, later=True)
        try:
            getattr(source, "failed", id)(error)
        except Exception as failure:
            log.error("the source %r failed when it was notified that it had", source, exc_info=failure, later=True)

    def _rest(self, source: Source) -> float:
        """Poll a source that has failed no longer, but again after a pause, which is returned.

        It would fail again at once, and for ever, in threads that have nothing to do with it. Who will poll it again is
        settled before it is forgotten.
        """
        with self._mutex:
            if source not in self.sources:
                return 0.0  # Unregistered meanwhile, or it rests already.
            pause = self._failing.setdefault(source, Pause())
            if monotonic() - pause.until > LONGEST:
                pause.granted()
            seconds = pause.refused()
            self._resting[source] = source in self._needing_progress
        try:
            self.monitor.call_at(monotonic() + seconds, partial(self._resume, source))
        except BaseException:
            with self._mutex:
                wanted = self._resting.pop(source, None)
                if wanted is not None:
                    self._needs_progress_locked(source, wanted)
            raise
        with self._mutex:
            if source in self._resting:
                self._forget_locked(source)
        return seconds

    def _poll_rested(self, source: Source) -> bool:
        """`source` has rested: poll it again; False if it was unregistered meanwhile, or cannot be polled any more."""
        with self._mutex:
            wanted = self._resting.pop(source, None)
            if wanted is None:
                return False
            try:
                if source not in self.sources:
                    self._poll_locked(source)
            except Exception as error:  # Its descriptors are closed.
                log.error("the source %r cannot be polled any more", source, exc_info=error, later=True)
                return False
            self._needs_progress_locked(source, wanted)
        return True
