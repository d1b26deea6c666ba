"""Us over the native link: ZeroMQ's protocol on plain sockets, without its library and its threads."""

from typing import Any

from perf.subjects import engine
from perf.worker import Control

NOTE = "4 workers, the native link, replies collected through a completion port"


def missing() -> str | None:
    """We are always there."""
    return None


def serve(settings: dict[str, Any], control: Control) -> None:
    """Serve `Echo` where the other subjects would."""
    engine.serve({**settings, "endpoint": f"native+{settings['endpoint']}"}, control)


Client = engine.Client
