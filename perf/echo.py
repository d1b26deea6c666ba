"""Worker functions that put one question to any subject's echo server.

Settings: `subject`, `endpoint`, `server_pid`, `seconds` for each figure, `size` of the payloads.
"""

import os
from time import perf_counter
from typing import Any

from perf.measure import CpuMeter, calibrated, family, payloads, spread_us
from perf.subject import load
from perf.worker import Control

FIRST_LATENCY = 200  # Calls that a warm-up begins with; a tenth of a second for the slowest subject.
FIRST_STREAM = 2000
MOST_CALLS = 400_000  # Bounds the memory for payloads.


def latency(settings: dict[str, Any], control: Control) -> dict[str, float]:
    """One call at a time: percentiles of the round trip, and processor time of both sides a call."""
    client = load(settings["subject"]).Client(settings["endpoint"])
    size = settings.get("size", 64)
    pool = payloads(MOST_CALLS // 4, size)
    count = calibrated(lambda count: client.one_by_one(pool[:count]), settings["seconds"], FIRST_LATENCY, len(pool))
    meter = CpuMeter(os.getpid(), *family(settings["server_pid"]))
    meter.start()
    times = client.one_by_one(pool[-count:])
    meter.stop()
    client.close()
    return spread_us(times) | {"cpu_us_per_call": meter.seconds / count * 1e6}


def throughput(settings: dict[str, Any], control: Control) -> dict[str, float]:
    """Windows of settings["outstanding"] calls each: calls a second, and processor time a call, of each side too."""
    client = load(settings["subject"]).Client(settings["endpoint"])
    pool = payloads(MOST_CALLS, settings.get("size", 64))
    meter = CpuMeter(os.getpid(), *family(settings["server_pid"]))
    figures = {}
    for done, width in enumerate(settings["outstanding"]):
        control.progress(done, len(settings["outstanding"]))
        count = calibrated(
            lambda count, width=width: client.stream(pool[:count], width),
            settings["seconds"],
            max(FIRST_STREAM, 4 * width),
            MOST_CALLS,
        )
        batch = pool[-count:]
        meter.start()
        start = perf_counter()
        client.stream(batch, width)
        took = perf_counter() - start
        client_seconds = meter.stop()[0]
        figures[f"calls_per_s_{width}"] = count / took
        figures[f"cpu_us_per_call_{width}"] = meter.seconds / count * 1e6
        figures[f"client_cpu_us_per_call_{width}"] = client_seconds / count * 1e6
        figures[f"server_cpu_us_per_call_{width}"] = (meter.seconds - client_seconds) / count * 1e6
    client.close()
    return figures
