"""What the servers of tests under load serve."""

from engine import Interface, operation


class Adder(Interface, id="tests.Adder", version=(1, 0)):
    """Adds."""

    @operation(idempotent=True)
    def add(self, one: int, other: int) -> int:
        raise NotImplementedError
