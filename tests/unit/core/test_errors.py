"""Messages of errors."""

from __future__ import annotations

from dynacor_ray.core.errors import expected_got, printable


def test_messages_are_one_printable_line() -> None:
    """What Python prints of an error is not the command line's to clean: the message itself must be harmless."""
    message = expected_got("a label", "'\x1b[31mred\r\nError: all is lost\u202e\x9b'", "look at naïve 日本")
    assert message == r"Expected a label, but got '\x1b[31mred\r\nError: all is lost\u202e\x9b'; look at naïve 日本."
    assert printable("[red]:smile:") == "[red]:smile:"
