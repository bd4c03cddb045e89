"""Errors that a user can act on: every message says what was expected, what was found and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from dynacor_ray.core.redaction import redact, redact_all


class DynacorError(Exception):
    """Base of all errors raised on purpose by this package; secrets in its message are redacted."""

    def __init__(self, *args: object) -> None:
        super().__init__(*redact_all(args))


class ConfigError(DynacorError, ValueError):
    """An option is unknown, out of range, or contradicts another one."""


class DataError(DynacorError, ValueError):
    """The data set cannot be used as it is."""


class EncoderError(DynacorError):
    """An encoder is unknown, or its weights are unavailable or do not fit."""


class StorageError(DynacorError, OSError):
    """A path to read from or write to is missing, full or refuses the operation."""


class ClusterError(DynacorError):
    """The Ray cluster cannot provide what the run asks for."""


class RunDirectoryError(DynacorError):
    """The run directory belongs to another configuration or another driver."""


class TrainingError(DynacorError):
    """Training diverged, or was interrupted more often than allowed."""


class CoverageError(DynacorError):
    """An instance has no signal, or more than one, for some epoch. Never expected: a defect if raised."""


def expected_got(expected: str, got: str, remedy: str) -> str:
    """One message in the project's format, on one line and free of control characters.

    >>> expected_got("gamma in (0, 1]", "0.0", "pass e.g. --gamma 0.1")
    'Expected gamma in (0, 1], but got 0.0; pass e.g. --gamma 0.1.'
    """
    return printable(f"Expected {expected}, but got {got}; {remedy.rstrip('.')}.")


def counted(count: int, noun: str) -> str:
    """How many there are, in words.

    >>> counted(1, "row"), counted(1200, "box"), counted(0, "class")
    ('1 row', '1,200 boxes', '0 classes')
    """
    ending = "" if count == 1 else "es" if noun.endswith(("s", "x")) else "s"
    return f"{count:,} {noun}{ending}"


def closest(text: str, choices: Iterable[str]) -> str | None:
    """The choice that is probably meant, None where none is near.

    >>> closest("Lable_Studio", ["csv", "label-studio"])
    'label-studio'
    """
    folded = {choice.lower().replace("_", "-"): choice for choice in choices}
    found = difflib.get_close_matches(text.lower().replace("_", "-"), folded, n=1)
    return folded[found[0]] if found else None


def require_two_classes(num_classes: int, remedy: str = "use a data set with two classes or more") -> None:
    """Check that labels can be wrong at all. Raises ConfigError for fewer than two classes."""
    if num_classes < 2:
        raise ConfigError(expected_got("at least 2 classes", str(num_classes), remedy))


def printable(text: str) -> str:
    r"""Text with its control characters escaped, so that a name in the data cannot steer a terminal or forge a line.

    >>> printable("red\x1b[31m")
    'red\\x1b[31m'
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def first_line(error: BaseException) -> str:
    """The first line of the message, or the name of the type; at most 300 characters, secrets redacted."""
    return redact((str(error).strip().splitlines() or [type(error).__name__])[0])[:300]
