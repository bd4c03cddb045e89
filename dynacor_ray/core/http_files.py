"""Web servers, whose answers may be endless or packed, or lead elsewhere. Importing this imports aiohttp."""

from __future__ import annotations

import errno
import re
import socket
from typing import Any

import aiohttp

from dynacor_ray.core import near_addresses
from dynacor_ray.core.errors import StorageError, expected_got

MAX_BYTES = 1 << 30
"""Of an answer whose length was not asked for."""


class BoundedResponse(aiohttp.ClientResponse):
    """An answer that is read as far as it was asked for."""

    async def read(self) -> bytes:
        """The whole body. Raises StorageError where it is longer than the range that was asked for, or MAX_BYTES."""
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.request_info.headers.get("Range", ""))
        most = int(asked[2]) - int(asked[1]) + 1 if asked and self.status == 206 else MAX_BYTES
        body = bytearray()
        while block := await self.content.readany():
            body += block
            if len(body) > most:
                self.close()
                got, remedy = "more", "use another server"
                raise StorageError(expected_got(f"at most {most:,} bytes from {self.url}", got, remedy))
        self.release()
        return bytes(body)


async def far_client(**options: Any) -> aiohttp.ClientSession:
    """A client that connects to no address near this machine, wherever a name or a redirect leads."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=_far_socket), **options)


def _far_socket(info: Any) -> socket.socket:
    """A socket for an address as `getaddrinfo` tells it."""
    family, kind, protocol, _, address = info
    if near_addresses.is_near(str(address[0])):
        raise OSError(errno.EACCES, "an address of this machine or of its link", str(address[0]))
    return socket.socket(family, kind, protocol)
