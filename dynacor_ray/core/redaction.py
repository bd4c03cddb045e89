"""Secrets in text: what leaves the program, in a message, a file or a tracker, passes here first. Ours.

Known by form, so that nothing has to be remembered, and the texts of libraries are covered too: who logs in at a URI
(`s3://KEY:SECRET@bucket`), parameters of its query (`?sig=...`), words such as `password=...` anywhere, and tokens that
say what they are (`hf_...`). Texts from data are as long as they like, so every repetition here is bounded.
"""

from __future__ import annotations

import base64
import re
from typing import Any

MASK = "***"
_NAMED_ONLY = ("abfs", "abfss", "wasb", "wasbs", "hdfs", "ssh", "sftp")
"""Before their `@` stands a container or a user; only with a colon there is a password."""
_ATS = "@\uff20\ufe6b"
"""Also as East Asian keyboards and fonts write it."""
_AT = f"[{_ATS}]"
_CHAR = r"(?:[^\s'\"]|['\"](?=[\w%]))"
"""Of a password: quotes only inside of it."""
_LOGIN = re.compile(
    rf"(?<![\w.+-])([a-z][a-z0-9+.-]{{0,30}}:)?(//)(?!\[|[^\s/{_ATS}:]{{0,300}}:\d{{1,5}}(?:[/?#\s]|$))"
    rf"([^\s/?#{_ATS}:'\"]{{0,1000}}(:{_CHAR}{{0,1000}})?){_AT}",
    re.I,
)
_SLIP = re.compile(
    rf"(?<![\w.+-])([a-z][a-z0-9+.-]{{1,30}}:)(/)(?!/)([^\s/{_ATS}:'\"]{{1,200}}(:[^\s'\"]{{1,200}})){_AT}", re.I
)
"""With a slash too few, which makes a path of it."""
_THIN = re.compile(r"(?<=:thin:)([^\s/@]{1,100}/)[^\s@]{1,200}(?=@)", re.I)
"""Oracle's addresses."""
_NESTED = re.compile(r"(?<![\w.+-])((?:[\w.~-]{0,99}%3d)?[a-z0-9+.-]{1,30}%3a%2f%2f)[^\s&#'\"]{0,1000}%40", re.I)
_PROXY = re.compile(r"(?<![\w/.+%-])[\w.+-]{1,64}:[^\s/@:,'\"]{1,200}(?=@[\w.-]{1,200}:\d{2,5}(?![\w.]))")
"""Who logs in at `host:port`, without a scheme."""
_TEXT_OF_URI = re.compile(r"[^\s'\"]+")
_LONE = re.compile(r"(?!\*{3})[^=&<>]{8,}")
_KEY = "(?:api|access|account|shared|private|secret)"
_WORD_OF_SECRET = rf"passw(?:or[dt]|d)?|pass ?phrase|pwd|secret|token|{_KEY}[ _.-]?key"
_SECRET = (
    rf"[\w.~-]{{0,64}}(?:passw|pass ?phrase|pwd|secret|token(?!s\b|iz)|{_KEY}[_.-]?key"
    r"|sharedaccesssignature|odbc_connect)[\w.~-]{0,64}"
)
"""Names of secrets."""
_OF_QUERY = (
    rf"{_SECRET}|[\w.~-]{{0,64}}(?:signature|credential|session|accessid|security)[\w.~-]{{0,64}}|x-(?:amz|goog)-[\w-]+"
    r"|auth|authorization|[\w.~-]{0,16}auth[_.-]?key|bearer|expires|hmac|sas|sig|key|se|st|jwt|pat|pass|pw|code"
)
_QUERY = re.compile(rf"([?&#;](?:amp;)?(?:{_OF_QUERY})=)(?!\*{{3}})[^\s&#;'\"<>]+", re.I)
_START = r"(?<![\w.~-])"
_QUOTE = r"\\{0,3}['\"]"
"""Also as in JSON within JSON."""
_IS = r"\s{0,9}(?:[:=]{1,2}+>?+|->)\s{0,9}+"
_MIXED = r"(?=\S{0,200}\d)(?=\S{0,200}[a-z])[^\s'\",;&=]{6,}=*"
"""A word with digits, as the names of classes and other text have hardly any after the name of a secret."""
_ARGUMENTS = r"[^\n;|&]{0,200}?"
_ARGUMENT = r"(?!\*{3}|['\"]\*{3})(?:'[^'\n]+'|\"[^\"\n]+\"|[^\s'\"]+)"
"""Those of a command before one, and that one."""
_OF_CODES = r"(?:[^\s'\",;&%\\]|%(?!2[0267c]|3b|5c|7d))+"
_HINT = re.compile(
    rb"pass|pwd|pw=|secret|token|key|auth|cookie|credential|odbc|otp|sharedaccess|basic|identified|session|security"
    rb"|signature|accessid|expires|sig=|sas=|se=|st=|jwt|pat=|code=|x-amz|x-goog|hmac|bearer=| -u | --user"
    rb"|[?&;]p=|net\s+use|mysql|mariadb|redis-cli| login"
)
"""Without one of these no form below is found: most texts end here."""
_FORMS = tuple(
    re.compile(form, re.I)
    for form in (
        rf"(\b(?:authorization|cookie){_QUOTE}?\s{{0,9}}[=:]\s{{0,9}}b?(?:{_QUOTE})?)(?!\*{{3}})[^\s'\"][^'\"\n]*",
        _QUERY.pattern,
        # password='...', {"password": "..."}, {\"password\": \"...\"}, --password "..."
        rf"({_START}(?:--{_SECRET}\s{{1,9}}|{_SECRET}(?:{_QUOTE})?{_IS})b?({_QUOTE}))"
        r"(?!\*{3})(?:(?!\2)(?:\\.|[^\n])|\2\2)+",
        # auth=('me', '...'), secrets={...}
        rf"({_START}(?:{_SECRET}|auth|credentials?)(?:{_QUOTE})?{_IS})[\[({{][^\n\[\](){{}}]{{1,1000}}[\])}}]",
        rf"({_START}{_SECRET}(?:{_QUOTE})?{_IS})(?!b?\\{{0,3}}['\"]|\*{{3}})(?:[^\s'\",;&]|['\"](?=\w))+",
        # the same in a URI, HTML or JSON that spells marks as codes
        rf"({_START}(?:%22|%27)?{_SECRET}(?:%2[27]|&quot;|&\#3[49];|\\u002[27])?(?:%20|\+)?(?:%3[ad]|&\#(?:58|61);|\\u003[ad])"
        rf"(?:%20|\+)?(?:%2[27]|&quot;|&\#3[49];|\\u002[27])?)(?!\*{{3}}){_OF_CODES}",
        rf"({_START}--{_SECRET}(?:\s|['\"],\s?['\"]))(?!\*{{3}})[^\s'\"]+",
        # ('password', '...'), name: DB_PASSWORD value: ...
        rf"(\((['\"]){_SECRET}\2,\s?b?\2)(?=[^'\"]{{0,200}}\d)[^\n'\"]{{6,}}(?=\2\))",
        rf"(\b(?:name|key)(?:{_QUOTE})?{_IS}(?:{_QUOTE})?{_SECRET}(?:{_QUOTE})?[\s,]{{1,40}}(?:{_QUOTE})?value(?:{_QUOTE})?{_IS}"
        rf"(?:{_QUOTE})?)(?!\*{{3}})[^\s'\",}}]+",
        # <SessionToken>...</SessionToken>, <password value="..."/>
        rf"(<{_SECRET}>)(?!\*{{3}})[^<>\n]{{1,2000}}(?=</)",
        rf"(<{_SECRET}\s{{1,9}}value=(['\"]))(?!\*{{3}})(?:(?!\2)[^\n])+",
        # the password is '...', with token abc123, login me password ...
        rf"({_START}(?:[\w.~-]{{0,64}}[_.-])?(?:{_WORD_OF_SECRET})\s{{1,9}}(?:is\s{{1,9}})?)(?:{_MIXED})",
        rf"({_START}(?:{_WORD_OF_SECRET})\s{{1,9}}is\s{{1,9}}(['\"]))(?!\*{{3}})(?:(?!\2)[^\n])+",
        r"(\blogin\s{1,9}\S{1,200}\s{1,9}password\s{1,9})(?!\*{3})\S+",
        r"(\bidentified by\s{1,9}(['\"]))(?!\*{3})(?:(?!\2)[^\n])+",
        rf"({_START}(?:pass|pw|auth|credentials?|otp)=){_MIXED}",
        # curl -u me:..., but not docker -u 1000:1000
        r"(\s(?:-u|--user)[\s=]['\"]?[^\s:'\"]{1,100}:)(?!\*{3}|\d+(?:\s|$))[^\s'\"]+",
        # sshpass -p ..., docker login -u me -p ..., redis-cli -a ..., and mysql -p..., where a blank would end it
        rf"(\b(?:sshpass|(?:docker|podman|nerdctl|buildah|skopeo|helm registry|oc|az|cf) login){_ARGUMENTS}\s-p\s*)"
        rf"{_ARGUMENT}",
        rf"(\bredis-cli{_ARGUMENTS}\s-a\s{{0,9}}){_ARGUMENT}",
        rf"(\b(?:mysql\w{{0,20}}|mariadb[\w-]{{0,20}}){_ARGUMENTS}\s-p){_ARGUMENT}",
        # net use Z: \\host\share ... /user:me ...
        r"(\bnet\s{1,9}use\s{1,9}(?:[a-z*]:?\s{1,9})?\\\S{1,200}\s{1,9}(?:/user:\S{1,200}\s{1,9})?)"
        rf"(?!/){_ARGUMENT}",
        # of ?p=3, a page, and ?p=..., a password, the one with letters and digits
        rf"([?&;]p=)(?!\*{{3}}){_MIXED}",
    )
)
_BASIC = re.compile(r"(\bbasic )([a-z\d+/_-]{6,}={0,2})", re.I)
_TOKEN = re.compile(
    r"\b(?:(?i:hf_|gh[pousr]_)[a-zA-Z\d]{16,}|(?i:github_pat_|glpat-|dapi|sk-)[\w-]{16,}"
    r"|xox[abeprs]-[\w-]{10,}|npm_\w{30,}|AIza[\w-]{30,}"
    r"|hv[sb]\.[\w-]{16,}|ya29\.[\w-]{16,}|SG\.[\w-]{16,}\.[\w-]{16,}|A[KS]IA[0-9A-Z]{12,}(?::[^\s'\"]+)?"
    r"|(?<=hooks\.slack\.com/services/)[\w/]{16,}|(?<=/webhooks/)\d{5,30}/[\w-]{16,}"
    r"|pypi-[\w-]{50,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)|(?<=/bot)\d{5,12}:[\w-]{16,}"
    r"|(?<=(?i:bearer) )(?=\S*\d)[\w.~+/=-]{6,}"
    r"|(?:(?<=PRIVATE KEY-----)|(?<=PRIVATE KEY BLOCK-----)).+?(?=-----END|$)",
    re.S,
)


def redact(text: str) -> str:
    """The text with `***` in place of every secret; what is redacted already stays as it is.

    >>> redact("s3://KEY:SECRET@bucket/a?region=x&token=y")
    's3://***@bucket/a?region=x&token=***'
    """
    if any(mark in text for mark in _ATS):
        text = _THIN.sub(rf"\1{MASK}", text)
        text = _PROXY.sub(MASK, _SLIP.sub(_without_login, _LOGIN.sub(_without_login, text)))
    if "://" in text:
        text = _TEXT_OF_URI.sub(_without_lone_query, text)
    if "%" in text:
        text = _NESTED.sub(rf"\1{MASK}%40", text)
    if _HINT.search(text.encode("ascii", "ignore").lower()):
        for form in _FORMS:
            text = form.sub(rf"\1{MASK}", text)
        text = _BASIC.sub(_without_basic, text)
    return _TOKEN.sub(MASK, text)


def _without_login(found: re.Match[str]) -> str:
    scheme, slashes, login, password = found.groups(default="")
    keeps = not password and scheme[:-1].lower() in (*_NAMED_ONLY, "")
    return found[0] if keeps or login == "anonymous" else f"{scheme}{slashes}{MASK}@"


def _without_basic(found: re.Match[str]) -> str:
    """The header's word without who logs in, where that is what the next one means."""
    try:
        is_login = ":" in base64.urlsafe_b64decode(found[2].replace("/", "_") + "==").decode()
    except ValueError:
        return found[0]
    return f"{found[1]}{MASK}" if is_login else found[0]


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
