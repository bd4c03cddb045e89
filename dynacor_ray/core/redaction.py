"""Secrets in text: what leaves the program, in a message, a file or a tracker, passes here first. Ours.

Known by form, so that nothing has to be remembered, and the texts of libraries are covered too: who logs in at a URI
(`s3://KEY:SECRET@bucket`), parameters of its query (`?sig=...`), words such as `password=...` anywhere, and tokens that
say what they are (`hf_...`). Texts from data are as long as they like, so every repetition here is bounded.
"""

from __future__ import annotations

import re
from typing import Any

MASK = "***"
_NAMED_ONLY = ("abfs", "abfss", "wasb", "wasbs", "hdfs", "ssh", "sftp")
"""Before their `@` stands a container or a user; only with a colon there is a password."""
_CHAR = r"(?:[^\s'\"]|['\"](?=[\w%]))"
"""Of a password: quotes only inside of it."""
_LOGIN = re.compile(
    rf"(?<![\w.+-])([a-z][a-z0-9+.-]{{0,30}}:)?(//)(?!\[|[^\s/@:]{{0,300}}:\d{{1,5}}(?:[/?#\s]|$))"
    rf"([^\s/?#@:'\"]{{0,1000}}(:{_CHAR}{{0,1000}})?)@",
    re.I,
)
_SLIP = re.compile(r"(?<![\w.+-])([a-z][a-z0-9+.-]{1,30}:)(/)(?!/)([^\s/@:'\"]{1,200}(:[^\s'\"]{1,200}))@", re.I)
"""With a slash too few, which makes a path of it."""
_NESTED = re.compile(r"([?&][\w.~-]{1,99}=)([a-z0-9+.-]{1,30}%3a%2f%2f)[^\s&#'\"]{0,1000}%40", re.I)
_TEXT_OF_URI = re.compile(r"[^\s'\"]+")
_LONE = re.compile(r"(?!\*{3})[^=&<>]{8,}")
_SECRET = (
    r"[\w.~-]{0,64}(?:passw|passphrase|pwd|secret|token(?!s\b|iz)|(?:api|access|account|shared|private)[_.-]?key"
    r"|sharedaccesssignature|odbc_connect)[\w.~-]{0,64}"
)
"""Names of secrets."""
_OF_QUERY = (
    rf"{_SECRET}|[\w.~-]{{0,64}}(?:signature|credential|session|accessid|security)[\w.~-]{{0,64}}|x-(?:amz|goog)-[\w-]+"
    r"|auth|authorization|expires|sig|key|se|st|jwt|pat|pass|pw|code"
)
_QUERY = re.compile(rf"([?&#;](?:{_OF_QUERY})=)(?!\*{{3}})[^\s&#;'\"<>]+", re.I)
_START = r"(?<![\w.~-])"
_QUOTED = re.compile(rf"({_START}{_SECRET}['\"]?\s{{0,9}}[=:]\s{{0,9}}b?(['\"]))(?!\*{{3}})(?:(?!\2)[^\n])+", re.I)
_WORD = re.compile(rf"({_START}{_SECRET}['\"]?\s{{0,9}}(?:[=:]|%3d)\s{{0,9}})(?!b?['\"]|\*{{3}})[^\s'\",;&%]+", re.I)
_FLAG = re.compile(rf"({_START}--{_SECRET}(?:\s|['\"],\s?['\"]))(?!\*{{3}})[^\s'\"]+", re.I)
_HEADER = re.compile(r"(\b(?:authorization|cookie)['\"]?\s{0,9}[=:]\s{0,9}b?['\"]?)(?!\*{3})[^\s'\"][^'\"\n]*", re.I)
_TOKEN = re.compile(
    r"\b(?:hf_|gh[pousr]_|github_pat_|glpat-|dapi|sk-)[\w-]{16,}|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"
    r"|(?<=bearer )(?=\S*\d)[\w.~+/=-]{6,}|(?<=PRIVATE KEY-----).+?(?=-----END|$)",
    re.I | re.S,
)


def redact(text: str) -> str:
    """The text with `***` in place of every secret; what is redacted already stays as it is.

    >>> redact("s3://KEY:SECRET@bucket/a?region=x&token=y")
    's3://***@bucket/a?region=x&token=***'
    """
    if "@" in text:
        text = _SLIP.sub(_without_login, _LOGIN.sub(_without_login, text))
    if "://" in text:
        text = _TEXT_OF_URI.sub(_without_lone_query, text)
    if "%" in text:
        text = _NESTED.sub(rf"\1\2{MASK}%40", text)
    if "=" in text or ":" in text or "%3" in text or "--" in text:
        for form in (_HEADER, _QUERY, _QUOTED, _WORD, _FLAG):
            text = form.sub(rf"\1{MASK}", text)
    return _TOKEN.sub(MASK, text)


def _without_login(found: re.Match[str]) -> str:
    scheme, slashes, login, password = found.groups(default="")
    keeps = not password and scheme[:-1].lower() in (*_NAMED_ONLY, "")
    return found[0] if keeps or login == "anonymous" else f"{scheme}{slashes}{MASK}@"


def _without_lone_query(found: re.Match[str]) -> str:
    """A URI without a query that is one long word; other text as it is."""
    address, mark, rest = found[0].partition("?")
    query, fragment_mark, fragment = rest.partition("#")
    is_secret = "://" in address and _LONE.fullmatch(query)
    return f"{address}{mark}{MASK}{fragment_mark}{fragment}" if is_secret else found[0]


def redact_all(value: Any) -> Any:
    """A value of lists, tuples and dictionaries with every text in it redacted; keys stay."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: redact_all(item) for key, item in value.items()}
    return type(value)(map(redact_all, value)) if type(value) in (list, tuple) else value


def redacted(error: BaseException) -> BaseException:
    """The error with its own texts and those of its causes redacted, in place: a traceback shows them all.

    One that makes its text of other things, as of an address, gets a text that stays.
    """
    held: BaseException | None = error
    seen = set[int]()
    while held is not None and id(held) not in seen:
        seen.add(id(held))
        held.args = redact_all(held.args)
        if isinstance(held, OSError) and isinstance(held.filename, str):  # which to set changes the text of others
            held.filename = redact(held.filename)
        if hasattr(held, "__notes__"):
            held.__notes__ = redact_all(held.__notes__)
        if (text := str(held)) != redact(text):
            held.__class__ = _with_text(type(held), redact(text))
        held = held.__cause__ or held.__context__
    return error


def _with_text(kind: type[BaseException], text: str) -> type[BaseException]:
    """A type of errors, as which a text is shown."""
    return type(kind.__name__, (kind,), {"__str__": lambda _: text, "__module__": kind.__module__})
