"""The page on security names each attack, what became of it, and tests that exist."""

import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine import Server
from engine.testing import LIMIT
from transport import LinkOptions, frames

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (T\d+) \|([^|]*)\|([^|]*)\|([^|]*)\|([^|]*)\|$", PAGE, re.MULTILINE)
STATES = {"cured", "expensive", "documented", "open"}


def test_each_attack_has_a_state() -> None:
    """There are twelve attacks, each of them in one of the states that the page explains."""
    assert [row[0] for row in ROWS] == [f"T{number}" for number in range(1, 13)]
    assert {row[2].strip() for row in ROWS} <= STATES
    assert {state for state in STATES if f"*{state}*" in PAGE} == STATES


def test_what_is_cured_has_a_test() -> None:
    """A cured attack has tests, and each test, class of tests or file of tests that the table names exists."""
    names = set()
    for path in ROOT.glob("tests/**/test_*.py"):
        names.add(path.name)
        names.update(re.findall(r"^ *(?:def|class) (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    for number, _, state, _, tests in ROWS:
        cited = set(re.findall(r"`([\w.]+)`", tests))
        assert cited <= names, number
        assert cited or state.strip() != "cured", number


def test_the_numbers_are_those_of_the_code() -> None:
    """The bounds that the page gives are the code's, and its options are the server's."""
    assert frames.MAX_BODY_BYTES == 1 << 20 and frames.MAX_GREETING_BYTES == 64 << 10
    assert str(frames.MAX_RECORDS) in PAGE and f"{frames.MAX_NAME} characters" in PAGE
    for option in ("max_body_bytes", "max_calls", "insecure", "fault_details"):
        assert f"`{option}" in PAGE and option in inspect.signature(Server).parameters
    options = LinkOptions()
    for option, size in (("max_queued_bytes", "128 MiB"), ("max_total_bytes", "256 MiB"), ("max_connections", "10000")):
        (row,) = re.findall(rf"^\| [^|]+ \| ([^|]+) \| `{option}` \|$", PAGE, re.MULTILINE)
        number, _, unit = size.partition(" ")
        assert row.startswith(size) and getattr(options, option) == int(number) << (20 if unit else 0)
    assert options.greeting_timeout == 10.0


def test_the_set_up_of_tls(tmp_path: Path) -> None:
    """The commands make certificates, with which the program's client calls its server, under the name that it says."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here")
    section = PAGE.partition("\n## TLS\n")[2]
    (commands,) = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    (program,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    done = subprocess.run(["sh", "-e"], input=commands, text=True, cwd=tmp_path, capture_output=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    here = program.replace("tls://localhost:5555", "tls://127.0.0.1:0", 1).replace(
        '"tls://localhost:5555"', 'server.endpoint.replace("127.0.0.1", "localhost")'
    )
    before = "def who(): return current_call().attributes().client_principal\nclass Routines: who = staticmethod(who)\n"
    serving = 'server.register("r", Routines()); server.listen()\n\ncontext = ssl.create'
    after = "with client: print(client.bind('r').who())\nserver.close()\n"
    text = "from engine import current_call\n" + before + here.replace("\ncontext = ssl.create", f"\n{serving}") + after
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text], text=True, cwd=tmp_path, capture_output=True, timeout=LIMIT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("spiffe://example/billing\n", "")
