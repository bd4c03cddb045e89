"""What links of Label Studio to images stand for: a path on its machine, or a file that was uploaded."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

_QUERY = re.compile(r"^(https?://[^/?]+)?/?data/local-files/?\?(?:.*&)?d=", re.IGNORECASE)
_UPLOADED = re.compile(r"(^|/)[0-9a-f]{8}-(?=[^/]+$)")
"""What Label Studio puts before the name of an uploaded file."""


def path_in_link(link: str) -> str:
    """The path that a link to a file of Label Studio's own machine stands for; other texts as they are.

    >>> path_in_link("/data/local-files/?d=a/b%20c%23.png")
    'a/b c#.png'
    >>> path_in_link("s3://bucket/b%20c.png")
    's3://bucket/b%20c.png'
    """
    found = _QUERY.match(link)
    if found:
        return unquote(link[found.end() :])
    return unquote(link).lstrip("/") if link.startswith("/data/upload/") else link


def original_name(path: str) -> str:
    """The path of an uploaded file by the name that it had before.

    >>> original_name("data/upload/1/0f2c9a1b-cat.jpg")
    'data/upload/1/cat.jpg'
    """
    return _UPLOADED.sub(r"\1", path)


def paths_meant(link: str) -> list[str]:
    """What a link may be called in the data: itself, or with the encoding undone that its prefix asks for.

    Encoded are paths behind `?d=` and in the path of a URL, but not the names of objects in a bucket (s3://, gs://).

    >>> paths_meant("https://host/b%20c.png?v=1")
    ['https://host/b%20c.png?v=1', 'host/b c.png']
    >>> paths_meant("gs://bucket/b%20c.png")
    ['gs://bucket/b%20c.png']
    """
    path = path_in_link(link)
    if path == link and link.lower().startswith(("http://", "https://")):
        parts = urlsplit(link)
        path = f"{parts.netloc}{unquote(parts.path)}"
    return list(dict.fromkeys([link, path, original_name(path) if link.startswith("/data/upload/") else path]))
