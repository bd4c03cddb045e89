"""How much of a source may be in memory at once, whatever its files say or repeat."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dynacor_ray.core.errors import DataError, expected_got

MAX_BYTES = 384 << 20
"""Of the rows that are read together, which take three times that until they are packed; pieces are cut to a part."""
LARGE_BYTES = 192 << 20
"""Twice what a piece is cut to: from here on no other one in this process is as large."""
_ONE_LARGE = threading.Lock()
_HERE = threading.local()


class LargeRowsError(DataError):
    """Rows that are read together do not fit into memory; fewer may."""


class _Turn:
    """Taken by the threads that read one piece, once."""

    def __init__(self) -> None:
        self._taking, self._is_taken = threading.Lock(), False

    def take(self) -> None:
        with self._taking:
            self._is_taken = self._is_taken or _ONE_LARGE.acquire()

    def end(self) -> None:
        if self._is_taken:
            _ONE_LARGE.release()


@contextmanager
def one_large_at_a_time() -> Iterator[None]:
    """Of the threads in such a block, one at a time reads and keeps a large piece."""
    turn = _HERE.turn = _Turn()
    try:
        yield
    finally:
        _HERE.turn = None
        turn.end()


def wait_for_turn(count: int) -> None:
    """Before so many bytes are read at once: of a large piece, wait for its turn in `one_large_at_a_time`."""
    turn: _Turn | None = getattr(_HERE, "turn", None)
    if turn is not None and count > LARGE_BYTES:
        turn.take()


class Held:
    """Counts the bytes of rows that are read together, also by several threads."""

    def __init__(self, place: object) -> None:
        """place: what is read, as it stands in the message."""
        self._place, self._bytes = place, 0
        self._turn: _Turn | None = getattr(_HERE, "turn", None)

    def add(self, count: int) -> None:
        """Count some more; of a large piece, wait for its turn. Raises LargeRowsError beyond `MAX_BYTES`."""
        self._bytes += count
        if self._bytes > MAX_BYTES:
            got = f"more than {MAX_BYTES >> 20:,} MiB in fewer"
            remedy = "remove the file or its huge values"
            raise LargeRowsError(expected_got(f"rows of {self._place} that fit into memory", got, remedy))
        if self._turn is not None and self._bytes > LARGE_BYTES:
            self._turn.take()
