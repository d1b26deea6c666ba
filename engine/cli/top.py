"""A server's figures, live: what comes and goes a second, what is open, what went wrong."""

from collections.abc import Iterator
from itertools import repeat
from typing import Any

import msgspec
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from engine import Client, SystemClock, sleep

from .output import console, print_json

clock: SystemClock = SystemClock()

RATES = {
    "calls in": "calls_in",
    "calls out": "calls_out",
    "messages in": "messages_in",
    "messages out": "messages_out",
    "faults": "faults",
    "refused": "refused",
    "garbage": "garbage_received",
}


def samples(client: Client, interval: float, count: int) -> Iterator[dict[str, Any]]:
    """Yield the statistics, every `interval` seconds, each with what was added a second; `count` of 0: for ever."""
    ask = client.bind("callport.Management").statistics
    before, then = ask(timeout=10), clock.monotonic()
    for _ in range(count) if count else repeat(None):
        sleep(interval)
        found, now = ask(timeout=10), clock.monotonic()
        past = max(now - then, 1e-9)
        rates = {f"{name}_per_s": round((found[name] - before[name]) / past, 1) for name in RATES.values()}
        yield found | rates
        before, then = found, now


def table(sample: dict[str, Any], endpoint: str) -> Group:
    """Draw one sample."""
    drawn = Table()
    drawn.add_column("")
    drawn.add_column("a second", justify="right")
    drawn.add_column("in all", justify="right")
    for label, name in RATES.items():
        drawn.add_row(label, f"{sample[f'{name}_per_s']:,.1f}", f"{sample[name]:,}")
    return Group(
        Text(f"{endpoint}: {sample['phase']}, {sample['active']} call{'' if sample['active'] == 1 else 's'} open"),
        drawn,
    )


def show(client: Client, interval: float, count: int, as_json: bool) -> None:
    """Print samples as they come."""
    if as_json:
        for sample in samples(client, interval, count):
            print_json(msgspec.to_builtins(sample))
        return
    if not console.is_terminal:
        for sample in samples(client, interval, count):
            console.print(table(sample, client.endpoint))
        return
    with Live(console=console, auto_refresh=False) as live:
        for sample in samples(client, interval, count):
            live.update(table(sample, client.endpoint), refresh=True)
