"""examples/ledger.py: transactions that end with whoever began them."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Client, EngineError, Server, ServerTooBusy
from engine.testing import LIMIT, wait_until
from examples import ledger
from examples.ledger import Books, Ledger, NotEnough

ROOT = Path(__file__).resolve().parents[2]


# A client that has begun a transaction, moved money, and waits to be killed.
@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server("tcp://127.0.0.1:*") as server:
        server.register(Ledger, Books(str(tmp_path / "ledger.sqlite")))
        server.listen()
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.endpoint, timeout=LIMIT) as client:
        yield client


@pytest.fixture
def books(client: Client) -> Ledger:
    """The ledger, with 100 on account 1."""
    books = client.bind(Ledger)
    transaction = books.begin()
    books.deposit(transaction, 1, 100)
    books.commit(transaction)
    return books


def test_a_commit(books: Ledger) -> None:
    """What was moved is seen by others when it is committed, and not before."""
    transaction = books.begin()
    books.move(transaction, 1, 2, 30)
    books.move(transaction, 2, 3, 10)
    assert [books.balance(number) for number in (1, 2, 3)] == [100, 0, 0]
    books.commit(transaction)
    assert [books.balance(number) for number in (1, 2, 3)] == [70, 20, 10]
    with pytest.raises(EngineError):
        books.commit(transaction)


def test_too_little(books: Ledger) -> None:
    """The exception of the contract arrives as itself, and the transaction goes on."""
    transaction = books.begin()
    with pytest.raises(NotEnough) as raised:
        books.move(transaction, 1, 2, 101)
    assert raised.value.args == (1, 100)
    books.move(transaction, 1, 2, 100)
    books.commit(transaction)
    assert books.balance(2) == 100


def test_one_at_a_time(books: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has waited in vain for another transaction is told to try again."""
    monkeypatch.setattr(ledger, "WAIT", 0.01)
    transaction = books.begin()
    with pytest.raises(ServerTooBusy, match="another transaction has had the ledger"):
        books.begin()
    books.commit(transaction)
    books.commit(books.begin())


def test_a_client_that_closes(books: Ledger, server: Server) -> None:
    """What it has not committed is undone, and the ledger is free for others."""
    with Client(server.endpoint, timeout=LIMIT) as other:
        theirs = other.bind(Ledger)
        theirs.move(theirs.begin(), 1, 2, 100)
    transaction = books.begin()
    books.move(transaction, 1, 3, 100)
    books.commit(transaction)
    assert [books.balance(number) for number in (1, 2, 3)] == [0, 0, 100]


def test_a_client_that_is_killed(books: Ledger, server: Server) -> None:
    """Nobody has to do anything for that."""
    victim = subprocess.Popen(
        [sys.executable, "-m", "tests.examples.victim", server.endpoint],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert victim.stdout is not None
    assert victim.stdout.readline() == "moved\n"
    victim.kill()
    victim.communicate()

    def free() -> bool:
        try:
            books.commit(books.begin())
            return True
        except ServerTooBusy:
            return False

    wait_until(free)
    assert [books.balance(number) for number in (1, 2)] == [100, 0]
