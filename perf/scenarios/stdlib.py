"""The main job: how fast does a service work through the source of Python's standard library?

Unit: files a second, MB a second, and seconds for all of it; a file goes in as bytes, and a count of tokens,
a count of lines and a SHA-256 come back as a typed reply. The service has 4 workers in a process of its own;
the client keeps hundreds of calls outstanding and collects the replies through a completion port. Beside it,
the same function called in a plain loop: the work itself, without any call.

What would make it wrong: a reply that is not compared with the local computation (each is, value by value), a
file that is skipped (one that does not tokenise is counted up to its error, alike on both sides), files read
from a cold disk (all are read before the clock starts). Tokenising holds the interpreter's lock, so 4 workers
are no faster than one: the ratio tells what calling costs, not what parallelism brings.
"""

import hashlib
import io
import os
import sysconfig
import tokenize
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec

from engine import Client, CompletionPort, Interface, operation
from perf.lab import Lab
from perf.measure import ANSWER_TIMEOUT, CpuMeter, WrongAnswer
from perf.scenario import NATIVE, TLS, Against, Figures, Scenario, over_links
from perf.subjects.engine import serve_until_end
from perf.worker import Control

WORKERS = 4
OUTSTANDING = 256
# Every n-th file, by effort: a quick run takes real files too, only fewer of them.
STRIDES = {"quick": 4, "normal": 2, "full": 1}


class Facts(msgspec.Struct):
    """What is to be known of a source file. `error` names what ended the counting early, if anything."""

    tokens: int
    lines: int
    sha256: str
    error: str = ""


class Library(Interface, id="perf.Library"):
    """The service."""

    @operation
    def examine(self, source: bytes) -> Facts:
        """Return the facts of a source file."""


def examine(source: bytes) -> Facts:
    """Return the facts of a source file."""
    tokens, error = 0, ""
    try:
        for _ in tokenize.tokenize(io.BytesIO(source).readline):
            tokens += 1
    except (tokenize.TokenError, SyntaxError, ValueError) as failure:
        error = type(failure).__name__
    return Facts(tokens, source.count(b"\n"), hashlib.sha256(source).hexdigest(), error)


class LibraryService:
    """It, served."""

    def examine(self, source: bytes) -> Facts:
        """Return the facts of a source file."""
        return examine(source)


def sources(stride: int) -> list[tuple[str, bytes]]:
    """Return (path, contents) of every `stride`-th file of the running interpreter's standard library."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = sorted(path for path in root.rglob("*.py") if "site-packages" not in path.parts)
    return [(str(path.relative_to(root)), path.read_bytes()) for path in paths[::stride]]


def figures(count: int, size: int, took: float) -> dict[str, float]:
    """Return the metrics of `count` files of `size` bytes altogether."""
    return {"files_per_s": count / took, "mb_per_s": size / 1e6 / took, "wall_s": took}


def local(settings: dict[str, Any], control: Control) -> dict[str, float]:
    """Worker function: examine all files in a plain loop, and leave the facts to compare with."""
    files = sources(settings["stride"])
    facts = []
    start = perf_counter()
    for done, (_, source) in enumerate(files):
        control.progress(done, len(files))
        facts.append(examine(source))
    took = perf_counter() - start
    Path(settings["facts"]).write_bytes(msgspec.json.encode(facts))
    return figures(len(files), sum(len(source) for _, source in files), took)


def serve(settings: dict[str, Any], control: Control) -> None:
    """Worker function: the service."""
    serve_until_end(settings, control, {Library: LibraryService()}, workers=WORKERS)


def call(settings: dict[str, Any], control: Control) -> dict[str, float]:
    """Worker function: the client."""
    files = sources(settings["stride"])
    expected = msgspec.json.decode(Path(settings["facts"]).read_bytes(), type=list[Facts])
    if len(expected) != len(files):
        raise WrongAnswer(f"{len(expected)} facts for {len(files)} files")
    meter = CpuMeter(os.getpid(), settings["server_pid"])
    with Client(settings["endpoint"]) as client, CompletionPort() as port:
        library = client.bind(Library)
        library.examine(b"")  # Connects, which is no file's fault.

        def begin(turns: Iterator[int]) -> None:
            for turn in turns:
                library.examine.begin(files[turn][1], notify=port.packet(key=turn))

        turns = iter(range(len(files)))
        done = 0
        meter.start()
        start = perf_counter()
        begin(islice(turns, OUTSTANDING))
        while done < len(files):
            packets = port.get_many(OUTSTANDING, ANSWER_TIMEOUT)
            for packet in packets:
                facts = packet.overlapped.complete()
                if facts != expected[packet.key]:
                    raise WrongAnswer(f"{files[packet.key][0]}: {facts} instead of {expected[packet.key]}")
            done += len(packets)
            begin(islice(turns, len(packets)))
            control.progress(done, len(files))
        took = perf_counter() - start
        meter.stop()
    size = sum(len(source) for _, source in files)
    return figures(len(files), size, took) | {"cpu_us_per_call": meter.seconds / len(files) * 1e6}


def run(lab: Lab, subject: str) -> Figures:
    """Measure one subject once."""
    # The first round begins with the plain loop, and so the facts are there for the calls of every round.
    settings: dict[str, Any] = {"stride": STRIDES[lab.effort.name], "facts": str(lab.scratch / "facts.json")}
    measured: Figures
    if subject == "plain-loop":
        measured = lab.measure(f"{__name__}:local", **settings)
    else:
        with lab.server(f"{__name__}:serve") as server:
            measured = lab.measure(f"{__name__}:call", server, **settings)
    return measured


SCENARIO = Scenario(
    name="stdlib",
    run=over_links(run),
    subjects=("plain-loop", "engine", NATIVE, TLS),
    ratios=(Against("engine", "plain-loop"), Against(NATIVE, "engine"), Against(TLS, "engine")),
    rounds=(1, 3, 3),
    default=(True, True, True),
)
