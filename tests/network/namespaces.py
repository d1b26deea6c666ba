"""Two hosts and a router between them, as namespaces of this machine; what passes may be dropped, delayed or lost.

client 10.77.1.2 --- 10.77.1.1 router 10.77.2.1 --- 10.77.2.2 server
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOSTS = {"client": "10.77.1.2", "server": "10.77.2.2"}
_numbers = count()


class Lacking(Exception):
    """Such a network, or such a fault, cannot be made here; the text says why."""


def _run(*command: str) -> None:
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Lacking(f"there is no {error.filename}") from error
    if found.returncode:
        raise Lacking(f"{' '.join(command)}: {found.stderr.strip()}")


class Network:
    """See above."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _of(self, host: str) -> str:
        return f"{self._name}-{host}"

    def make(self) -> None:
        for host in (*HOSTS, "router"):
            _run("ip", "netns", "add", self._of(host))
            self._in(host, "link", "set", "lo", "up")
        for host, address in HOSTS.items():
            gateway = f"{address[:-1]}1"
            _run(
                "ip", "link", "add", "lan", "netns", self._of(host), "type", "veth", "peer", f"to-{host}", "netns",
                self._of("router"),
            )  # fmt: skip
            self._in(host, "addr", "add", f"{address}/24", "dev", "lan")
            self._in(host, "link", "set", "lan", "up")
            self._in("router", "addr", "add", f"{gateway}/24", "dev", f"to-{host}")
            self._in("router", "link", "set", f"to-{host}", "up")
            self._in(host, "route", "add", "default", "via", gateway)
        _run("ip", "netns", "exec", self._of("router"), "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")

    def close(self) -> None:
        for host in (*HOSTS, "router"):
            subprocess.run(["ip", "netns", "del", self._of(host)], capture_output=True, check=False)

    def _in(self, host: str, *command: str) -> None:
        _run("ip", "-n", self._of(host), *command)

    def start(self, host: str, *program: str) -> "subprocess.Popen[str]":
        """Run a module of the tests there; it is told and tells lines."""
        command = ["ip", "netns", "exec", self._of(host), sys.executable, "-m", *program]
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def drop(self, *towards: str) -> None:
        """From now on nothing arrives at these hosts. Nobody is told."""
        for host in towards:
            self._in("router", "route", "add", "blackhole", HOSTS[host])

    def heal(self, *towards: str) -> None:
        """All arrives again."""
        for host in towards:
            self._in("router", "route", "del", "blackhole", HOSTS[host])

    def worsen(self, *how: str) -> None:
        """Have packets in both directions delayed or lost, as `netem` has it: "delay", "50ms", "loss", "5%"."""
        for host in HOSTS:
            _run("tc", "-n", self._of("router"), "qdisc", "add", "dev", f"to-{host}", "root", "netem", *how)


@contextmanager
def network() -> Iterator[Network]:
    """Such a network. Raises: Lacking."""
    made = Network(f"callport-{os.getpid()}-{next(_numbers)}")
    try:
        made.make()
        yield made
    finally:
        made.close()
