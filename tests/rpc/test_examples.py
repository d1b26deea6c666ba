"""The example service and its client, as a user would run them."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from engine.testing import LIMIT

from .helpers import ROOT


@pytest.fixture
def thesaurus() -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The service, running, and its endpoint."""
    service = subprocess.Popen(
        [sys.executable, "-m", "examples.thesaurus.service", "tcp://127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    assert service.stdout is not None
    listening = service.stdout.readline().split()
    yield service, listening[-1]
    service.kill()
    service.communicate()


class TestThesaurus:
    """examples/thesaurus."""

    def test_client_and_service(self, thesaurus: tuple["subprocess.Popen[str]", str]) -> None:
        """The client prints what the service knows."""
        client = subprocess.run(
            [sys.executable, "-m", "examples.thesaurus.client", thesaurus[1]],
            capture_output=True,
            cwd=ROOT,
            text=True,
            timeout=LIMIT,
        )
        assert client.returncode == 0, client.stderr
        assert "quick: fast, swift" in client.stdout
        assert "no entry: KeyError 'slow'" in client.stdout
        assert "chain: quick -> fast -> rapid -> brisk" in client.stdout
        assert client.stderr == ""

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_graceful_stop(self, thesaurus: tuple["subprocess.Popen[str]", str], number: signal.Signals) -> None:
        """SIGTERM and Ctrl-C end the service in good order."""
        service, _ = thesaurus
        service.send_signal(number)
        _, complaints = service.communicate(timeout=LIMIT)
        assert service.returncode == 0
        assert "stopped" in complaints and "Traceback" not in complaints
