"""What the commands that connect have in common: the endpoint, and the options that say how to reach it."""

from collections.abc import Callable
from inspect import Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from engine import Client

from .output import errors
from .security import Security

Endpoint = Annotated[str, typer.Argument(help="Of the server, as tcp://host:port.", metavar="ENDPOINT")]
CaCert = Annotated[
    Path | None, typer.Option(metavar="FILE", help="TLS: trust these authorities (PEM), not the system's.")
]
Cert = Annotated[Path | None, typer.Option(metavar="FILE", help="TLS: show the server this certificate (PEM).")]
Key = Annotated[Path | None, typer.Option(metavar="FILE", help="The secret key: of --cert, or a NAME.key of CURVE.")]
ServerKey = Annotated[str, typer.Option(metavar="KEY", help="CURVE: the server's public key, or its NAME.pub.")]

CONNECT_TIMEOUT = 5.0  # Seconds, for commands that have no --timeout.


def _client(
    timeout: float, endpoint: Endpoint, cacert: CaCert = None, cert: Cert = None, key: Key = None,
    server_key: ServerKey = "",
) -> Client:  # fmt: skip
    security = Security(cacert=cacert, cert=cert, key=key, server_key=server_key)
    return Client(endpoint, connect_timeout=timeout, **security.of_client(endpoint))


def connecting(command: Callable[..., None]) -> Callable[..., None]:
    """Have a command take a client first, which is made of an endpoint, its `--timeout` and the options of security.

    The engine's errors are said in a line.
    """
    _, endpoint, *security = signature(_client).parameters.values()
    _, *own = signature(command).parameters.values()

    def connected(**given: Any) -> None:
        reached_by = {each.name: given.pop(each.name) for each in (endpoint, *security)}
        with errors(), _client(given.get("timeout", CONNECT_TIMEOUT), **reached_by) as client:
            command(client, **given)

    connected.__name__, connected.__doc__ = command.__name__, command.__doc__
    connected.__signature__ = Signature([endpoint, *own, *security])  # type: ignore[attr-defined]  # read by typer
    return connected
