"""What holds for every test: it ends with the threads it began with."""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Generator, Iterator
from typing import Any
from zlib import crc32

import hypothesis
import pytest

from engine.testing import LIMIT
from tests.lasting import end_default_pool

from . import lock_order

lock_order.install()  # Before other conftests make what has locks.

# Who has the tests run in the background may have Ctrl-C ignored, which the programs that they start would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The engine's monitor thread belongs to the process: whoever needs it first starts it, and it stays. So do the
# endpoints of the Windows names: while their tests run, threads look at the descriptors for them, and answer who may
# connect.
PROCESS_WIDE = frozenset({"engine:monitor", "transport:sent-buffers"})
FIRST = ("tests/kernel/", "tests/transport/test_links.py")

# Programs that use the library: what they make it run, the tests of the library do, too.
OF_USERS = ("tests/examples/", "tests/packaging/", "tests/perf/", "tests/typing/")

# By this variable a child process of one that counts what it covers is told to do so, too. The names of the tests whose
# child processes are.
COUNTING = "COVERAGE_PROCESS_CONFIG"
COUNTED = pytest.StashKey[set[str]]()

OF_ENDPOINTS = frozenset({"transport:descriptors", "transport:doors"})

# How fast the machine is says nothing about what an example shows.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--switch-interval",
        type=float,
        default=None,
        metavar="SECONDS",
        help="how often threads are switched; far below the usual 0.005 shakes out races",
    )
    parser.addoption(
        "--model-runs",
        type=int,
        default=200,
        metavar="NUMBER",
        help="how many orders of steps of each scenario an explorer tries at most; 0: all",
    )
    parser.addoption(
        "--sets",
        type=int,
        default=1,
        metavar="NUMBER",
        help="with how many of a test's sets of parameters at most it has its child processes counted, where what the "
        "tests cover is counted; which, differs from test to test",
    )


def pytest_configure(config: pytest.Config) -> None:
    interval = config.getoption("--switch-interval")
    if interval is not None:
        sys.setswitchinterval(interval)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Share out files, but for two folders that one process has each.

    What the Windows names serve with is the process's. And the kernel's tests look at the process's own driver and
    monitor, who are to have nothing else to do: they are the first.
    """
    from xdist.scheduler import LoadFileScheduling  # Only if the tests are shared out.

    class Files(LoadFileScheduling):  # type: ignore[misc]  # it has no types
        def _split_scope(self, nodeid: str) -> str:
            whole = [folder for folder in ("tests/kernel/", "tests/win32/") if nodeid.startswith(folder)]
            return whole[0] if whole else nodeid.partition("::")[0]

    return Files(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The kernel's are the first, see above; then a file that takes longer than any, so that no process has it alone at
    the end.
    """
    if COUNTING in os.environ:
        most = config.getoption("--sets")
        those = [item for item in items if not item.nodeid.startswith(OF_USERS)]
        config.stash[COUNTED] = {item.nodeid for alike in by_test(those).values() for item in some(alike, most)}
    items.sort(key=lambda item: [not item.nodeid.startswith(each) for each in FIRST])


def by_test(items: list[pytest.Item]) -> dict[str, list[pytest.Item]]:
    """The runs of each test, one for each of its sets of parameters."""
    found: dict[str, list[pytest.Item]] = {}
    for item in items:
        found.setdefault(item.nodeid.partition("[")[0], []).append(item)
    return found


def some(alike: list[pytest.Item], most: int) -> list[pytest.Item]:
    """So many of a test's runs, from another one on for each test: so that each link, say, is among those of some."""
    first = crc32(alike[0].nodeid.encode()) % len(alike)
    return (alike[first:] + alike[:first])[:most]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Where it is counted what the tests cover, have no child process counted but those of some of a test's sets of
    parameters: each takes its time to begin and to end counting. What is `untraced` is not counted at all.
    """
    settings = os.environ.pop(COUNTING, None)
    if settings is None:
        return (yield)
    tracing = sys.gettrace(), threading.gettrace()
    if item.get_closest_marker("untraced") is not None:
        sys.settrace(None)
        threading.settrace(None)
    elif item.nodeid in item.config.stash[COUNTED]:
        os.environ[COUNTING] = settings
    try:
        return (yield)
    finally:
        os.environ[COUNTING] = settings
        sys.settrace(tracing[0])
        threading.settrace(tracing[1])


@pytest.hookimpl
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool:
    """Run a test inside of a generator, which has an exception state of its own.

    A trace function that raises while an exception is handled has CPython forget to leave that state. In the main
    thread's own the exception would stay to the end, with all that its frames refer to, and be the context of each
    later one.
    """
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    def running() -> Generator[None]:
        pyfuncitem.obj(**arguments)
        yield

    next(running())
    return True


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Report a failure without the values at hand if one of them ends programs that ask what it is (tests/hostile.py):
    it would end this one, and all further tests.
    """
    try:
        return (yield)
    except (SystemExit, KeyboardInterrupt):
        item.config.option.tbstyle, style = "native", item.config.option.tbstyle
        try:
            return pytest.TestReport.from_item_and_call(item, call)
        finally:
            item.config.option.tbstyle = style


def _running_besides(known: set[threading.Thread], lasting: frozenset[str]) -> list[threading.Thread]:
    # A thread that `threading` did not start stays listed after its end if it was ever looked at (a dummy
    # thread), so ask the interpreter which threads really run.
    running = set(sys._current_frames())  # Its values refer to this very frame, and keep what the others refer to.
    return [
        thread
        for thread in threading.enumerate()
        if thread not in known
        and thread.name not in lasting
        and not thread.name.startswith("Trio thread")  # Trio keeps an idle one for ten seconds.
        and thread.ident in running
    ]


@pytest.fixture
def model_runs(request: pytest.FixtureRequest) -> int | None:
    """How many orders of steps of a scenario are tried at most; None: all."""
    return request.config.getoption("--model-runs") or None


@pytest.fixture(autouse=True)
def threads_end_with_the_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test ends with the threads it began with."""
    lasting = PROCESS_WIDE | OF_ENDPOINTS if request.node.nodeid.startswith("tests/win32/") else PROCESS_WIDE
    before = set(threading.enumerate())
    yield
    if not any(thread.name.startswith("engine:default") for thread in before):
        end_default_pool()  # The test was the first to use it.
    deadline = time.monotonic() + LIMIT / 2  # Before the test's own time is over, so that it is said which they are.
    left = _running_besides(before, lasting)
    # Again, as one may have begun meanwhile, for a record that was logged late, say.
    while (others := [one for one in left if not isinstance(one, threading._DummyThread)]) and (
        (seconds := deadline - time.monotonic()) > 0
    ):
        others[0].join(seconds)
        left = _running_besides(before, lasting)
    if left:
        frames = sys._current_frames()
        stacks = [
            f"{thread.name}\n{''.join(traceback.format_stack(frames[thread.ident]))}"
            for thread in left
            if thread.ident in frames
        ]
        del frames
        pytest.fail("the test left threads behind:\n" + "\n".join(stacks), pytrace=False)


@pytest.fixture(autouse=True)
def locks_are_taken_in_order() -> Iterator[None]:
    """No test takes two locks of the library in an order in which others take them the other way round."""
    yield
    wrong, lock_order.found[:] = list(dict.fromkeys(lock_order.found)), []
    if wrong:
        pytest.fail("locks against their order:\n" + "\n".join(wrong), pytrace=False)
