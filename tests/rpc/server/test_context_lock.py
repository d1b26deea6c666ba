"""Context locks: a call that shares a handle and wants it alone, and one that has it alone and shares it again."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from engine import (
    Client,
    Context,
    Deadlock,
    Interface,
    InvalidAsyncHandle,
    InvalidState,
    Server,
    ServerCall,
    current_call,
    manager,
    operation,
)
from engine.testing import LIMIT, wait_until, wait_until_blocked


class Ledgers(Interface):
    """Opens handles, and holds calls that use them."""

    @operation
    def open(self, name: str) -> Context[str]:
        """Open a handle."""

    @operation
    def open_locked(self, name: str) -> tuple[Context[str], bool]:
        """Open a handle, and lock it in the same call."""

    @operation(shared_context=True)
    def share(self, ledger: Context[str], key: str) -> str:
        """Share a handle until the test ends the call."""

    @operation(shared_context=True)
    def share_two(self, first: Context[str], second: Context[str], key: str) -> str:
        """Share two handles until the test ends the call."""

    @operation(shared_context=True)
    def share_in_loop(self, ledger: Context[str]) -> int:
        """Try to lock a handle in a coroutine; return the status."""

    @operation
    def own(self, ledger: Context[str], key: str) -> str:
        """Use a handle alone until the test ends the call."""

    @operation
    def ping(self) -> None:
        """Return when the calls before it were entered, or left waiting."""


class Holding:
    """Implements `Ledgers`."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[ServerCall, Context[str]]] = {}
        self.gone: list[str] = []

    def open(self, name: str) -> Context[str]:
        return current_call().open_context(name, self.gone.append)

    def open_locked(self, name: str) -> tuple[Context[str], bool]:
        context = self.open(name)
        return context, current_call().lock_context(context)

    @manager
    def share(self, call: ServerCall, ledger: Context[str], key: str) -> None:
        self.held[key] = call, ledger

    own = share

    @manager
    def share_two(self, call: ServerCall, first: Context[str], second: Context[str], key: str) -> None:
        self.held[key] = call, first

    async def share_in_loop(self, ledger: Context[str]) -> int:
        try:
            current_call().lock_context(ledger)
        except Deadlock as error:
            return int(error.status)
        return 0

    def ping(self) -> None: ...


class Locking:
    """`call.lock_context` on a thread of its own; made when that is `asleep`, if so told."""

    def __init__(self, call: ServerCall, context: Context[str], asleep: bool = False) -> None:
        self.outcome: Any = None
        self.thread = threading.Thread(target=self._run, args=(call, context))
        self.thread.start()
        if asleep:
            wait_until_blocked(self.thread)

    def _run(self, call: ServerCall, context: Context[str]) -> None:
        try:
            self.outcome = call.lock_context(context)
        except InvalidAsyncHandle as error:
            self.outcome = error

    def wait(self) -> Any:
        self.thread.join(LIMIT)
        return self.outcome


class Bench:
    """A client of `Holding`, and a handle."""

    def __init__(self, client: Client, holding: Holding) -> None:
        self.client = client
        self.holding = holding
        self.ledgers = client.bind(Ledgers)
        self.ledger = self.ledgers.open("ledger")

    def use(self, what: str, key: str) -> tuple[ServerCall, Context[str]]:
        """Begin a call, and return what its routine got."""
        getattr(self.ledgers, what).begin(self.ledger, key)
        wait_until(lambda: key in self.holding.held)
        return self.holding.held[key]

    def two(self) -> tuple[ServerCall, ServerCall, Context[str], Locking]:
        """Begin two calls that share the handle, and then want it alone: the first has it, the second gives way."""
        first, ledger = self.use("share", "first")
        second, _ = self.use("share", "second")
        locking = Locking(first, ledger, asleep=True)
        later = Locking(second, ledger)
        assert locking.wait() is True
        return first, second, ledger, later

    def waits(self, what: str, key: str) -> Callable[[], bool]:
        """Begin a call that has to wait for the handle; return what tells whether it has entered its routine."""
        getattr(self.ledgers, what).begin(self.ledger, key)
        self.ledgers.ping()
        assert key not in self.holding.held
        return lambda: key in self.holding.held


@pytest.fixture
def bench(servers: Callable[..., Server], clients: Callable[..., Client], endpoint: str) -> Bench:
    holding = Holding()
    server = servers(endpoint)
    server.register(Ledgers, holding)
    server.listen()
    return Bench(clients(endpoint), holding)


class TestExclusive:
    """Source: "RpcSsContextLockExclusive"."""

    def test_nobody_else(self, bench: Bench) -> None:
        """A call that is the only one to share a handle has it alone at once; others wait from then on."""
        call, ledger = bench.use("share", "first")
        assert call.lock_context(ledger)
        entered = bench.waits("share", "second")
        call.complete("")
        wait_until(entered)

    def test_waits_for_the_others(self, bench: Bench) -> None:
        """It waits until the others have left, and keeps new ones out."""
        call, ledger = bench.use("share", "first")
        other, _ = bench.use("share", "other")
        locking = Locking(call, ledger, asleep=True)
        entered = bench.waits("share", "late")
        other.complete("")
        assert locking.wait() is True
        assert not entered()
        call.complete("")
        wait_until(entered)

    def test_second_gives_way(self, bench: Bench) -> None:
        """Of two that ask, the first has it as soon as the second asks; that one has it later, and is told."""
        first, second, _, later = bench.two()
        wait_until_blocked(later.thread)
        entered = bench.waits("own", "late")
        first.complete("")
        assert later.wait() is False, "the first one may have changed the state"
        assert not entered(), "who is in goes before who waits"
        second.complete("")
        wait_until(entered)

    def test_three(self, bench: Bench) -> None:
        """The same with three: each has it alone, the first one only without having given way."""
        calls = [bench.use("share", str(number)) for number in range(3)]
        lockings = [Locking(*each, asleep=each is not calls[-1]) for each in calls]
        outcomes = []
        for locking, (call, _) in zip(lockings, calls, strict=True):
            outcomes.append(locking.wait())
            call.complete("")
        assert outcomes == [True, False, False]

    def test_alone_already(self, bench: Bench) -> None:
        """A call that has the handle alone goes on."""
        call, ledger = bench.use("own", "own")
        assert call.lock_context(ledger)
        assert call.lock_context(ledger)

    def test_made_in_this_call(self, bench: Bench) -> None:
        """For a handle that the call has made there is nothing to do."""
        context, alone = bench.ledgers.open_locked("new")
        assert alone
        bench.ledger = context
        bench.use("share", "shares it")


class TestShared:
    """Source: "RpcSsContextLockShared"."""

    def test_lets_others_in(self, bench: Bench) -> None:
        """Calls that share the handle enter, those that want it alone wait on."""
        call, ledger = bench.use("own", "own")
        entered = bench.waits("share", "shares")
        assert call.lock_context(ledger, shared=True)
        wait_until(entered)
        alone = bench.waits("own", "alone")
        call.complete("")
        bench.holding.held["shares"][0].complete("")
        wait_until(alone)

    def test_there_and_back(self, bench: Bench) -> None:
        """A call may lock, share and lock again."""
        call, ledger = bench.use("share", "share")
        assert call.lock_context(ledger, shared=True), "it shares already"
        assert call.lock_context(ledger)
        assert call.lock_context(ledger, shared=True)
        bench.use("share", "other")

    def test_who_gave_way_goes_first(self, bench: Bench) -> None:
        """When the one that won shares the handle again, new calls wait for the one that gave way."""
        first, second, ledger, later = bench.two()
        assert first.lock_context(ledger, shared=True)
        entered = bench.waits("share", "late")
        first.complete("")
        assert later.wait() is False
        assert not entered()
        second.complete("")
        wait_until(entered)


class TestMisuse:
    """What cannot be locked, and what ends while it is locked."""

    def test_not_given(self, bench: Bench) -> None:
        """A handle that the call was not given cannot be locked by it: 1915."""
        call, _ = bench.use("share", "one")
        bench.ledger = bench.ledgers.open("other")
        other, foreign = bench.use("share", "two")
        for context in (foreign, Context(b"x" * 16)):
            with pytest.raises(InvalidState) as caught:
                call.lock_context(context)
            assert caught.value.status == 1915

    def test_closed(self, bench: Bench) -> None:
        """A call that was closed locks nothing: 1914."""
        call, ledger = bench.use("share", "one")
        call.complete("")
        with pytest.raises(InvalidAsyncHandle):
            call.lock_context(ledger)

    def test_two_threads(self, bench: Bench) -> None:
        """While one thread changes what a call has locked, another may not: 1915."""
        call, ledger = bench.use("share", "one")
        other, _ = bench.use("share", "two")
        locking = Locking(call, ledger, asleep=True)
        with pytest.raises(InvalidState):
            call.lock_context(ledger)
        other.complete("")
        assert locking.wait() is True

    def test_with_further_handles(self, bench: Bench) -> None:
        """A call that uses further handles does not wait: those whom it waits for could wait for these."""
        second = bench.ledgers.open("second")
        bench.ledgers.share_two.begin(bench.ledger, second, "two")
        wait_until(lambda: "two" in bench.holding.held)
        call, ledger = bench.holding.held["two"]
        assert call.lock_context(ledger), "nobody else is in"
        assert call.lock_context(ledger, shared=True)
        bench.use("share", "one")
        with pytest.raises(Deadlock):
            call.lock_context(ledger)

    def test_in_a_coroutine(self, bench: Bench) -> None:
        """Nor does a coroutine, which would stop the others in its loop; alone it need not wait."""
        assert bench.ledgers.share_in_loop(bench.ledger) == 0
        bench.use("share", "one")
        assert bench.ledgers.share_in_loop(bench.ledger) == 1131

    def test_closed_while_waiting(self, bench: Bench) -> None:
        """A call that is closed meanwhile waits no longer: 1914; the others are as before."""
        first, ledger = bench.use("share", "first")
        second, _ = bench.use("share", "second")
        third, _ = bench.use("share", "third")
        locking, later = (Locking(call, ledger, asleep=True) for call in (first, second))
        first.abort(1)
        second.abort(1)
        assert isinstance(locking.wait(), InvalidAsyncHandle)
        assert isinstance(later.wait(), InvalidAsyncHandle)
        bench.use("share", "fourth")
        assert third.lock_context(ledger, shared=True)

    def test_rundown(self, bench: Bench) -> None:
        """A handle is run down after the call that gave way was closed, too."""
        first, second, _, later = bench.two()
        bench.client.close()
        wait_until(second.disconnected)
        first.complete("")
        assert later.wait() is False
        assert not bench.holding.gone
        second.complete("")
        wait_until(lambda: bench.holding.gone == ["ledger"])
