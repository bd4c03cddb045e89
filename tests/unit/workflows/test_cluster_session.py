"""Whether a run needs Ray, and what the user is told of it; nothing is started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core.errors import ConfigError
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.schema import fixed_size_list
from dynacor_ray.engine.runtime.session import on_cluster
from dynacor_ray.workflows import cluster_session
from dynacor_ray.workflows.cluster_session import ray_session
from dynacor_ray.workflows.prepare import prepare
from tests.opened_sources import save
from tests.plans import machine

Told = Callable[..., tuple[list[str | None], str]]


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Told:
    """Addresses that were connected to, and what was said, for a run of the demo with some options and machine."""

    def ask(
        needs: str | None = None, have: dict[str, Any] | None = None, **options: Any
    ) -> tuple[list[str | None], str]:
        connected = list[str | None]()
        monkeypatch.setattr(cluster_session, "connect", connected.append)
        monkeypatch.setattr(cluster_session, "resources", lambda: machine(**have or {}))
        config = DetectConfig(data="demo", out=str(tmp_path / "run"), **options)
        with ray_session(config, prepare(config), Progress(), needs):
            assert not on_cluster()
        return connected, capsys.readouterr().err.strip()

    return ask


@pytest.mark.parametrize("cluster", ["auto", "none"])
def test_the_demo_takes_one_process(cluster: str, told: Told) -> None:
    hint = "; --cluster local starts Ray" if cluster == "auto" else ""
    assert told(cluster=cluster) == ([], f"One process: 1,797 rows fit into memory{hint}.")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"workers": 2}, "2 workers"),
        ({"needs": "a searcher"}, "a searcher"),
        ({"have": {"gpus": 2.0}}, "2 GPUs to encode on"),
        ({"have": {"memory_bytes": 1e7}}, "1,797 rows need 0.0 GB, and 0.0 GB are for one process"),
        ({"worker_cache_gb": 0.0}, "1,797 rows need 0.0 GB, and 0.0 GB are for one process"),
    ],
)
def test_what_one_process_is_not_enough_for_goes_to_ray(options: dict[str, Any], why: str, told: Told) -> None:
    connected, said = told(**options)
    assert connected == [None]
    assert said.startswith(f"Ray: {why}.")
    with pytest.raises(ConfigError, match=rf"for --cluster none, but got {why}; leave out --cluster none"):
        told(cluster="none", **options)


def test_ten_million_rows_of_64_numbers_fit_where_they_were_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """6.1 GB in 24; a row takes its features, and what is kept besides."""
    columns = {"feature": fixed_size_list(np.eye(64, dtype=np.float32)), "label": ["a", "b"] * 32}
    path = save(tmp_path / "rows.parquet", columns)
    config = DetectConfig(data=str(path), out=str(tmp_path / "run"), epochs=5, cluster="none")
    prepared = prepare(config)
    monkeypatch.setattr(cluster_session, "resources", lambda: machine(memory_bytes=22e9))
    monkeypatch.setattr(prepared.source, "num_rows", 10_000_000)
    with ray_session(config, prepared, Progress()):
        assert "One process: 10,000,000 rows fit into memory" in capsys.readouterr().err
    monkeypatch.setattr(prepared.source, "num_rows", 20_000_000)
    refused = r"20,000,000 rows need .* GB, and 13\.2 GB are for one process"
    with pytest.raises(ConfigError, match=refused), ray_session(config, prepared, Progress()):
        pytest.fail("too many")


def test_two_gpus_are_of_no_use_to_a_network_or_without_leave(told: Told) -> None:
    for options in ({"gpu": "no"}, {"network": "cifar_resnet8"}):
        assert told(have={"gpus": 2.0}, **options)[0] == []


def test_many_images_for_a_gpu_are_decoded_by_processes(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_session, "MOST_IMAGES_FOR_GPU", 1000)
    assert told(have={"gpus": 1.0})[1].startswith("Ray: 1,797 images to decode for a GPU.")
    for options in ({"gpu": "no"}, {"cluster": "none"}):
        assert told(have={"gpus": 1.0}, **options)[0] == [], "one process can do it, too"
    monkeypatch.undo()
    assert told(have={"gpus": 1.0})[0] == []


def test_a_cluster_that_is_named_is_used(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(cluster="10.0.0.1:6379") == (["10.0.0.1:6379"], "Ray: the cluster at 10.0.0.1:6379.")
    assert told(cluster="local") == (["local"], "Ray: a cluster on this machine.")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    assert told() == ([None], "Ray: the cluster at 10.0.0.2:6379, by RAY_ADDRESS.")
    assert told(cluster="none")[0] == []


def test_who_asks_for_two_workers_on_one_machine_is_told(told: Told) -> None:
    slower = "2 workers share the CPUs of one machine: --workers 1 is faster."
    assert told(workers=2)[1].splitlines()[-1] == slower
    for have in ({"nodes": 2}, {"gpus": 2.0}):
        assert slower not in told(workers=2, have=have)[1]
