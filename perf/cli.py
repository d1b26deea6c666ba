"""The command line: `python -m perf list | run | compare | report | profile`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from perf import record as records
from perf import runner, scenario
from perf.children import ChildFailed
from perf.lab import EFFORTS
from perf.terminal import Bars

RECORD = Path(__file__).parent / "report" / "latest.json"
PIPE_WIDTH = 110  # Columns of tables that go to a file or a log.
PAGE = RECORD.with_name("index.html")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    main = argparse.ArgumentParser(
        prog="python -m perf", description="Measure the engine beside the floor and its peers."
    )
    commands = main.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="list the scenarios, each with its question")

    run = commands.add_parser("run", help="run scenarios, print tables, save the record")
    run.add_argument(
        "names", nargs="*", metavar="NAME", help="scenarios; without any, those that the effort stands for"
    )
    effort = run.add_mutually_exclusive_group()
    effort.add_argument(
        "--quick", action="store_const", const="quick", dest="effort", help="short runs, under two minutes"
    )
    effort.add_argument(
        "--full", action="store_const", const="full", dest="effort", help="long runs and wide sweeps"
    )
    run.add_argument("--json", type=Path, metavar="FILE", help="save the record here too")
    run.add_argument(
        "--rounds", type=int, metavar="N", help="pairs of runs, instead of what each scenario takes for right"
    )
    run.add_argument(
        "--transport", choices=("ipc", "tcp"), default="ipc", help="between the processes (default: ipc)"
    )
    return main


def main(argv: Sequence[str]) -> int:
    """Run one command; return the exit code."""
    options = parser().parse_args(argv)
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPE_WIDTH)
    try:
        return {"list": _list, "run": _run}[options.command](options, console)
    except ChildFailed as error:
        console.print("[bold red]failed[/bold red]", end=" ")
        console.print(
            "\n".join([str(error), *getattr(error, "__notes__", ())]), markup=False, highlight=False
        )
        return 1
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130


def _list(options: argparse.Namespace, console: Console) -> int:
    table = Table("scenario", "question", "subjects", box=None)
    for name in scenario.names():
        found = scenario.load(name)
        table.add_row(name, scenario.question(found), ", ".join(found.subjects))
    console.print(table)
    return 0


def _run(options: argparse.Namespace, console: Console) -> int:
    effort = EFFORTS[options.effort or "normal"]
    known = scenario.names()
    unknown = [name for name in options.names if name not in known and "." not in name]
    if unknown:
        print(f"no scenario {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    if options.rounds is not None and options.rounds < 1:
        print("--rounds takes a number of 1 or more", file=sys.stderr)
        return 2
    chosen = [scenario.load(name) for name in options.names or known]
    if not options.names:
        chosen = [found for found in chosen if effort.pick(*found.default)]
    with Bars(console) as bars:
        record = runner.run(chosen, effort, bars, options.transport, options.rounds)
    for path in {RECORD, options.json} - {None}:
        records.save(record, path)
    return 0
