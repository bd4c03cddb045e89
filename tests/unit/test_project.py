"""Rules that hold for the whole project, read off its source: layers, quarantine of the truth, citations, tests."""

from __future__ import annotations

import ast
import functools
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "dynacor_ray"

# Imports point down this list: a file may import its own folder and those further down, never a folder of its own row.
ORDER = (
    {"cli", "__init__"},
    {"workflows"},
    {"export"},
    {"engine"},
    {"config", "sources"},
    {"ground_truth", "report"},
    {"detectors", "robust", "runs"},
    {"decision", "method", "models"},
    {"core"},
)
LEVELS = {unit: len(ORDER) - row for row, units in enumerate(ORDER) for unit in units}
TRUTH_READERS = ("core/schema.py", "ground_truth/", "sources/", "engine/data/ingest.py")
TOP_LEVEL = {
    *("dynacor_ray", "jobs", "tests", "cluster.yaml", "pyproject.toml", "README.md", "LICENSE"),
    *("CHANGELOG.md", "constraints.txt", "Makefile"),
}
REDUCTIONS = {"softmax", "log_softmax", "mean", "normalize", "squeeze"}

TESTS = ROOT / "tests" / "unit"
TESTS_OF_MORE = {
    "test_cluster_yaml.py",
    "test_docs.py",
    "test_jobs.py",
    "test_project.py",
    "test_security.py",
    "method/test_index.py",
    "sources/test_fuzz.py",
}

FILES = sorted(PACKAGE.rglob("*.py"))
METHOD_FILES = sorted((PACKAGE / "method").rglob("*.py"))


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def unit_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(parsed(path)))


def imported_modules(path: Path) -> Iterator[tuple[str, int]]:
    """Dotted names of all that is imported, also inside functions, `from a import b` as a.b; with the line."""
    package = ["dynacor_ray", *path.relative_to(PACKAGE).parts[:-1]]
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)


def module_name(path: Path) -> str:
    return ".".join(["dynacor_ray", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


MODULES = {module_name(path) for path in FILES}


def own_imports(path: Path) -> Iterator[tuple[str, int]]:
    """Modules of this package that a file imports, with the line; a name that is no module comes from its package."""
    for module, line in imported_modules(path):
        if module.partition(".")[0] == "dynacor_ray":
            yield (module if module in MODULES else module.rpartition(".")[0]), line


def unit_of_module(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def docstrings(tree: ast.Module) -> set[int]:
    """ids of the constants that are docstrings, also those below an assignment."""
    bodies = (node.body for node in ast.walk(tree) if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)))
    expressions = (line.value for body in bodies for line in body if isinstance(line, ast.Expr))
    return {id(value) for value in expressions if isinstance(value, ast.Constant)}


# --------------------------------------------------------------------------------------------------------------- layers


def test_ray_is_imported_in_engine_only() -> None:
    found = [
        f"{name_of(path)}:{line}"
        for path in FILES
        if unit_of(path) != "engine"
        for module, line in imported_modules(path)
        if module.partition(".")[0] == "ray"
    ]
    assert not found, "move what imports ray to engine/"


def test_imports_point_down() -> None:
    units = {unit_of(path) for path in FILES}
    assert units <= LEVELS.keys(), f"give {units - LEVELS.keys()} a place in ORDER"
    found = [
        f"{name_of(path)}:{line} imports {module}, which is not below {unit_of(path)}"
        for path in FILES
        for module, line in own_imports(path)
        if unit_of_module(module) != unit_of(path) and LEVELS[unit_of_module(module)] >= LEVELS[unit_of(path)]
    ]
    assert not found


def test_files_do_not_import_each_other_in_a_circle() -> None:
    needs = {module_name(path): {module for module, _ in own_imports(path)} - {module_name(path)} for path in FILES}
    while free := [module for module, others in needs.items() if not others & needs.keys()]:
        for module in free:
            del needs[module]
    assert not needs, f"circle among {sorted(needs)}"


def test_the_package_holds_two_modules_and_folders() -> None:
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "cli.py"}


# ----------------------------------------------------------------------------------------------------------- quarantine


def lines_with_truth(tree: ast.Module) -> Iterator[int]:
    documentation = docstrings(tree)
    for node in ast.walk(tree):
        names = [getattr(node, field, None) for field in ("id", "attr", "name")]
        text = node.value if isinstance(node, ast.Constant) and id(node) not in documentation else None
        if {"TRUE_LABEL", "read_truth"} & set(names) or (isinstance(text, str) and "true_label" in text):
            yield getattr(node, "lineno", 0)


def test_truth_is_quarantined() -> None:
    files = [path for path in FILES if not name_of(path).startswith(TRUTH_READERS)]
    found = [f"{name_of(path)}:{line}" for path in files for line in lines_with_truth(parsed(path))]
    assert not found, f"only {TRUTH_READERS} may touch the truth"


# ---------------------------------------------------------------------------------------------------- method, decision


def public_functions(paths: list[Path]) -> list[tuple[str, ast.FunctionDef]]:
    return [
        (f"{path.stem}.{node.name}", node)
        for path in paths
        for node in parsed(path).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ]


def test_method_functions_cite_the_paper() -> None:
    functions = public_functions(METHOD_FILES)
    assert functions
    silent = [name for name, node in functions if not re.search(r"Eq\.|§", ast.get_docstring(node) or "")]
    assert not silent, f"say in the docstring which equation or section it is: {silent}"


def test_decision_modules_name_their_origin() -> None:
    paths = [path for path in sorted((PACKAGE / "decision").rglob("*.py")) if public_functions([path])]
    assert paths
    origin = r"\b(19|20)\d\d\b|\bours\b|\bour own\b|Eq\.|§|Table"
    silent = [name_of(path) for path in paths if not re.search(origin, ast.get_docstring(parsed(path)) or "")]
    assert not silent, f"cite a publication in the module's docstring, or say that the rules are ours: {silent}"


def test_method_names_its_axes() -> None:
    found, seen = [], 0
    for path in METHOD_FILES:
        for call in (node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)):
            name = getattr(call.func, "attr", None) or getattr(call.func, "id", "")
            if name in REDUCTIONS:
                seen += 1
                if not {keyword.arg for keyword in call.keywords} & {"dim", "axis"}:
                    found.append(f"{name_of(path)}:{call.lineno}: {name} without dim= or axis=")
    assert seen
    assert not found


# ----------------------------------------------------------------------------------------------------------- public API


def test_public_names() -> None:
    package = importlib.import_module("dynacor_ray")
    names = list(package.__all__)
    assert names == sorted(names)
    assert len(names) == len(set(names))
    missing = [name for name in names if not hasattr(package, name)]
    assert not missing


def test_no_module_hides_a_public_name() -> None:
    """Importing a module sets its name on the package: a function of that name would be gone at its second use."""
    package = importlib.import_module("dynacor_ray")
    modules = {path.stem for path in PACKAGE.iterdir()}
    assert not modules & set(package.__all__)
    for name in package.__all__:
        assert getattr(package, name) is getattr(package, name)


ON_FINISHED_RUNS = ("workflows.show", "workflows.review", "report.build", "export.tables", "export.cleaned_copy")


@pytest.mark.parametrize("imported", ["dynacor_ray", ", ".join(f"dynacor_ray.{name}" for name in ON_FINISHED_RUNS)])
def test_import_is_light(imported: str) -> None:
    slow = "('torch', 'ray', 'timm', 'open_clip', 'matplotlib')"
    code = f"import sys, {imported}; print([m for m in {slow} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_package_is_marked_as_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


# ---------------------------------------------------------------------------------------------------------------- tests


def test_a_unit_test_lies_where_its_module_does() -> None:
    """tests/unit/a/test_b.py or test_b_more.py is of dynacor_ray/a/b.py; tests/unit/jobs/ is of jobs/."""
    homeless = []
    for path in TESTS.rglob("test_*.py"):
        name = path.relative_to(TESTS)
        folder = ROOT / name.parent if name.parts[0] == "jobs" else PACKAGE / name.parent
        words = name.stem.removeprefix("test_").split("_")
        modules = ["_".join(words[: i + 1]) for i in range(len(words))]
        if not any((folder / f"{module}.py").is_file() for module in modules) and str(name) not in TESTS_OF_MORE:
            homeless.append(str(name))
    assert not homeless


# ---------------------------------------------------------------------------------------------------------------- words


def test_a_thing_has_one_word_and_american_spelling() -> None:
    """Each has its field's standard term: memorized, class-conditional noise, human label noise."""
    british = r"neighbou[r]|normali[s]|labelle[d](?!by)|colou[r]|behaviou[r]"
    own = r"by hear[t]\b|errors of one kin[d]|people's (erro[r]|nois[e])|undertakin[g]|[q]uieten"
    files = [path for folder in ("dynacor_ray", "jobs", "tests", ".ci") for path in (ROOT / folder).rglob("*.*")]
    found = [
        f"{path.relative_to(ROOT)}: {word[0]}"
        for path in [*files, ROOT / "README.md", ROOT / "CHANGELOG.md"]
        if path.suffix in {".py", ".md", ".html", ".js", ".css", ".ipynb"}
        for word in re.finditer(f"{british}|{own}", path.read_text(encoding="utf-8"), re.IGNORECASE)
    ]
    assert not found


# ----------------------------------------------------------------------------------------------------------- repository


def test_top_level_entries() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    entries = {line.partition("/")[0] for line in listed.stdout.splitlines()}
    strange = {entry for entry in entries - TOP_LEVEL if not entry.startswith(".")}
    assert not strange


def reasons() -> dict[str, str]:
    """What pyproject's comments say of each dependency of a user: requirement -> reason."""
    text = (ROOT / "pyproject.toml").read_text()
    found, above = {}, list[str]()
    for line in text[text.index("\ndependencies = [") : text.index("\ndev = [")].splitlines():
        code, _, comment = line.partition("#")
        requirement = re.search(r'"(.+)"', code)
        if requirement:
            found[requirement[1]] = " ".join([*above, comment]).strip()
        above = [*above, comment.strip()] if line.strip().startswith("#") else []
    return found


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = project["dependencies"] + [item for name, items in extras.items() if name != "dev" for item in items]
    assert list(reasons()) == needed
    assert all(reasons().values()), "say in pyproject what each is for"


def test_only_listed_dependencies_are_imported() -> None:
    called = {"mlflow-skinny": "mlflow", "scikit-learn": "sklearn", "pillow": "PIL", "open-clip-torch": "open_clip"}
    packages = [re.split(r"[\[<>=!]", requirement)[0].replace("_", "-") for requirement in reasons()]
    listed = {called.get(package, package.replace("-", "_")) for package in packages}
    # Brought by timm, jinja2, cleanlab and ray, as their reasons say.
    listed |= {"safetensors", "huggingface_hub", "markupsafe", "datasets", "tensorboardX", "aiohttp"}
    imported = {module.partition(".")[0] for path in FILES for module, _ in imported_modules(path)}
    assert imported - sys.stdlib_module_names - {"dynacor_ray", "__future__"} <= listed


def test_constraints_are_plain_pins() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    odd = [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)]
    assert not odd
    assert lines == sorted(lines, key=str.lower)
    assert not [line for line in lines if line.startswith(("nvidia", "cuda", "triton"))]
