"""`python -m perf`: the command line, and the entry of the processes that it starts."""

import sys

if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        # Apart from the command line: a measuring process must not load what draws tables.
        from perf.worker import main
    else:
        from perf.cli import main
    sys.exit(main(sys.argv[1:]))
