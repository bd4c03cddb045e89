"""cluster.yaml: what Ray's launcher would refuse, and what it would accept to our harm."""

from __future__ import annotations

import re
import tomllib
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "cluster.yaml").read_text()


@pytest.fixture
def cluster() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(TEXT)
    return config


def validated(config: dict[str, Any]) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Private, but `ray up` has no dry run that works without credentials (RAY.md, 7).
        from ray.autoscaler._private.util import prepare_config, validate_config
    prepared: dict[str, Any] = prepare_config(config)
    validate_config(prepared)
    return prepared


def test_ray_accepts_it(cluster: dict[str, Any]) -> None:
    prepared = validated(cluster)
    assert prepared["head_node_type"] in prepared["available_node_types"]


def test_the_validation_validates(cluster: dict[str, Any]) -> None:
    cluster["head_node_type"] = "nobody"
    with pytest.raises(Exception, match="head_node_type"):
        validated(cluster)


def test_head_takes_no_tasks(cluster: dict[str, Any]) -> None:
    head = cluster["available_node_types"][cluster["head_node_type"]]
    assert head["resources"] == {"CPU": 0}


def test_worker_limits(cluster: dict[str, Any]) -> None:
    workers = {
        name: node for name, node in cluster["available_node_types"].items() if name != cluster["head_node_type"]
    }
    assert set(workers) == {"gpu", "data"}
    for name, node in workers.items():
        assert node["min_workers"] == 0, name
        assert 0 < node["max_workers"] <= cluster["max_workers"], name
    assert sum(node["max_workers"] for node in workers.values()) <= cluster["max_workers"]
    assert workers["gpu"]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert "InstanceMarketOptions" not in workers["data"]["node_config"]


def test_every_disk_is_large_and_encrypted_and_goes_with_its_node(cluster: dict[str, Any]) -> None:
    for node in cluster["available_node_types"].values():
        (disk,) = node["node_config"]["BlockDeviceMappings"]
        assert disk["Ebs"]["VolumeSize"] >= 200
        assert disk["Ebs"]["Encrypted"] is True
        assert disk["Ebs"]["DeleteOnTermination"] is True


def test_credentials_of_a_node_need_a_token(cluster: dict[str, Any]) -> None:
    for node in cluster["available_node_types"].values():
        assert node["node_config"]["MetadataOptions"] == {"HttpTokens": "required"}


def test_versions_are_those_of_the_constraints(cluster: dict[str, Any]) -> None:
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    setup = " ".join(cluster["setup_commands"])
    installed = re.search(r'"ray\[([a-z,]+)\]==([\d.]+)"', setup)
    image = re.fullmatch(r"rayproject/ray:([\d.]+)-py(\d)(\d+)-gpu", cluster["docker"]["image"])
    assert installed is not None
    assert image is not None
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (needed,) = (item for item in map(Requirement, project["dependencies"]) if item.name == "ray")
    assert set(installed[1].split(",")) == needed.extras
    assert installed[2] == image[1] == pinned[1]
    assert needed.specifier.contains(installed[2])
    assert SpecifierSet(project["requires-python"]).contains(f"{image[2]}.{image[3]}.0")
    assert "-c /home/ray/dynacor-ray/constraints.txt" in setup
    guide = (ROOT / "dynacor_ray" / "guides" / "cluster.md").read_text(encoding="utf-8")
    assert set(re.findall(r"rayproject/ray:[\w.-]+", guide)) == {cluster["docker"]["image"]}
    assert cluster["file_mounts"]["/home/ray/dynacor-ray"] == "."


def test_nothing_is_public(cluster: dict[str, Any]) -> None:
    assert "0.0.0.0" not in TEXT
    assert "::/0" not in TEXT
    assert "security_group" not in cluster["provider"]  # Ray's own opens ssh only
    assert not any(re.search(r"(^|\s)(-p|--publish|--network)", option) for option in cluster["docker"]["run_options"])
    (start,) = (command for command in cluster["head_start_ray_commands"] if "--head" in command)
    assert "--dashboard-host=127.0.0.1" in start
    assert "--ray-client-server-port" not in start
    assert "docker.sock" not in TEXT
    assert cluster["provider"].keys() <= {"type", "region", "availability_zone", "cache_stopped_nodes"}


def test_start_commands(cluster: dict[str, Any]) -> None:
    (head,) = (command for command in cluster["head_start_ray_commands"] if "ray start" in command)
    (worker,) = (command for command in cluster["worker_start_ray_commands"] if "ray start" in command)
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head
    assert "--address=$RAY_HEAD_IP:6379" in worker
    assert any(option.startswith("--shm-size") for option in cluster["docker"]["run_options"])
