"""The way of one request, as the architecture page draws it, is the way that a call takes."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from engine import Client, CompletionPort, WaitTimeout
from engine.testing import LIMIT, wait_until

from .traced import ROOT, Recorder

pytestmark = pytest.mark.untraced

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
# A client that stays awake for its answer calls these besides.
AWAKE = {"engine/kernel/driver.py Driver.spin_until", "engine/kernel/driver.py Driver._poll_awake"}
# How long a routine takes is learned now and then; while it is slow for being recorded, each time.
LEARNED = {"engine/pool/run_time.py RunTime.learn"}
# Constructors; what asks whether an event loop runs here, in programs that have asyncio; and what belongs to the test.
LEFT_OUT = ("__init__", "engine/kernel/loops.py", "tests/")
CALLS = 20  # In a row: fewer than a worker's turn is long.


def drawn(*heads: str) -> set[str]:
    """The functions that the page names in the tables below these heads."""
    found = set()
    for head in heads:
        section = re.split(r"^\*\*|^## ", PAGE.partition(head)[2], maxsplit=1, flags=re.MULTILINE)[0]
        for path, functions in re.findall(r"^\| `([\w/]+\.py)` \| (.*?) \|", section, re.MULTILINE):
            found |= {f"{path} {name}" for name in re.findall(r"`([\w.]+)`", functions)}
    return found


def on_the_way(called: list[str]) -> set[str]:
    return {each for each in called if not any(map(each.count, LEFT_OUT))}


@pytest.fixture
def traced(folder: Path) -> Iterator[Any]:
    """A binding of a server, in another process, that says what it has called."""
    endpoint = f"ipc://{folder}/traced"
    program = [sys.executable, "-m", "tests.rpc.traced", endpoint]
    with subprocess.Popen(program, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        with Client(endpoint, connect_timeout=LIMIT) as client:
            yield client.bind("traced")
        process.stdin.close()


@contextmanager
def recorded() -> Iterator[Recorder]:
    """Have what this thread calls noted."""
    recorder = Recorder()
    before = sys.getprofile()
    sys.setprofile(recorder)
    try:
        yield recorder
    finally:
        sys.setprofile(before)


def once(way: Callable[[], set[str]], expected: set[str]) -> None:
    """Some call takes just the expected way; others may be interrupted by ticks of the monitor, and by what is slow."""
    seen: list[set[str]] = []

    def taken() -> bool:
        seen.append(way())
        return seen[-1] == expected

    try:
        wait_until(taken)
    except WaitTimeout:
        assert min(seen, key=len) == expected


def test_at_the_server(traced: Any) -> None:
    """Between two routines of a client, one call after the other, the server calls what the page names."""

    def way() -> set[str]:
        for _ in range(CALLS):
            traced.echo(b"x")
        called = traced.called()
        # Several threads may have run some of them.
        begins = [index for index, each in enumerate(called) if each == "tests/rpc/traced.py Routines.echo"]
        ways = [on_the_way(called[begin:end]) for begin, end in pairwise(begins)]
        return min(ways, key=len, default=set(called)) - LEARNED

    once(way, drawn("**The server**"))


def test_at_the_client(traced: Any) -> None:
    """A call that is begun, waited for at a port and completed calls what the page names."""

    def way() -> set[str]:
        with recorded() as recorder:
            call = traced.echo.begin(b"x", notify=template)
            port.get()
            call.complete()
        return on_the_way(recorder.take()) - AWAKE

    with CompletionPort() as port:
        template = port.packet()
        once(way, drawn("**The client begins**", "**The client waits**") - AWAKE)
