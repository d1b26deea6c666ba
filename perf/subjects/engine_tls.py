"""Us under TLS: the native link over TCP, encrypted, the server with a certificate that it makes for itself.

Favours nobody: the client believes the certificate unread, which a call does not notice. TLS 1.3, whichever cipher
OpenSSL likes best here.
"""

import ssl
import tempfile
from typing import Any

from engine import Client as EngineClient
from engine import Interface
from perf.streams import needs
from perf.subjects import engine
from perf.worker import Control

NOTE = "4 workers, the native link under TLS, replies collected through a completion port"


def missing() -> str | None:
    """It needs trustme, which makes the certificate."""
    return needs("trustme", "trustme")


def serve(settings: dict[str, Any], control: Control) -> None:
    """Serve `Echo` on a loopback address."""
    import trustme

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.bytes())
        file.flush()
        context.load_cert_chain(file.name)
    services: dict[type[Interface], object] = {engine.Echo: engine.EchoService()}
    workers = settings.get("workers", engine.WORKERS)
    engine.serve_until_end(
        {**settings, "endpoint": "tls://127.0.0.1:0"}, control, services, workers=workers, tls=context
    )


class Client(engine.Client):
    """The same over TLS."""

    def __init__(self, endpoint: str) -> None:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._under_tls = EngineClient(endpoint, tls=context)
        super().__init__(endpoint, self._under_tls)

    def close(self) -> None:
        """Close both."""
        super().close()
        self._under_tls.close()
