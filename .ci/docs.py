"""Render README, guides, results and docstrings as one site: `python .ci/docs.py build/docs`.

`python .ci/docs.py --write` refreshes the option tables of the guides from the options' fields.
"""

from __future__ import annotations

import functools
import os
import posixpath
import re
import shutil
import sys
import types
import warnings
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import dynacor_ray
from dynacor_ray import cli
from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.config.options import options_table, own_options

ROOT = Path(__file__).parents[1]
GUIDES = ROOT / "dynacor_ray" / "guides"
ORDER = ("results", "data", "decision", "networks", "train", "sweeps", "experiments", "cluster", "security", "extend")
PAGES = {
    ROOT / "README.md": "index",
    **{GUIDES / f"{name}.md": f"guides.{name}" for name in ORDER},
    ROOT / "jobs" / "RESULTS.md": "guides.measured",
    ROOT / "CHANGELOG.md": "guides.changelog",
}
"""Markdown file -> its page, as pdoc names a module."""
API = ("config", "core.schema", "core.errors", "method", "decision", "detectors", "ground_truth", "robust", "sources")
"""What a user or an author of a detector or source calls; the command line and the plumbing are left out."""

# ------------------------------------------------------------------------------------------------------- option tables

_MARKED = re.compile(r"(<!-- options: ([\w-]+) -->\n).*?(<!-- /options -->)", re.DOTALL)


@functools.cache
def tables() -> dict[str, str]:
    """Name in a marker `<!-- options: NAME -->` -> its table: a group of DetectConfig, or a command's own options."""
    groups = dict.fromkeys(one.group for one in own_options(DetectConfig).values())
    own = {name: cli.config_class(name) for name in cli.COMMANDS if cli.config_class(name) is not DetectConfig}
    return {group: options_table(DetectConfig, group) for group in groups} | {
        name: options_table(kind) for name, kind in own.items()
    }


def with_tables(text: str) -> str:
    """A guide with its option tables as the fields are now."""
    return _MARKED.sub(lambda found: f"{found[1]}\n{tables()[found[2]]}\n\n{found[3]}", text)


# ---------------------------------------------------------------------------------------------------------------- site


def page_of(target: Path) -> str:
    """Where a file of the repository lies in the site: a page, or a copy under its own path."""
    if target in PAGES:
        return PAGES[target].replace(".", "/") + ".html"
    return target.relative_to(ROOT).as_posix().removeprefix("dynacor_ray/")


def as_page(path: Path, site: Path) -> types.ModuleType:
    """A Markdown file as a module without members; its links lead to pages, or to files that are copied to `site`."""

    def moved(found: re.Match[str]) -> str:
        link, anchor = urldefrag(found[2])
        if not link or ":" in link:
            return found[0]
        target = (path.parent / link).resolve()
        place = page_of(target)
        if target not in PAGES:
            (site / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(target, site / place)
        start = posixpath.dirname(page_of(path)) or "."
        return f"{found[1]}({posixpath.relpath(place, start)}{'#' * bool(anchor)}{anchor})"

    page = types.ModuleType(PAGES[path], re.sub(r"(\]) ?\(([^)\s]+)\)", moved, path.read_text(encoding="utf-8")))
    page.__dict__["__docformat__"] = "markdown"
    return page


def build(site: Path) -> None:
    """Write all pages."""
    import pdoc

    for name in dynacor_ray.__all__:
        setattr(dynacor_ray, name, getattr(dynacor_ray, name))  # pdoc shows only what is already loaded
    warnings.filterwarnings("ignore", "Error parsing type annotation pa", UserWarning)  # generic in the stubs only
    warnings.filterwarnings("error", module="pdoc")
    templates = Path(__file__).with_name("templates")
    pdoc.render.configure(docformat="google", show_source=False, template_directory=templates)
    modules = {page: pdoc.doc.Module(as_page(path, site)) for path, page in PAGES.items()}
    titles = {page: module.docstring.partition("\n")[0].removeprefix("# ") for page, module in modules.items()}
    api = ["dynacor_ray", *(f"dynacor_ray.{name}" for name in API), "dynacor_ray.export.datalab"]
    pdoc.render.env.globals |= {"titles": titles, "api": api}
    modules |= {name: pdoc.doc.Module.from_name(name) for name in pdoc.extract.walk_specs(api)}
    for name, module in modules.items():
        place = site / f"{name.replace('.', '/')}.html"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(pdoc.render.html_module(module, modules), encoding="utf-8")
    (site / "search.js").write_text(pdoc.render.search_index(modules), encoding="utf-8")


class _Links(HTMLParser):
    """Where a page leads to, and which anchors it has."""

    def __init__(self) -> None:
        super().__init__()
        self.links, self.anchors = list[str](), set[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src"):
                self.links.append(value or "")
            elif name == "id":
                self.anchors.add(value or "")


def dead_links(site: Path) -> list[str]:
    """Links within the site that lead to no file, or to no anchor of it."""
    pages = {}
    for path in site.rglob("*.html"):
        pages[path] = _Links()
        pages[path].feed(path.read_text(encoding="utf-8"))
    dead = []
    for path, page in pages.items():
        for link in page.links:
            place, anchor = urldefrag(unquote(link))
            if re.match(r"[a-z]+:", link):
                continue
            target = Path(os.path.normpath(path.parent / place)) if place else path
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].anchors):
                dead.append(f"{path.relative_to(site)}: {link}")
    return dead


def main(asked: str) -> None:
    """Refresh the guides, or render the site and leave with the dead links, if any."""
    if asked == "--write":
        for path in GUIDES.glob("*.md"):
            path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
        return
    site = Path(asked)
    build(site)
    if dead := dead_links(site):
        sys.exit("\n".join(["Expected links that lead somewhere, but got:", *dead]))


if __name__ == "__main__":
    main(sys.argv[1])
