"""What is shown in the terminal: progress bars while something runs, tables when it is done."""

import math
from collections.abc import Iterable
from types import TracebackType
from typing import Literal, Self

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from perf.best import Best
from perf.compare import Change
from perf.goals import Verdict
from perf.record import Record
from perf.scenario import Scenario

REFRESH = 2  # A second: drawing must not take from the cores that are being measured.


def spell(value: float) -> str:
    """Write a figure with three significant digits, and thousands apart."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


class Bars:
    """A bar for each scenario that runs, then its table. A context manager, and a `Watcher`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.fields[name]:<12}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[subject]:<14}"), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(),
            console=console, refresh_per_second=REFRESH, transient=True,
        )  # fmt: skip
        self._task: TaskID | None = None

    def begin(self, scenario: Scenario, steps: int) -> None:
        """Draw an empty bar; where nothing can be drawn, say that it starts."""
        self._task = self._progress.add_task("", name=scenario.name, subject="", total=steps)
        if not self._console.is_terminal:
            self._console.print(f"{scenario.name}: {steps} runs ...")

    def step(self, scenario: Scenario, subject: str, done: float) -> None:
        """Move the bar."""
        assert self._task is not None
        self._progress.update(self._task, completed=round(done, 2), subject=subject)

    def end(self, scenario: Scenario, record: Record) -> None:
        """Replace the bar by the table."""
        assert self._task is not None
        self._progress.remove_task(self._task)
        self._task = None
        if scenario.by_outstanding:
            self._console.print(outstanding_table(record, scenario.name))
        else:
            self._console.print(scenario_table(record, scenario.name, scenario.headline))

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


def _add_texts(table: Table, *headings: str, justify: Literal["left", "right"] = "left") -> None:
    """Add columns of words: where the terminal is narrow they are folded, so that no figure is cut off."""
    for heading in headings:
        table.add_column(heading, justify=justify, overflow="fold")


def goal_table(verdicts: Iterable[Verdict]) -> Table:
    """Return the table of goals: floor, aim, figure, and whether the floor is held; an aim that is reached is green."""
    table = Table(title="[bold]goals[/bold]", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("", no_wrap=True)
    _add_texts(table, "", "")
    _add_texts(table, "floor", "aim", justify="right")
    table.add_column("median", justify="right", no_wrap=True)
    table.add_column("lowest - highest", justify="right", no_wrap=True)
    for verdict in verdicts:
        goal = verdict.goal
        colour = {"held": "green", "missed": "red", "missing": "yellow"}[verdict.word]
        unit = f" x {goal.against}" if goal.against else ""
        aim = "" if goal.aim is None else spell(goal.aim)
        what = goal.what if not verdict.missing else f"{goal.what} [dim]({escape(verdict.missing)})[/dim]"
        table.add_row(
            f"[{colour}]{verdict.word}[/{colour}]", goal.sign, what, f"{goal.sense} {spell(goal.floor)}{unit}",
            f"[green]{aim}[/green]" if verdict.aim_reached else aim,
            f"[bold]{spell(verdict.median)}[/bold]" if not verdict.missing else "",
            f"[dim]{spell(verdict.low)} - {spell(verdict.high)}[/dim]" if not verdict.missing else "",
        )  # fmt: skip
    return table


def best_table(rows: Iterable[Best]) -> Table:
    """Return the table of ours against the best peer."""
    table = Table(
        title="[bold]ours and the best peer[/bold]", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1)
    )
    _add_texts(table, "")
    table.add_column("outstanding", justify="right", no_wrap=True)
    table.add_column("ours, 1/s", justify="right", no_wrap=True)
    table.add_column("theirs", justify="right", no_wrap=True)
    _add_texts(table, "best peer", "ours / theirs", "ours / floor")
    for row in rows:
        table.add_row(
            row.scenario, str(row.outstanding), spell(row.ours), spell(row.theirs), row.ratio.against,
            f"[bold]{spell(row.ratio.median)}[/bold] [dim]{spell(row.ratio.low)} - {spell(row.ratio.high)}[/dim]",
            spell(row.floor.median) if row.floor else "",
        )  # fmt: skip
    return table


def change_table(changes: Iterable[Change]) -> Table:
    """Return the table of a comparison: what changed stands out, what may be noise does not."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    _add_texts(table, "", "", "")
    for heading in ("before", "after", "factor", "p"):
        table.add_column(heading, justify="right", no_wrap=True)
    _add_texts(table, "")
    for change in changes:
        colour = {"faster": "green", "less": "green", "slower": "red", "more": "red"}.get(change.word, "dim")
        name = f"{change.subject} / {change.against}" if change.against else change.subject
        table.add_row(
            change.scenario, change.metric, name, spell(change.before), spell(change.after),
            f"{change.factor:.3f}", f"{change.p:.3f}", f"[{colour}]{change.word}[/{colour}]",
        )  # fmt: skip
    return table


def scenario_table(record: Record, scenario: str, headline: Iterable[str] = ()) -> Table:
    """Return the table of one scenario: metric by metric, a row for each subject, beside it its ratios."""
    results = [result for result in record.results if result.scenario == scenario]
    shown = set(headline)
    metrics = [m for m in dict.fromkeys(result.metric for result in results) if not shown or m in shown]
    rounds = record.settings.get(f"{scenario}_rounds", "?")
    table = Table(
        title=f"[bold]{scenario}[/bold], median of {rounds}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
        collapse_padding=True,
    )
    _add_texts(table, "", "")
    table.add_column("median", justify="right", no_wrap=True)
    table.add_column("lowest - highest", justify="right", no_wrap=True)
    _add_texts(table, "ours / theirs")
    for metric in metrics:
        for row, result in enumerate(r for r in results if r.metric == metric):
            ratios = [
                f"[bold]{spell(r.median)}[/bold] x {r.against} [dim]{spell(r.low)} - {spell(r.high)}[/dim]"
                for r in record.ratios
                if (r.scenario, r.metric, r.subject) == (scenario, metric, result.subject)
            ]
            table.add_row(
                "" if row else metric, result.subject, spell(result.median),
                f"[dim]{spell(min(result.samples))} - {spell(max(result.samples))}[/dim]", "\n".join(ratios),
            )  # fmt: skip
        table.add_section()
    _add_missing(table, record, scenario)
    return table


def _add_missing(table: Table, record: Record, scenario: str) -> None:
    for missing in record.missing:
        if missing.scenario == scenario:
            table.add_row("missing", f"[dim]{missing.subject}[/dim]", f"[dim]{escape(missing.reason)}[/dim]")


def outstanding_table(record: Record, scenario: str) -> Table:
    """Return the medians of a scenario, a column for each number of outstanding calls."""
    numbers, rows = record.by_outstanding(scenario)
    rounds = record.settings.get(f"{scenario}_rounds", "?")
    table = Table(
        title=f"[bold]{scenario}[/bold], median of {rounds}, by outstanding calls",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
    )
    _add_texts(table, "", "")
    for number in numbers:
        table.add_column(str(number), justify="right", no_wrap=True)
    before = ""
    for (subject, metric), medians in rows.items():
        if before and subject != before:
            table.add_section()
        cells = [spell(medians[number]) if number in medians else "" for number in numbers]
        table.add_row("" if subject == before else subject, metric, *cells)
        before = subject
    _add_missing(table, record, scenario)
    return table
