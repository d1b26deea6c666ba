"""The registries themselves, as processes of the tests, on the loopback: dnsmasq and etcd.

Debian has them as `dnsmasq-base` and `etcd-server`; where they are missing the tests are skipped, and say so.
"""

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from engine.testing import LIMIT, wait_until


def program(name: str) -> str:
    """Where a program is; skips the test where it is not."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed here")
    return found


def free_port() -> int:
    """A port that nobody has, on which one may listen and take datagrams."""
    with socket.socket() as listening, socket.socket(type=socket.SOCK_DGRAM) as taking:
        while True:
            listening.bind(("127.0.0.1", 0))
            port: int = listening.getsockname()[1]
            try:
                taking.bind(("127.0.0.1", port))
            except OSError:
                listening.close()
                return free_port()
            return port


class Daemon:
    """A process that is ready once it has said a word, and that may be killed and started again."""

    def __init__(self, arguments: Iterable[str], ready: str) -> None:
        self._arguments = list(arguments)
        self._ready = ready
        self._lines: list[str] = []
        self._reader = threading.Thread(target=int)
        self.start()

    def start(self) -> None:
        """Start it, or start it again."""
        self._lines.clear()
        self._process = subprocess.Popen(
            self._arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        wait_until(lambda: self.said(self._ready) or self._process.poll() is not None, what=f"{self._arguments[0]}")
        assert self.said(self._ready), self._lines

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)

    def said(self, text: str) -> int:
        """In how many lines it has said this."""
        return sum(text in line for line in list(self._lines))

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Let it die without a word."""
        self._process.kill()
        self._process.wait(LIMIT)
        self._reader.join(LIMIT)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.kill()


class Dnsmasq(Daemon):
    """A DNS server that knows the names that it was told, and nothing else."""

    def __init__(self, folder: Path, *options: str, ttl: int = 1) -> None:
        self.port = free_port()
        self._hosts = folder / "hosts"
        self._hosts.touch()
        folder.chmod(0o755)
        super().__init__(
            [
                program("dnsmasq"), "--no-daemon", f"--port={self.port}", "--listen-address=127.0.0.1",
                "--bind-interfaces", "--no-resolv", "--no-hosts", f"--addn-hosts={self._hosts}", f"--local-ttl={ttl}",
                "--user=", "--local=/test/", "--conf-file=/dev/null", "--log-queries", "--log-facility=-", *options,
            ],
            ready="read ",
        )  # fmt: skip

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def tell(self, *hosts: str) -> None:
        """Have it know these and no others: "address name"."""
        self._hosts.write_text("".join(f"{host}\n" for host in hosts))
        read = self.said("read ")
        self.signal(signal.SIGHUP)
        wait_until(lambda: self.said("read ") > read, what="dnsmasq has read its file again")


class EtcdServer(Daemon):
    """A cluster of one, for TLS if options say so."""

    def __init__(self, folder: Path, *options: str, scheme: str = "http") -> None:
        self.endpoint = f"{scheme}://127.0.0.1:{free_port()}"
        peers = f"http://127.0.0.1:{free_port()}"
        super().__init__(
            [
                program("etcd"), f"--data-dir={folder}/etcd", f"--listen-client-urls={self.endpoint}",
                f"--advertise-client-urls={self.endpoint}", f"--listen-peer-urls={peers}",
                f"--initial-advertise-peer-urls={peers}", f"--initial-cluster=default={peers}", *options,
            ],
            ready="serving",
        )  # fmt: skip
