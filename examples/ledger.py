"""Accounts in SQLite, served: a context handle is a transaction, which ends with whoever began it.

    python -m examples.ledger [ENDPOINT [FILE]]

A client begins a transaction, moves money in any number of calls, and commits. If it goes away before that, by a closed
connection, a crash or a cut cable, the handle's rundown routine rolls back, and what it has held is free again.
"""

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from engine import Context, Interface, Server, ServerTooBusy, current_call, operation

WAIT = 5.0  # Seconds that a transaction waits for another one which has the database: SQLite has one writer at a time.


class NotEnough(Exception):
    """An account has less than is to be taken from it. Its arguments: the account, and what it has."""


class Transaction:
    """The state behind a handle: a connection of its own. Only one call at a time has the handle."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, timeout=WAIT, isolation_level=None, check_same_thread=False)
        with self.failing():
            self.run("BEGIN IMMEDIATE")  # The writer's lock now, rather than in the midst of it.

    def run(self, statement: str, *values: int) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Tell the client that it may try again, if another transaction has the database for too long."""
        try:
            yield
        except sqlite3.OperationalError as error:
            self._connection.close()
            raise ServerTooBusy(f"another transaction has had the ledger for {WAIT:g} s") from error

    def end(self, statement: str) -> None:
        try:
            self.run(statement)
        finally:
            self._connection.close()

    def undo(self) -> None:
        """The rundown: the client is gone, or the server closes."""
        self.end("ROLLBACK")


class Ledger(Interface, id="example.Ledger", version=(1, 0)):
    """What is served. Amounts are cents."""

    @operation
    def balance(self, account: int) -> int:
        """Return what an account has, as of the last commit; 0 if there is none."""
        raise NotImplementedError

    @operation
    def begin(self) -> Context[Transaction]:
        """Begin a transaction. Raises: `ServerTooBusy` if another one does not end."""
        raise NotImplementedError

    @operation
    def deposit(self, transaction: Context[Transaction], account: int, amount: int) -> None:
        """Add to an account, which is opened if there is none."""
        raise NotImplementedError

    @operation(raises=[NotEnough])
    def move(self, transaction: Context[Transaction], source: int, target: int, amount: int) -> None:
        """Move money between two accounts. Raises: `NotEnough`; the transaction stays as it was."""
        raise NotImplementedError

    @operation
    def commit(self, transaction: Context[Transaction]) -> None:
        """Make it last; the handle is closed."""
        raise NotImplementedError


class Books:
    """Implements `Ledger` on a file."""

    def __init__(self, path: str) -> None:
        self._path = path
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA journal_mode = WAL")  # Who reads does not wait for who writes.
            connection.execute("CREATE TABLE IF NOT EXISTS accounts (number INTEGER PRIMARY KEY, cents INTEGER)")
        connection.close()

    def balance(self, account: int) -> int:
        connection = sqlite3.connect(self._path, timeout=WAIT)
        try:
            row = connection.execute("SELECT cents FROM accounts WHERE number = ?", (account,)).fetchone()
        finally:
            connection.close()
        return 0 if row is None else int(row[0])

    def begin(self) -> Context[Transaction]:
        return current_call().open_context(Transaction(self._path), rundown=Transaction.undo)

    def deposit(self, transaction: Context[Transaction], account: int, amount: int) -> None:
        add = "INSERT INTO accounts VALUES (?, ?) ON CONFLICT DO UPDATE SET cents = cents + excluded.cents"
        transaction.state.run(add, account, amount)

    def move(self, transaction: Context[Transaction], source: int, target: int, amount: int) -> None:
        row = transaction.state.run("SELECT cents FROM accounts WHERE number = ?", source).fetchone()
        has = 0 if row is None else int(row[0])
        if has < amount:
            raise NotEnough(source, has)
        transaction.state.run("UPDATE accounts SET cents = cents - ? WHERE number = ?", amount, source)
        self.deposit(transaction, target, amount)

    def commit(self, transaction: Context[Transaction]) -> None:
        transaction.state.end("COMMIT")
        transaction.close()  # No rundown any more.


def main(endpoint: str = "tcp://127.0.0.1:5555", path: str = "ledger.sqlite") -> None:
    """Serve until Ctrl-C or SIGTERM."""
    with Server(endpoint, workers=8) as server:
        server.register(Ledger, Books(path))
        print("serving at", endpoint, flush=True)
        server.listen(wait=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
