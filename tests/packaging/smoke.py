"""What must work where only the wheel is installed, with whatever extras: run by `python -I`, from an empty folder.

Imports nothing of the tests, which are not there. Prints one line: what was tried.
"""

import asyncio
import platform
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import engine
import transport
from engine import Client, CompletionPort, Interface, Server, operation

SCRIPTS = Path(sysconfig.get_path("scripts"))
PATIENCE = 60


class Words(Interface, id="smoke.Words"):
    """The contract."""

    @operation
    def synonyms(self, word: str) -> list[str]:
        """Return words that mean the same."""
        raise NotImplementedError


class Routines:
    """Implements it."""

    def synonyms(self, word: str) -> list[str]:
        return [word, word.upper()]


def is_installed() -> None:
    """The packages are those of the wheel, of the version that it says."""
    home = Path(sysconfig.get_path("purelib"))
    for module in (engine, transport):
        assert module.__file__ is not None and Path(module.__file__).is_relative_to(home), module.__file__
    assert engine.__version__ == version("callport")


def calls(endpoint: str) -> None:
    """A call is made in each of the three ways."""

    async def awaited(client: Client) -> list[str]:
        return await client.bind(Words).synonyms.begin("c", timeout=PATIENCE)

    with Server(endpoint) as server:
        server.register(Words, Routines())
        server.listen()
        with Client(server.endpoint) as client, CompletionPort() as port:
            words = client.bind(Words)
            assert words.synonyms("a", timeout=PATIENCE) == ["a", "A"]
            words.synonyms.begin("b", notify=port.packet(key=1))
            assert port.get(PATIENCE).overlapped.complete() == ["b", "B"]
        client = Client(server.endpoint)
        assert asyncio.run(awaited(client)) == ["c", "C"]
        client.close()


def says(needs: str, *command: str | Path) -> bool:
    """Run a command that needs a library, if that is installed; else see that it says what to install.

    Returns whether it is installed.
    """
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=10 * PATIENCE)
    if find_spec(needs) is not None:
        assert done.returncode == 0, done.stdout + done.stderr
        return True
    assert done.returncode == 1 and "pip install 'callport[" in done.stderr, done.stdout + done.stderr
    return False


def main() -> None:
    """Try all of it."""
    is_installed()
    calls("loopback://smoke")
    calls("tcp://127.0.0.1:*")
    tried = ["loopback", "tcp"]
    if says("typer", SCRIPTS / "callport", "--help") and says("typer", sys.executable, "-m", "engine", "--help"):
        tried.append("callport --help")
    perf = (sys.executable, "-m", "perf")
    if says("matplotlib", *perf, "list"):
        says("matplotlib", *perf, "run", "--quick", "--rounds", "1", "port")
        says("matplotlib", *perf, "report")
        assert Path("perf-report", "index.html").exists()  # Below the current folder, not where it is installed.
        tried.append("perf run port")
    print(f"Python {platform.python_version()}: {', '.join(tried)}")


if __name__ == "__main__":
    main()
