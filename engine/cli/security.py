"""What the command line says of keys and certificates, and what it makes of a client or a server: TLS where the
endpoint is `tls://`, CURVE elsewhere. What goes with the other kind is refused, so that nobody takes for secure what is
not.
"""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from transport import Curve, TransportOptions

from .keys import pair, public_key
from .output import ExitCode, fail


class Security(msgspec.Struct, frozen=True):
    """The options, as paths: so it can go to another process. `server_key` is a client's, `allowed` a server's."""

    cacert: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_key: str = ""
    allowed: Path | None = None

    def __bool__(self) -> bool:
        return self != Security()

    def of_client(self, endpoint: str) -> TransportOptions:
        """Return the options of a client; its CURVE keys are made for the occasion, if it has none."""
        if self._of_tls(endpoint):
            if not (self.cacert or self.cert or self.key):
                return {}
            with _reading(self.cacert):
                context = ssl.create_default_context(cafile=self.cacert)
            return {"tls": self._with_certificate(context)}
        if not self.server_key:
            if self.key:
                raise fail("--key needs --server-key, the public key of the server, or --cert", ExitCode.USAGE)
            return {}
        server_key = public_key(self.server_key)
        public, secret = pair(self.key) if self.key else Curve.new_keys()
        return {"curve": Curve(public, secret, server_key=server_key)}

    def of_server(self, endpoint: str) -> TransportOptions:
        """Return the options of a server; with `cacert` its clients have to show a certificate."""
        if self._of_tls(endpoint):
            if not self.cert:
                raise fail(f"{endpoint} needs --cert, a certificate of the server", ExitCode.USAGE)
            context = self._with_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            if self.cacert:
                with _reading(self.cacert):
                    context.load_verify_locations(self.cacert)
                context.verify_mode = ssl.CERT_REQUIRED
            return {"tls": context}
        if not self.key:
            if self.allowed:
                raise fail("--allowed needs --key, the secret key of the server", ExitCode.USAGE)
            return {}
        public, secret = pair(self.key)
        return {"curve": Curve(public, secret, allowed=self.allowed)}

    def _of_tls(self, endpoint: str) -> bool:
        """Whether the endpoint is one of TLS; ends the command if what is given does not go with it."""
        tls = endpoint.startswith("tls:")
        misfits = (
            {"--server-key": self.server_key, "--allowed": self.allowed}
            if tls
            else {"--cacert": self.cacert, "--cert": self.cert}
        )
        for option, value in misfits.items():
            if value:
                kind = "CURVE keys, and not for tls://" if tls else "tls:// endpoints only"
                raise fail(f"{option} is for {kind}: the endpoint is {endpoint}", ExitCode.USAGE)
        return tls

    def _with_certificate(self, context: ssl.SSLContext) -> ssl.SSLContext:
        if self.cert:
            with _reading(self.cert, self.key):
                if self.key is None and b"PRIVATE KEY" not in self.cert.read_bytes():
                    text = f"{self.cert}: its private key is not in it: give the file of that as --key"
                    raise fail(text, ExitCode.USAGE)
                context.load_cert_chain(self.cert, self.key)
        elif self.key:
            raise fail("--key needs --cert, the certificate that it belongs to", ExitCode.USAGE)
        return context


@contextmanager
def _reading(*files: Path | None) -> Iterator[None]:
    """Name the files that TLS cannot use: `ssl` does not."""
    try:
        yield
    except OSError as error:  # An `SSLError` is one, too.
        raise fail(f"{' and '.join(map(str, filter(None, files)))}: {error.strerror}", ExitCode.USAGE) from None
