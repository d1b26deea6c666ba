"""The explorer reaches each end that there is, and finds what is wrong in one of them."""

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from .explorer import Explorer, Scenario, Wrong, step
from .watched import Gate, List, Lock

# Cells that are read (None), waited for until they are not 0 (WAIT), or get a value.
Program = tuple[tuple[int, int | None], ...]
WAIT = -1


class Cells(Scenario):
    """Threads that read and write cells, and wait for them; `ends` grows by what the run has come to."""

    def __init__(self, programs: tuple[Program, ...], ends: set[object]) -> None:
        self.cells = [List([0]) for _ in range(3)]
        self.ends = ends
        self.seen: list[list[int]] = [[] for _ in programs]
        self.actors = {str(number): self.actor(number, program) for number, program in enumerate(programs)}

    def actor(self, number: int, program: Program) -> Callable[[], None]:
        def run() -> None:
            for cell, value in program:
                self.step(number, self.cells[cell], value)

        return run

    def step(self, number: int, cell: Any, value: int | None) -> None:
        if value == WAIT:
            step(cell, False, lambda: list.__getitem__(cell, 0) != 0)
        elif value is None:
            self.seen[number].append(cell[0])
        else:
            cell[0] = value

    def check_end(self) -> None:
        self.ends.add((tuple(cell[0] for cell in self.cells), tuple(map(tuple, self.seen))))


def ends_of(programs: tuple[Program, ...]) -> set[object]:
    """What all orders come to, each step tried wherever it can be done."""
    ends: set[object] = set()

    def go_on(cells: tuple[int, ...], seen: tuple[tuple[int, ...], ...], at: tuple[int, ...]) -> None:
        over = True
        for number, program in enumerate(programs):
            if at[number] == len(program):
                continue
            cell, value = program[at[number]]
            if value == WAIT and not cells[cell]:
                continue
            over = False
            after, more = cells, seen
            if value is None:
                more = (*seen[:number], (*seen[number], cells[cell]), *seen[number + 1 :])
            elif value != WAIT:
                after = (*cells[:cell], value, *cells[cell + 1 :])
            go_on(after, more, tuple(each + (n == number) for n, each in enumerate(at)))
        if over:
            ends.add((cells, seen))

    go_on((0, 0, 0), ((),) * len(programs), (0,) * len(programs))
    return ends


@pytest.mark.parametrize("seed", range(24))
def test_each_end_is_reached(seed: int) -> None:
    """Of threads that read, write and wait at random the explorer reaches each end that any order comes to."""
    chance = random.Random(seed)
    values = itertools.count(1)
    steps: list[Callable[[], int | None]] = [lambda: None, lambda: next(values), int, lambda: WAIT]
    steps = steps if seed >= 8 else steps[:2]
    programs = tuple(
        tuple((chance.randrange(3 if seed < 8 else 2), chance.choice(steps)()) for _ in range(3))
        for _ in range(2 + seed % 2)
    )  # fmt: skip
    ends: set[object] = set()
    with Explorer(lambda: Cells(programs, ends)) as explorer:
        explored = explorer.explore()
    assert explored.all
    assert ends == ends_of(programs)


def test_orders_that_come_to_the_same_are_tried_once() -> None:
    """Threads that share nothing need one run, and two that write the same cell need two."""
    apart: tuple[Program, ...] = (((0, 1), (0, 2), (0, None)), ((1, 1), (1, 2), (1, None)), ((2, 1),))
    together: tuple[Program, ...] = (((0, 1),), ((0, 2),))
    for programs, runs in ((apart, 1), (together, 2)):
        with Explorer(lambda: Cells(programs, set())) as explorer:  # noqa: B023  # called in this turn
            assert explorer.explore().runs == runs


class Counting(Scenario):
    """Two threads add one each, in two steps, under a lock or not."""

    def __init__(self, locked: bool) -> None:
        self.count = List([0])
        self.lock = Lock()
        self.actors = {"one": self.add, "other": self.add}
        self.locked = locked

    def add(self) -> None:
        if self.locked:
            self.lock.acquire()
        self.count[0] = self.count[0] + 1
        if self.locked:
            self.lock.release()

    def check_end(self) -> None:
        assert self.count[0] == 2, "an addition is lost"


def test_a_lost_update_is_found() -> None:
    """Of two additions in two steps one can be lost, and the steps are told; under a lock none is."""
    with Explorer(lambda: Counting(False)) as explorer, pytest.raises(Wrong, match=r"is lost(.|\n)*one: .*\nother: "):
        explorer.explore()
    with Explorer(lambda: Counting(True)) as explorer:
        assert explorer.explore()[:2] == (2, True)


class Sleeping(Scenario):
    """One thread sleeps unless it sees something; the other puts that there, and wakes the first if told to."""

    def __init__(self, looks_last: bool) -> None:
        self.things, self.asleep = List(), List()
        self.gate = Gate()
        self.gate.acquire()
        self.looks_last = looks_last
        self.woken = False
        self.actors = {"sleeper": self.sleep, "waker": self.put}

    def sleep(self) -> None:
        empty = not self.things
        self.asleep.append(None)
        if self.looks_last:
            empty = not self.things
        if empty:
            self.gate.acquire()
        self.woken = True

    def put(self) -> None:
        self.things.append(None)
        if self.asleep:
            self.gate.release()

    def check_end(self) -> None:
        assert self.woken, "it sleeps for ever"


def test_a_lost_wake_is_found() -> None:
    """Who looks before it says that it sleeps may sleep for ever; who looks after it does not."""
    with Explorer(lambda: Sleeping(False)) as explorer, pytest.raises(Wrong, match="for ever"):
        explorer.explore()
    with Explorer(lambda: Sleeping(True)) as explorer:
        assert explorer.explore().all


def test_threads_that_run_in_circles_are_found() -> None:
    """A run that does not end is reported, not waited for."""

    class Circling(Scenario):
        def __init__(self) -> None:
            self.never = List()
            self.actors = {"one": self.look}

        def look(self) -> None:
            while not self.never:
                pass

    with Explorer(Circling) as explorer, pytest.raises(Wrong, match="circles"):
        explorer.explore()


def test_what_an_actor_raises_is_told() -> None:
    """An exception that leaves an actor is what is wrong, and the other actors end."""

    class Failing(Scenario):
        def __init__(self) -> None:
            self.gate = Gate()
            self.gate.acquire()
            self.actors = {"one": self.gate.acquire, "other": lambda: [][1]}

    with Explorer(Failing) as explorer, pytest.raises(Wrong, match="IndexError"):
        explorer.explore()
