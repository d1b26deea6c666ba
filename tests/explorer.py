"""All interleavings of a few threads that run the library's own code, tried one after the other.

Theory of operation. The threads of a scenario, its *actors*, run one at a time. What they share is *watched*
(`tests/watched.py`): each operation on it is a step, before which the actor stops and says what it is going to do; then
the explorer decides who goes on. A run is what one such order of steps comes to. It is over when no actor can go on:
each has returned, or waits for something that nobody will bring about any more. What the scenario says must hold is
asked after each step, and at the end.

A run is begun anew for each order, from the first step on: everything is made again. Which orders are tried is what
Flanagan and Godefroid found ("Dynamic partial-order reduction for model checking software", 2005): of two steps that
touch the same thing, one of which changes it, the other order is tried, too, if nothing else has settled theirs. Orders
that differ only in steps that have nothing to do with each other come to the same and are tried once; *sleeping*
actors (Godefroid, 1996) are those that nothing has happened to since they were tried.

Guarantees: if what the actors share is watched, each state in which the scenario can end is reached, unless `limit`
says when to stop. The same scenario comes to the same runs in the same order, on any machine.

Not guaranteed: a wait that another actor can make impossible again, other than for a lock, may end in a few states that
are not reached (of random programs with such waits about 1 in 150 has one; `tests/test_explorer.py`).

Assumes: between two steps the actors touch nothing that others touch; no scenario goes on for ever.
"""

import random
import threading
from _thread import allocate_lock, get_ident
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import NamedTuple, TypeVar

MOST_STEPS = 2000  # Of one run; more means that actors run in circles.


class Wrong(AssertionError):
    """In some order of steps something does not hold; the text has the order."""


class Over(BaseException):
    """The run is over: unwinds an actor that has not returned."""


class Op(NamedTuple):
    """What an actor does in one step."""

    what: Hashable  # To which of the things watched.
    changes: bool  # Whether it changes it, or only looks.

    def depends_on(self, other: "Op") -> bool:
        return self.what == other.what and (self.changes or other.changes)


class Scenario:
    """What a few threads do, made anew for each run; `actors` are the functions that they run, by name."""

    actors: dict[str, Callable[[], object]]

    def prepare(self) -> None:
        """Called by the explorer's thread when all actors that have a prologue stand at its end."""

    def check(self) -> None:
        """Raise AssertionError if something does not hold after a step that has changed anything. Takes no step."""

    def check_end(self) -> None:
        """Raise AssertionError if something does not hold when no actor can go on. Takes no step."""


class Actor:
    """One thread of a run."""

    def __init__(self, number: int, name: str, function: Callable[[], object]) -> None:
        self.number = number
        self.name = name
        self.function = function
        self.returned = False
        # In a prologue it goes on by itself until it has to wait: those steps are no matter of order.
        self.prologue = False
        # What it is going to do, and whether it can do so now; None: always.
        self.op: Op | None = None
        self.ready: Callable[[], bool] | None = None
        # Seconds, as its own clock counts: time passes when the scenario says so.
        self.now = 0.0

    def is_ready(self) -> bool:
        return self.ready is None or self.ready()


class Node:
    """A state of a run in which the explorer has decided who goes on."""

    __slots__ = ("chosen", "done", "enabled", "sleeping", "tried", "waiting")

    def __init__(self, enabled: dict[int, Op], waiting: dict[int, Op], sleeping: dict[int, Op], chosen: int) -> None:
        self.enabled = enabled
        # What those would do who cannot go on now.
        self.waiting = waiting
        # Those that need not be tried here: whatever comes of it was seen before.
        self.sleeping = sleeping
        self.chosen = chosen
        # To be tried; and those that were.
        self.tried = {chosen}
        self.done: set[int] = set()

    def sleeping_after(self) -> dict[int, Op]:
        """Who sleeps after the step that was chosen."""
        step = self.enabled[self.chosen]
        all_of_them = self.sleeping | {number: self.enabled[number] for number in self.done}
        return {number: op for number, op in all_of_them.items() if not op.depends_on(step)}


class Chance:
    """Who goes on by chance: the actor that ranks highest, and at a few steps the one that does so falls behind all.

    What needs few switches at certain steps is found so with a probability that does not fall with the number of orders
    (Burckhardt and others, "A randomized scheduler with probabilistic guarantees of finding bugs", 2010).
    """

    def __init__(self, seed: int, actors: int, steps: int) -> None:
        chance = random.Random(seed)
        self._ranks = list(range(actors))
        chance.shuffle(self._ranks)
        self._falls = {chance.randrange(steps) for _ in range(1 + seed % 4)}

    def choose(self, depth: int, enabled: Iterable[int]) -> int:
        first = max(enabled, key=self._ranks.__getitem__)
        if depth in self._falls:
            self._ranks[first] = min(self._ranks) - 1
            first = max(enabled, key=self._ranks.__getitem__)
        return first


class Carriers:
    """Threads that run one actor after the other, as it takes long to begin one."""

    def __init__(self) -> None:
        self.gates: list[threading.Semaphore] = []
        self.threads: list[threading.Thread] = []
        self.jobs: list[Callable[[], None]] = []
        self.ending = False

    def run(self, jobs: Sequence[Callable[[], None]]) -> None:
        """Have each job run by a thread of its own."""
        self.jobs = list(jobs)
        while len(self.threads) < len(jobs):
            self.gates.append(threading.Semaphore(0))
            thread = threading.Thread(target=self._carry, args=(len(self.threads),), name="explorer:actor")
            self.threads.append(thread)
            thread.start()
        for number in range(len(jobs)):
            self.gates[number].release()

    def _carry(self, number: int) -> None:
        while True:
            self.gates[number].acquire()
            if self.ending:
                return
            self.jobs[number]()

    def end(self) -> None:
        self.ending = True
        for gate in self.gates:
            gate.release()
        for thread in self.threads:
            thread.join()


class Run:
    """One order of steps; `path` says how it begins, and grows by what it comes to."""

    def __init__(
        self, make: Callable[[], Scenario], path: list[Node], carriers: Carriers, seed: tuple[int, int] | None = None
    ) -> None:
        global running
        self.path = path
        self.steps: list[tuple[int, Op]] = []
        # The locks that were released after a step, by its number, and by whom.
        self.released: dict[int, tuple[Hashable, int]] = {}
        self.over = False
        self.wrong: BaseException | None = None
        # Nothing new can come of it.
        self.in_vain = False
        # What those would do who wait in the end.
        self.left: dict[int, Op] = {}
        self.looking = True
        self.by_thread: dict[int, Actor] = {}
        self.current: Actor | None = None
        self._names: dict[int, tuple[object, str]] = {}
        self._turns = [allocate_lock()]  # Of the explorer, and of the actors.
        running = self
        self.scenario = make()
        self.actors = [Actor(n, name, act) for n, (name, act) in enumerate(self.scenario.actors.items())]
        # Who decides, if not the path: a number to begin with, and about how many steps there are.
        self.chance = None if seed is None else Chance(seed[0], len(self.actors), seed[1])
        self._turns += [allocate_lock() for _ in self.actors]
        for turn in self._turns:
            turn.acquire()
        self._arrived = threading.Semaphore(0)
        carriers.run([lambda actor=actor: self._act(actor) for actor in self.actors])  # type: ignore[misc]  # a default
        for _ in self.actors:
            self._arrived.acquire()

    # The explorer's thread

    def go(self) -> None:
        """Run to the end."""
        global running
        try:
            self.looking = False
            for actor in self.actors:
                if hasattr(actor.function, "prologue"):
                    actor.prologue = True
                    self._let(actor)
                    actor.prologue = False
            self.looking = True
            self.scenario.prepare()
            self.looking = False
            for actor in self.actors:  # Up to its first step.
                if actor.op is None and not actor.returned:
                    actor.prologue = True
                    actor.ready = None
                    self._begin(actor)
                    actor.prologue = False
            following = self._choose()
            if following is not None:
                self._let(following)
        finally:
            self.over = True
            for actor in self.actors:
                if not actor.returned:
                    self._let(actor)
            running = None

    def _begin(self, actor: Actor) -> None:
        actor.op = _FIRST
        self._let(actor)

    def _let(self, actor: Actor) -> None:
        """Let an actor go on, and wait until this thread is to go on."""
        self._turns[actor.number + 1].release()
        self._turns[0].acquire()

    # The actors' threads

    def _act(self, actor: Actor) -> None:
        self.by_thread[get_ident()] = actor
        self._arrived.release()
        self._turns[actor.number + 1].acquire()
        try:
            if not self.over:
                self.current = actor
                actor.function()
        except Over:
            pass
        except BaseException as error:
            self.fail(error)
        actor.returned = True
        following = None if self.over or actor.prologue else self._choose()
        self._turns[0 if following is None else following.number + 1].release()

    def step(self, actor: Actor, op: Op, ready: Callable[[], bool] | None) -> None:
        """The calling thread is `actor`, and is going to do `op`."""
        if self.over:
            raise Over
        first, actor.op, actor.ready = actor.op is _FIRST, op, ready
        if actor.prologue:
            if not first and actor.is_ready():
                return
            following = None
        else:
            following = self._choose()
        if following is not actor:
            self._turns[0 if following is None else following.number + 1].release()
            self._turns[actor.number + 1].acquire()
        if self.over:
            raise Over
        self.current = actor

    def _choose(self) -> Actor | None:
        """Ask what must hold, and decide who goes on: None if nobody can, or shall."""
        self.looking = True
        try:
            if self.over:
                return None
            if not self.steps or self.steps[-1][1].changes:
                self.scenario.check()
            enabled = {
                actor.number: actor.op
                for actor in self.actors
                if not actor.returned and actor.op is not None and actor.is_ready()
            }
            if not enabled:
                self.left = self._waiting()
                self.scenario.check_end()
                self.over = True
                return None
            if len(self.steps) > MOST_STEPS:
                raise AssertionError("the threads run in circles")
            number = self._follow(enabled) if self.chance is None else self.chance.choose(len(self.steps), enabled)
            if number is None:
                self.in_vain = self.over = True
                return None
            self.steps.append((number, enabled[number]))
            return self.actors[number]
        except BaseException as error:
            self.fail(error)
            return None
        finally:
            self.looking = False

    def _waiting(self) -> dict[int, Op]:
        return {
            actor.number: actor.op
            for actor in self.actors
            if not actor.returned and actor.op is not None and not actor.is_ready()
        }

    def _follow(self, enabled: dict[int, Op]) -> int | None:
        """Go on as the path says; at its end, make it longer, if anything new can come of it."""
        depth = len(self.steps)
        if depth < len(self.path):
            assert self.path[depth].chosen in enabled, "the same steps have come to something else"
            return self.path[depth].chosen
        sleeping = self.path[-1].sleeping_after() if self.path else {}
        last = self.steps[-1][0] if self.steps else 0
        chosen = next((n for n in sorted(enabled, key=lambda n: (n != last, n)) if n not in sleeping), None)
        if chosen is not None:
            self.path.append(Node(enabled, self._waiting(), sleeping, chosen))
        return chosen

    def fail(self, error: BaseException) -> None:
        """Something does not hold."""
        if not isinstance(error, Over):
            self.wrong = self.wrong or error
            self.over = True

    # For what is watched

    def name_of(self, thing: object) -> str:
        """Return what a thing is called: if nobody has said, by the order in which things are used."""
        named = self._names.get(id(thing))
        if named is None:
            named = self._names[id(thing)] = thing, f"{type(thing).__name__.lower()} {len(self._names)}"
        return named[1]

    def call_it(self, thing: object, name: str) -> None:
        """Call a thing so."""
        self._names[id(thing)] = thing, name

    def note_release(self, lock: object) -> None:
        """The lock was released after the last step."""
        if self.steps:
            self.released[len(self.steps) - 1] = self.name_of(lock), self.steps[-1][0]


_FIRST = Op("the first step", False)

# The run that goes on, if any; one at a time in a process.
running: Run | None = None


def step(thing: object, changes: bool, ready: Callable[[], bool] | None = None, part: str = "") -> None:
    """The calling thread is going to do something to a part of a thing. Nothing, unless it is an actor."""
    run = running
    if run is None or run.looking:
        return
    actor = run.by_thread.get(get_ident())
    if actor is not None:
        run.step(actor, Op(f"{run.name_of(thing)}.{part}" if part else run.name_of(thing), changes), ready)


T = TypeVar("T")


def called(name: str, thing: T) -> T:
    """Return the thing, which the steps of this run call so."""
    assert running is not None
    running.call_it(thing, name)
    return thing


def now() -> float:
    """The time, as the actor that asks counts it."""
    run = running
    actor = None if run is None else run.by_thread.get(get_ident())
    return 0.0 if actor is None else actor.now


def current_name() -> str:
    """The name of the actor that asks."""
    assert running is not None
    return running.by_thread[get_ident()].name


def spend(seconds: float) -> None:
    """Have time pass for the actor that calls this."""
    assert running is not None
    running.by_thread[get_ident()].now += seconds


@contextmanager
def untold() -> Iterator[None]:
    """What is done inside takes no step."""
    run = running
    if run is None or run.looking:
        yield
        return
    run.looking = True
    try:
        yield
    finally:
        run.looking = False


class Explored(NamedTuple):
    """How many orders were tried, and whether these are all."""

    runs: int
    all: bool
    steps: int


class Explorer:
    """Tries the orders of a scenario, which `make` makes for each of them. A context manager: it has threads."""

    def __init__(self, make: Callable[[], Scenario]) -> None:
        self._make = make
        self._carriers = Carriers()

    def __enter__(self) -> "Explorer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._carriers.end()

    def explore(self, limit: int | None = None) -> Explored:
        """Try all orders; or so many as `limit` says: half of them in their order, and if these are not all, by chance.

        Raises: `Wrong` at the first in which something does not hold.
        """
        path: list[Node] = []
        runs = steps = fresh = longest = 0
        while limit is None or runs < limit / 2:
            run = Run(self._make, path, self._carriers)
            run.go()
            runs += 1
            steps += len(run.steps)
            longest = max(longest, len(run.steps))
            judge(run, runs)
            turn_over(run, fresh)
            while path:
                node = path[-1]
                node.done.add(node.chosen)
                left = node.tried - node.done - node.sleeping.keys()
                if left:
                    node.chosen = min(left)
                    break
                path.pop()
            else:
                return Explored(runs, True, steps)
            fresh = len(path) - 1
        while runs < limit:
            run = Run(self._make, [], self._carriers, (runs, longest))
            run.go()
            runs += 1
            steps += len(run.steps)
            judge(run, runs)
        return Explored(runs, False, steps)


def judge(run: Run, number: int) -> None:
    """Raise `Wrong` if something did not hold in this run."""
    if run.wrong is not None:
        raise Wrong(f"after {number} runs: {run.wrong!r}\n{told(run)}") from run.wrong


def told(run: Run) -> str:
    """The steps of a run, those of one actor in a row as one line."""
    lines: list[str] = []
    last = None
    for number, op in run.steps:
        text = f"{op.what}{'!' if op.changes else ''}"
        if number == last:
            lines[-1] += f", {text}"
        else:
            lines.append(f"{run.actors[number].name}: {text}")
        last = number
    return "\n".join(lines)


def turn_over(run: Run, fresh: int) -> None:
    """Have the other order of each two steps tried that depend on each other, with nothing between that settles theirs.

    `fresh`: how many steps the run has in common with the one before, whose steps were looked at.
    """
    steps, path = run.steps, run.path
    # What each actor knows of: for each other the number of steps up to the last that comes before its own; and what
    # was known in each step.
    known = [(0,) * len(run.actors) for _ in run.actors]
    clocks: list[tuple[int, ...]] = []
    touched: dict[Hashable, list[int]] = defaultdict(list)
    freed: dict[Hashable, tuple[int, ...]] = {}

    def settle(index: int, mine: int, op: Op) -> tuple[int, ...]:
        """Turn over what `mine` would do, or does, in the step `index`; return what it knows of then."""
        clock = known[mine]
        races: list[int] = []
        for other in reversed(touched[op.what]):
            whose, done = steps[other]
            if clock[whose] <= other and op.depends_on(done):
                races.append(other)
                clock = tuple(map(max, clock, clocks[other]))
        if index >= fresh:
            for other in races:
                _turn(path[other], other, mine, index, steps, clocks, clock)
        return clock

    last: tuple[int, Op | None] = -1, None
    for index, (mine, op) in enumerate(steps):
        for whose, wanted in path[index].waiting.items():
            # It has just come to wait, or what it waits for has been touched: it might have gone on before that.
            if whose == last[0] or last[1] is None or wanted.what == last[1].what:
                settle(index, whose, wanted)
        last = mine, op
        clock = settle(index, mine, op)
        if op.what in freed:
            clock = tuple(map(max, clock, freed[op.what]))
        clock = known[mine] = (*clock[:mine], index + 1, *clock[mine + 1 :])
        clocks.append(clock)
        touched[op.what].append(index)
        if index in run.released:
            what, whose = run.released[index]
            freed[what] = known[whose]
    for whose, wanted in run.left.items():
        settle(len(steps), whose, wanted)


def _turn(
    node: Node, first: int, mine: int, index: int, steps: list[tuple[int, Op]], clocks: list[tuple[int, ...]],
    known: tuple[int, ...],
) -> None:  # fmt: skip
    """Have `mine` take its step before the step `first`, after what has to come before it."""
    owner = steps[first][0]
    # Who can begin: of the steps in between that do not depend on the first one, those that depend on none of these.
    begun: dict[int, int] = {}
    beginners: set[int] = set()
    for between in range(first + 1, index):
        whose, clock = steps[between][0], clocks[between]
        if clock[owner] > first:
            continue
        if whose not in begun:
            begun[whose] = between
            if all(clock[other] <= start for other, start in begun.items() if other != whose):
                beginners.add(whose)
    if mine not in begun and all(known[other] <= start for other, start in begun.items()):
        beginners.add(mine)
    beginners &= node.enabled.keys()
    if not beginners:  # Who waits, waits for others: any of them may be what it needs.
        node.tried.update(node.enabled)
    elif not beginners & (node.tried | node.sleeping.keys()):
        node.tried.add(min(beginners))
