"""Context handles: whose they are, who may use them when, and what becomes of them."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import (
    BadStubData,
    CallCancelled,
    Client,
    Context,
    ContextMismatch,
    Interface,
    InvalidState,
    NullContext,
    RemoteFault,
    Server,
    ServerCall,
    current_call,
    manager,
    operation,
)
from engine.testing import LIMIT, wait_until, wait_until_blocked
from transport.frames import Bye, Replies, Target
from transport.wire.codec import encode, encode_calls

from ..helpers import RawClient, new_endpoint, untyped
from .conftest import SERVICE, Watched


class Names(Interface):
    """Opens handles, and holds calls on them."""

    @operation
    def open(self, name: str) -> Context[str]:
        """Open a handle."""

    @operation
    def hold(self, name: Context[str]) -> None:
        """Use a handle until the test ends the call."""


class Users(Interface):
    """Uses handles that another interface has opened."""

    @operation
    def hold(self, name: Context[str]) -> None:
        """Use a handle until the test ends the call."""


class Naming:
    """Implements both."""

    def __init__(self) -> None:
        self.gone: list[str] = []
        self.held: list[ServerCall] = []

    def open(self, name: str) -> Context[str]:
        return current_call().open_context(name, self.gone.append)

    @manager
    def hold(self, call: ServerCall, name: Context[str]) -> None:
        self.held.append(call)


class TestHandles:
    """Source: "Context Handles"."""

    def test_state(self, any_watched: Watched, key: str) -> None:
        """A handle stands for state that the server keeps from call to call."""
        journal = any_watched.store.open(key)
        assert any_watched.store.add(journal, "one") == 1
        assert any_watched.store.add(journal, "two") == 2
        assert any_watched.store.lines(journal) == ["one", "two"]

    def test_kinds_of_routines(self, watched: Watched, key: str) -> None:
        """Coroutines and asynchronous manager routines take handles as well."""
        journal = watched.store.open(key)
        assert watched.store.add_async(journal, "one") == 1
        assert watched.store.add_managed(journal, "two") == 2
        assert watched.store.lines(journal) == ["one", "two"]

    def test_two_handles(self, watched: Watched, key: str) -> None:
        """Handles are independent of each other, and one call may take several, or one twice."""
        left, right = watched.store.open(key), watched.store.open(key)
        watched.store.add(left, "moved")
        watched.store.move(left, right)
        watched.store.move(right, right)
        assert (watched.store.lines(left), watched.store.lines(right)) == ([], [])

    def test_inside_a_result(self, watched: Watched, key: str) -> None:
        """A handle may be anywhere in a result."""
        first, second = watched.store.open_nested(key)["both"]
        watched.store.add(first, "first")
        assert (watched.store.lines(first), watched.store.lines(second)) == (["first"], [])

    def test_opaque(self, watched: Watched, key: str) -> None:
        """The client has a token, and neither the state nor a way to close it by itself."""
        journal = watched.store.open(key)
        assert len(journal.token) == 16
        with pytest.raises(InvalidState):
            journal.state  # noqa: B018  # that it raises is the point
        with pytest.raises(InvalidState):
            journal.close()

    def test_closed(self, watched: Watched, key: str) -> None:
        """A handle that a routine closed is unknown from then on, and is not run down."""
        journal = watched.store.open(key)
        watched.store.close(journal)
        for use in (watched.store.lines, watched.store.close):
            with pytest.raises(ContextMismatch) as caught:
                use(journal)
            assert caught.value.status == 6
        assert watched.keeper.rundowns(key) == 0

    def test_another_client(self, watched_clients: Callable[..., Watched], watched: Watched, key: str) -> None:
        """Another client's token is unknown."""
        journal = watched.store.open(key)
        with pytest.raises(ContextMismatch):
            watched_clients(watched.endpoint).store.lines(journal)
        assert watched.store.lines(journal) == []

    def test_another_server(
        self, watched_clients: Callable[..., Watched], services: Callable[..., str], key: str
    ) -> None:
        """So is another server's."""
        here, there = watched_clients(services("ipc", SERVICE)), watched_clients(services("tcp", SERVICE))
        with pytest.raises(ContextMismatch):
            there.store.lines(here.store.open(key))

    def test_none(self, watched: Watched) -> None:
        """None where a handle is needed has the status 1775, and the call is not sent."""
        with pytest.raises(NullContext) as caught:
            untyped(watched.store.lines).begin(None)
        assert caught.value.status == 1775

    def test_none_from_a_client_without_contract(self, watched: Watched) -> None:
        """The server says so too, to a client that does not know the contract."""
        with pytest.raises(NullContext):
            watched.client.bind("tests.Store").lines(None)

    def test_optional(self, watched: Watched, key: str) -> None:
        """A parameter that says so takes None, or nothing."""
        assert watched.store.lines_or_none(None) is None
        assert watched.store.lines_or_none() is None
        assert watched.store.lines_or_none(watched.store.open(key)) == []

    def test_without_contract(self, watched: Watched, key: str) -> None:
        """A client without the contract hands back what it got."""
        plain = watched.client.bind("tests.Store")
        journal = plain.open(key)
        assert plain.add(journal, "line") == 1

    @pytest.mark.parametrize("wrong", (7, "text", [b"short", 1], ["text"]))
    def test_no_handle(self, watched: Watched, wrong: Any) -> None:
        """What is no handle at all cannot be read, or is unknown."""
        with pytest.raises((BadStubData, ContextMismatch)):
            watched.client.bind("tests.Store").lines(wrong)


class TestSerialised:
    """Source: "Multi-threaded Clients and Context Handles"."""

    def test_one_after_the_other(self, watched: Watched, key: str) -> None:
        """Calls on one handle do not overlap, and none is lost."""
        journal = watched.store.open(key)
        calls = [watched.store.add.begin(journal, str(number)) for number in range(200)]
        assert sorted(call.result(LIMIT) for call in calls) == list(range(1, 201))

    def test_waiting_takes_no_thread(self, watched: Watched, key: str) -> None:
        """Calls that wait for a handle, more than there are workers, do not keep others from running."""
        journal = watched.store.open(key)
        holding = watched.store.block.begin(journal, key)
        watched.keeper.entered(key)
        waiting = [watched.store.add.begin(journal, "line") for _ in range(20)]
        assert watched.watch.echo("others run") == "others run"
        assert not any(call.done() for call in waiting)
        watched.keeper.release(key)
        holding.result(LIMIT)
        assert [call.result(LIMIT) for call in waiting] == list(range(1, 21)), "in the order of their coming"

    def test_shared(self, watched: Watched, key: str) -> None:
        """Calls that are declared shared use a handle at the same time; an exclusive one waits for all of them."""
        journal = watched.store.open(key)
        first = watched.store.block_shared.begin(journal, f"{key}1")
        second = watched.store.block_shared.begin(journal, f"{key}2")
        watched.keeper.entered(f"{key}1")
        watched.keeper.entered(f"{key}2")
        exclusive = watched.store.lines.begin(journal)
        late = watched.store.block_shared.begin(journal, f"{key}3")
        watched.watch.echo(0)
        watched.keeper.release(f"{key}1")
        first.result(LIMIT)
        assert not exclusive.done()
        assert not watched.keeper.is_entered(f"{key}3"), "those who wait go first"
        watched.keeper.release(f"{key}2")
        second.result(LIMIT)
        assert exclusive.result(LIMIT) == []
        watched.keeper.entered(f"{key}3")
        watched.keeper.release(f"{key}3")
        late.result(LIMIT)

    def test_two_handles_at_once(self, watched: Watched, key: str) -> None:
        """Calls that take two handles in opposite orders do not wait for each other for ever."""
        left, right = watched.store.open(key), watched.store.open(key)
        calls = [watched.store.move.begin(*pair) for _ in range(100) for pair in ((left, right), (right, left))]
        for call in calls:
            call.result(LIMIT)

    def test_closed_while_others_wait(self, watched: Watched, key: str) -> None:
        """A call that waits for a handle which is then closed finds it unknown."""
        journal = watched.store.open(key)
        holding = watched.store.block.begin(journal, key)
        watched.keeper.entered(key)
        closing = watched.store.close.begin(journal)
        waiting = watched.store.lines.begin(journal)
        watched.watch.echo(0)
        watched.keeper.release(key)
        holding.result(LIMIT)
        closing.result(LIMIT)
        with pytest.raises(ContextMismatch):
            waiting.result(LIMIT)

    @pytest.mark.parametrize("abort", [False, True])
    def test_cancelled_while_waiting(self, watched: Watched, key: str, abort: bool) -> None:
        """A call that is cancelled while it waits runs all the same, as its client waits for what it does; one that is
        aborted does not.
        """
        journal = watched.store.open(key)
        holding = watched.store.block.begin(journal, key)
        watched.keeper.entered(key)
        waiting = watched.store.add.begin(journal, "added")
        watched.watch.echo(0)
        waiting.cancel(abort)
        watched.watch.echo(0)
        watched.keeper.release(key)
        holding.result(LIMIT)
        if abort:
            with pytest.raises(CallCancelled):
                waiting.complete()
        else:
            waiting.result(LIMIT)
        assert watched.store.lines(journal) == ([] if abort else ["added"])


class TestFailure:
    """Source: "Failure Semantics for Context Handles"."""

    def test_routine_raised_made_here(
        self, watched_clients: Callable[..., Watched], watched: Watched, key: str
    ) -> None:
        """A handle made by a call that fails is the routine's own affair: it is not run down, then or later."""
        leaving = watched_clients(watched.endpoint)
        with pytest.raises(RemoteFault):
            leaving.store.open_and_fail(key)
        leaving.store.open(f"{key}-other")
        leaving.close()
        assert watched.keeper.wait_rundown(f"{key}-other") == 1
        assert watched.keeper.rundowns(key) == 0

    def test_routine_raised_existing(self, watched: Watched, key: str) -> None:
        """A handle that was there before a call that fails is still usable."""
        journal = watched.store.open(key)
        with pytest.raises(RemoteFault):
            watched.store.fail(journal)
        assert watched.store.lines(journal) == ["changed"], "as the routine left it"

    def test_routine_raised_closed(self, watched: Watched, key: str) -> None:
        """One that the routine closed before it raised is closed."""
        journal = watched.store.open(key)
        with pytest.raises(RemoteFault):
            watched.store.close_and_fail(journal)
        with pytest.raises(ContextMismatch):
            watched.store.lines(journal)

    def test_result_cannot_be_packed(self, watched: Watched, key: str) -> None:
        """A handle in a result that cannot be sent is run down; the client gets none."""
        with pytest.raises(BadStubData):
            watched.store.open_unsendable(key)
        assert watched.keeper.wait_rundown(key) == 1

    def test_result_cannot_be_packed_existing(self, watched: Watched, key: str) -> None:
        """A call whose result cannot be sent, whatever encoding it ran into, lets go of the handles that it used."""
        journal = watched.store.open(key)
        with pytest.raises(BadStubData):
            watched.store.unsendable(journal, timeout=LIMIT)
        assert watched.store.add(journal, "line", timeout=LIMIT) == 1

    def test_client_gone_before_the_answer(
        self, watched_clients: Callable[..., Watched], watched: Watched, key: str
    ) -> None:
        """So is one whose client is gone when the routine answers."""
        leaving = watched_clients(watched.endpoint)
        leaving.store.open_held.begin(key)
        releasing = watched.keeper.release_opened.begin(key)
        watched.keeper.entered(key)
        leaving.close()
        releasing.result(LIMIT)
        assert watched.keeper.wait_rundown(key) == 1


class TestRundown:
    """Source: "Server Context Rundown Routine"."""

    def test_orderly_exit(self, watched_clients: Callable[..., Watched], any_watched: Watched, key: str) -> None:
        """When the client closes, each handle that is open is run down once."""
        leaving = watched_clients(any_watched.endpoint)
        journals = [leaving.store.open(f"{key}-{number}") for number in range(3)]
        leaving.store.close(journals[1])
        leaving.close()
        assert [any_watched.keeper.wait_rundown(f"{key}-{number}") for number in (0, 2)] == [1, 1]
        assert any_watched.keeper.rundowns(f"{key}-1") == 0, "it was closed before"

    def test_killed(self, any_watched: Watched, caller: Callable[..., Any], key: str) -> None:
        """When the client is killed, its handles are run down as soon as the connection is found broken."""
        child = caller(any_watched.endpoint, "open", key)
        assert any_watched.keeper.rundowns(key) == 0
        child.kill()
        assert any_watched.keeper.wait_rundown(key) == 1

    def test_after_running_calls(self, any_watched: Watched, caller: Callable[..., Any], key: str) -> None:
        """A handle is run down after the calls that use it have ended, and once."""
        child = caller(any_watched.endpoint, "block", key)
        any_watched.keeper.entered(key)
        child.kill()
        other = caller(any_watched.endpoint, "open", f"{key}-other")
        other.kill()
        assert any_watched.keeper.wait_rundown(f"{key}-other") == 1
        assert any_watched.keeper.rundowns(key) == 0
        any_watched.keeper.release(key)
        assert any_watched.keeper.wait_rundown(key) == 1

    @pytest.mark.parametrize("last", [bytes(encode(Bye())[0]), b"CP\1\xff"], ids=["goodbye", "garbage"])
    def test_conversation_ended(self, servers: Callable[..., Server], folder: Path, last: bytes) -> None:
        """Handles are run down with the conversation that they belong to, though the connection is still there."""
        naming = Naming()
        server = servers(new_endpoint("ipc", folder))
        server.register(Names, naming)
        server.listen()
        target = Target(Names.interface_id, *Names.interface_version, "open")
        with RawClient(server.endpoint) as client:
            client.send(bytes(encode_calls([(1, target, ("name",), None)])[0]))
            assert type(client.hear()) is Replies and not naming.gone
            client.send(last)
            wait_until(lambda: naming.gone == ["name"])

    def test_server_closes(self, endpoint: str) -> None:
        """A server that closes runs down what its clients have open, those whose calls still run included."""
        naming = Naming()
        server = Server(endpoint)
        server.register(Names, naming)
        server.listen()
        with Client(endpoint) as client:
            names = client.bind(Names)
            names.open("idle")
            names.hold.begin(names.open("used"))
            wait_until(lambda: naming.held)
            server.close(0)
            assert naming.gone == ["idle"]
            naming.held[0].abort(1)
            assert sorted(naming.gone) == ["idle", "used"]

    def test_other_clients_keep_theirs(
        self, watched_clients: Callable[..., Watched], watched: Watched, key: str
    ) -> None:
        """The handles of other clients are left alone."""
        leaving = watched_clients(watched.endpoint)
        gone, kept = leaving.store.open(f"{key}-gone"), watched.store.open(f"{key}-kept")
        watched.store.add(kept, "line")
        leaving.close()
        assert gone is not None and watched.keeper.wait_rundown(f"{key}-gone") == 1
        assert watched.store.lines(kept) == ["line"]
        assert watched.keeper.rundowns(f"{key}-kept") == 0

    def test_unregistering(self, servers: Callable[..., Server], clients: Callable[..., Client], endpoint: str) -> None:
        """Unregistering an interface runs its handles down if asked to: once its calls are closed, and before it
        returns. Those of other interfaces stay.
        """
        naming = Naming()
        server = servers(endpoint)
        server.register(Names, naming)
        server.register("others", naming)
        server.listen()
        client = clients(endpoint)
        names = client.bind(Names)
        kept = client.bind("others").open("other")
        names.open("idle")
        names.hold.begin(names.open("used"))
        wait_until(lambda: naming.held)
        thread = threading.Thread(target=server.unregister, args=(Names,), kwargs={"run_down": True})
        thread.start()
        wait_until_blocked(thread)
        assert not naming.gone
        naming.held[0].complete()
        thread.join(LIMIT)
        assert sorted(naming.gone) == ["idle", "used"]
        client.close()
        wait_until(lambda: "other" in naming.gone)
        assert kept is not None and len(naming.gone) == 3

    def test_unregistering_without(
        self, servers: Callable[..., Server], clients: Callable[..., Client], endpoint: str
    ) -> None:
        """Otherwise they stay, and are good when the interface is registered again; one that a call of another
        interface uses is unknown at once, and run down with the end of that call.
        """
        naming = Naming()
        server = servers(endpoint)
        server.register(Names, naming)
        server.register(Users, naming)
        server.listen()
        client = clients(endpoint)
        name = client.bind(Names).open("name")
        server.unregister(Names, wait=True)
        client.bind(Users).hold.begin(name)
        wait_until(lambda: naming.held)
        server.register(Names, naming)
        server.unregister(Names, run_down=True)
        assert not naming.gone
        with pytest.raises(ContextMismatch):
            client.bind(Users).hold(name)
        naming.held[0].complete()
        wait_until(lambda: naming.gone == ["name"])
