"""A report's page and what is inside it, read as a browser would."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from dynacor_ray.core.storage import locate
from dynacor_ray.report.build import make_report
from tests.made_runs import make_run


class Reader(HTMLParser):
    """Collects elements, attributes and the content of scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.text = ""
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in self.raw:
            self.raw[tag].append("")
            self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.raw[self.inside][-1] += data
        else:
            self.text += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    return reader


def made(folder: Path, **options: Any) -> tuple[str, dict[str, Any]]:
    """The page of a made run, and the data inside it."""
    place = make_report(locate(str(make_run(folder, **options))))
    html = Path(place.path).read_text(encoding="utf-8")
    return html, json.loads(read(html).raw["script"][0])
