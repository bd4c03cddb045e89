"""What Ray is told before a run, and what of its errors a user is told."""

from __future__ import annotations

import logging
import stat
from pathlib import Path
from typing import NoReturn

import pytest
from ray.exceptions import OutOfDiskError

from dynacor_ray.core.errors import ClusterError, StorageError
from dynacor_ray.engine.runtime import session
from tests.plans import machine


@pytest.mark.parametrize(("free", "fits"), [(8_000_000_000, True), (5_900_000_000, False), (0, False)])
def test_what_the_object_store_cannot_hold_must_fit_on_the_disk(
    free: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5 GB on two nodes with 3 GB of store: 1 GB each, and Ray leaves 5 GB of a disk of 100 GB free."""
    monkeypatch.setattr(session, "resources", lambda: machine(nodes=2, object_store_bytes=3e9))
    monkeypatch.setattr("shutil.disk_usage", lambda _: (100_000_000_000, 0, free))
    if fits:
        assert "3.0 GB in the object store, 3.0 GB to spill to" in session.require_spill_space(5_000_000_000)
    else:
        with pytest.raises(StorageError, match=r"1\.00 GB of room in .*, but got 0\.\d0 GB \(Ray leaves 5%"):
            session.require_spill_space(5_000_000_000)
    assert session.require_spill_space(3_000_000_000), "all of it fits into the store"


@pytest.mark.parametrize(("address", "mode"), [(None, 0o700), ("ray-head:6379", 0o777)])
def test_the_folder_of_a_cluster_that_is_started_is_closed_to_other_users(
    address: str | None, mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o777)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(session, "_session_folder", lambda: tmp_path)
    monkeypatch.setattr("ray.init", lambda **_: None)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    session.connect(address)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == mode


def test_a_full_disk_in_the_middle_of_a_run_is_told() -> None:
    full = r"room in .* but got a disk that is 95% full; free some space"
    with pytest.raises(StorageError, match=full), session.remote_errors():
        raise OutOfDiskError


def test_ray_asks_for_no_widgets_in_a_notebook() -> None:
    import ray.widgets.util as widgets

    assert not widgets.logger.isEnabledFor(logging.INFO)
    assert widgets.logger.isEnabledFor(logging.WARNING)


@pytest.mark.parametrize(
    ("address", "remedy"), [(None, "when this machine is less busy"), ("ray-head:6379", "start it, correct --cluster")]
)
def test_a_cluster_that_does_not_start_is_told(
    address: str | None, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray raises a bare Exception where a node is not there after half a minute."""

    def late(**_: object) -> NoReturn:
        raise Exception("The current node timed out during startup.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.init", late)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(ClusterError, match=f"but got 'The current node timed out .*{remedy}"):
        session.connect(address)
