"""A service that is played: for the tests of what calls it."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, TypeVar

from transport.foreign import shown

from ..errors import InvalidParameter
from ..rpc.contract.interface import Interface, operations_of
from .pair import Pair

I = TypeVar("I", bound=Interface)  # noqa: E741  # the interface


class Stub(Pair[I]):
    """Serves an interface from a table.

        with Stub(Thesaurus, {"synonyms": lambda word: [word.upper()]}) as stub:
            assert greet(stub.binding) == "QUICK"
            assert stub.calls == [("synonyms", ("quick",))]

    Args:
        interface: an `Interface` class.
        answers: by the names of operations, what each call returns; or what is called with the arguments, and returns
            that (for an operation with pipes: a generator function, or a function that pushes); or an exception, which
            is raised. An operation that is not there raises `LookupError`. Changing the dict counts from the next call
            on.
        client: options of the client.
    Fields: `calls`: each call that came, as its operation and the arguments. Else as `Pair`.
    """

    def __init__(self, interface: type[I], answers: Mapping[str, Any], *, client: Mapping[str, Any] = {}) -> None:
        names = operations_of(interface)
        if unknown := answers.keys() - names.keys():
            raise InvalidParameter(f"{interface.__name__} has no operations {', '.join(sorted(map(shown, unknown)))}")
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self._answers = answers
        routines = SimpleNamespace(**{name: self._routine(name) for name in names})
        super().__init__(interface, routines, client=client)

    def _routine(self, name: str) -> Callable[..., Any]:
        def answer(*args: Any) -> Any:
            self.calls.append((name, args))
            if name not in self._answers:
                raise LookupError(f"the stub has no answer for {name}")
            found = self._answers[name]
            if isinstance(found, BaseException) or (isinstance(found, type) and issubclass(found, BaseException)):
                raise found
            return found(*args) if callable(found) else found

        return answer
