"""Modules that are imported when they are first needed, where no Ctrl-C can halve them.

An interrupt amid an import leaves some of a package's modules behind, and pyzmq can then never be imported again in the
process. Signal handlers run in the main thread only: so another thread imports, and who asked waits for it.
"""

import sys
from importlib import import_module
from threading import Thread, current_thread, main_thread
from types import ModuleType

_whole: dict[str, ModuleType] = {}  # What was imported to its end. Guard: each use is a single step of the dict's.


def load(name: str) -> ModuleType:
    """Return the module of this full name, imported first if need be. Blocks meanwhile.

    An interrupt ends the wait, and not the import. Raises what the import raises.
    """
    module = _whole.get(name)
    if module is None:
        if current_thread() is not main_thread():
            module = _whole[name] = import_module(name)
            return module
        failed: list[BaseException] = []
        thread = Thread(target=_import, args=(name, failed), name=f"import-{name}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # No thread is to be had: better here than not at all.
            _import(name, failed)
        else:
            thread.join()
        if failed:
            raise failed[0]
        module = sys.modules[name]
    return module


def _import(name: str, failed: list[BaseException]) -> None:
    try:
        _whole[name] = import_module(name)
    except BaseException as error:  # Raised again where it was asked for.
        failed.append(error)
