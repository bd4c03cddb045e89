"""How much of a source may be in memory at once, whatever its files say or repeat."""

from __future__ import annotations

from dynacor_ray.core.errors import DataError, expected_got

MAX_BYTES = 1 << 30
"""Of the rows that are read together; pieces are cut to a fraction of it."""


class LargeRowsError(DataError):
    """Rows that are read together do not fit into memory; fewer may."""


class Held:
    """Counts the bytes of rows that are read together, also by several threads."""

    def __init__(self, place: object) -> None:
        """place: what is read, as it stands in the message."""
        self._place, self._bytes = place, 0

    def add(self, count: int) -> None:
        """Count some more. Raises LargeRowsError beyond `MAX_BYTES`."""
        self._bytes += count
        if self._bytes > MAX_BYTES:
            got = f"more than {MAX_BYTES >> 20:,} MiB in fewer"
            remedy = "remove the file or its huge values"
            raise LargeRowsError(expected_got(f"rows of {self._place} that fit into memory", got, remedy))
