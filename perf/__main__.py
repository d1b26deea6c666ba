"""`python -m perf`: the command line, and the entry of the processes that it starts."""

import sys
from importlib.util import find_spec

EXTRA = ("matplotlib", "rich")  # What the extra `perf` installs, by the names that are imported.


def missing() -> str:
    """Say how to install what the harness needs, if it is not installed."""
    absent = ", ".join(name for name in EXTRA if find_spec(name) is None)
    return f"the harness needs {absent}: pip install 'callport[perf]'" if absent else ""


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        # Apart from the command line: a measuring process must not load what draws tables.
        from perf.worker import main
    elif why := missing():
        sys.exit(why)
    else:
        from perf.cli import main
    sys.exit(main(sys.argv[1:]))
