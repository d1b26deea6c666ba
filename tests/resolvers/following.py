"""A resolver that runs for a test, as it would for a client."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from engine import Address, Discovery, Resolver
from engine.testing import LIMIT, wait_until


class Following:
    """The lists that a resolver has said, the last one last."""

    def __init__(self) -> None:
        self.lists: list[list[Address]] = []
        self.discovery = Discovery(self.lists.append)
        self.raised: BaseException | None = None

    def now(self) -> set[str]:
        """The endpoints of the last list."""
        return {address.endpoint for address in self.lists[-1]} if self.lists else set()

    def wait_for(self, *endpoints: str) -> None:
        """Wait until the last list has these, and no others."""
        wait_until(lambda: self.now() == set(endpoints) or self.raised, what=f"the list is {endpoints}")
        assert self.now() == set(endpoints), self.raised


@contextmanager
def following(resolver: Resolver) -> Iterator[Following]:
    """Run it in a thread of its own; what it raises is kept."""
    found = Following()

    def run() -> None:
        try:
            resolver.run(found.discovery)
        except BaseException as error:
            found.raised = error

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield found
    finally:
        found.discovery.close()
        thread.join(LIMIT)
        assert not thread.is_alive()
