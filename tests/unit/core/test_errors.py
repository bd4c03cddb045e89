"""Messages of errors, and of the checks that many options share."""

from __future__ import annotations

import pytest

from dynacor_ray.core.errors import ConfigError, expected_got, printable, require_two_classes


def test_messages_are_one_printable_line() -> None:
    """What Python prints of an error is not the command line's to clean: the message itself must be harmless."""
    message = expected_got("a label", "'\x1b[31mred\r\nError: all is lost\u202e\x9b'", "look at naïve 日本")
    assert message == r"Expected a label, but got '\x1b[31mred\r\nError: all is lost\u202e\x9b'; look at naïve 日本."
    assert printable("[red]:smile:") == "[red]:smile:"


def test_two_classes_are_needed() -> None:
    require_two_classes(2)
    with pytest.raises(ConfigError, match="Expected at least 2 classes, but got 1; use a data set"):
        require_two_classes(1)
