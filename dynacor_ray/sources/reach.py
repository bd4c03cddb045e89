"""Which stores the URIs in a table may lead to: a table from elsewhere must not make this machine ask others for it."""

from __future__ import annotations

import ipaddress
import socket
from functools import lru_cache
from urllib.parse import parse_qs, urlsplit

from dynacor_ray.core.storage import Location

OTHER_STORE = "on another store than the table (--remote reads it)"
NEAR = "an address of this machine or of its link (--remote reads it)"
_LOCAL = ("file", "", "")
_NAMES_NO_HOST = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "hf", "memory"})
"""Schemes with a bucket or the like where others have a host."""
_METADATA = frozenset({"100.100.100.200", "fd00:ec2::254"})
"""Where clouds hand out credentials, besides the link-local 169.254.169.254."""


def refusal(uri: str, folder: Location, remote: bool | None) -> str | None:
    """Why a URI or absolute path in a table is not read; None where it is.

    What lies on the table's own store always is.

    Args:
        uri: As it stands in the table.
        folder: Where the table lies.
        remote: Whether it may lie anywhere (True) or on the table's own store only (False). None: anywhere but near
            this machine for a table on this machine, which its owner put there; else on the table's own store only.
    """
    if remote or (store := _store(uri)) == _store(folder.uri):
        return None
    if remote is False or not folder.is_local:
        return OTHER_STORE
    scheme, host, endpoint = store
    hosts = [_host(endpoint), "" if scheme in _NAMES_NO_HOST else _host(host)]
    return NEAR if any(map(_is_near, filter(None, hosts))) else None


def _store(uri: str) -> tuple[str, str, str]:
    """Scheme, host and the endpoint that a query names."""
    scheme, mark, rest = uri.partition("://")
    if not mark or scheme.lower() in ("file", "local"):
        return _LOCAL
    path, _, query = rest.partition("?")
    authority = path.partition("/")[0].rpartition("@")[2]
    return scheme.lower(), authority.lower(), ",".join(parse_qs(query).get("endpoint_override", []))


def _host(address: str) -> str:
    """The host of `host:port` or of a URI."""
    try:
        return urlsplit(address if "://" in address else f"//{address}").hostname or ""
    except ValueError:
        return ""


@lru_cache(maxsize=1024)
def _is_near(host: str) -> bool:
    """Whether a host is this machine, on its link, or where a cloud hands out credentials; by all its addresses."""
    try:
        found = {str(item[4][0]) for item in socket.getaddrinfo(host.partition("%")[0], None)}
    except (OSError, UnicodeError):  # unknown: reading will tell
        return False
    return any(text in _METADATA or _is_special(ipaddress.ip_address(text)) for text in found)


def _is_special(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_link_local or mapped.is_unspecified)
