"""Servers come, leave and die, and registries die, while calls are made: no call fails, and each has one outcome."""

import signal
from pathlib import Path

import pytest

from engine import Client
from engine.resolvers import Dns, Etcd, Seed
from engine.testing import wait_until

from ..processes.test_supervisor import all_serve, running
from .daemons import Dnsmasq, EtcdServer, free_port
from .load import Adding, ending, load


def used(client: Client, *endpoints: str) -> bool:
    """Whether calls were answered by each of these."""
    answered = {member.endpoint for member in client.members if member.calls_finished}
    return answered >= set(endpoints)


def known(client: Client) -> set[str]:
    return {member.endpoint for member in client.members}


def test_dns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record is added, a server drains, another is killed, the DNS server dies."""
    pytest.importorskip("dns", reason="dnspython is not installed")
    monkeypatch.setattr("engine.resolvers.dns.PATIENCE", 1.0)  # The test waits for the look that is under way.
    with Dnsmasq(tmp_path) as dns:
        port = free_port()
        names = [f"127.0.0.{number} numbers.test" for number in (2, 3, 4)]
        one, two, three = servers = [Adding(f"tcp://{name.split()[0]}:{port}") for name in names]
        dns.tell(*names[:2])
        with ending(*servers), load(Dns("numbers.test", port, nameserver=dns.endpoint)) as (calls, client):
            wait_until(lambda: used(client, one.endpoint, two.endpoint))
            dns.tell(*names)
            wait_until(lambda: used(client, three.endpoint))
            one.drain()
            calls.go_on()
            two.kill()
            calls.go_on()
            dns.kill()
            calls.go_on()


def test_etcd(tmp_path: Path) -> None:
    """A server joins, one drains, one freezes and goes on, etcd dies."""
    pytest.importorskip("etcd3gw", reason="etcd3gw is not installed")
    prefix = "/services/numbers/"
    with EtcdServer(tmp_path) as etcd:
        one, two = servers = [Adding("tcp://127.0.0.1:*", prefix, etcd.endpoint) for _ in range(2)]
        with ending(*servers), load(Etcd(prefix, endpoints=[etcd.endpoint])) as (calls, client):
            wait_until(lambda: used(client, one.endpoint, two.endpoint))
            three = Adding("tcp://127.0.0.1:*", prefix, etcd.endpoint)
            with ending(three):
                wait_until(lambda: used(client, three.endpoint))
                one.drain()
                wait_until(lambda: one.endpoint not in known(client))
                two.process.send_signal(signal.SIGSTOP)
                calls.go_on()
                two.process.send_signal(signal.SIGCONT)
                etcd.kill()
                calls.go_on()


def test_processes() -> None:
    """All processes of a service are replaced, one by one."""
    with running(processes=2) as supervisor:
        all_serve(supervisor)
        with load(Seed(supervisor.endpoint)) as (calls, client):
            wait_until(lambda: len(known(client)) == 2)
            before = known(client)
            supervisor.roll()
            wait_until(lambda: len(known(client)) == 2 and not known(client) & before)
            calls.go_on()
