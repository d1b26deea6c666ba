"""Servers that announce themselves in a real etcd, and clients that find them there."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine import Address, InvalidParameter, Server
from engine.resolvers import Etcd
from engine.testing import LIMIT, wait_until

from .daemons import EtcdServer, program
from .following import following

etcd3gw = pytest.importorskip("etcd3gw", reason="etcd3gw is not installed")

SERVICE = "/services/words/"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """An etcd for all tests that do it no harm."""
    with EtcdServer(tmp_path_factory.mktemp("etcd")) as started:
        yield started


@pytest.fixture
def etcd(running: EtcdServer) -> Iterator[EtcdServer]:
    """It, with no key in it."""
    client(running).delete_prefix("/")
    yield running


def client(etcd: EtcdServer, **options: Any) -> Any:
    """Another library's client of it."""
    port = int(etcd.endpoint.rpartition(":")[2])
    return etcd3gw.client(host="127.0.0.1", port=port, timeout=LIMIT, **options)


def registry(etcd: EtcdServer, **options: Any) -> Etcd:
    return Etcd(SERVICE, endpoints=[etcd.endpoint], **options)


def serving(announce: Etcd, *endpoints: str, **options: Any) -> Server:
    """A server that is announced."""
    server = Server(*(endpoints or ("tcp://127.0.0.1:*",)), announce=announce, **options)
    server.listen()
    return server


class TestServers:
    """Servers come, leave and die."""

    def test_coming_and_leaving(self, etcd: EtcdServer) -> None:
        """A server is found once it listens, and gone once it has left, though it was told to close in good order."""
        with following(registry(etcd)) as found, serving(registry(etcd)) as first:
            found.wait_for(first.endpoint)
            with serving(registry(etcd)) as second:
                found.wait_for(first.endpoint, second.endpoint)
            found.wait_for(first.endpoint)

    def test_stopping(self, etcd: EtcdServer) -> None:
        """A server that stops leaves; one that listens again comes back."""
        with following(registry(etcd)) as found, serving(registry(etcd)), serving(registry(etcd)) as other:
            wait_until(lambda: len(found.now()) == 2)
            other.stop()
            wait_until(lambda: len(found.now()) == 1)
            assert other.wait(LIMIT)
            other.listen()
            wait_until(lambda: len(found.now()) == 2)

    def test_a_server_that_is_there_before_the_client(self, etcd: EtcdServer) -> None:
        """Who comes later finds those that are there."""
        with serving(registry(etcd)) as server:
            wait_until(lambda: client(etcd).get_prefix(SERVICE))
            with following(registry(etcd)) as found:
                found.wait_for(server.endpoint)

    def test_a_server_that_dies(self, etcd: EtcdServer) -> None:
        """A server that dies, or is frozen, is gone when its lease is over; one that goes on then is back."""
        with following(registry(etcd)) as found, serving(registry(etcd)) as stays:
            arguments = [sys.executable, "-m", "tests.resolvers.announced", etcd.endpoint, SERVICE]
            with subprocess.Popen(arguments, stdin=subprocess.PIPE) as other:
                try:
                    wait_until(lambda: len(found.now()) == 2)
                    other.send_signal(signal.SIGSTOP)
                    found.wait_for(stays.endpoint)
                    other.send_signal(signal.SIGCONT)
                    wait_until(lambda: len(found.now()) == 2)
                finally:
                    other.kill()

    def test_where_it_is_reached(self, etcd: EtcdServer) -> None:
        """What is announced is what `advertise` says, `*` standing for the port that was bound."""
        address = Address("tcp://10.0.0.7:5555", zone="eu-1a", weight=2)
        everywhere = {"advertise": "tcp://127.0.0.9:*", "insecure": True}
        with (
            following(registry(etcd)) as found,
            serving(registry(etcd), "tcp://*:*", **everywhere) as server,
            serving(registry(etcd), advertise=address),
        ):
            found.wait_for(server.endpoint.replace("0.0.0.0", "127.0.0.9"), address.endpoint)
            assert address in found.lists[-1]


class TestRecords:
    """What is in etcd."""

    def test_what_others_put_there(self, etcd: EtcdServer) -> None:
        """An endpoint's text or an address as JSON is a server; what is neither, or of another service, is none."""
        address = Address("tcp://10.0.0.7:5555", zone="eu-1a")
        other = client(etcd)
        other.put(SERVICE + "json", msgspec.json.encode(address))
        other.put(SERVICE + "text", "tcp://10.0.0.8:5555")
        other.put(SERVICE + "wrong", "10.0.0.9")
        other.put(SERVICE + "wrong-json", '{"endpoint": 7}')
        other.put("/services/wordsmith/1", "tcp://10.0.0.10:5555")
        with following(registry(etcd)) as found:
            found.wait_for("tcp://10.0.0.7:5555", "tcp://10.0.0.8:5555")
            assert address in found.lists[-1]
            other.put(SERVICE + "wrong", "tcp://10.0.0.9:5555")
            other.delete(SERVICE + "json")
            found.wait_for("tcp://10.0.0.8:5555", "tcp://10.0.0.9:5555")

    def test_none_any_more(self, etcd: EtcdServer) -> None:
        """The last server that leaves is not taken from the list."""
        other = client(etcd)
        other.put(SERVICE + "1", "tcp://10.0.0.8:5555")
        with following(registry(etcd)) as found:
            found.wait_for("tcp://10.0.0.8:5555")
            other.delete(SERVICE + "1")
            other.put(SERVICE + "2", "tcp://10.0.0.9:5555")
            found.wait_for("tcp://10.0.0.9:5555")
        assert len(found.lists) == 2


class TestTheRegistry:
    """What becomes of etcd itself."""

    def test_it_dies_and_comes_back(self, tmp_path: Path) -> None:
        """A server goes on without it, and is announced again once it is back; a client's `run` raises."""
        with EtcdServer(tmp_path) as etcd, following(registry(etcd)) as found, serving(registry(etcd, ttl=2)) as server:
            found.wait_for(server.endpoint)
            etcd.kill()
            wait_until(lambda: found.raised)
            assert server.listening and found.now() == {server.endpoint}
            etcd.start()
            with following(registry(etcd)) as again:
                again.wait_for(server.endpoint)

    def test_a_silent_watch(self, etcd: EtcdServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """A watch that says nothing for long is opened again, and nothing is lost on the way."""
        monkeypatch.setattr("engine.resolvers.etcd.IDLE", 0.5)  # In which a busy machine answers, too.
        client(etcd).put(SERVICE + "1", "tcp://10.0.0.8:5555")
        with following(registry(etcd)) as found:
            wait_until(lambda: len(found.lists) > 2)
            client(etcd).put(SERVICE + "1", "tcp://10.0.0.9:5555")
            found.wait_for("tcp://10.0.0.9:5555")
            assert found.raised is None

    def test_authentication(self, tmp_path: Path) -> None:
        """With a user and a password it is found what only they may see; without, `run` raises."""
        with EtcdServer(tmp_path) as etcd:
            other = client(etcd)
            for path, body in (
                ("/auth/role/add", {"name": "root"}),
                ("/auth/user/add", {"name": "root", "password": "secret"}),
                ("/auth/user/grant", {"user": "root", "role": "root"}),
                ("/auth/enable", {}),
            ):
                other.post(other.get_url(path), json=body)
            trusted = registry(etcd, user="root", password="secret")
            with following(trusted) as found, serving(trusted) as server:
                found.wait_for(server.endpoint)
                with following(registry(etcd)) as stranger:
                    wait_until(lambda: stranger.raised)
                    assert stranger.lists == []

    def test_tls(self, tmp_path: Path) -> None:
        """Both sides show a certificate: who has none, or does not trust etcd's, finds nothing."""
        certificate, key = str(tmp_path / "it.pem"), str(tmp_path / "it.key")
        subprocess.run(
            [
                program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                "-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=words",
                "-addext", "subjectAltName=IP:127.0.0.1",
            ],
            check=True, capture_output=True,
        )  # fmt: skip
        options = (
            f"--cert-file={certificate}", f"--key-file={key}", "--client-cert-auth", f"--trusted-ca-file={certificate}"
        )  # fmt: skip
        with EtcdServer(tmp_path, *options, scheme="https") as etcd:
            trusted = registry(etcd, ca=certificate, certificate=certificate, key=key)
            with following(trusted) as found, serving(trusted) as server:
                found.wait_for(server.endpoint)
                for options_of_a_stranger in ({"ca": certificate}, {"certificate": certificate, "key": key}):
                    with following(registry(etcd, **options_of_a_stranger)) as stranger:
                        wait_until(lambda: stranger.raised)  # it is waited for here
                        assert stranger.lists == []


class TestArguments:
    """What cannot be is refused as it is made."""

    @pytest.mark.parametrize(
        "options",
        [
            {"prefix": ""},
            {"endpoints": []},
            {"endpoints": ["127.0.0.1:2379"]},
            {"endpoints": ["http://127.0.0.1:x"]},
            {"user": "root"},
            {"certificate": "it.pem"},
            {"ttl": 1},
        ],
    )
    def test_refused(self, options: dict[str, Any]) -> None:
        """An empty prefix, what is no endpoint of etcd's, halves of pairs, a lease too short to renew."""
        with pytest.raises(InvalidParameter):
            Etcd(**({"prefix": SERVICE} | options))

    def test_without_the_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without etcd3gw it says what to install."""
        monkeypatch.setattr("engine.resolvers.etcd.find_spec", lambda name: None)
        with pytest.raises(ImportError, match=r"callport\[etcd\]"):
            Etcd(SERVICE)
