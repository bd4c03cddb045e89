"""The commands, Python snippets and links that the documentation shows, for the tests that parse and execute them."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
GUIDES = {path.stem: path for path in sorted((ROOT / "dynacor_ray" / "guides").glob("*.md"))}
RESULTS = ROOT / "jobs" / "RESULTS.md"
PAGES = (README, *GUIDES.values(), RESULTS)
"""What is tested alike."""


@dataclass(frozen=True)
class Snippet:
    """A fenced block: where it is, and what it holds."""

    place: str
    text: str


def name_of(path: Path) -> str:
    """A file as a test's id shows it."""
    return path.relative_to(ROOT).as_posix()


def snippets(path: Path, *languages: str) -> Iterator[Snippet]:
    """The fenced blocks of a file that are marked as one of the languages."""
    text = path.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if found[1] in languages:
            line = text[: found.start()].count("\n") + 1
            yield Snippet(f"{name_of(path)}:{line}", found[2])


def commands(*paths: Path) -> Iterator[tuple[str, list[str]]]:
    """Where a shell command stands, and its words; comments are left out, continued lines joined."""
    for path in paths:
        for snippet in snippets(path, "bash"):
            for line in snippet.text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    yield snippet.place, words


def own_arguments(words: list[str]) -> list[str] | None:
    """What `dynacor_ray.cli.main` is given by a command, also through a script in `jobs/`; None for other programs."""
    if words[:2] == ["ray", "job"]:
        words = words[words.index("--") + 1 :]
    if words[0] == "dynacor":
        return words[1:]
    if words[0] == "python" and words[1].startswith("jobs/") and not words[1].startswith("jobs/bench_"):
        command = {"compare_baselines": "compare", "clothing1m": "detect"}.get(Path(words[1]).stem, Path(words[1]).stem)
        return [command, *words[2:]]
    return None


def prose(path: Path) -> str:
    """A page without its fenced blocks, in which a bracket is no link and a number sign no heading."""
    return re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def links(path: Path) -> list[str]:
    """Where the links and pictures of a page lead."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(path))


@functools.cache
def anchors(path: Path) -> set[str]:
    """What GitHub calls the headings of a page: lower case, no punctuation, hyphens for spaces."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
