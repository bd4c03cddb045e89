"""Unit tests are pure: none may start Ray, and torch and BLAS get one thread.

What takes seconds to import is imported by the fixtures: the process that only hands out tests reads this file, too.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

PACKAGE = Path(__file__).parents[2] / "dynacor_ray"
LOADED_ONCE = {
    "torch's compiler": ("models/", "jobs/", "core/test_eager_", "sources/test_cifar.py"),
    "MLflow": ("engine/runtime/test_mlflow", "export/test_mlflow"),
    "scikit-learn, cleanlab": (
        *("detectors/test_confident", "detectors/test_mean_margin", "detectors/test_registry", "export/test_data"),
        *("decision/test_thresholds", "ground_truth/test_fitted_noise", "method/test_selection", "robust/test_loss_"),
        "sources/test_python_data",
    ),
    "Matplotlib": ("report/test_figures", "report/test_signal_analysis", "report/test_sweep"),
}
"""Files by what each process would take seconds to import; torchvision, timm and torch's own optimizers bring the
compiler."""
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # else small fits take ten times the time, waiting for one another
gc.disable()  # what is imported stays: looking for garbage among it takes a tenth of the time


class _Examples:
    """Modules of the package are imported for the examples in their docstrings only: most have none."""

    @staticmethod
    def pytest_ignore_collect(collection_path: Path) -> bool | None:
        is_module = collection_path.suffix == ".py" and PACKAGE in collection_path.parents
        return True if is_module and ">>>" not in collection_path.read_text(encoding="utf-8") else None


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Examples())  # a hook of this file would be asked for its own folder only
    if config.getoption("dist", "no") != "no":  # it only hands out tests
        return
    from hypothesis import settings

    settings.register_profile("patient", deadline=None)  # a busy machine is no fault
    settings.load_profile("patient")
    if hasattr(config, "workerinput"):  # all is reported: seconds to free what was loaded, object by object
        atexit.register(os._exit, 0)


@pytest.hookimpl(optionalhook=True)  # there may be no xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`--dist loadfile`: a file goes to one process as a whole, and so do all files that load the same libraries."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class _ByLibraries(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid).removeprefix("tests/unit/")
            return next((name for name, files in LOADED_ONCE.items() if file.startswith(files)), file)

    return _ByLibraries(config, log)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    """What is garbage is told of now; pytest and Python, which look for it nine times more, need not find the rest."""
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # triton, which timm brings, would print a page about what Python leaves unseen


def _refuse(*_args: object, **_kwargs: object) -> NoReturn:
    raise AssertionError("a unit test must not start Ray; put it into tests/engine")


@pytest.fixture(autouse=True, scope="module")
def no_ray() -> Iterator[None]:
    """Starting or joining a Ray cluster fails, whether asked for by name or on the first use of a task."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray._private.worker

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "init", _refuse)
        patch.setattr(ray._private.worker, "init", _refuse)
        yield


def _keep_signal(*_args: object) -> NoReturn:
    raise AssertionError("a unit test must not interrupt the process that runs it; work in a thread or a child process")


@pytest.fixture(autouse=True, scope="session")
def no_interrupts() -> Iterator[None]:
    """A lock that is lost in the main thread fails its test: a SIGINT, late or early, would end all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal, "pthread_kill", _keep_signal)
        yield


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
