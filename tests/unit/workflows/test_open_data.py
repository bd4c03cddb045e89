"""Which encoder a run gets: a fresh one, one whose weights do not come after all, and one that is resumed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core.errors import EncoderError
from dynacor_ray.core.storage import locate
from dynacor_ray.models import auto_encoder
from dynacor_ray.models.encoders import EncoderSpec, ReadyEncoder
from dynacor_ray.runs import directory
from dynacor_ray.workflows import open_data


def test_auto_falls_back_and_a_resumed_run_keeps_its_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comes = False

    def load(spec: EncoderSpec, **_: Any) -> ReadyEncoder:
        if spec.kind == "open_clip" and not comes:
            raise EncoderError("the download broke off")
        return ReadyEncoder(spec, None)  # type: ignore[arg-type]

    monkeypatch.setattr(open_data, "ready_encoder", load)
    monkeypatch.setattr(auto_encoder, "is_cached", lambda repository, file: False)
    monkeypatch.setattr(auto_encoder, "unreachable", lambda: None)
    monkeypatch.setattr(auto_encoder, "package_weights", lambda: Path("weights.pth"))
    run = locate(str(tmp_path / "run"))
    directory.claim(run, {"options": {}, "data": {}}, {})
    prepared: Any = SimpleNamespace(config=DetectConfig(data="photographs"), run=run)
    dataset: Any = SimpleNamespace(manifest=SimpleNamespace(num_rows=100, max_side=300, gray=False))

    ready, reason = open_data._ready_encoder(prepared, dataset, use_gpu=False)
    assert ready.spec.name == "tf_efficientnet_lite0"
    assert "the download broke off" in str(reason)
    directory.tie_encoder(run, ready.spec.identity, reason)
    comes = True
    assert open_data._ready_encoder(prepared, dataset, use_gpu=False) == (ready, reason)
    directory.claim(locate(str(tmp_path / "other")), {"options": {}, "data": {}}, {})
    prepared.run = locate(str(tmp_path / "other"))
    assert open_data._ready_encoder(prepared, dataset, use_gpu=False)[0].spec == auto_encoder.CLIP
