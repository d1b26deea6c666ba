"""What measuring processes need for TLS: a certificate for the servers, and the authority that their clients believe.

A client believes the authorities that OpenSSL is told of by the environment, as it would those of the system.
"""

import os
import ssl
from pathlib import Path
from typing import Any

SERVERS = "PERF_CERTIFICATE"  # The variable that names the file with a server's certificate and key.


def issue(folder: Path) -> dict[str, str]:
    """Make both, in files of this folder, for servers at 127.0.0.1; return the environment of the processes."""
    import trustme

    authority = trustme.CA()
    believed, served = folder / "authority.pem", folder / "server.pem"
    authority.cert_pem.write_to_path(str(believed))
    served.write_bytes(authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.bytes())
    return {"SSL_CERT_FILE": str(believed), SERVERS: str(served)}


def server_options(endpoint: str) -> dict[str, Any]:
    """Return what a `Server` at this endpoint is made with, besides what its scenario wants: the certificate, if the
    environment names one.
    """
    file = os.environ.get(SERVERS)
    if file is None or not endpoint.startswith("tls:"):
        return {}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return {"tls": context}
