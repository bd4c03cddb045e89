"""The folder of a trained head: its card's code builds the classifier, and data cannot leave their place in it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from dynacor_ray.core.manifest import FeatureStats, LinedUpFeatures
from dynacor_ray.core.robust_scaling import RobustScaling
from dynacor_ray.core.storage import locate
from dynacor_ray.engine.training.dividemix_module import Pair
from dynacor_ray.export.model_files import model_card, write_model
from dynacor_ray.models.heads import CLASSIFIERS, build_classifier
from tests.unit.report.test_training_page import DIVIDED, summary_of

FEATURES = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))


def head_of(seed: int, name: str = "mlp") -> torch.nn.Module:
    torch.manual_seed(seed)
    return build_classifier(name, num_features=5, num_classes=2, mean=np.full(5, 0.5, np.float32), scale=3.0)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_card_builds_the_classifier_again(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = head_of(0, name)
    built_by = {"classifier": name, "feature_dim": 5}
    write_model(locate(str(tmp_path)), save(head.state_dict()), summary_of(), built_by, None)
    card = (tmp_path / "README.md").read_text()
    assert "60.0% of 400 test rows are right after the last epoch, by their true labels" in card
    namespace = {"features": FEATURES}
    monkeypatch.chdir(tmp_path)
    exec(card.partition("```python\n")[2].partition("```")[0], namespace)
    assert torch.equal(namespace["logits"], head(FEATURES))


def test_the_card_of_a_pair_asks_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair([head_of(seed) for seed in range(2)])
    write_model(
        locate(str(tmp_path)),
        save(pair.state_dict()),
        summary_of(**DIVIDED),
        {"classifier": "mlp", "feature_dim": 5},
        None,
    )
    card = (tmp_path / "README.md").read_text()
    assert "with DDyna-S on" in card
    namespace = {"features": FEATURES}
    monkeypatch.chdir(tmp_path)
    exec(card.partition("```python\n")[2].partition("```")[0], namespace)
    assert torch.allclose(namespace["logits"], pair(FEATURES), atol=1e-5)


def test_scaling_goes_along(tmp_path: Path) -> None:
    scaling = RobustScaling.of(FEATURES.numpy())
    lined_up = LinedUpFeatures(scaling, FeatureStats.of(FEATURES.numpy()), 0, ())
    write_model(locate(str(tmp_path)), b"", summary_of(), {"classifier": "mlp", "feature_dim": 5}, lined_up)
    held = json.loads((tmp_path / "config.json").read_text())
    assert RobustScaling(**held["robust_scaling"]).apply(FEATURES.numpy()) == pytest.approx(
        scaling.apply(FEATURES.numpy())
    )
    assert held["robust_scaling"].keys() == dataclasses.asdict(scaling).keys()
    assert "robust_scaling" in (tmp_path / "README.md").read_text()


def test_names_cannot_leave_their_place() -> None:
    evil = "`<b>\n# Heading\n![x](http://evil)`"
    card = model_card(
        summary_of(evil), {"class_names": [evil], "encoder": "pixels", "classifier": "mlp", "feature_dim": 4}
    )
    assert "\n# Heading" not in card
    assert "`'<b>?# Heading?![x](http://evil)'`" in card


def test_a_network_says_which(tmp_path: Path) -> None:
    network = {"network": "cifar_resnet8", "image_size": 8}
    write_model(locate(str(tmp_path)), b"", summary_of(), network, None)
    assert json.loads((tmp_path / "config.json").read_text())["network"] == "cifar_resnet8"
    assert "It takes images of 8 px" in (tmp_path / "README.md").read_text()
