"""What a user of the engine catches as `EngineError`."""

import os
import pickle

import pytest
import zmq

from engine import Client, CompletionPort, EngineError, InvalidHandle, Server
from transport import EndpointError, OverlappedDescriptor, OverlappedSocket, errors

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
