"""The commands and Python snippets that the documentation shows, for the tests that parse and execute them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
GUIDES = (ROOT / "dynacor_ray" / "detectors" / "__init__.py", ROOT / "dynacor_ray" / "sources" / "__init__.py")


@dataclass(frozen=True)
class Snippet:
    """A fenced block: where it is, and what it holds."""

    place: str
    text: str


def snippets(path: Path, *languages: str) -> Iterator[Snippet]:
    """The fenced blocks of a file that are marked as one of the languages."""
    text = path.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if found[1] in languages:
            line = text[: found.start()].count("\n") + 1
            yield Snippet(f"{path.relative_to(ROOT)}:{line}", found[2])


def commands(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Where a shell command stands, and its words; comments are left out, continued lines joined."""
    for snippet in snippets(path, "bash", "sh", "console"):
        for line in snippet.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words:
                yield snippet.place, words


def own_arguments(words: list[str]) -> list[str] | None:
    """What `dynacor_ray.cli.main` is given by a command, also through a script in `jobs/`; None for other programs."""
    if words[:2] == ["ray", "job"]:
        words = words[words.index("--") + 1 :]
    if Path(words[0]).name == "dynacor":
        return words[1:]
    if words[0] == "python" and words[1].startswith("jobs/"):
        command = {"compare_baselines": "compare", "clothing1m": "detect"}.get(Path(words[1]).stem, Path(words[1]).stem)
        return [command, *words[2:]]
    return None
