"""The HTML page of a record: one file that fetches nothing, light or dark as the reader's system is set."""

from html import escape
from pathlib import Path

from perf import plots, scenario
from perf.best import best_peers
from perf.goals import verdicts
from perf.record import Ratio, Record, Result
from perf.terminal import spell

INTRODUCTION = """
Every answer was compared with what was sent. Each figure is the median of several runs in fresh processes;
subjects take turns, and a ratio is formed run by run, so that what the machine does to both cancels out. Bars
and bands reach from the lowest run to the highest. Ratios are always ours divided by theirs.
"""

MOST_ROWS = 16  # A longer table than this is folded up.
STYLE = Path(__file__).with_name("page.css")


def write(record: Record, path: Path) -> None:
    """Write the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(record), encoding="utf-8")


def page(record: Record) -> str:
    """Return the page."""
    drawn = plots.draw(record)
    names = list(dict.fromkeys(result.scenario for result in record.results))
    sections = "".join(section(record, name, drawn.get(name, [])) for name in names)
    links = " ".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name in names)
    machine, versions = record.machine, record.versions
    origin = ", ".join(
        (
            str(record.settings.get("started", "")),
            f"{record.settings.get('effort', '')} run",
            str(machine.get("processor", "")),
            f"{machine.get('cores', '?')} cores",
            f"Python {versions.get('python', '?')}",
            f"pyzmq {versions.get('pyzmq', '?')}",
        )
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>callport: performance</title>
<style>{STYLE.read_text()}</style>
</head>
<body>
<main>
<h1>callport: performance</h1>
<p class="soft">{escape(origin)}</p>
{tiles(record)}
<p>{INTRODUCTION}</p>
<nav>{links}</nav>
<h2>Overview</h2>
{figures(drawn.get("", []))}
{goal_table(record)}
{best_table(record)}
{sections}
<h2>Machine, versions, settings</h2>
{definitions(record.machine)}{definitions(record.versions)}{definitions(record.settings)}
</main>
</body>
</html>
"""


def tiles(record: Record) -> str:
    """Return the headline figures."""
    shown = []
    for metric, scenario_name, what in (
        ("p50_us", "latency", "raw pyzmq's round trip"),
        ("calls_per_s_256", "throughput", "raw pyzmq's calls a second, 256 outstanding"),
    ):
        ratio = record.find_ratio(scenario_name, metric, "engine", "raw-zmq")
        ours = record.find(scenario_name, "engine", metric)
        if ratio is not None and ours is not None:
            shown.append((f"{spell(ratio.median)} x", f"{what}; ours: {spell(ours.median)} {ours.unit}"))
    work = record.find("stdlib", "engine", "files_per_s")
    if work is not None:
        shown.append((f"{spell(work.median)} /s", "source files of the standard library examined by the service"))
    judged = [verdict for verdict in verdicts(record) if not verdict.missing]
    if judged:
        shown.append((f"{sum(verdict.held for verdict in judged)} of {len(judged)}", "goals held"))
    cards = "".join(f'<div class="tile"><b>{escape(figure)}</b>{escape(what)}</div>' for figure, what in shown)
    return f'<div class="tiles">{cards}</div>'


def figures(svgs: list[str]) -> str:
    """Return plots."""
    return "".join(f"<figure>{svg}</figure>" for svg in svgs)


def section(record: Record, name: str, svgs: list[str]) -> str:
    """Return a scenario's question, plots and table."""
    question, detail = asked(name)
    missing = [entry for entry in record.missing if entry.scenario == name]
    lacking = "".join(
        f'<p class="soft">Missing: {escape(entry.subject)} ({escape(entry.reason)})</p>' for entry in missing
    )
    about = f"<details><summary>How it is measured, and what would make it wrong</summary>{detail}</details>"
    return (
        f'<h2 id="{escape(name)}">{escape(name)}</h2><p>{escape(question)}</p>{about if detail else ""}'
        f"{figures(svgs)}{lacking}{outstanding_table(record, name)}{result_table(record, name, bool(svgs))}"
    )


def outstanding_table(record: Record, name: str) -> str:
    """Return the medians of a scenario with a column for each number of outstanding calls, if it asks for that."""
    try:
        if not scenario.load(name).by_outstanding:
            return ""
    except ImportError:
        return ""  # As below.
    numbers, rows = record.by_outstanding(name)
    lines = [
        f"<tr><td>{escape(subject)}</td><td>{metric}</td>"
        + "".join(f"<td class='n'>{spell(medians[n]) if n in medians else ''}</td>" for n in numbers)
        + "</tr>"
        for (subject, metric), medians in rows.items()
    ]
    head = "<th>by outstanding calls</th><th></th>" + "".join(f'<th class="n">{number}</th>' for number in numbers)
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


def asked(name: str) -> tuple[str, str]:
    """Return a scenario's question, and the rest of what it says of itself, as paragraphs."""
    try:
        text = scenario.description(scenario.load(name))
    except ImportError:
        return "", ""  # A record from elsewhere, of a scenario that is not here.
    first, _, rest = text.partition("\n\n")
    return first, "".join(f"<p><small>{escape(part)}</small></p>" for part in rest.split("\n\n") if part)


def result_table(record: Record, name: str, drawn: bool) -> str:
    """Return all figures of a scenario; folded up if they are many and the plots show them."""
    results = [result for result in record.results if result.scenario == name]
    rows = []
    for metric in dict.fromkeys(result.metric for result in results):
        for turn, result in enumerate(result for result in results if result.metric == metric):
            ratios = [
                ratio
                for ratio in record.ratios
                if (ratio.scenario, ratio.metric, ratio.subject) == (name, metric, result.subject)
            ]
            rows.append(result_row("" if turn else metric, result, ratios))
    table = (
        '<div class="scroll"><table><tr><th></th><th></th>'
        '<th class="n">median</th><th class="n">lowest - highest</th>'
        f"<th></th><th>ours / theirs</th></tr>{''.join(rows)}</table></div>"
    )
    if len(rows) > MOST_ROWS and (drawn or outstanding_table(record, name)):
        return f"<details><summary>All {len(rows)} figures</summary>{table}</details>"
    return table


def result_row(metric: str, result: Result, ratios: list[Ratio]) -> str:
    """Return one row."""
    beside = "<br>".join(
        f"<b>{spell(ratio.median)}</b> x {escape(ratio.against)} "
        f'<span class="soft">{spell(ratio.low)} - {spell(ratio.high)}</span>'
        for ratio in ratios
    )
    return (
        f"<tr><td>{escape(metric)}</td><td>{escape(result.subject)}</td>"
        f"<td class='n'>{spell(result.median)}</td>"
        f"<td class='n soft'>{spell(min(result.samples))} - {spell(max(result.samples))}</td>"
        f"<td class='soft'>{escape(result.unit)}</td><td>{beside}</td></tr>"
    )


def goal_table(record: Record) -> str:
    """Return the goals: floor, aim, figure, and whether the floor is held."""
    rows = []
    for verdict in verdicts(record):
        goal = verdict.goal
        kind = {"held": "good", "missed": "bad", "missing": "soft"}[verdict.word]
        beside = f" x {escape(goal.against)}" if goal.against else ""
        aim = "" if goal.aim is None else spell(goal.aim)
        figure = (
            f"<td colspan='2' class='soft'>{escape(verdict.missing)}</td>"
            if verdict.missing
            else f"<td class='n'><b>{spell(verdict.median)}</b></td>"
            f"<td class='n soft'>{spell(verdict.low)} - {spell(verdict.high)}</td>"
        )
        rows.append(
            f'<tr><td class="{kind}">{verdict.word}</td><td>{goal.sign}</td><td>{escape(goal.what)}</td>'
            f"<td class='n'>{escape(goal.sense)} {spell(goal.floor)}{beside}</td>"
            f"<td class='n {'good' if verdict.aim_reached else ''}'>{aim}</td>{figure}</tr>"
        )
    if not rows:
        return ""
    return (
        '<details><summary>Goals as a table</summary><div class="scroll"><table>'
        '<tr><th></th><th></th><th></th><th class="n">floor</th><th class="n">aim</th><th class="n">median</th>'
        '<th class="n">lowest - highest</th></tr>'
        f"{''.join(rows)}</table></div></details>"
    )


def best_table(record: Record) -> str:
    """Return ours against the best peer, at each number of outstanding calls."""
    rows = [
        f"<tr><td>{row.scenario}</td><td class='n'>{row.outstanding}</td><td class='n'>{spell(row.ours)}</td>"
        f"<td>{escape(row.ratio.against)}</td><td class='n'>{spell(row.theirs)}</td>"
        f"<td class='n'><b>{spell(row.ratio.median)}</b></td>"
        f"<td class='n soft'>{spell(row.ratio.low)} - {spell(row.ratio.high)}</td>"
        f"<td class='n'>{spell(row.floor.median) if row.floor else ''}</td></tr>"
        for row in best_peers(record)
    ]
    if not rows:
        return ""
    return (
        '<h3>Ours and the best peer, calls a second</h3><div class="scroll"><table>'
        '<tr><th></th><th class="n">outstanding</th><th class="n">ours</th><th>best peer</th><th class="n">theirs</th>'
        '<th class="n">ours / theirs</th><th class="n">lowest - highest</th><th class="n">ours / floor</th></tr>'
        f"{''.join(rows)}</table></div>"
    )


def definitions(entries: dict[str, str] | dict[str, str | int | float]) -> str:
    """Return names and values."""
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in entries.items()) + "</dl>"
