"""What a server warns of, and what it keeps to itself: exposed endpoints, the texts of exceptions."""

import logging
import re
from collections.abc import Callable
from typing import Any

import pytest

from engine import InvalidParameter, RemoteFault, Server, ServerTooBusy
from engine.testing import LIMIT, wait_until
from transport import Curve, Endpoint

from .helpers import Bench

SECRET = "password of /etc/shadow"  # what is looked for


@pytest.mark.parametrize(
    ("endpoint", "exposed"),
    [
        ("tcp://*:0", True), ("tcp://0.0.0.0:5555", True), ("tcp://[::]:5555", True), ("tcp://192.0.2.7:5555", True),
        ("native+tcp://*:0", True), ("native+tcp://192.0.2.7:1", True), ("tcp://no-such-interface-0:1", True),
        ("tcp://127.0.0.1:5555", False), ("tcp://127.3.2.1:5555", False), ("tcp://[::1]:5555", False),
        ("tcp://[::ffff:127.0.0.1]:5555", False), ("tcp://localhost:5555", False), ("native+tcp://127.0.0.1:1", False),
        ("ipc://0.0.0.0", False), ("native+ipc://*", False), ("inproc://a", False), ("loopback://a", False),
    ],
)  # fmt: skip
def test_what_others_reach(endpoint: str, exposed: bool) -> None:
    """An endpoint is exposed if it is on TCP and anything of its host is no loopback address, or is not known."""
    assert Endpoint.parse(endpoint).is_exposed() is exposed


class TestExposedEndpoints:
    """Plain tcp at anything but a loopback address."""

    @pytest.fixture(autouse=True)
    def exposed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The tests listen on loopback addresses only; here these count as others."""
        monkeypatch.setattr(Endpoint, "is_exposed", lambda endpoint: endpoint.carrier == "tcp")

    def test_is_warned_of(self, caplog: pytest.LogCaptureFixture) -> None:
        """One line, which names the endpoints and what to do, however often the server listens."""
        endpoints = ("tcp://127.0.0.1:0", "native+tcp://127.0.0.1:0", "ipc://*")
        with caplog.at_level(logging.WARNING, "engine.rpc"), Server(*endpoints) as server:
            for _ in range(2):
                server.listen()
                server.stop()
                assert server.wait(LIMIT)
            wait_until(lambda: "insecure=True" in caplog.text)  # Logged by a thread of its own.
            plain, native, local = server.endpoints
        assert plain in caplog.text and native in caplog.text and local not in caplog.text
        assert caplog.text.count("without keys") == 1

    def test_local_ones_are_not(self, caplog: pytest.LogCaptureFixture) -> None:
        """A server that only this machine reaches says nothing."""
        with caplog.at_level(logging.WARNING, "engine.rpc"), Server("ipc://*") as server:
            server.listen()
        assert "without keys" not in caplog.text

    def test_not_if_it_is_meant(self, caplog: pytest.LogCaptureFixture) -> None:
        """Nor one that was told that the network is trusted, or has keys."""
        for options in ({"insecure": True}, {"curve": Curve(*Curve.new_keys())}):
            with caplog.at_level(logging.WARNING, "engine.rpc"), Server("tcp://127.0.0.1:0", **options) as server:
                server.listen()
        assert "without keys" not in caplog.text


class Routines:
    """Fail in each way."""

    def crash(self) -> None:
        raise KeyError(SECRET)

    def refuse(self) -> None:
        raise ServerTooBusy("come back later")

    def fault(self) -> None:
        raise RemoteFault("the shelf is empty", status=4711, type_name="Empty", data=[1])

    def unsendable(self) -> object:
        class Vault:
            def __repr__(self) -> str:
                return SECRET

        return Vault()

    def pass_on(self) -> None:
        error = RemoteFault(SECRET, status=4712)
        error.collected = True  # As one that `complete` has raised.
        raise error

    async def crash_later(self) -> None:
        raise KeyError(SECRET)


class TestFaultDetails:
    """`fault_details=False`."""

    @pytest.fixture
    def binding(self, local: Callable[..., Server], benches: Callable[..., Bench]) -> Any:
        """A binding to a server that hides them."""
        server = local(fault_details=False)
        server.register("routines", Routines())
        return benches(server.endpoint).client.bind("routines")

    @pytest.mark.parametrize("name", ["crash", "crash_later", "unsendable", "pass_on"])
    def test_hidden(self, binding: Any, name: str, caplog: pytest.LogCaptureFixture) -> None:
        """What an exception says goes to the log, under a number, and the client gets that."""
        with caplog.at_level(logging.ERROR, "engine.rpc"), pytest.raises(Exception, match="its log says why") as caught:
            getattr(binding, name)()
        shown = f"{caught.value!r} {caught.value} {vars(caught.value)}"
        assert not any(word in shown for word in (SECRET, "KeyError", "Vault"))
        (number,) = re.findall("under ([0-9a-f]{16})", str(caught.value))
        wait_until(lambda: f"fault {number}" in caplog.text)
        if name != "unsendable":
            assert SECRET in caplog.text

    def test_statuses_stay(self, binding: Any) -> None:
        """The status is that of the exception all the same."""
        for name, status in (("crash", 0xE0000001), ("pass_on", 4712), ("unsendable", 1783)):
            with pytest.raises(Exception, match="its log") as caught:
                getattr(binding, name)()
            assert caught.value.status == status  # type: ignore[attr-defined]  # of the library's errors

    def test_what_is_meant_for_clients(self, binding: Any) -> None:
        """An outcome that a routine has raised for its client arrives as it is."""
        with pytest.raises(ServerTooBusy, match="come back later"):
            binding.refuse()
        with pytest.raises(RemoteFault, match="the shelf is empty") as caught:
            binding.fault()
        assert (caught.value.status, caught.value.type_name, caught.value.data) == (4711, "Empty", [1])

    def test_shown_otherwise(self, local: Callable[..., Server], benches: Callable[..., Bench]) -> None:
        """A server that was not told to hide them sends them."""
        server = local()
        server.register("routines", Routines())
        with pytest.raises(RemoteFault, match=SECRET):
            benches(server.endpoint).client.bind("routines").crash()

    def test_not_with_tracebacks(self, endpoint: str) -> None:
        """Who asks for both is told that they do not go together."""
        with pytest.raises(InvalidParameter, match="choose one"):
            Server(endpoint, tracebacks=True, fault_details=False)
