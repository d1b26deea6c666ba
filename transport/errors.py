"""Errors of the transport, split by who can act on them.

TransportError
    LocalProtocolError      we were misused: the caller's bug
        PayloadTooLarge     one call or reply is larger than a message may be
        LinkClosed          the link was closed here
        LinkForked          the link was opened by the parent process
    RemoteProtocolError     the peer sent something that is not the protocol; `reason` says what
        VersionMismatch     it speaks another version; `version` is the one it used
    PeerLost                there is no connection to that peer
    EndpointError           the endpoint's text is wrong, or it cannot be used (also a ValueError)
"""


class TransportError(Exception):
    """Base of every error raised by this package."""


class LocalProtocolError(TransportError):
    """This side did something the protocol or the link does not allow."""


class PayloadTooLarge(LocalProtocolError):
    """One call or reply, encoded, is larger than a message may be."""


class LinkClosed(LocalProtocolError):
    """The link was closed by this process."""


class LinkForked(LocalProtocolError):
    """The link belongs to the parent process: sockets do not survive a fork."""


class RemoteProtocolError(TransportError):
    """The peer sent something that is not the protocol."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class VersionMismatch(RemoteProtocolError):
    """The peer speaks a version of the protocol that this side does not."""

    def __init__(self, version: int) -> None:
        super().__init__(f"the peer speaks version {version} of the protocol, this side does not")
        self.version = version


class PeerLost(TransportError):
    """There is no connection to the peer: it never was, or it is gone."""


class EndpointError(TransportError, ValueError):
    """The endpoint's text is wrong, or the endpoint cannot be used as asked."""
