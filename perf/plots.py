"""The plots of the page: each takes a record and returns an SVG, or None if the record has nothing for it.

Drawn by matplotlib with the colours below, which the page replaces by CSS variables: so one SVG serves light
and dark. Text stays text. Axes of rates and times are logarithmic, and say so; where ratios are drawn, 1 is
marked.
"""

import io
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from perf.goals import verdicts
from perf.record import Record
from perf.scenario import lower_is_better, unit_of
from perf.terminal import spell

# Stand-ins for CSS variables; nothing else may have these colours.
INK, FAINT, GOOD, BAD = "#010101", "#020202", "#030303", "#040404"
SERIES = [f"#0500{turn:02x}" for turn in range(8)]
VARIABLES = {INK: "ink", FAINT: "faint", GOOD: "good", BAD: "bad"} | {
    colour: f"series-{turn}" for turn, colour in enumerate(SERIES)
}
WIDTH = 7.6  # Inches, which the page scales to its column.

# The same subject has the same colour in every plot.
COLOURS = {"engine": SERIES[0], "raw-zmq": SERIES[1], "engine-loopback": SERIES[2], "engine-array": SERIES[3]}

STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}

Plot = Callable[[Record], str | None]


def finish(figure: Any, name: str) -> str:
    """Return a figure as an SVG element that takes its colours from CSS."""
    buffer = io.StringIO()
    # Names inside an SVG are global to the page: the salt keeps those of two plots apart.
    with plt.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", svg)
    svg = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", svg)
    svg = re.sub(r'id="((?:figure|axes|patch|text|line2d|matplotlib|xtick|ytick|legend)[^"]*)"', "", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg.replace("<svg", f'<svg role="img" aria-label="{name}"', 1)


def canvas(height: float, columns: int = 1) -> tuple[Any, Any]:
    """Return a figure and its axes."""
    return plt.subplots(1, columns, figsize=(WIDTH, height), layout="constrained")


def plain(axis: Any) -> None:
    """Label a logarithmic axis with plain numbers, at 1, 2, 5 where there is room for them."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 200 else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, place: compact(value)))
    axis.set_minor_formatter(NullFormatter())


def compact(value: float) -> str:
    """Write a figure for an axis: 200, 20 k, 2 M."""
    for unit, name in ((1e6, " M"), (1e3, " k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def series(record: Record, scenario: str, subject: str, pattern: str) -> list[tuple[float, float, float, float]]:
    """Return (x, median, lowest, highest) of all metrics that match, x being what the pattern catches."""
    points = []
    for result in record.results:
        if (result.scenario, result.subject) == (scenario, subject):
            match = re.fullmatch(pattern, result.metric)
            if match:
                points.append((float(match[1]), result.median, min(result.samples), max(result.samples)))
    return sorted(points)


def subjects(record: Record, scenario: str) -> list[str]:
    """Return the subjects that were measured."""
    return list(dict.fromkeys(result.subject for result in record.results if result.scenario == scenario))


def colour_of(subject: str, turn: int) -> str:
    """Return a subject's colour."""
    return COLOURS.get(subject, SERIES[turn % len(SERIES)])


def lines(axes: Any, points: Sequence[tuple[float, float, float, float]], colour: str, **style: Any) -> None:
    """Draw a line through medians, in a band from lowest to highest."""
    x, middle, low, high = zip(*points, strict=True)
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(x, middle, color=colour, marker="o", markersize=4, **style)


def throughput(record: Record, scenario: str = "throughput") -> str | None:
    """Calls a second over outstanding calls, and processor time a call."""
    found = {subject: series(record, scenario, subject, r"calls_per_s_(\d+)") for subject in subjects(record, scenario)}
    if not found:
        return None
    figure, (left, right) = canvas(3.4, 2)
    for turn, (subject, points) in enumerate(found.items()):
        lines(left, points, colour_of(subject, turn), label=subject)
        cost = series(record, scenario, subject, r"cpu_us_per_call_(\d+)")
        lines(right, cost, colour_of(subject, turn), label=subject)
    ticks = [int(point[0]) for point in next(iter(found.values()))]
    for axes, label in ((left, "calls a second"), (right, "processor time a call, us")):
        axes.set(xscale="log", yscale="log", xlabel="outstanding calls", ylabel=label)
        plain(axes.yaxis)
        axes.set_xticks(ticks, [str(tick) for tick in ticks], fontsize=9)
        axes.xaxis.set_minor_formatter(NullFormatter())
    left.legend()
    return finish(figure, f"{scenario} over outstanding calls")


def unix_peers(record: Record) -> str | None:
    """The same, with what one might write instead."""
    return throughput(record, "unix_peers")


def latency(record: Record) -> str | None:
    """Percentiles of the round trip."""
    found = {subject: series(record, "latency", subject, r"p([\d.]+)_us") for subject in subjects(record, "latency")}
    if not found:
        return None
    figure, axes = canvas(3.2)
    for turn, (subject, points) in enumerate(found.items()):
        places = [(place, *point[1:]) for place, point in enumerate(points)]
        lines(axes, places, colour_of(subject, turn), label=subject)
        axes.set_xticks(range(len(points)), [f"{point[0]:g} %" for point in points])
    axes.set(yscale="log", xlabel="of the calls take at most", ylabel="round trip, us")
    plain(axes.yaxis)
    axes.legend()
    return finish(figure, "latency percentiles")


def open_loop(record: Record) -> str | None:
    """Latency over the rate at which calls come."""
    names = subjects(record, "open_loop")
    if not names:
        return None
    figure, axes = canvas(3.4)
    for turn, subject in enumerate(names):
        for percent, style in (("50", "-"), ("99", "--"), ("99.9", ":")):
            points = series(record, "open_loop", subject, rf"p{re.escape(percent)}_us_at_(\d+)")
            if points:
                lines(axes, points, colour_of(subject, turn), linestyle=style, label=f"{subject}, {percent} %")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="calls that come in a second",
        ylabel="from intended start to answer, us",
    )
    plain(axes.xaxis)
    plain(axes.yaxis)
    axes.set_xticks(sorted({point[0] for point in series(record, "open_loop", names[0], r"p50_us_at_(\d+)")}))
    axes.legend(ncols=2)
    return finish(figure, "latency under load")


SIZES = {"16b": 16, "1kib": 1 << 10, "64kib": 1 << 16, "1mib": 1 << 20, "16mib": 1 << 24}


def payload(record: Record) -> str | None:
    """Bandwidth over payload size."""
    names = subjects(record, "payload")
    if not names:
        return None
    figure, axes = canvas(3.4)
    for turn, subject in enumerate(names):
        points = []
        for name, size in SIZES.items():
            result = record.find("payload", subject, f"mb_per_s_{name}")
            if result is not None:
                points.append((float(size), result.median, min(result.samples), max(result.samples)))
        lines(axes, points, colour_of(subject, turn), label=subject)
    axes.set(xscale="log", yscale="log", xlabel="payload", ylabel="MB a second, there and back")
    plain(axes.yaxis)
    axes.set_xticks(list(SIZES.values()), ["16 B", "1 KiB", "64 KiB", "1 MiB", "16 MiB"])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend()
    return finish(figure, "bandwidth over payload size")


Row = tuple[str, float, float, float, str]  # label, median, lowest, highest, colour


def beside(axes: Any, rows: Sequence[Row], label: str) -> Any:
    """Name the rows on the left, write their figures on the right; return their places."""
    places = range(len(rows), 0, -1)
    for place, row in zip(places, rows, strict=True):
        axes.annotate(
            spell(row[1]), (1, place), (8, 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", va="center", fontsize=9,
        )  # fmt: skip
    axes.set_yticks(list(places), [row[0] for row in rows])
    axes.set(xlabel=label, ylim=(0.3, len(rows) + 0.7))
    axes.grid(visible=False, axis="y")
    return places


def dots(rows: Sequence[Row], name: str, label: str, mark: float | None = None) -> str:
    """Draw rows on a logarithmic axis: a dot at the median, a bar from lowest to highest."""
    figure, axes = canvas(0.9 + 0.27 * len(rows))
    axes.set_xscale("log")
    for place, (_, middle, low, high, colour) in zip(beside(axes, rows, label), rows, strict=True):
        axes.plot([low, high], [place, place], color=colour, linewidth=4, alpha=0.35, solid_capstyle="round")
        axes.plot([middle], [place], "o", color=colour, markersize=6)
    if mark is not None:
        axes.axvline(mark, color=INK, linewidth=1)
    plain(axes.xaxis)
    return finish(figure, name)


def bars(rows: Sequence[Row], name: str, label: str) -> str:
    """Draw rows on an axis that begins at zero: a bar to the median, a line from lowest to highest."""
    figure, axes = canvas(0.9 + 0.32 * len(rows))
    for place, (_, middle, low, high, colour) in zip(beside(axes, rows, label), rows, strict=True):
        axes.barh(place, middle, height=0.6, color=colour, alpha=0.75)
        axes.plot([low, high], [place, place], color=INK, linewidth=1.2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, place: compact(value)))
    return finish(figure, name)


def goals(record: Record) -> str | None:
    """How far each goal is reached: a figure beside its floor, turned so that more is better."""
    rows: list[Row] = []
    for verdict in verdicts(record):
        goal = verdict.goal
        if verdict.missing:
            continue  # The table says why.
        values = [value / goal.floor for value in (verdict.median, verdict.low, verdict.high)]
        if goal.sense == "<=":
            values = [1 / max(value, 1e-3) for value in values]
        middle, *ends = values
        against = f" / {goal.against}" if goal.against else ""
        rows.append((f"{goal.sign} {goal.what}{against}", middle, min(ends), max(ends), GOOD if verdict.held else BAD))
    if not rows:
        return None
    return dots(rows, "goals", "how far reached (1 is the floor, further right is better)", 1.0)


def floor(record: Record) -> str | None:
    """The ratios to raw pyzmq, those first of which more is better."""
    shown = [
        (lower_is_better(unit_of(ratio.metric)), ratio)
        for ratio in record.ratios
        if (ratio.subject, ratio.against) == ("engine", "raw-zmq")
        and ratio.scenario in ("latency", "throughput", "payload")
    ]
    rows: list[Row] = []
    for less, ratio in sorted(shown, key=lambda entry: entry[0]):
        better = (ratio.median <= 1) if less else (ratio.median >= 1)
        label = f"{ratio.scenario} {ratio.metric}, {'less' if less else 'more'} is better"
        rows.append((label, ratio.median, ratio.low, ratio.high, GOOD if better else BAD))
    return dots(rows, "ratio to the floor", "engine / raw pyzmq (1 is as raw pyzmq)", 1.0) if rows else None


def rows_of(record: Record, scenario: str, metric: str) -> list[Row]:
    """Return a row for each subject of a scenario."""
    rows: list[Row] = []
    for subject in subjects(record, scenario):
        result = record.find(scenario, subject, metric)
        if result is not None:
            colour = SERIES[0] if subject == "engine" else SERIES[1]
            rows.append((subject, result.median, min(result.samples), max(result.samples), colour))
    return rows


def peers_rate(record: Record) -> str | None:
    """Calls a second, by library; they differ by hundreds, so the axis is logarithmic."""
    rows = rows_of(record, "peers", "calls_per_s_256")
    return dots(rows, "peers, rate", "calls a second, 256 outstanding, logarithmic") if rows else None


def peers_latency(record: Record) -> str | None:
    """Round trip, by library."""
    rows = rows_of(record, "peers", "p50_us")
    return bars(rows, "peers, round trip", "round trip, one call outstanding, us") if rows else None


def notify(record: Record) -> str | None:
    """Calls a second, by way of being notified."""
    rows = rows_of(record, "notify", "calls_per_s_256")
    return bars(rows, "notification", "calls a second, 256 outstanding") if rows else None


def threads(record: Record) -> str | None:
    """Calls a second, by client threads."""
    rows = rows_of(record, "threads", "calls_per_s")
    return bars(rows, "client threads", "calls a second, all threads together") if rows else None


# By scenario, in the order of the page; "" is the overview.
PLOTS: Iterable[tuple[str, Plot]] = (
    ("", goals),
    ("", floor),
    ("latency", latency),
    ("throughput", throughput),
    ("open_loop", open_loop),
    ("payload", payload),
    ("notify", notify),
    ("threads", threads),
    ("peers", peers_rate),
    ("peers", peers_latency),
    ("unix_peers", unix_peers),
)


def draw(record: Record) -> dict[str, list[str]]:
    """Return all plots that the record has figures for, by scenario."""
    drawn: dict[str, list[str]] = {}
    with plt.rc_context(STYLE):
        for scenario, plot in PLOTS:
            svg = plot(record)
            if svg is not None:
                drawn.setdefault(scenario, []).append(svg)
    return drawn
