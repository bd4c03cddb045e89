"""Answers of web servers, which may be endless or packed, whatever was asked for. Importing this imports aiohttp."""

from __future__ import annotations

import re

import aiohttp

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
