"""Certificates for the tests, made once for a process and those that it starts: of an authority, a server, a client.

The server's is for the loopback addresses and `localhost`, the client's says `CLIENT`. `other` is an authority that
nobody trusts, and `stranger` has a certificate of that.
"""

import atexit
import os
import shutil
import ssl
import tempfile
from pathlib import Path
from typing import Any

import pytest

#: Whom the client's certificate is for.
CLIENT = "client.callport.test"

# Where the files are: started processes find them by it.
_FOLDER = "CALLPORT_TEST_CERTIFICATES"


def folder() -> Path:
    """Where they are: `authority.pem`, `other.pem`; with their keys `server.pem`, `client.pem`, `stranger.pem`."""
    if _FOLDER not in os.environ:
        trustme = pytest.importorskip("trustme", reason="certificates are made by trustme, of the extra `test`")
        made = Path(tempfile.mkdtemp(prefix="callport-certificates-"))
        atexit.register(shutil.rmtree, made, ignore_errors=True)
        authority, other = trustme.CA(), trustme.CA()
        authority.cert_pem.write_to_path(made / "authority.pem")
        other.cert_pem.write_to_path(made / "other.pem")
        for name, by, whom in (
            ("server", authority, ("127.0.0.1", "::1", "localhost")),
            ("client", authority, (CLIENT,)),
            ("stranger", other, ("127.0.0.1", "stranger.callport.test")),
        ):
            by.issue_cert(*whom).private_key_and_cert_chain_pem.write_to_path(made / f"{name}.pem")
        os.environ[_FOLDER] = str(made)
    return Path(os.environ[_FOLDER])


def server_context(mutual: bool = True, own: str = "server") -> ssl.SSLContext:
    """A server's; `mutual`: its clients must have a certificate, too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder() / f"{own}.pem")
    if mutual:
        context.load_verify_locations(folder() / "authority.pem")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(own: str | None = "client", trusted: str = "authority") -> ssl.SSLContext:
    """A client's, which trusts that authority and no other, with its own certificate."""
    context = ssl.create_default_context(cafile=folder() / f"{trusted}.pem")
    if own is not None:
        context.load_cert_chain(folder() / f"{own}.pem")
    return context


def for_server(*endpoints: str) -> dict[str, Any]:
    """The options that a server on these endpoints needs."""
    return {"tls": server_context()} if any(each.startswith("tls:") for each in endpoints) else {}


def for_client(endpoint: str) -> dict[str, Any]:
    """The options that a client of it needs."""
    return {"tls": client_context()} if endpoint.startswith("tls:") else {}
