"""Endpoint text."""

from typing import Any

import pytest

from transport import Endpoint, EndpointError


@pytest.mark.parametrize(
    "text",
    [
        "tcp://127.0.0.1:5555", "tcp://*:5555", "tcp://localhost:1", "tcp://[::1]:65535", "tcp://0.0.0.0:*",
        "ipc:///tmp/a socket", "ipc://@abstract", "inproc://name", "loopback://any name: at all",
    ],
)  # fmt: skip
def test_text_and_back(text: str) -> None:
    """What was parsed gives its text again, and is equal if parsed again."""
    endpoint = Endpoint.parse(text)
    assert str(endpoint) == text
    assert Endpoint.parse(endpoint) is endpoint
    assert Endpoint.parse(text) == endpoint
    assert hash(Endpoint.parse(text)) == hash(endpoint)


def test_the_parts() -> None:
    """Host and port of tcp, the name of the others."""
    assert Endpoint.parse("tcp://[::1]:80") == Endpoint("tcp", host="[::1]", port=80)
    assert Endpoint.parse("tcp://a.b:0").port == 0
    assert Endpoint.parse("ipc:///x/y").name == "/x/y"
    assert Endpoint.parse("loopback://x").local
    assert not Endpoint.parse("ipc:///x").local


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("127.0.0.1:5555", "no scheme"),
        ("http://x:1", "'http' is not one of"),
        ("tcp://", "nothing follows"),
        ("tcp://host", "tcp://host:port"),
        ("tcp://:5555", "tcp://host:port"),
        ("tcp://host:port", "'port' is not a number"),
        ("tcp://host:65536", "from 0 to 65535"),
        ("tcp://host:-1", "from 0 to 65535"),
        ("tcp://host:٣", "from 0 to 65535"),
        ("tcp://::1:80", "brackets"),
        ("tcp://[::1:80", "brackets"),
        ("tcp://a b:80", "not a host"),
        ("tcp://a/b:80", "not a host"),
        ("ipc://" + "x" * 108, "107 bytes"),
        ("ipc://a\0b", "zero byte"),
        ("inproc://", "nothing follows"),
        ("", "no scheme"),
    ],
)
def test_errors(text: str, why: str) -> None:
    """They say which part is wrong, and are ValueErrors too."""
    with pytest.raises(EndpointError, match=why):
        Endpoint.parse(text)
    with pytest.raises(ValueError):
        Endpoint.parse(text)


def test_not_text() -> None:
    """It is an EndpointError as well."""
    with pytest.raises(EndpointError, match="int"):
        Endpoint.parse(5555)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    "endpoint",
    [
        f"tcp://127.0.0.1:{'0' * 5000}", f"tcp://127.0.0.1:{'9' * 5000}", "ipc:///tmp/\ud800", "loopback://\ud800",
        "tcp://\ud800:1", Endpoint("ipc", 3), Endpoint(3, "x"), Endpoint("tcp", host="a", port="1"),  # type: ignore[arg-type]  # wrong on purpose
        Endpoint("tcp", host="a", port=1 << 16), Endpoint("ftp", "x"), Endpoint("ipc", "x" * 200),
    ],
)  # fmt: skip
def test_what_is_none(endpoint: Any) -> None:
    """What cannot be an endpoint is refused by an error of ours, whoever put it together."""
    with pytest.raises(EndpointError):
        Endpoint.parse(endpoint)
