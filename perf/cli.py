"""The command line: `python -m perf list | run | compare | report | profile`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from perf import compare, goals, runner, scenario
from perf import record as records
from perf.best import best_peers
from perf.children import ChildFailed
from perf.lab import EFFORTS
from perf.terminal import Bars, best_table, change_table, goal_table

FOLDER = Path("perf-report")  # Below the current folder.
RECORD = "latest.json"
PIPE_WIDTH = 140  # Columns of tables that go to a file or a log.


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
    effort.add_argument("--full", action="store_const", const="full", dest="effort", help="long runs and wide sweeps")
    run.add_argument("--out", type=Path, default=FOLDER, metavar="FOLDER", help="where it goes (default: %(default)s)")
    run.add_argument("--json", type=Path, metavar="FILE", help="save the record here too")
    run.add_argument(
        "--rounds", type=int, metavar="N", help="pairs of runs, instead of what each scenario takes for right"
    )
    run.add_argument("--transport", choices=("ipc", "tcp"), default="ipc", help="between the processes (default: ipc)")

    compare = commands.add_parser("compare", help="say what changed between two records, and what may be noise")
    compare.add_argument("before", type=Path, metavar="A.json")
    compare.add_argument("after", type=Path, metavar="B.json")

    report = commands.add_parser("report", help="write the HTML page of a record")
    report.add_argument(
        "record", type=Path, nargs="?", default=FOLDER / RECORD, metavar="FILE", help="default: %(default)s"
    )
    report.add_argument("--out", type=Path, metavar="PAGE", help="default: index.html beside the record")

    profile = commands.add_parser("profile", help="show where the time of a scenario goes (py-spy)")
    profile.add_argument("name", metavar="NAME")
    profile.add_argument("--subject", default="engine", help="default: engine")
    profile.add_argument("--out", type=Path, default=FOLDER, metavar="FOLDER", help="default: %(default)s")
    profile.add_argument("--native", action="store_true", help="show C frames too")
    return main


def main(argv: Sequence[str]) -> int:
    """Run one command; return the exit code."""
    options = parser().parse_args(argv)
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPE_WIDTH)
    try:
        return COMMANDS[options.command](options, console)
    except ChildFailed as error:
        console.print("[bold red]failed[/bold red]", end=" ")
        console.print("\n".join([str(error), *getattr(error, "__notes__", ())]), markup=False, highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2


def _list(options: argparse.Namespace, console: Console) -> int:
    table = Table("scenario", "question", "subjects", box=None)
    for name in scenario.names():
        found = scenario.load(name)
        table.add_row(name, scenario.question(found), ", ".join(found.subjects))
    console.print(table)
    return 0


def _run(options: argparse.Namespace, console: Console) -> int:
    effort = EFFORTS[options.effort or "normal"]
    if options.rounds is not None and options.rounds < 1:
        raise ValueError("--rounds takes a number of 1 or more")
    chosen = [_scenario(name) for name in options.names or scenario.names()]
    if not options.names:
        chosen = [found for found in chosen if effort.pick(*found.default)]
    saved = options.out / RECORD
    paths = [saved] if options.json is None else [saved, options.json]
    for path in paths:  # Now, rather than after minutes of measuring.
        try:
            records.check_writable(path)
        except OSError as error:
            raise ValueError(f"{path} cannot be written ({error.strerror}): say where by --out or --json") from None
    with Bars(console) as bars:
        record = runner.run(chosen, effort, bars, options.transport, options.rounds)
    console.print(goal_table(goals.verdicts(record)))
    if best := best_peers(record):
        console.print(best_table(best))
    for path in paths:
        records.save(record, path)
    console.print(f"saved {saved}; as a page: python -m perf report {saved}")
    return 0


def _scenario(name: str) -> scenario.Scenario:
    if "." not in name and name not in scenario.names():
        raise ValueError(f"no scenario {name!r}; there are {', '.join(scenario.names())}")
    return scenario.load(name)


def _compare(options: argparse.Namespace, console: Console) -> int:
    changes = compare.compare(records.read(options.before), records.read(options.after))
    if not changes:
        raise ValueError("the two records have nothing in common")
    console.print(change_table(changes))
    return 0


def _report(options: argparse.Namespace, console: Console) -> int:
    from perf.page import write  # Loads the plotting library, which nothing else needs.

    page = options.out or options.record.with_name("index.html")
    write(records.read(options.record), page)
    console.print(f"wrote {page}")
    return 0


def _profile(options: argparse.Namespace, console: Console) -> int:
    from perf.profile import profile

    return profile(_scenario(options.name), options.subject, options.native, options.out / "profile", console)


COMMANDS = {"list": _list, "run": _run, "compare": _compare, "report": _report, "profile": _profile}
