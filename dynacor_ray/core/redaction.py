"""Secrets in text: what leaves the program, in a message, a file or a tracker, passes here first. Ours.

Known by form, so that nothing has to be remembered, and the texts of libraries are covered too: who logs in at a URI
(`s3://KEY:SECRET@bucket`), parameters of its query (`?sig=...`), and words such as `password=...` anywhere.
"""

from __future__ import annotations

import re
from typing import Any

MASK = "***"
_NAMED_ONLY = ("abfs", "abfss", "wasb", "wasbs", "hdfs", "ssh", "sftp")
"""Before their `@` stands a container or a user; only with a colon there is a password."""
_NAME = (
    r"[\w.~-]*(?:passw|pwd|secret|token|signature|credential|session|(?:api|access|account|shared)[_-]?key|accessid"
    r"|security)[\w.~-]*|x-(?:amz|goog)-[\w-]+|auth|authorization|expires|sig|key|se|st"
)
_LOGIN = re.compile(
    r"\b([a-z][a-z0-9+.-]*)://(?!\[|[^\s/@:]*:\d{1,5}(?:[/?#\s]|$))([^\s/?#@:'\"]*(:[^\s'\"]*)?)@", re.I
)
_BARE_LOGIN = re.compile(r"\b([a-z][a-z0-9+.-]*)://([^\s/?#'\"]*:[^\s/?#'\"]*)@", re.I)
_QUERY = re.compile(rf"([?&#;](?:{_NAME})=)[^\s&#;'\"<>]+", re.I)
_NESTED = re.compile(r"([?&][\w.~-]+=)([a-z0-9+.-]+%3a%2f%2f)[^\s&#'\"]*%40", re.I)
_LONE = re.compile(r"(://[^\s?#'\"]*\?)(?!\*{3})([^\s=&#'\"<>]{8,})(?=[\s#'\"]|$)")
_WORD = re.compile(
    r"\b((?:\w+[_-])?(?:password|passwd|pwd|secret|secret[_-]?(?:access[_-]?)?key|(?:access[_-]?|auth[_-]?)?token|api[_-]?key"
    r"|authorization)['\"]?\s*[=:]\s*['\"]?(?:bearer\s+|basic\s+|(?!(?:bearer|basic)\s)))(?!\*{3})[^\s'\",;&]+",
    re.I,
)


def redact(text: str) -> str:
    """The text with `***` in place of every secret; what is redacted already stays as it is.

    >>> redact("s3://KEY:SECRET@bucket/a?region=x&token=y")
    's3://***@bucket/a?region=x&token=***'
    """
    if "://" in text:
        text = _BARE_LOGIN.sub(rf"\1://{MASK}@", text)
        text = _LOGIN.sub(_without_login, text)
        text = _NESTED.sub(rf"\1\2{MASK}%40", text)
        text = _LONE.sub(rf"\1{MASK}", text)
        text = _QUERY.sub(rf"\1{MASK}", text)
    return _WORD.sub(rf"\1{MASK}", text) if "=" in text or ":" in text else text


def _without_login(found: re.Match[str]) -> str:
    keeps = found[3] is None and found[1].lower() in _NAMED_ONLY
    return found[0] if keeps or found[2] == "anonymous" else f"{found[1]}://{MASK}@"


def redact_all(value: Any) -> Any:
    """A value of lists, tuples and dictionaries with every text in it redacted; keys stay."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: redact_all(item) for key, item in value.items()}
    return type(value)(map(redact_all, value)) if type(value) in (list, tuple) else value


def redacted(error: BaseException) -> BaseException:
    """The error with its own texts and those of its causes redacted, in place: a traceback shows them all."""
    held: BaseException | None = error
    seen = set[int]()
    while held is not None and id(held) not in seen:
        seen.add(id(held))
        held.args = redact_all(held.args)
        if isinstance(held, OSError) and isinstance(held.filename, str):  # which to set changes the text of others
            held.filename = redact(held.filename)
        held = held.__cause__ or held.__context__
    return error
