"""Context handles: state that a server keeps for one client, which the client knows as an opaque token.

    class Files(Interface):
        def open(self, path: str) -> Context[File]: ...
        def read(self, file: Context[File]) -> bytes: ...
        def close(self, file: Context[File]) -> None: ...

    class Routines:
        def open(self, path):
            return current_call().open_context(File(path), rundown=File.drop)
        def read(self, file):
            return file.state.read()
        def close(self, file):
            file.close()

Calls that take the same handle run one after the other, unless their operation is declared with
`@operation(shared_context=True)`: those run beside each other. A waiting call takes no thread, and gives up its place
in the order of its client's calls: those begun after it, which do not need the handle, are entered before it.

Source: "Context Handles", "Server Context Rundown Routine", "Failure Semantics for Context Handles".
"""

from typing import Any, Generic, TypeVar, get_args, get_origin

import msgspec

from ..errors import InvalidState
from ..lifecycle import Uncopyable

S = TypeVar("S")


class Context(Uncopyable, msgspec.Struct, Generic[S], array_like=True, dict=True, eq=False, weakref=True):
    """A context handle: on the client something to hand back, on the server the way to the state.

    Fields:
        token: 16 bytes, good for this server and for the client that got it, as long as it stays connected.

    In an `Interface`, a parameter annotated `Context[...]` takes one, `Context[...] | None` takes None too. A call with
    a handle that was closed, or is another client's, ends with `ContextMismatch` (6); with None where a handle is
    needed it raises `NullContext` (1775). A handle that the client loses its connection with is run down, and unknown
    from then on.
    """

    _instead = "it is good for this client's connection only"

    token: bytes

    @property
    def state(self) -> S:
        """What the handle stands for; on the server only. Raises `InvalidState` elsewhere."""
        try:
            return self.__dict__["opened"].state  # type: ignore[no-any-return]  # the state is the user's
        except KeyError:
            raise InvalidState("the state of a context handle is at its server, and only there") from None

    def close(self) -> None:
        """Close the handle with the end of the running call; on the server only, by a routine that was given it.

        From then on the client's token is unknown, however the call ends. The rundown routine is not called.
        Raises `InvalidState` elsewhere.
        """
        try:
            self.__dict__["opened"].closing = True
        except KeyError:
            raise InvalidState("a context handle is closed by a routine of its server") from None

    def __repr__(self) -> str:
        return f"<Context {self.token.hex()[:8]}>"


def set_home(context: Context[Any], home: object) -> None:
    """Note in a client's handle what carries the calls of its server."""
    context.__dict__["home"] = home


def home_of(context: Context[Any]) -> Any:
    """Return what carries the calls of the handle's server; None if that was not noted."""
    return context.__dict__.get("home")


def mentions_context(annotation: Any) -> bool:
    """Whether a value of this annotation may have a context handle in it."""
    return context_kind(annotation) is not None or any(map(mentions_context, get_args(annotation)))


def context_kind(annotation: Any) -> bool | None:
    """Return True for the annotation of a context handle, False for one that may be None, None for any other."""
    if annotation is Context or get_origin(annotation) is Context:
        return True
    parts = get_args(annotation)
    if len(parts) == 2 and type(None) in parts and any(context_kind(part) for part in parts):
        return False
    return None
