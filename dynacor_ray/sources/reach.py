"""Which stores the URIs in a table may lead to: a table from elsewhere must not make this machine ask others for it."""

from __future__ import annotations

import re
import socket
from functools import lru_cache
from urllib.parse import parse_qsl, urlsplit

from dynacor_ray.core import near_addresses
from dynacor_ray.core.storage import Location

OTHER_STORE = "on another store than the table (--remote reads it)"
NEAR = "an address of this machine or of its link (--remote reads it)"
UNCLEAR = "an address that programs read in different ways"
OWN_SERVER = "a server of its own, which would see this machine's token (--remote reads it)"
_LOCAL = ("file", "", ())
_NAMES_NO_HOST = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "hf", "memory"})
"""Schemes with a bucket or the like where others have a host."""
_BY_TOKEN = frozenset({"gs", "gcs", "abfs", "abfss", "az", "adl"})
"""Of these, what is shown a token that opens all of its owner's buckets; S3 sees the signature of one request."""
_OF_AZURE = re.compile(r"[\w-]*(?:\.(?:blob|dfs)\.core\.windows\.net)?")
_PLAIN = re.compile(r"(?:[^\s#@\\]*@)?(?:[\w.-]+|\[[\w:.%-]+\])(?::\d*)?")
"""What stands before the first `/` or `?` where everybody reads the same host."""


def refusal(uri: str, folder: Location, remote: bool | None) -> str | None:
    """Why a URI or absolute path in a table is not read; None where it is.

    What lies on the table's own store always is.

    Args:
        uri: As it stands in the table.
        folder: Where the table lies.
        remote: Whether it may lie anywhere (True) or on the table's own store only (False). None: anywhere but near
            this machine for a table on this machine, which its owner put there; else on the table's own store only.
    """
    if remote or is_own(uri, folder):
        return None
    if remote is False or not folder.is_local:
        return OTHER_STORE
    scheme, host, query = _store(uri)
    near = [host, *(value for _, value in query)] if scheme in _BY_TOKEN else [host]
    if scheme in _NAMES_NO_HOST - _BY_TOKEN:
        near = [value for _, value in query]
    if any(_is_near(name) for name in map(_host, near) if name):
        return NEAR
    if scheme in _BY_TOKEN and _names_server(scheme, host, query):
        return OWN_SERVER
    plain = _PLAIN.fullmatch(re.split("[/?]", uri.partition("://")[2], maxsplit=1)[0])
    return None if plain or scheme in _NAMES_NO_HOST else UNCLEAR


def is_own(uri: str, folder: Location) -> bool:
    """Whether a URI lies on the table's own store."""
    return _store(uri) == _store(folder.uri)


def _store(uri: str) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    """Scheme, host with who logs in there, and of a store with buckets the query, which may name its server."""
    scheme, mark, rest = uri.partition("://")
    scheme = scheme.lower()
    if not mark or scheme in ("file", "local"):
        return _LOCAL
    if scheme not in _NAMES_NO_HOST:
        return scheme, re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2].lower(), ()
    path, _, query = rest.partition("?")
    authority = path.partition("/")[0].rpartition("@")[2]
    return scheme, authority.lower(), tuple(sorted(parse_qsl(query, keep_blank_values=True)))


def _names_server(scheme: str, host: str, query: tuple[tuple[str, str], ...]) -> bool:
    """Whether an address of a store by token leads to another server than that of Google or Azure."""
    is_other = scheme not in ("gs", "gcs") and not _OF_AZURE.fullmatch(host)
    return is_other or any("endpoint" in name.lower() or "authority" in name.lower() for name, _ in query)


def _host(address: str) -> str:
    """The host of `host:port` or of a URI."""
    try:
        return (urlsplit(address if "://" in address else f"//{address}").hostname or "").rstrip(".")
    except ValueError:
        return ""


@lru_cache(maxsize=1024)
def _is_near(host: str) -> bool:
    """Whether a host is this machine, on its link, or where a cloud hands out credentials; by all its addresses."""
    try:
        found = {str(item[4][0]) for item in socket.getaddrinfo(host.partition("%")[0], None)}
    except (OSError, UnicodeError):  # unknown: reading will tell
        return False
    return any(map(near_addresses.is_near, found))
