"""Runs a function of `poll_sets.py` in a process where functions of `select` are missing, as on other platforms.

python -m tests.transport.lacking NAME FOLDER MISSING...
"""

import faulthandler
import importlib
import select
import sys


def main(name: str, folder: str, *missing: str) -> None:
    faulthandler.dump_traceback_later(100, exit=True)
    for each in missing:
        delattr(select, each)
    getattr(importlib.import_module("tests.transport.poll_sets"), name)(folder)  # Imported now that they are gone.


if __name__ == "__main__":
    main(*sys.argv[1:])
