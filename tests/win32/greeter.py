"""What is served in the tests' own process."""

from engine import Interface
from engine.testing import Gate


class Hello(Interface, id="test.win32.Hello"):
    """What is served in this process."""

    def greet(self, name: str) -> str:
        """Return a greeting."""

    def block(self) -> None:
        """Return once the gate is open."""


class Greeter:
    """Implements `Hello`."""

    def __init__(self) -> None:
        self.gate = Gate()

    def greet(self, name: str) -> str:
        return f"Hello, {name}!"

    def block(self) -> None:
        self.gate.pass_through()
