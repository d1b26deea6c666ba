"""What a user of the engine catches as `EngineError`."""

import ast
import os
import pickle
import re
from pathlib import Path

import pytest
import zmq

import engine
from engine import CallError, Client, CompletionPort, EngineError, InvalidHandle, Server
from transport import EndpointError, OverlappedDescriptor, OverlappedSocket, errors

ROOT = Path(__file__).resolve().parent.parent
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.TransportError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_of_the_transport_is_one(kind: type[Exception]) -> None:
    """`except EngineError` catches whatever sources, links and endpoints raise; each has a number, also in a copy."""
    assert issubclass(kind, EngineError)
    error = kind(7) if kind is errors.VersionMismatch else kind("why")
    assert isinstance(error, EngineError) and error.status > 0
    assert pickle.loads(pickle.dumps(error)).status == error.status


def test_sources_raise_it() -> None:
    """Beginning, cancelling, asking for the result: of a source, too."""
    reader, writer = os.pipe()
    os.close(writer)
    with OverlappedDescriptor(reader) as source:
        with pytest.raises(EngineError):
            source.cancel()
        pending = source.begin_read()
    for use in (source.begin_read, pending.result, source.detach):
        with pytest.raises(EngineError):
            use()
    with zmq.Context() as context, OverlappedSocket(context.socket(zmq.PULL)) as pull, pytest.raises(EngineError):
        pull.begin_send(b"x")


def test_endpoints_raise_it() -> None:
    """A wrong endpoint is an EngineError, and a ValueError still."""
    for make in (lambda: Client("tcp://nowhere"), lambda: Server("nothing")):
        with pytest.raises(EngineError) as caught:
            make()
        assert isinstance(caught.value, EndpointError | ValueError)


def test_associate_raises_the_engines_own() -> None:
    """A port says of a closed source what it says of any closed handle."""
    reader, writer = os.pipe()
    os.close(writer)
    source = OverlappedDescriptor(reader)
    source.close()
    with CompletionPort() as port, pytest.raises(InvalidHandle) as caught:
        port.associate(source)
    assert caught.value.status == 6


@pytest.mark.parametrize("module", ["engine/errors.py", "engine/rpc/errors.py"])
def test_the_tree_of_errors(module: str) -> None:
    """The tree at the top of a file has each of its classes, below the one that it derives from, with its number; all
    of them are public.
    """
    source = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    parents: dict[int, str] = {}
    drawn = {}
    for line in (ast.get_docstring(source) or "").splitlines():
        row = re.match(r"    ([|` -]*)(\w+)(?: +(\d+)\b)?", line)
        if row is not None:
            parents[len(row[1])] = row[2]
            drawn[row[2]] = (parents.get(len(row[1]) - 4), row[3])
    root = next(iter(drawn))
    classes = {node.name for node in source.body if isinstance(node, ast.ClassDef)}
    assert drawn.keys() == classes | {root}
    for name in classes - {root}:
        kind = getattr(engine, name)
        above, number = drawn[name]
        assert kind.__bases__[0] is getattr(engine, above or "")
        assert number is None or kind.status == int(number)


def test_outcomes_come_as_they_were_raised() -> None:
    """An outcome of a call that a routine raises is of the same class at the client."""

    class Routines:
        def fail(self, name: str) -> None:
            raise getattr(engine, name)("for a test")

    kinds = [kind for base in (CallError, engine.CallCancelled, engine.Unavailable) for kind in base.__subclasses__()]
    kinds.remove(engine.Unavailable)  # What is common to several; without a number of its own.
    with Server("loopback://outcomes") as server:
        server.register("outcomes", Routines())
        server.listen()
        with Client("loopback://outcomes") as client:
            fail = client.bind("outcomes").fail
            for kind in (kind for kind in kinds if kind.__module__ == "engine.rpc.errors"):
                with pytest.raises(kind) as caught:
                    fail(kind.__name__)
                assert type(caught.value) is kind and caught.value.status == kind.status
