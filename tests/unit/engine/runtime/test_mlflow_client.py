"""MLflow's client: checked before the work, and no run of others touched."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from dynacor_ray.core.errors import ConfigError
from dynacor_ray.engine.runtime import mlflow_client as mlflow_runs
from dynacor_ray.engine.runtime.mlflow_client import TrackedRun, check_tracking, log_runs


@pytest.mark.filterwarnings("ignore")
def test_what_is_told_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    check_tracking(None)
    monkeypatch.setattr(mlflow_runs.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"MLflow to be installed .*pip install 'dynacor-ray\[mlflow\]'"):
        check_tracking("sqlite:///x.db")
    monkeypatch.undo()
    pytest.importorskip("mlflow")
    with pytest.raises(ConfigError, match=r"MLflow to answer at nowhere://x, but got '.*nowhere.*'; start it, or"):
        check_tracking("nowhere://x")
    with pytest.raises(ConfigError) as caught:
        check_tracking("nowhere://me:PW1234@host/db?password=PW1234&key=PW1234")
    shown = "".join(traceback.format_exception(caught.value))
    assert "nowhere://***@host/db" in shown
    assert "PW1234" not in shown.replace('check_tracking("nowhere://me:PW1234@host/db?password=PW1234&key=PW1234")', "")


@pytest.mark.filterwarnings("ignore")
def test_an_active_run_is_left_alone_and_none_is_left_active(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's integration would write into it."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database takes four seconds to be made
    mlflow = pytest.importorskip("mlflow")
    before, uri = mlflow.get_tracking_uri(), (tmp_path / "runs").as_uri()
    mlflow.set_tracking_uri(uri)
    try:
        with mlflow.start_run() as own:
            with pytest.raises(
                ConfigError, match=f"no MLflow run in this process for --mlflow-uri, but got '{own.info.run_id}'"
            ):
                check_tracking(uri)
            with pytest.raises(ConfigError, match="no MLflow run"):
                log_runs(uri, [TrackedRun(name="ours", params={}, metrics={})])
            assert mlflow.active_run().info.run_id == own.info.run_id
        bad = TrackedRun(name="bad", params={}, metrics={"f1": "no number"})  # type: ignore[dict-item]
        with pytest.raises(Exception, match="no number"):
            log_runs(uri, [bad])
        assert mlflow.active_run() is None
    finally:
        mlflow.set_tracking_uri(before)
