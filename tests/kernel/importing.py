"""A wait at each step of the import of asyncio and trio, as of a thread that waits while another one imports them.

`python -m tests.kernel.importing`; prints at how many steps it waited.
"""

import sys
from importlib.abc import MetaPathFinder
from typing import Any

from engine import Event

event = Event()
steps: list[str] = []


class Waiting(MetaPathFinder):
    """Finds nothing, and waits at what is looked for."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        event.wait(0.0001)
        if name.startswith(("asyncio.", "trio.")):
            steps.append(name)


if __name__ == "__main__":
    assert "asyncio" not in sys.modules
    sys.meta_path.insert(0, Waiting())
    import asyncio  # noqa: F401  # that is what it is about

    try:
        import trio  # noqa: F401  # likewise
    except ImportError:
        pass
    event.close()
    print(len(steps))
