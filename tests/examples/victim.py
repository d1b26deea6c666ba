"""A client of the ledger that is killed within a transaction: `python -m tests.examples.victim ENDPOINT`."""

import sys

from engine import Client
from examples.ledger import Ledger

if __name__ == "__main__":
    books = Client(sys.argv[1]).bind(Ledger)
    transaction = books.begin()
    books.move(transaction, 1, 2, 100)
    print("moved", flush=True)
    sys.stdin.read()
