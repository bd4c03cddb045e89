"""Errors that a user can act on. Every message says what was expected, what was found, and what to do."""

from __future__ import annotations


class DynacorError(Exception):
    """Base of all errors raised on purpose by this package."""


class ConfigError(DynacorError, ValueError):
    """An option is unknown, out of range, or contradicts another one."""


class DataError(DynacorError, ValueError):
    """The data set cannot be used as it is."""


class EncoderError(DynacorError):
    """An encoder is unknown, or its weights cannot be had or do not fit."""


class StorageError(DynacorError, OSError):
    """A place to read from or to write to is missing, full or refuses the operation."""


class ClusterError(DynacorError):
    """The Ray cluster cannot give what the run asks for."""


class RunDirectoryError(DynacorError):
    """The run directory holds something else than what this run would put there."""


class TrainingError(DynacorError):
    """Training diverged, or was stopped more often than allowed."""


class CoverageError(DynacorError):
    """An instance has no signal, or more than one, for some epoch. Never expected; a defect if seen."""


def expected_got(expected: str, got: str, remedy: str) -> str:
    """One message in the project's shape, in one line and printable whatever the data put into it.

    >>> expected_got("gamma in (0, 1]", "0.0", "pass e.g. --gamma 0.1")
    'Expected gamma in (0, 1], but got 0.0; pass e.g. --gamma 0.1.'
    """
    return printable(f"Expected {expected}, but got {got}; {remedy.rstrip('.')}.")


def printable(text: str) -> str:
    r"""Text with its control characters written out: a name in the data cannot steer a terminal or forge a line.

    >>> printable("red\x1b[31m")
    'red\\x1b[31m'
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def first_line(error: BaseException) -> str:
    """The first line of the message, or the name of its type; at most 300 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
