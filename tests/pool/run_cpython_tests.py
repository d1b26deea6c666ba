"""Run CPython's own tests of thread pool executors, and of futures, with `engine.Executor` and its futures.

    python tests/pool/run_cpython_tests.py [names of test modules]

The tests are those of the running Python (its `test` package must be installed), unchanged. They begin from
`concurrent.futures.ThreadPoolExecutor`, so a subclass of ours by that name is put there first; the scripts that
the tests run in processes of their own get the same lines in front. The tests of futures make theirs by themselves:
they are given the class of ours. (One of them changes private fields of a future by hand, which ours notices only as
its time limit of half a minute ends.)
"""

import importlib
import sys
import unittest
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
MODULES = ("test_future", "test_thread_pool", "test_shutdown", "test_wait", "test_as_completed", "test_init")
SWAP = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import concurrent.futures
import engine
concurrent.futures.ThreadPoolExecutor = type("ThreadPoolExecutor", (engine.Executor,), {{}})
"""


def swap() -> None:
    """Put our class in the place of the standard one, here and in the processes that tests start."""
    exec(SWAP, {})
    # The engine's monitor thread belongs to the process; started now, it is not taken for one that a test left behind.
    import engine

    with engine.Executor(1) as executor:
        list(executor.map(int, range(9)))
        base = importlib.import_module("concurrent.futures._base")
        base.Future = type(executor.submit(int))  # type: ignore[attr-defined]  # what the tests make theirs of
    script_helper: Any = importlib.import_module("test.support.script_helper")

    original = script_helper.assert_python_ok

    def assert_python_ok(*args: str, **kwargs: Any) -> Any:
        if args[0] == "-c":
            args = ("-c", SWAP + args[1], *args[2:])
        return original(*args, **kwargs)

    script_helper.assert_python_ok = assert_python_ok


def thread_pool_tests(names: tuple[str, ...]) -> unittest.TestSuite:
    """Return the tests of thread pools and futures from these modules; those of process pools are not our business."""
    suite = unittest.TestSuite()
    for name in names:
        module = importlib.import_module(f"test.test_concurrent_futures.{name}")
        for test in unittest.defaultTestLoader.loadTestsFromModule(module):
            assert isinstance(test, unittest.TestSuite)
            suite.addTests(case for case in test if type(case).__name__.startswith(("ThreadPool", "Future")))
    return suite


def main() -> int:
    """Run the tests named on the command line, or all; return the exit status."""
    swap()
    result = unittest.TextTestRunner(verbosity=2).run(thread_pool_tests(tuple(sys.argv[1:]) or MODULES))
    return not result.wasSuccessful()


if __name__ == "__main__":
    sys.exit(main())
