"""Subscriptions: being told that the client cancelled a call, or is gone."""

import gc
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

from engine import (
    CallCancelled,
    CallFailed,
    Client,
    CompletionPort,
    Event,
    EventKind,
    Misuse,
    Server,
    ServerCall,
    apc,
    blocking,
    current_call,
    manager,
)
from engine.testing import LIMIT, wait_until

from .conftest import Watched

CANCEL, DISCONNECT = int(EventKind.CLIENT_CANCEL), int(EventKind.CLIENT_DISCONNECT)
WAYS = ("event", "port", "apc", "callback")


def expected(how: str, kind: int) -> list[Any]:
    """What a subscriber finds, in each notification type."""
    found: dict[str, list[Any]] = {"event": [True], "port": ["k", "t", "call"], "apc": [kind], "callback": [kind]}
    return found[how]


class TestSubscribe:
    """Source: "RpcServerSubscribeForNotification"."""

    @pytest.mark.parametrize("how", WAYS)
    def test_cancel(self, any_watched: Watched, key: str, how: str) -> None:
        """A cancel is told in every notification type; where the type carries a kind, the kind comes along."""
        call = any_watched.held(key)
        assert any_watched.desk.subscribe(key, [CANCEL], how) == 0
        call.cancel()
        assert any_watched.desk.told(key, how) == expected(how, CANCEL)
        assert any_watched.desk.close(key, "complete") == 0
        assert call.result(LIMIT) == "done"

    @pytest.mark.parametrize("how", WAYS)
    def test_abortive_cancel(self, watched: Watched, key: str, how: str) -> None:
        """The server is told of an abortive cancel as of the other kind."""
        call = watched.held(key)
        assert watched.desk.subscribe(key, [CANCEL], how) == 0
        call.cancel(abort=True)
        assert watched.desk.told(key, how) == expected(how, CANCEL)
        with pytest.raises(CallCancelled):
            call.result(LIMIT)
        assert watched.desk.close(key, "abort") == 0

    @pytest.mark.parametrize("how", WAYS)
    def test_orderly_disconnect(
        self, watched_clients: Callable[..., Watched], any_watched: Watched, key: str, how: str
    ) -> None:
        """A client that closes is told of in every notification type."""
        leaving = watched_clients(any_watched.endpoint)
        leaving.held(key)
        assert any_watched.desk.subscribe(key, [DISCONNECT], how) == 0
        leaving.close()
        assert any_watched.desk.told(key, how) == expected(how, DISCONNECT)
        assert any_watched.desk.close(key, "complete") == 0

    @pytest.mark.parametrize("how", WAYS)
    def test_killed_client(self, any_watched: Watched, caller: Callable[..., Any], key: str, how: str) -> None:
        """So is one that is killed."""
        child = caller(any_watched.endpoint, "hold", key)
        any_watched.desk.arrived(key)
        assert any_watched.desk.subscribe(key, [DISCONNECT], how) == 0
        child.kill()
        assert any_watched.desk.told(key, how) == expected(how, DISCONNECT)
        assert any_watched.desk.close(key, "abort") == 0

    @pytest.mark.parametrize("how", ("port", "apc", "callback"))
    def test_both_kinds(self, watched: Watched, key: str, how: str) -> None:
        """Both kinds go into one request for every type but event."""
        call = watched.held(key)
        assert watched.desk.subscribe(key, [CANCEL, DISCONNECT], how) == 0
        call.cancel()
        assert watched.desk.told(key, how) == expected(how, CANCEL)
        assert watched.desk.unsubscribe(key, DISCONNECT) == 0
        assert watched.desk.close(key, "complete") == 0

    def test_both_kinds_by_event(self, watched: Watched, key: str) -> None:
        """An event takes one kind a request, and two requests."""
        watched.held(key)
        assert watched.desk.subscribe(key, [CANCEL, DISCONNECT], "event") == 87
        assert watched.desk.subscribe(key, [CANCEL], "event") == 0
        assert watched.desk.subscribe(key, [DISCONNECT], "event") == 0
        assert watched.desk.close(key, "complete") == 0

    def test_three_values(self, watched: Watched, key: str) -> None:
        """The packet has the subscriber's three values, unchanged."""
        call = watched.held(key)
        assert watched.desk.subscribe(key, [CANCEL], "given") == 0
        call.cancel()
        assert watched.desk.told(key, "given") == [1, None, "o"]
        assert watched.desk.close(key, "complete") == 0

    def test_no_type(self, watched: Watched, key: str) -> None:
        """Without a notification type the status is 87."""
        watched.held(key)
        assert watched.desk.subscribe(key, [CANCEL], "none") == 87
        assert watched.desk.close(key, "complete") == 0

    @pytest.mark.parametrize("kind", (0, 1, 2, 5, 99))
    def test_other_kinds(self, watched: Watched, key: str, kind: int) -> None:
        """Another kind, none included, has the status 1764."""
        watched.held(key)
        assert watched.desk.subscribe(key, [kind], "callback") == 1764
        assert watched.desk.subscribe(key, [CANCEL, kind], "callback") == 1764
        assert watched.desk.subscribe(key, [], "callback") == 1764
        assert watched.desk.close(key, "complete") == 0

    def test_once_a_kind(self, watched: Watched, key: str) -> None:
        """Each kind can be subscribed to once a call, in whatever way."""
        watched.held(key)
        assert watched.desk.subscribe(key, [CANCEL], "callback") == 0
        assert watched.desk.subscribe(key, [CANCEL], "port") == 1915
        assert watched.desk.subscribe(key, [CANCEL, DISCONNECT], "port") == 1915
        assert watched.desk.subscribe(key, [DISCONNECT], "port") == 0, "the refused request left nothing behind"
        assert watched.desk.close(key, "complete") == 0

    def test_told_once(self, watched: Watched, key: str) -> None:
        """Two cancels are one notification."""
        call = watched.held(key)
        assert watched.desk.subscribe(key, [CANCEL], "callback") == 0
        call.cancel()
        call.cancel(abort=True)
        watched.watch.echo(0)
        assert watched.desk.told(key, "callback") == [CANCEL]
        assert watched.desk.unsubscribe(key, CANCEL) == 1
        assert watched.desk.close(key, "complete") == 0

    @pytest.mark.parametrize("how", WAYS)
    def test_what_happened_before(self, watched: Watched, key: str, how: str) -> None:
        """A cancel that came before the subscription is told at once."""
        call = watched.held(key)
        call.cancel()
        watched.desk.seen_cancelled(key)
        assert watched.desk.subscribe(key, [CANCEL], how) == 0
        assert watched.desk.told(key, how) == expected(how, CANCEL)
        assert watched.desk.close(key, "complete") == 0

    def test_client_gone_before(self, watched_clients: Callable[..., Watched], watched: Watched, key: str) -> None:
        """So is a client that was gone before."""
        leaving = watched_clients(watched.endpoint)
        leaving.held(key)
        leaving.close()
        watched.desk.seen_disconnected(key)
        assert watched.desk.subscribe(key, [DISCONNECT], "callback") == 0
        assert watched.desk.told(key, "callback") == [DISCONNECT]
        assert watched.desk.close(key, "complete") == 0


class TestUnsubscribe:
    """Source: "RpcServerUnsubscribeForNotification"."""

    @pytest.mark.parametrize("how", WAYS)
    def test_count(self, watched: Watched, key: str, how: str) -> None:
        """Unsubscribing tells how many notifications were queued."""
        call = watched.held(key)
        assert watched.desk.subscribe(key, [CANCEL], how) == 0
        call.cancel()
        watched.desk.told(key, how)
        assert watched.desk.unsubscribe(key, CANCEL) == 1
        assert watched.desk.close(key, "complete") == 0

    @pytest.mark.parametrize("how", WAYS)
    def test_nothing_further(self, watched: Watched, key: str, how: str) -> None:
        """What happens afterwards is not told."""
        call = watched.held(key)
        assert watched.desk.subscribe(key, [CANCEL], how) == 0
        assert watched.desk.unsubscribe(key, CANCEL) == 0
        call.cancel()
        watched.desk.seen_cancelled(key)
        assert watched.desk.told_nothing(key, how)
        assert watched.desk.close(key, "complete") == 0

    def test_without_subscription(self, watched: Watched, key: str) -> None:
        """Without a subscription of that kind there is none to end; another kind has the status 1764."""
        watched.held(key)
        assert watched.desk.unsubscribe(key, CANCEL) == -1915
        assert watched.desk.unsubscribe(key, 1) == -1764
        assert watched.desk.close(key, "complete") == 0


class TestClosing:
    """Source: "Receiving Cancellations"."""

    @pytest.mark.parametrize("closing", ("complete", "abort"))
    @pytest.mark.parametrize("how", WAYS)
    def test_ends_subscriptions(
        self, watched_clients: Callable[..., Watched], watched: Watched, key: str, how: str, closing: str
    ) -> None:
        """Closing the call ends its subscriptions: neither a late cancel nor a disconnect is told."""
        leaving = watched_clients(watched.endpoint)
        call = leaving.held(key)
        assert watched.desk.subscribe(key, [CANCEL], how) == 0
        assert watched.desk.subscribe(key, [DISCONNECT], how) == 0
        assert watched.desk.close(key, closing) == 0
        call.cancel()
        leaving.watch.echo(0)
        leaving.close()
        watched.desk.seen_disconnected(key)
        assert watched.desk.told_nothing(key, how)

    def test_over(self, watched: Watched, key: str) -> None:
        """A call that was closed takes no subscription, and has none to end."""
        watched.held(key)
        assert watched.desk.close(key, "complete") == 0
        assert watched.desk.subscribe(key, [CANCEL], "callback") == 1914
        assert watched.desk.unsubscribe(key, CANCEL) == -1914

    def test_queued_function_is_not_called(self, watched: Watched, key: str) -> None:
        """A function that is queued, and has not begun when the call is closed, is not called."""
        call = watched.held(key)
        closing = watched.desk.close_when_queued.begin(key)
        call.cancel()
        assert closing.result(LIMIT) == []
        assert call.result(LIMIT) == "done"

    def test_closing_inside_a_callback(
        self, servers: Callable[..., Server], clients: Callable[..., Any], endpoint: str
    ) -> None:
        """A subscriber's function may close the call itself."""

        class Routines:
            @manager
            def hold(self, call: ServerCall) -> None:
                call.subscribe(EventKind.CLIENT_CANCEL, lambda call, kind: call.complete(int(kind)))

            def ping(self) -> None: ...

        server = servers(endpoint)
        server.register("r", Routines())
        server.listen()
        binding = clients(endpoint).bind("r")
        call = binding.hold.begin()
        binding.ping()  # Its routine is entered after the other's.
        call.cancel()
        assert call.result(LIMIT) == CANCEL

    @pytest.mark.parametrize("how", ["closed event", "ended thread"])
    def test_target_that_is_gone(
        self,
        servers: Callable[..., Server],
        clients: Callable[..., Any],
        endpoint: str,
        caplog: pytest.LogCaptureFixture,
        how: str,
    ) -> None:
        """A target that was closed, or has ended, takes nothing: that is logged, not counted, and harms no call."""
        thread = threading.Thread()
        event = Event()
        event.close()
        gone = event if how == "closed event" else apc(print, thread=thread)
        thread.start()
        thread.join()

        class Routines:
            @manager
            def hold(self, call: ServerCall) -> None:
                call.subscribe(EventKind.CLIENT_CANCEL, gone)
                self.held = call

            def ping(self) -> None: ...

            def queued(self) -> int:
                count = self.held.unsubscribe(EventKind.CLIENT_CANCEL)
                self.held.complete()
                return count

        server = servers(endpoint)
        server.register("r", Routines())
        server.listen()
        binding = clients(endpoint).bind("r")
        call = binding.hold.begin()
        binding.ping()
        call.cancel()
        assert binding.queued() == 0
        wait_until(lambda: "could not be delivered" in caplog.text)

    def test_misuse_is_one_error(
        self, servers: Callable[..., Server], clients: Callable[..., Any], endpoint: str
    ) -> None:
        """Errors of misuse are one branch of the tree, and say what was wrong."""
        seen: list[str] = []

        class Routines:
            def probe(self) -> None:
                with pytest.raises(Misuse) as caught:
                    current_call().subscribe(EventKind.CALL_COMPLETE, print)
                seen.append(str(caught.value))

        server = servers(endpoint)
        server.register("r", Routines())
        server.listen()
        clients(endpoint).bind("r").probe()
        assert "CLIENT_CANCEL" in seen[0] and "1764" in seen[0]


class TestContext:
    """What a subscriber's callback runs in."""

    def test_context_variables(
        self, servers: Callable[..., Server], clients: Callable[..., Client], endpoint: str
    ) -> None:
        """Callbacks see the context variables of the subscription, also if one begins while another still runs."""
        variable: ContextVar[str] = ContextVar("variable", default="none")
        seen: list[tuple[int, str]] = []
        subscribed, entered, both = threading.Event(), threading.Event(), threading.Event()

        def told(call: ServerCall, kind: int) -> None:
            seen.append((int(kind), variable.get()))
            if kind == CANCEL:
                entered.set()
                with blocking():
                    both.wait(LIMIT)
            else:
                both.set()

        class Routines:
            @manager
            def hold(self, call: ServerCall) -> None:
                variable.set("as subscribed")
                call.subscribe([EventKind.CLIENT_CANCEL, EventKind.CLIENT_DISCONNECT], told)
                variable.set("changed since")
                subscribed.set()

        server = servers(endpoint)
        server.register("r", Routines())
        server.listen()
        client = clients(endpoint)
        call = client.bind("r").hold.begin()
        assert subscribed.wait(LIMIT)
        call.cancel()
        assert entered.wait(LIMIT)
        client.close()
        assert both.wait(LIMIT)
        assert seen == [(CANCEL, "as subscribed"), (DISCONNECT, "as subscribed")]


class TestDropped:
    """A manager routine's handle that is dropped, though its call has a subscription."""

    @pytest.mark.parametrize("how", ["event", "packet of its own", "unsubscribed", "told"])
    def test_ends_if_nobody_gets_it(
        self, servers: Callable[..., Server], clients: Callable[..., Client], endpoint: str, how: str
    ) -> None:
        """The call ends with 1726 once its handle is dropped, if no notification to come would hand the handle over."""
        subscribed = threading.Event()
        with Event() as event, CompletionPort() as port:

            class Routines:
                @manager
                def hold(self, call: ServerCall) -> None:
                    if how == "event":
                        call.subscribe(EventKind.CLIENT_CANCEL, event)
                    elif how == "packet of its own":
                        call.subscribe(EventKind.CLIENT_CANCEL, port.packet(overlapped="another"))
                    else:
                        call.subscribe(EventKind.CLIENT_CANCEL, lambda call, kind: None)
                    if how == "unsubscribed":
                        call.unsubscribe(EventKind.CLIENT_CANCEL)
                    subscribed.set()

            server = servers(endpoint)
            server.register("r", Routines())
            server.listen()
            call = clients(endpoint).bind("r").hold.begin()
            assert subscribed.wait(LIMIT)
            if how == "told":
                call.cancel()
            with pytest.raises(CallFailed, match="dropped"):
                call.result(LIMIT)

    def test_goes_on_if_a_subscriber_gets_it(
        self, servers: Callable[..., Server], clients: Callable[..., Client], endpoint: str
    ) -> None:
        """A call goes on while a notification may hand its handle over: who gets that closes the call."""
        subscribed = threading.Event()

        class Routines:
            @manager
            def hold(self, call: ServerCall) -> None:
                call.subscribe(EventKind.CLIENT_CANCEL, lambda call, kind: call.complete("by its subscriber"))
                subscribed.set()

        server = servers(endpoint)
        server.register("r", Routines())
        server.listen()
        call = clients(endpoint).bind("r").hold.begin()
        assert subscribed.wait(LIMIT)
        gc.collect()
        call.cancel()
        assert call.result(LIMIT) == "by its subscriber"
