"""Connections are counted by the address that they come from."""

import pytest

from transport.addresses import Addresses


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1"),
        ("fe80::1%eth0", "fe80::2", "fe80:0:0:1::1"),
    ],
)
def test_whose_addresses_they_are(one: str, same: str, other: str) -> None:
    """An address of IPv4 is one whatever the socket calls it; of IPv6 a network of 64 bits is."""
    addresses = Addresses(1)
    assert addresses.enter(one) == addresses.enter(other) == ""
    assert "max_address_connections" in addresses.enter(same)
    for each in (one, same):
        addresses.leave(each)
    assert addresses.enter(same) == ""


@pytest.mark.parametrize("most", [None, 1])
def test_who_has_none(most: int | None) -> None:
    """What comes from this machine by a file is not counted; nothing is without a bound."""
    addresses = Addresses(most)
    for host in ("", "localhost:0:0:1", *(["192.0.2.1"] * 2 if most is None else [])):
        assert addresses.enter(host) == addresses.enter(host) == ""
        addresses.leave(host)
