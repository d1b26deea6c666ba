"""The command line, as one types it: each command in a process of its own, against a service of another process."""

import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import Client, Server
from engine.cli import main
from engine.testing import LIMIT, wait_until
from transport import Curve

from .. import certificates
from .served import Words

pytest.importorskip("typer", reason="the command line needs typer: callport[cli]")
COMMAND = [sys.executable, "-W", "error", "-m", "engine"]
ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "NO_COLOR": "1", "COLUMNS": "80", "TERM": "dumb", "PYTHONPATH": f"{ROOT}"}
PAGE = (ROOT / "docs" / "how-to" / "command-line.md").read_text(encoding="utf-8")

# What `refused` is.
Refused = Callable[..., str]


def callport(*words: str, given: str = "", folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; `given` is its standard input, `folder` where it runs."""
    return subprocess.run(
        [*COMMAND, *words], input=given, capture_output=True, text=True, env=ENVIRONMENT, timeout=LIMIT, cwd=folder
    )


def serve(target: str, *options: str, folder: Path = ROOT) -> "tuple[subprocess.Popen[str], str]":
    """Serve; return the process, and where it listens."""
    service = subprocess.Popen(
        [*COMMAND, "serve", target, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=ENVIRONMENT, cwd=folder,
    )  # fmt: skip
    assert service.stdout is not None
    line = service.stdout.readline()
    found = re.fullmatch(r"listening at (\S+)\n", line)
    assert found, line or (service.stderr and service.stderr.read())
    return service, found[1]


def end(service: "subprocess.Popen[str]") -> tuple[int, str]:
    """End a service as a service manager does; return its code, and what it complained of, but for a slow machine."""
    service.send_signal(signal.SIGTERM)
    _, errors = service.communicate(timeout=LIMIT)
    lines = errors.splitlines(keepends=True)
    return service.returncode, "".join(line for line in lines if "or the machine is overloaded" not in line)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Where `Words` is served."""
    service, where = serve("tests.cli.served:Words", "--bind", "tcp://127.0.0.1:*")
    yield where
    assert end(service)[0] == 0  # It has told what routines raised.


@pytest.fixture(scope="module")
def streams() -> Iterator[str]:
    """Where `Streams` is served."""
    service, where = serve("tests.cli.served:streaming")
    yield where
    assert end(service) == (0, "")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the CURVE keys of a server, of a client that it lets in, and of one that it does not."""
    folder = tmp_path_factory.mktemp("curve")
    for name in ("server", "client", "stranger"):
        callport("keys", "make", f"{folder / name}")
    callport("keys", "allow", f"{folder / 'allowed'}", f"{folder / 'client.pub'}")
    return folder


@pytest.fixture(scope="module")
def of_curve(keys: Path) -> Iterator[str]:
    """Where a server lets in the client alone."""
    service, where = serve(
        "tests.cli.served:Words", "--bind", "tcp://127.0.0.1:*", "--key", f"{keys / 'server.key'}",
        "--allowed", f"{keys / 'allowed'}",
    )  # fmt: skip
    yield where
    assert end(service)[0] == 0  # It has told whom it refused.


@pytest.fixture(scope="module")
def of_tls() -> Iterator[str]:
    """Where a server wants a certificate."""
    folder = certificates.folder()
    service, where = serve(
        "tests.cli.served:Words", "--bind", "tls://127.0.0.1:*", "--cert", f"{folder / 'server.pem'}",
        "--cacert", f"{folder / 'authority.pem'}",
    )  # fmt: skip
    yield where
    assert end(service)[0] == 0


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that is to end with a code in this process, and in a folder; return what it complains of."""

    def run(words: list[str], folder: Path, code: int = 2) -> str:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.setattr(sys, "argv", ["callport", *words])
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        complaint = capsys.readouterr().err
        assert ended.value.code == code, complaint
        return complaint

    return run


class TestServe:
    """`callport serve`."""

    @pytest.mark.parametrize(
        ("target", "operation"),
        [("Words", "Words.text"), ("instance", "Words.text"), ("make", "made.text"), ("spread", "made.text")],
    )
    def test_what_it_takes(self, target: str, operation: str) -> None:
        """A class, an object and a function that makes a server are served until SIGTERM, which ends it well.

        A function of `*endpoints` gets that of `--bind`.
        """
        service, where = serve(f"tests.cli.served:{target}", "--bind", "tcp://127.0.0.1:*")
        done = callport("call", where, operation)
        assert (done.returncode, done.stdout) == (0, "plain\n")
        assert end(service) == (0, "")

    def test_reload(self, tmp_path: Path) -> None:
        """With `--reload` what changed is served within moments, also after a change that could not be imported."""
        pytest.importorskip("watchfiles", reason="--reload needs watchfiles: callport[reload]")
        module = tmp_path / "reloaded.py"
        module.write_text("class Words:\n    def text(self) -> str:\n        return 'first'\n", encoding="utf-8")
        endpoint, said = f"ipc://{tmp_path}/words", tmp_path / "said"

        def served() -> str:
            return callport("call", endpoint, "Words.text").stdout

        with said.open("w", encoding="utf-8") as errors, subprocess.Popen(
            [*COMMAND, "serve", "reloaded:Words", "--bind", endpoint, "--reload"], cwd=tmp_path,
            env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=errors,
        ) as service:  # fmt: skip
            try:
                wait_until(lambda: served() == "first\n")
                module.write_text("not Python!", encoding="utf-8")
                wait_until(lambda: "SyntaxError" in said.read_text(encoding="utf-8"))
                assert callport("health", endpoint, "--timeout", "0.2").returncode == 3
                changed = "class Words:\n    def text(self) -> str:\n        return 'second'\n"
                module.write_text(changed, encoding="utf-8")
                wait_until(lambda: served() == "second\n")
                service.send_signal(signal.SIGTERM)
                assert service.wait(LIMIT) == 0
            finally:
                service.kill()
        complaints = said.read_text(encoding="utf-8")
        assert 'reloaded.py", line 1' in complaints and "Traceback" not in complaints

    @pytest.mark.parametrize(
        ("code", "lines"),
        [
            ("class Words:\n    def", ['  File "{file}", line 2', "SyntaxError: invalid syntax"]),
            ("import nowhere", ['  File "{file}", line 1, in <module>', "No module named 'nowhere'"]),
            ("class Words:\n    def __init__(self):\n        1 / 0", ['  File "{file}", line 3, in __init__']),
            ("def Words():\n    raise OSError('no disk')", ['  File "{file}", line 2, in Words', "OSError: no disk"]),
        ],
    )  # fmt: skip
    def test_a_program_that_fails(self, tmp_path: Path, refused: Refused, code: str, lines: list[str]) -> None:
        """What the program raises is shown with its own lines, and none of those that led to it; the code is 1."""
        module = tmp_path / f"failing_{tmp_path.name}.py"
        module.write_text(code, encoding="utf-8")
        shown = refused(["serve", f"{module.stem}:Words"], tmp_path, 1)
        assert all(line.format(file=module) in shown for line in lines), shown
        assert shown.count("  File ") == 1

    def test_reload_without_what_it_needs(self) -> None:
        """Without watchfiles it says what to install."""
        done = subprocess.run(
            [sys.executable, "-c", "import sys; sys.modules['watchfiles'] = None; import engine.cli; engine.cli.main()",
             "serve", "tests.cli.served:Words", "--reload"],
            capture_output=True, text=True, env=ENVIRONMENT, timeout=LIMIT,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (1, "this needs watchfiles: pip install 'callport[reload]'\n")

    def test_ctrl_c(self) -> None:
        """Ctrl-C ends it as well as SIGTERM does."""
        service, _ = serve("tests.cli.served:Words", "--bind", "tcp://127.0.0.1:*", "--name", "other")
        service.send_signal(signal.SIGINT)
        assert service.communicate(timeout=LIMIT)[1] == ""
        assert service.returncode == 0

    def test_several_processes(self) -> None:
        """With `--processes` as many serve behind one endpoint, and all end with it."""
        service, where = serve("tests.cli.served:Words", "--bind", "tcp://127.0.0.1:*", "--processes", "2")
        assert callport("call", where, "Words.text", "--timeout", str(LIMIT)).stdout == "plain\n"
        assert end(service) == (0, "")

    @pytest.mark.parametrize(
        ("target", "text"),
        [
            ("served", "write MODULE:OBJECT"),
            ("tests.cli.nowhere:Words", "no module 'tests.cli.nowhere'"),
            ("tests.cli.served:Wrods", "'Wrods' is not in 'tests.cli.served'"),
            ("tests.cli.served:number", "serve"),
        ],
    )
    def test_what_it_refuses(self, target: str, text: str) -> None:
        """What cannot be served is named, in one line, and the code is that of wrong usage."""
        done = callport("serve", target)
        assert done.returncode == 2
        assert text in done.stderr and "Traceback" not in done.stderr

    def test_an_endpoint_that_is_taken(self, endpoint: str) -> None:
        """Where another one listens it says so."""
        done = callport("serve", "tests.cli.served:Words", "--bind", endpoint)
        assert done.returncode == 2 and "in use" in done.stderr


class TestCall:
    """`callport call`."""

    def test_arguments(self, endpoint: str) -> None:
        """Arguments are JSON, or texts as they stand; results are JSON, and texts plain unless JSON is asked for."""
        assert callport("call", endpoint, "Words.synonyms", "quick").stdout == '["fast","swift"]\n'
        assert callport("call", endpoint, "Words.length", "[1, 2, 3]").stdout == "3\n"
        assert callport("call", endpoint, "Words.text").stdout == "plain\n"
        assert callport("call", endpoint, "Words.text", "--json").stdout == '"plain"\n'

    def test_a_fault(self, endpoint: str) -> None:
        """What the routine raised is said in a line, and the code is 1."""
        done = callport("call", endpoint, "Words.missing")
        assert (done.returncode, done.stdout) == (1, "")
        assert "LookupError: no such word" in done.stderr and "Traceback" not in done.stderr

    def test_no_server(self) -> None:
        """Where nobody listens the code is 3."""
        done = callport("call", "ipc:///nowhere/at/all", "Words.text", "--timeout", "0.1")
        assert done.returncode == 3 and "no connection" in done.stderr

    @pytest.mark.parametrize("operation", ["synonyms", ".synonyms", "Words."])
    def test_a_wrong_name(self, endpoint: str, operation: str) -> None:
        """An operation is INTERFACE.OPERATION."""
        done = callport("call", endpoint, operation)
        assert done.returncode == 2 and "INTERFACE.OPERATION" in done.stderr

    @pytest.mark.parametrize("operation", ["Wrods.text", "Words.txet"])
    def test_what_is_not_served(self, endpoint: str, operation: str) -> None:
        """A name that the server does not have is said, and how to see those that it has."""
        done = callport("call", endpoint, operation)
        assert done.returncode == 1 and "callport inspect" in done.stderr

    def test_a_wrong_endpoint(self) -> None:
        """What is no endpoint is wrong usage."""
        done = callport("call", "127.0.0.1:5555", "Words.text")
        assert done.returncode == 2 and "127.0.0.1:5555" in done.stderr


class TestStreams:
    """`callport call`, of operations with pipes."""

    def test_what_comes(self, streams: str) -> None:
        """Elements are printed one a line, and then the result, if it is not None."""
        done = callport("call", streams, "cli.Streams.upto", "3")
        assert (done.returncode, done.stdout) == (0, "0\n1\n2\ndone\n")
        assert callport("call", streams, "cli.Streams.upto", "1", "--json").stdout == '0\n"done"\n'

    def test_what_goes(self, streams: str) -> None:
        """The lines of the standard input are pushed."""
        assert callport("call", streams, "cli.Streams.total", "100", given="1\n2\n").stdout == "103\n"
        assert callport("call", streams, "cli.Streams.double", given="1\n2\n").stdout == "2\n4\n"

    def test_what_does_not_fit(self, streams: str) -> None:
        """What the server says of it is said in a line, with the parameter and its type."""
        done = callport("call", streams, "cli.Streams.upto", "many")
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert "upto: parameter 'most' must be int: Expected `int`, got `str`" in done.stderr
        assert "callport inspect" in done.stderr


class TestInspect:
    """`callport inspect`, and `call` without an operation."""

    def test_texts(self, endpoint: str, streams: str) -> None:
        """Each interface has its version and text, each operation its signature and text."""
        shown = callport("inspect", streams).stdout
        assert shown == callport("call", streams).stdout
        lines = shown.splitlines()
        assert lines[:7] == [
            "cli.Streams 2.1: What streams, either way.",
            "  upto(most: int, numbers: out pipe of int) -> str",
            "      Push numbers, and return a text.",
            "  total(start: int, numbers: in pipe of int) -> int",
            "      Return the sum.",
            "  double(numbers: in pipe of int, doubles: out pipe of int) -> None",
            "      (raises LookupError)",
        ]
        assert lines[7].startswith("callport.Health 1.0: ")
        assert "  synonyms(word: str) -> list[str]" in callport("inspect", endpoint, "Words").stdout.splitlines()

    def test_one(self, streams: str) -> None:
        """An interface, or an operation, is shown alone; what is not there is named."""
        assert len(callport("inspect", streams, "cli.Streams").stdout.splitlines()) == 7
        lines = callport("inspect", streams, "cli.Streams.total").stdout.splitlines()
        assert [line.split("(")[0] for line in lines] == [
            "cli.Streams 2.1: What streams, either way.", "  total", "      Return the sum.",
        ]  # fmt: skip
        done = callport("inspect", streams, "cli.Nothing")
        assert done.returncode == 1 and "'cli.Nothing'" in done.stderr

    def test_json(self, streams: str) -> None:
        """With `--json` it is one value."""
        (found,) = json.loads(callport("inspect", streams, "cli.Streams", "--json").stdout)
        assert found["version"] == [2, 1] and found["operations"][0]["parameters"][1]["kind"] == "out pipe"

    def test_switched_off(self) -> None:
        """A server that tells nothing is called all the same; `inspect` says why it shows nothing."""
        service, where = serve("tests.cli.served:silent")
        assert callport("call", where, "made.text").stdout == "plain\n"
        done = callport("inspect", where)
        assert done.returncode == 1 and "reflection" in done.stderr
        assert end(service) == (0, "")


class TestLooking:
    """`callport health`, `top` and `bench`."""

    def test_health(self, endpoint: str) -> None:
        """A server that takes calls is well; one that is not there is not reached."""
        done = callport("health", endpoint)
        assert (done.returncode, done.stdout) == (0, "listening\n")
        assert json.loads(callport("health", endpoint, "--json").stdout) == {"listening": True}
        assert callport("health", "ipc:///nowhere/at/all", "--timeout", "0.1").returncode == 3

    def test_top(self, endpoint: str) -> None:
        """Figures are a table of at most 80 columns, or JSON, a line for each look."""
        table = callport("top", endpoint, "--count", "1", "--interval", "0.05").stdout
        assert "calls in" in table and max(map(len, table.splitlines())) <= 80
        assert table.endswith("\n")
        looks = callport("top", endpoint, "--count", "2", "--interval", "0.05").stdout
        assert looks.count("calls in") == 2  # Of what is not a terminal each look is a table of its own.
        lines = callport("top", endpoint, "--count", "2", "--interval", "0.05", "--json").stdout.splitlines()
        first, second = map(json.loads, lines)
        assert first["phase"] == "listening" and second["calls_in"] > first["calls_in"]

    def test_bench(self, endpoint: str) -> None:
        """As many calls as were asked for are made, and faults are counted."""
        done = callport("bench", endpoint, "Words.text", "--calls", "100", "--outstanding", "7", "--json")
        found = json.loads(done.stdout)
        assert (found["calls"], found["faults"]) == (100, 0)
        assert 0 < found["p50_ms"] <= found["p99_ms"] <= found["slowest_ms"]
        assert callport("bench", endpoint, "Words.missing").returncode == 1


class TestCurve:
    """Commands with CURVE keys, as `callport keys` makes them."""

    @pytest.mark.parametrize(
        ("command", "words"),
        [
            ("call", ["Words.text"]),
            ("inspect", []),
            ("health", []),
            ("top", ["--count", "1", "--interval", "0.05"]),
            ("bench", ["Words.text", "--calls", "10"]),
        ],
    )
    def test_who_is_let_in(self, keys: Path, of_curve: str, command: str, words: list[str]) -> None:
        """Each command that connects reaches the server with the keys of who is allowed."""
        given = ["--key", f"{keys / 'client.key'}", "--server-key", f"{keys / 'server.pub'}"]
        done = callport(command, of_curve, *words, *given)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        assert done.stdout

    @pytest.mark.parametrize(
        ("key", "server_key", "text"),
        [
            ("stranger.key", "server.pub", "does not allow this client's key"),
            ("client.key", "stranger.pub", "its public key is another"),
            ("", "", "only one side has keys"),
        ],
    )
    def test_who_is_not(self, keys: Path, of_curve: str, key: str, server_key: str, text: str) -> None:
        """Wrong keys are said to be wrong, and the code is that of a server that is not reached."""
        given = ["--key", f"{keys / key}", "--server-key", f"{keys / server_key}"] if key else []
        for seconds in ("1", "5", "60"):  # A refusal is waited for in vain, and has to have come by then.
            done = callport("health", of_curve, *given, "--timeout", seconds)
            assert done.returncode == 3 and "Traceback" not in done.stderr
            if text in done.stderr:
                return
        pytest.fail(done.stderr)

    def test_without_a_list(self, keys: Path) -> None:
        """Where all are let in that know the server's key, that is all to give, as a text too; so it is with processes.

        A function of `**options` gets the keys.
        """
        service, where = serve(
            "tests.cli.served:secured", "--bind", "tcp://127.0.0.1:*", "--processes", "2",
            "--key", f"{keys / 'server.key'}",
        )  # fmt: skip
        public = (keys / "server.pub").read_text().strip()
        done = callport("call", where, "made.text", "--timeout", str(LIMIT), f"--server-key={public}")
        assert (done.returncode, done.stdout) == (0, "plain\n"), done.stderr
        assert callport("health", where, "--timeout", "1").returncode == 3
        assert end(service)[0] == 0

    @pytest.mark.parametrize(
        ("words", "text"),
        [
            (["health", "tcp://127.0.0.1:1", "--key", "client.key"], "--key needs --server-key"),
            (["health", "tcp://127.0.0.1:1", "--cacert", "x.pem"], "--cacert is for tls:// endpoints only"),
            (["health", "tcp://127.0.0.1:1", "--server-key", "missing.pub"], "missing.pub cannot be read"),
            (["health", "tcp://127.0.0.1:1", "--server-key", "'" * 40], "server_key must be 40 characters of Z85"),
            (["health", "tls://127.0.0.1:1", "--server-key", "server.pub"], "--server-key is for CURVE keys"),
            (["health", "native+tcp://127.0.0.1:1", "--server-key", "server.pub"], "CURVE keys are for tcp://"),
            (["serve", "tests.cli.served:Words", "--allowed", "allowed"], "--allowed needs --key"),
            (["serve", "tests.cli.served:Words", "--key", "server.key", "--allowed", "none"], "none cannot be read"),
            (["serve", "tests.cli.served:Words", "--key", "."], ". cannot be read"),
            (["serve", "tests.cli.served:spread", "--key", "server.key"], "takes no keys"),
            (["serve", "tests.cli.alone:server", "--key", "server.key"], "takes no keys"),
        ],
    )
    def test_what_does_not_fit(self, keys: Path, refused: Refused, words: list[str], text: str) -> None:
        """Keys that are none, or would not be used, are wrong usage: nothing is sent without them."""
        assert text in refused(words, keys)


class TestTls:
    """Commands with certificates."""

    def test_who_is_let_in(self, of_tls: str) -> None:
        """A client that trusts the server, and shows a certificate, is served; the key may have a file of its own."""
        folder = certificates.folder()
        words = ("call", of_tls, "Words.text", "--cacert", f"{folder / 'authority.pem'}")
        assert callport(*words, "--cert", f"{folder / 'client.pem'}").stdout == "plain\n"
        both = ("--cert", f"{folder / 'client.pem'}", "--key", f"{folder / 'client.pem'}")
        assert callport(*words, *both).stdout == "plain\n"

    @pytest.mark.parametrize(
        ("cacert", "cert", "text"),
        [
            ("other.pem", "client.pem", "its certificate is refused"),
            ("authority.pem", "stranger.pem", "it refuses this side"),
            ("", "", "its certificate is refused"),
        ],
    )
    def test_who_is_not(self, of_tls: str, cacert: str, cert: str, text: str) -> None:
        """Who is refused, by either side, hears why."""
        folder = certificates.folder()
        options = ["--cacert", f"{folder / cacert}", "--cert", f"{folder / cert}"] if cert else []
        done = callport("health", of_tls, *options)
        assert done.returncode == 3 and text in done.stderr and "Traceback" not in done.stderr, done.stderr

    @pytest.mark.parametrize(
        ("words", "text"),
        [
            (["health", "tls://127.0.0.1:1", "--cacert", "missing.pem"], "missing.pem: No such file"),
            (["health", "tls://127.0.0.1:1", "--cert", "authority.pem"], "authority.pem: its private key is not in it"),
            (["health", "tls://127.0.0.1:1", "--key", "client.pem"], "--key needs --cert"),
            (["health", "tls://127.0.0.1:1", "--cert", "client.pem", "--key", "server.pem"], "and server.pem: "),
            (["serve", "tests.cli.served:Words", "--bind", "tls://127.0.0.1:*"], "needs --cert"),
            (["serve", "tests.cli.served:Words", "--cert", "server.pem"], "--cert is for tls:// endpoints only"),
        ],
    )
    def test_what_does_not_fit(self, refused: Refused, words: list[str], text: str) -> None:
        """Files that cannot be used are named, and so are options that would not be."""
        assert text in refused(words, certificates.folder())


class TestKeys:
    """`callport keys`."""

    def test_make(self, tmp_path: Path) -> None:
        """The two files are a pair of keys; only the owner may read the secret one, and none is overwritten."""
        name = str(tmp_path / "mine")
        assert callport("keys", "make", name).returncode == 0
        secret, public = tmp_path / "mine.key", tmp_path / "mine.pub"
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        Curve(public.read_text().strip(), secret.read_text().strip())  # Raises for what is no key.
        before = secret.read_text()
        done = callport("keys", "make", name)
        assert done.returncode == 2 and "there already" in done.stderr
        assert secret.read_text() == before

    def test_show(self, tmp_path: Path) -> None:
        """The public key of a pair is shown, of the secret one's file or of its own; what is none is named."""
        name = str(tmp_path / "mine")
        callport("keys", "make", name)
        public = (tmp_path / "mine.pub").read_text()
        assert callport("keys", "show", name).stdout == public
        (tmp_path / "mine.key").unlink()
        assert callport("keys", "show", name).stdout == public
        (tmp_path / "mine.pub").write_text("short\n")
        done = callport("keys", "show", name)
        assert done.returncode == 2 and "mine.pub holds no key" in done.stderr
        done = callport("keys", "show", str(tmp_path / "other"))
        assert done.returncode == 2 and "other.pub cannot be read" in done.stderr

    def test_allow(self, tmp_path: Path) -> None:
        """A server that runs lets in whom the file has been given meanwhile, once however often that is said."""
        ours, theirs = str(tmp_path / "ours"), str(tmp_path / "theirs")
        for name in (ours, theirs):
            callport("keys", "make", name)
        keys = {
            name: ((tmp_path / f"{name}.pub").read_text().strip(), (tmp_path / f"{name}.key").read_text().strip())
            for name in (ours, theirs)
        }
        allowed = tmp_path / "allowed"
        assert callport("keys", "allow", str(allowed), Curve.new_keys()[0]).returncode == 0
        with Server("tcp://127.0.0.1:*", curve=Curve(*keys[ours], allowed=allowed)) as server:
            server.register("echo", Words())
            server.listen()
            curve = Curve(*keys[theirs], server_key=keys[ours][0])
            with Client(server.endpoint, curve=curve, connect_timeout=LIMIT) as client:
                waiting = client.bind("echo").text.begin()
                done = callport("keys", "allow", str(allowed), f"{theirs}.pub", "--name", "theirs")
                assert (done.returncode, done.stdout) == (0, f"{allowed}: added\n")
                assert waiting.result(LIMIT) == "plain"
        done = callport("keys", "allow", str(allowed), keys[theirs][0])
        assert (done.returncode, done.stdout) == (0, f"{allowed}: it is there already\n")
        assert len(allowed.read_text().splitlines()) == 2
        done = callport("keys", "allow", str(allowed), "nonsense")
        assert done.returncode == 2 and "nonsense cannot be read" in done.stderr
        before = allowed.read_text()
        done = callport("keys", "allow", str(allowed), "'" * 40)
        assert done.returncode == 2 and "must be 40 characters of Z85" in done.stderr
        assert allowed.read_text() == before, "a running server would refuse the whole file"
        done = callport("keys", "allow", str(allowed), Curve.new_keys()[0], "--name", "two\nlines")
        assert done.returncode == 0 and allowed.read_text().endswith(" two lines\n")


class TestThePage:
    """The commands on the page of the command line."""

    @pytest.mark.parametrize("about", ["--server-key", "tls://"])
    def test_keys(self, tmp_path: Path, about: str) -> None:
        """Those about keys, and about certificates, do what they say, one after the other."""
        (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
        (tmp_path / "service.py").write_text(program, encoding="utf-8")
        for name, ours in (("words", "server"), ("billing", "client"), ("authority", "authority")):
            for ending in ("pem", "key"):
                shutil.copy(certificates.folder() / f"{ours}.pem", tmp_path / f"{name}.{ending}")
        (block,) = [block for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if about in block]
        called = 0
        for line in block.splitlines():
            _, command, *words = shlex.split(line, comments=True)
            if command == "serve":
                scheme = "tls" if "tls" in line else "tcp"
                service, where = serve(*words, "--bind", f"{scheme}://127.0.0.1:*", folder=tmp_path)
            elif command == "call":
                done = callport(command, where, *words[1:], folder=tmp_path)
                assert (done.returncode, done.stdout) == (0, '["fast","swift"]\n'), done.stderr
                called += 1
            else:
                assert callport(command, *words, folder=tmp_path).returncode == 0
        assert called == 1
        assert end(service) == (0, "")


def test_without_what_it_needs(tmp_path: Path) -> None:
    """Without its libraries it says what to install."""
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError(name='typer')")
    done = subprocess.run(
        COMMAND, capture_output=True, text=True, env={**ENVIRONMENT, "PYTHONPATH": f"{tmp_path}"}, timeout=LIMIT
    )
    assert done.returncode == 1 and "pip install 'callport[cli]'" in done.stderr


def test_version() -> None:
    """It says its version."""
    assert re.fullmatch(r"callport \d+\.\d+\.\d+\n", callport("--version").stdout)
