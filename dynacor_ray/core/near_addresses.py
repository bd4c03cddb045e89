"""Addresses of this machine and its link, and those where clouds hand out credentials."""

from __future__ import annotations

import ipaddress

_METADATA = frozenset({"100.100.100.200", "192.0.0.192", "fd00:ec2::254"})
"""Where clouds hand out credentials, besides the link-local 169.254.169.254."""


def is_near(text: str) -> bool:
    """Whether an IP address is this machine, on its link, or where a cloud hands out credentials.

    >>> [is_near(text) for text in ("127.0.0.1", "fe80::1", "::ffff:127.0.0.1", "192.0.2.1")]
    [True, True, True, False]
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    inner = _inner(address) if isinstance(address, ipaddress.IPv6Address) else address
    return text in _METADATA or bool(inner.is_loopback or inner.is_link_local or inner.is_unspecified)


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IPv4 address that an IPv6 one stands for, where it does: mapped, 6to4, or by a translator (RFC 6052)."""
    known = address.ipv4_mapped or address.sixtofour
    is_embedded = int(address) >> 32 in (0, 0x64FF9B << 64) and int(address) > 1
    return known or (ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if is_embedded else address)
