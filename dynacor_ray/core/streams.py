"""stdout and stderr whose reader may leave early, or cannot show every character."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from dynacor_ray.core.errors import StorageError, expected_got


class _Lasting:
    """A text stream that drops what nobody reads any more; all else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, or drop the text where the reader has left."""
        with self._lasting():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or drop what was not read."""
        with self._lasting():
            self._stream.flush()

    @contextmanager
    def _lasting(self) -> Iterator[None]:
        """Lead the descriptor elsewhere where it fails, for Python flushes what is left once more as it ends.

        Raises StorageError where the reason is another one than a reader that left.
        """
        try:
            yield
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            if not isinstance(error, BrokenPipeError):
                got = f"'{os.strerror(error.errno or 0)}'"
                raise StorageError(expected_got("output that can be written", got, "lead it elsewhere")) from error


@contextmanager
def lasting_output() -> Iterator[None]:
    """While the block runs, a closed pipe ends nothing: `dynacor detect ... | head` still writes its results.

    A character that the encoding of the terminal lacks is shown as `?`.
    """
    before = sys.stdout, sys.stderr
    for stream in before:
        with suppress(AttributeError):  # something else than a text stream was put in its place
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    sys.stdout, sys.stderr = (stream and _Lasting(stream) for stream in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError):  # there is none
                stream.flush()
        sys.stdout, sys.stderr = before
