"""Which encoder a run gets: a fresh one, one whose weights do not come after all, and one that is resumed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core.errors import DataError, EncoderError
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import locate
from dynacor_ray.engine.data import embed
from dynacor_ray.models import auto_encoder, encoders
from dynacor_ray.models.encoder import PixelEncoder
from dynacor_ray.models.encoders import EncoderSpec, ReadyEncoder
from dynacor_ray.runs import directory
from dynacor_ray.workflows import open_data
from dynacor_ray.workflows.detect import run_detect
from dynacor_ray.workflows.doctor import run_doctor
from dynacor_ray.workflows.open_data import OpenedData
from dynacor_ray.workflows.prepare import prepare


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
    prepared: Any = SimpleNamespace(
        config=DetectConfig(data="photographs"), run=run, features=locate(str(tmp_path / "features"))
    )
    manifest = SimpleNamespace(num_rows=100, max_side=300, gray=False, payload_hash="0123456789ab")
    dataset: Any = SimpleNamespace(manifest=manifest)

    spec, _, reason = open_data._ready_encoder(prepared, dataset, None, use_gpu=False)
    assert spec.name == "tf_efficientnet_lite0"
    assert "the download broke off" in str(reason)
    directory.tie_encoder(run, spec.identity, reason)
    comes = True
    assert open_data._ready_encoder(prepared, dataset, None, use_gpu=False) == (spec, None, reason)
    directory.claim(locate(str(tmp_path / "other")), {"options": {}, "data": {}}, {})
    prepared.run = locate(str(tmp_path / "other"))
    assert open_data._ready_encoder(prepared, dataset, None, use_gpu=False)[0] == auto_encoder.CLIP


def test_what_is_embedded_needs_no_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run on the same images, and one with fewer copies; other copies need the encoder again."""
    for number in range(12):
        place = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(place)
    made = []

    def load(spec: EncoderSpec, **_: Any) -> ReadyEncoder:
        made.append(spec)
        return ReadyEncoder(dataclasses.replace(spec, back_end="openvino"), PixelEncoder(4))

    def opened(name: str, **options: Any) -> OpenedData:
        more = {"data": str(tmp_path / "images"), "encoder": "made_up", "cache": str(tmp_path / "cache")}
        prepared = prepare(DetectConfig(**more | options, out=str(tmp_path / name)))
        directory.claim(prepared.run, prepared.identity(), {})
        if name != "first":
            open_data.check_encoder(prepared)
        progress = Progress(quiet=True)
        found = open_data.open_data(prepared, False, progress)
        assert set(progress.processor_seconds) == ({"decoding", "encoding"} if name in ("first", "other") else set())
        return found

    monkeypatch.setattr(open_data, "ready_encoder", load)
    monkeypatch.setattr(encoders, "_has_openvino", lambda: True)
    for name in ("open_data", "prepare"):
        monkeypatch.setattr(
            f"dynacor_ray.workflows.{name}.parse_encoder", lambda text, _: EncoderSpec("timm", text, image_size=4)
        )
    for module in (open_data, embed):  # the real one would be built
        monkeypatch.setattr(module, "load_encoder", lambda *_: pytest.fail("an encoder was built"))
    first = opened("first", gamma=0.5)
    again, fewer = opened("again", gamma=0.5), opened("fewer", gamma=0.3)
    assert len(made) == 1
    assert first.store == again.store == fewer.store
    assert again.spec == first.spec == dataclasses.replace(made[0], back_end="openvino")
    other = opened("other", gamma=0.5, seed=1)
    assert len(made) == 2
    assert other.store is not None
    assert first.store is not None
    assert other.store.originals == first.store.originals


def test_data_that_are_refused_leave_nothing(tmp_path: Path) -> None:
    """Neither detect nor doctor; a folder that was there stays, and only it."""
    data = tmp_path / "rows.csv"
    data.write_text("f0,f1,f2,f3,label\n" + "".join(f"{row},1,2,3,cat\n" for row in range(20)))
    for out, cache in (("runs/one", None), ("runs/one", "shared/cache"), ("here", None)):
        before = sorted(path.name for path in tmp_path.iterdir())
        places = {"out": str(tmp_path / out), "cache": str(tmp_path / cache) if cache else None}
        config = DetectConfig(data=str(data), cluster="none", quiet=True, **places)
        with pytest.raises(DataError, match="at least two classes, but got one, 'cat'"):
            run_detect(config)
        assert not run_doctor(config).ok
        assert sorted(path.name for path in tmp_path.iterdir()) == before
        assert not (tmp_path / "here").exists() or not list((tmp_path / "here").iterdir())
        (tmp_path / "here").mkdir(exist_ok=True)
