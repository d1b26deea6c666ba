"""Interpreter exit and fork, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from engine.testing import LIMIT

ROOT = Path(__file__).resolve().parent.parent.parent


def run(script: str, limit: float = LIMIT) -> subprocess.CompletedProcess[str]:
    """Run `script` in a fresh interpreter; it must exit by itself within the limit."""
    head = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\nimport threading, time, os\nfrom engine import *\n"
        "from engine.testing import LIMIT\n"
    )
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", head + script], capture_output=True, text=True, timeout=limit
    )


class TestExit:
    """Section 12, interpreter shutdown."""

    def test_idle_threads_do_not_keep_the_process(self) -> None:
        """Idle workers, armed timers and waits do not keep the interpreter from exiting."""
        done = run(
            "import warnings; warnings.simplefilter('ignore')\n"
            "pool = ThreadPool(4)\ntimer = Timer(print, pool=pool)\ntimer.set(100)\n"
            "wait = Wait(print, pool=pool)\nwait.set(Semaphore(0, 1))\nran = threading.Event()\n"
            "default_pool().submit(lambda: (print('ran'), ran.set()))\nran.wait()\n"
        )
        assert done.returncode == 0
        assert done.stdout == "ran\n"

    def test_queued_callbacks_are_discarded_and_running_ones_finish(self) -> None:
        """At exit queued callbacks are discarded, and running ones get a moment to finish."""
        done = run(
            "import warnings; warnings.simplefilter('ignore')\n"
            "pool = ThreadPool(1, 1)\nbegun = threading.Event()\n"
            "pool.submit(lambda: (begun.set(), threading.main_thread().join(), print('finished', flush=True)))\n"
            "pool.submit(print, 'queued')\nbegun.wait()\n"
        )
        assert done.returncode == 0
        assert done.stdout == "finished\n"

    def test_a_callback_that_hangs_does_not_keep_the_process(self) -> None:
        """A callback that never returns is abandoned."""
        done = run(
            "import warnings; warnings.simplefilter('ignore')\n"
            "pool = ThreadPool()\nbegun = threading.Event()\n"
            "pool.submit(lambda: (begun.set(), threading.Event().wait()))\nbegun.wait()\n"
        )
        assert done.returncode == 0

    def test_an_executors_calls_are_run(self) -> None:
        """At exit an executor's calls are run, and no more are accepted."""
        done = run("executor = Executor(1)\nfor i in range(3): executor.submit(print, i)\n")
        assert done.returncode == 0
        assert done.stdout == "0\n1\n2\n"

    def test_an_executors_calls_have_a_limit(self) -> None:
        """Calls that outlast the exit limit are abandoned, with a log entry."""
        done = run(
            "executor = Executor(1, exit_timeout=0.1)\nbegun = threading.Event()\n"
            "executor.submit(lambda: (begun.set(), threading.Event().wait()))\n"
            "executor.submit(print, 'queued')\nbegun.wait()\n"
        )
        assert done.returncode == 0
        assert done.stdout == ""
        assert "still run" in done.stderr


@pytest.mark.skipif(not hasattr(sys, "getswitchinterval") or sys.platform == "win32", reason="no fork")
class TestFork:
    """A forked child has none of its parent's threads."""

    def test_inherited_pools_are_refused_and_nothing_hangs(self) -> None:
        """In the child inherited pools and objects raise `Forked`; new ones work, the default pool is new."""
        done = run(
            "import warnings; warnings.simplefilter('ignore')\n"
            "pool = ThreadPool(2); work = Work(int, pool=pool); default_pool().submit(int)\n"
            "before = default_pool()\n"
            "child = os.fork()\n"
            "if not child:\n"
            "    for call in (lambda: pool.submit(int), work.submit, lambda: pool.set_minimum(1)):\n"
            "        try: call(); os._exit(1)\n"
            "        except Forked: pass\n"
            "    if default_pool() is before: os._exit(2)\n"
            "    ran = threading.Event(); default_pool().submit(ran.set)\n"
            "    if not ran.wait(LIMIT): os._exit(3)\n"
            "    if not pool.stop(LIMIT): os._exit(4)\n"
            "    os._exit(0)\n"
            "status = os.waitpid(child, 0)[1]\n"
            "print(os.waitstatus_to_exitcode(status))\n"
        )
        assert done.stdout == "0\n", done.stderr

    def test_waiting_for_what_ran_at_the_fork_is_refused(self) -> None:
        """In the child waits for callbacks and calls that run in the parent raise `Forked`, and end every wait."""
        done = run(
            "import concurrent.futures as futures, signal, warnings; warnings.simplefilter('ignore')\n"
            "go = threading.Event(); entered = threading.Semaphore(0)\n"
            "body = lambda: (entered.release(), go.wait(LIMIT))\n"
            "pool = ThreadPool(); group = CleanupGroup(); environment = Environment(pool=pool, cleanup_group=group)\n"
            "work = Work(body, environment=environment); work.submit()\n"
            "executor = Executor(1); running, queued, late, cancelled = map(executor.submit, (body, int, int, int))\n"
            "entered.acquire(); entered.acquire(); cancelled.cancel()\n"
            "child = os.fork()\n"
            "if not child:\n"
            "    signal.alarm(100); told = []\n"
            "    for call in (work.wait, lambda: work.wait(0, cancel_pending=True), group.close_members,\n"
            "                 running.result, queued.result, lambda: executor.submit(int)):\n"
            "        try: call(); os._exit(1)\n"
            "        except Forked as refused: assert 'before fork()' in str(refused); last = refused\n"
            "    assert isinstance(last, RuntimeError)\n"
            "    assert len(futures.wait([running, queued, cancelled]).done) == 3\n"
            "    assert cancelled.cancelled() and isinstance(running.exception(), Forked)\n"
            "    late.add_done_callback(told.append); assert told == [late]\n"
            "    executor.shutdown(); work.close()\n"
            "    os._exit(0)\n"
            "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])); go.set(); work.close(); pool.stop()\n"
        )
        assert done.stdout == "0\n", done.stderr

    def test_locks_that_were_held_at_the_fork(self) -> None:
        """Futures can be used in the child though threads of the parent were in the midst of using some."""
        done = run(
            "import signal, warnings; warnings.simplefilter('ignore')\n"
            "from engine.pool import future as module\n"
            "go = threading.Event(); held = threading.Semaphore(0)\n"
            "executor = Executor(1); calls = [executor.submit(go.wait, LIMIT), executor.submit(int)]\n"
            "def hold(lock):\n"
            "    with lock: held.release(); go.wait(LIMIT)\n"
            "for lock in (calls[0]._condition, calls[1]._condition, module._settled, module._guard):\n"
            "    threading.Thread(target=hold, args=(lock,)).start(); held.acquire()\n"
            "child = os.fork()\n"
            "if not child:\n"
            "    signal.alarm(100)\n"
            "    assert all(isinstance(call.exception(), Forked) for call in calls)\n"
            "    assert Executor(1).submit(pow, 2, 3).result() == 8\n"
            "    os._exit(0)\n"
            "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])); go.set(); executor.shutdown()\n"
        )
        assert done.stdout == "0\n", done.stderr

    def test_forking_in_a_callback(self) -> None:
        """A child that is forked in a callback runs that one to its end, none of those behind it, and ends."""
        done = run(
            "import warnings; warnings.simplefilter('ignore')\n"
            "pool = ThreadPool(1, 1); begun = threading.Event(); go = threading.Event()\n"
            "parent = os.getpid(); ran = []; children = []\n"
            "def body():\n"
            "    ran.append(1)\n"
            "    if len(ran) == 1: children.append(os.fork())\n"
            "    if os.getpid() != parent:\n"
            "        seen = pool.statistics()\n"
            "        print('in the child', seen.workers, seen.running + seen.off_slot, flush=True)\n"
            "pool.submit(lambda: (begun.set(), go.wait())); begun.wait()\n"
            "with Work(body, pool=pool) as work:\n"
            "    for _ in range(5): work.submit()\n"
            "    go.set()\n"
            "print(len(ran), os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1])); pool.stop()\n"
        )
        assert sorted(done.stdout.splitlines()) == ["5 0", "in the child 1 1"]
        assert done.stderr == ""

    def test_leaving_blocks_in_the_child(self) -> None:
        """A child leaves the blocks of inherited objects, and itself, without waiting and without an error."""
        done = run(
            "import signal, warnings; warnings.simplefilter('ignore')\n"
            "go = threading.Event(); entered = threading.Event()\n"
            "body = lambda: (entered.set(), go.wait(LIMIT))\n"
            "with ThreadPool() as pool, CleanupGroup() as group, Executor(1) as executor:\n"
            "    with Work(body, environment=Environment(pool=pool, cleanup_group=group)) as work:\n"
            "        work.submit(); executor.submit(go.wait, LIMIT); entered.wait()\n"
            "        Work(int, environment=Environment(pool=pool, cleanup_group=group))\n"
            "        child = os.fork()\n"
            "        if not child: signal.alarm(100); sys.exit(7)\n"
            "        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])); go.set()\n"
        )
        assert done.stdout == "7\n", done.stderr

    def test_forking_while_the_pool_is_busy(self) -> None:
        """Forks in the midst of the pool's work leave children that end."""
        done = run(
            "import warnings; warnings.simplefilter('ignore')\n"
            "pool = ThreadPool(4); ended = []\n"
            "work = Work(lambda: ended or work.submit(), pool=pool)\n"
            "for _ in range(4): work.submit()\n"
            "codes = set()\n"
            "for _ in range(30):\n"
            "    child = os.fork()\n"
            "    if not child: os._exit(default_pool().statistics().workers)\n"
            "    codes.add(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
            "ended.append(1)\n"
            "print(codes, pool.stop(LIMIT))\n"
        )
        assert done.stdout == "{0} True\n", done.stderr
