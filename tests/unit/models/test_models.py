"""Encoders and classifiers: forms that a user may write, weights that do not fit, values that can be worked out."""

from __future__ import annotations

import http.server
import json
import os
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from dynacor_ray.core.errors import ConfigError, EncoderError
from dynacor_ray.models import encoder_spec, encoders, hub
from dynacor_ray.models.encoders import EncoderSpec, load_encoder, parse_encoder, resolve_auto
from dynacor_ray.models.heads import FeatureScaling, build_classifier
from dynacor_ray.models.weights import package_weights, read_state_dict

timm = pytest.importorskip("timm")

needs_package = pytest.mark.skipif(package_weights() is None, reason="extra `encoders` is not installed")

# Small networks: one convolutional, one with position embeddings.
CONV, VIT = "test_resnet.r160_in1k", "test_vit.r160_in1k"
CLIP_CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
}


def images(count: int, size: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.fixture
def conv_file(tmp_path: Path) -> Path:
    """Weights of the whole convolutional network, classifier included."""
    torch.manual_seed(1)
    path = tmp_path / "conv.pt"
    torch.save(timm.create_model(CONV, pretrained=False).state_dict(), path)
    return path


@pytest.fixture
def clip_files(tmp_path: Path) -> tuple[Path, Path]:
    """A tiny CLIP: its model config and its weights."""
    import open_clip

    torch.manual_seed(2)
    config, weights = tmp_path / "tiny-clip.json", tmp_path / "clip.pt"
    config.write_text(json.dumps(CLIP_CONFIG))
    torch.save(open_clip.CLIP(**CLIP_CONFIG).state_dict(), weights)
    return config, weights


# ------------------------------------------------------------------------------------------------------- parse_encoder


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        ("features", None, EncoderSpec("features", "features")),
        ("pixels", None, EncoderSpec("pixels", "pixels", image_size=32)),
        ("pixels", 8, EncoderSpec("pixels", "pixels", image_size=8)),
        ("pixels:16", None, EncoderSpec("pixels", "pixels", image_size=16)),
        ("pixels:16", 16, EncoderSpec("pixels", "pixels", image_size=16)),
        ("timm:resnet18", None, EncoderSpec("timm", "resnet18")),
        ("tf_efficientnet_lite0", 128, EncoderSpec("timm", "tf_efficientnet_lite0", image_size=128)),
        (f"timm:{CONV}", None, EncoderSpec("timm", CONV)),
        ("open_clip:ViT-B-32/openai", None, EncoderSpec("open_clip", "ViT-B-32/openai")),
    ],
)
def test_parse_valid_forms(text: str, size: int | None, expected: EncoderSpec) -> None:
    assert parse_encoder(text, size) == expected


def test_parse_local_weights(conv_file: Path, clip_files: tuple[Path, Path]) -> None:
    config, weights = clip_files
    assert parse_encoder(f"timm:{CONV}@{conv_file}") == EncoderSpec("timm", CONV, str(conv_file))
    assert parse_encoder(f"{CONV}@{conv_file}").kind == "timm"
    spec = parse_encoder(f"open_clip:{config}@{weights}", 64)
    assert spec == EncoderSpec("open_clip", str(config), str(weights), 64)
    assert parse_encoder(f"open_clip:ViT-B-32@{weights}").name == "ViT-B-32"
    assert parse_encoder(str(spec), 64) == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "pixels:16, timm:NAME"),
        ("magic:thing", "open_clip:MODEL/TAG"),
        ("pixels:0", "'pixels:0'"),
        ("pixels:x", "'pixels:x'"),
        ("timm:", "use one of these forms"),
        ("resnet81", r"'resnet81', which timm does not know; did you mean .*resnet18"),
        ("timm:resnet18.no_such_tag", "did you mean resnet18"),
        ("timm:resnet18@/nowhere/w.pt", "'/nowhere/w.pt', which is not there"),
        ("timm:resnet18@/nowhere/w.ckpt", r"in a \.pt, \.pth, \.safetensors file"),
        ("open_clip:ViT-B-33/openai", "open_clip does not know; did you mean .*ViT-B-32"),
        ("open_clip:ViT-B-32/openia", "did you mean ViT-B-32/openai"),
        ("open_clip:ViT-B-32", "'ViT-B-32', which open_clip does not know"),
        ("open_clip:/nowhere/c.json@w.pt", "Expected a JSON model config"),
    ],
)
def test_parse_refuses(text: str, message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        parse_encoder(text)


def test_parse_refuses_bad_sizes() -> None:
    with pytest.raises(ConfigError, match="at least 1 pixel, but got 0"):
        parse_encoder("pixels", 0)
    with pytest.raises(ConfigError, match="but got pixels:16 and 8"):
        parse_encoder("pixels:16", 8)


def test_parse_refuses_config_without_weights_or_towers(clip_files: tuple[Path, Path], tmp_path: Path) -> None:
    config, weights = clip_files
    with pytest.raises(EncoderError, match="Expected weights for a model config"):
        parse_encoder(f"open_clip:{config}")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(EncoderError, match="embed_dim and vision_cfg"):
        parse_encoder(f"open_clip:{tmp_path / 'list.json'}@{weights}")


def test_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "package_weights", lambda: Path("weights.pth"))
    assert resolve_auto("feature", 0) == EncoderSpec("features", "features")
    assert resolve_auto("image", 8) == EncoderSpec("pixels", "pixels", image_size=8)
    assert resolve_auto("image", 16) == EncoderSpec("pixels", "pixels", image_size=16)
    assert resolve_auto("image", 28, gray=True) == EncoderSpec("pixels", "pixels", image_size=28)
    assert resolve_auto("image", 33, gray=True).kind == "timm"
    assert resolve_auto("image", 17) == EncoderSpec("timm", "tf_efficientnet_lite0", image_size=128)
    assert resolve_auto("image", 64) == EncoderSpec("timm", "tf_efficientnet_lite0", image_size=128)
    assert resolve_auto("image", 65) == EncoderSpec("timm", "tf_efficientnet_lite0")
    monkeypatch.setattr(encoders, "package_weights", lambda: None)
    assert resolve_auto("image", 65) == EncoderSpec("open_clip", "ViT-B-32/openai")


# --------------------------------------------------------------------------------------------------- identity of a spec


def test_fingerprint_follows_content(conv_file: Path, clip_files: tuple[Path, Path]) -> None:
    spec = parse_encoder(f"timm:{CONV}@{conv_file}")
    before = spec.fingerprint()
    copy = conv_file.with_name("copy.pt")
    copy.write_bytes(conv_file.read_bytes())
    assert parse_encoder(f"timm:{CONV}@{copy}").fingerprint() == before
    conv_file.write_bytes(b"other")
    assert spec.fingerprint() != before
    config, weights = clip_files
    clip = parse_encoder(f"open_clip:{config}@{weights}")
    before = clip.fingerprint()
    config.write_text(json.dumps({**CLIP_CONFIG, "quick_gelu": True}))
    assert clip.fingerprint() != before
    weights.unlink()
    with pytest.raises(EncoderError, match="put the file on every machine"):
        clip.fingerprint()


def test_fingerprints_and_slugs_differ() -> None:
    texts = ["features", "pixels", "pixels:16", "timm:resnet18", "timm:resnet34", "open_clip:ViT-B-32/openai"]
    specs = [parse_encoder(text) for text in texts] + [parse_encoder("resnet18", 64)]
    assert len({spec.fingerprint() for spec in specs}) == len({spec.slug for spec in specs}) == len(specs)
    assert all(spec.slug.replace("-", "").replace("_", "").replace(".", "").isalnum() for spec in specs)
    assert specs[2].slug.startswith("pixels-16-")


@needs_package
def test_fingerprint_knows_packaged_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = parse_encoder("tf_efficientnet_lite0")
    with_package = spec.fingerprint()
    monkeypatch.setattr(encoder_spec, "package_weights", lambda: None)
    assert spec.fingerprint() != with_package


# -------------------------------------------------------------------------------------------------------------- encode


def test_pixels() -> None:
    encoder = load_encoder(parse_encoder("pixels:4"))
    batch = images(3, 4)
    batch[0, 0, 0] = (0, 255, 51)
    vectors = encoder.encode(batch)
    assert vectors.shape == (3, encoder.dim) == (3, 48)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors[0, :3], [0, 1, 0.2], rtol=1e-6)
    np.testing.assert_array_equal(vectors.reshape(batch.shape), batch.astype(np.float32) / 255)


def test_features_has_no_images() -> None:
    with pytest.raises(EncoderError, match="Expected an encoder of images, but got 'features'"):
        load_encoder(parse_encoder("features"))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_timm_equals_a_plain_loop(conv_file: Path, suffix: str) -> None:
    state = torch.load(conv_file, weights_only=True)
    path = conv_file.with_suffix(suffix)
    if suffix == ".safetensors":
        save_file(state, path)
    encoder = load_encoder(parse_encoder(f"timm:{CONV}@{path}", 64))
    oracle = timm.create_model(CONV, pretrained=False).eval()
    oracle.load_state_dict(state)
    batch = images(5, 64)
    mean, std = (torch.tensor(oracle.pretrained_cfg[key]) for key in ("mean", "std"))
    with torch.no_grad():
        x = ((torch.from_numpy(batch) / 255 - mean) / std).permute(0, 3, 1, 2)
        expected = oracle.forward_head(oracle.forward_features(x), pre_logits=True).numpy()
    vectors = encoder.encode(batch)
    assert vectors.dtype == np.float32
    assert vectors.shape == (5, encoder.dim)
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-5)


def test_encode_is_a_function_of_the_image(conv_file: Path) -> None:
    encoder = load_encoder(parse_encoder(f"timm:{CONV}@{conv_file}", 32))
    batch = images(6, 32)
    whole = encoder.encode(batch)
    one_by_one = np.concatenate([encoder.encode(batch[i : i + 1]) for i in range(6)])
    np.testing.assert_allclose(whole, one_by_one, rtol=1e-4, atol=1e-5)
    assert encoder.encode(batch[:0]).shape == (0, encoder.dim)
    batch.flags.writeable = False  # as Ray hands them out
    flipped = encoder.encode(batch[:, :, ::-1])
    np.testing.assert_array_equal(flipped, encoder.encode(np.ascontiguousarray(batch[:, :, ::-1])))
    assert not np.allclose(flipped, whole)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((2, 31, 32, 3), np.uint8),
        np.zeros((2, 32, 32), np.uint8),
        np.zeros((2, 3, 32, 32), np.uint8),
        np.zeros((2, 32, 32, 3), np.float32),
    ],
)
def test_encode_refuses_other_images(bad: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=r"Expected uint8 images of shape \(B, 32, 32, 3\)"):
        load_encoder(parse_encoder("pixels")).encode(bad)


def test_vit_takes_another_size_and_resizes_positions(tmp_path: Path) -> None:
    torch.manual_seed(3)
    path = tmp_path / "vit.safetensors"
    save_file(timm.create_model(VIT, pretrained=False).state_dict(), path)
    own = load_encoder(parse_encoder(f"timm:{VIT}@{path}"))
    small = load_encoder(parse_encoder(f"timm:{VIT}@{path}", 64))
    assert (own.image_size, small.image_size, own.dim) == (160, 64, small.dim)
    assert np.isfinite(small.encode(images(1, 64))).all()


def test_impossible_image_size(tmp_path: Path) -> None:
    path = tmp_path / "vit.safetensors"
    save_file(timm.create_model(VIT, pretrained=False).state_dict(), path)
    with pytest.raises(EncoderError, match="image size"):
        load_encoder(parse_encoder(f"timm:{VIT}@{path}", 3))


@needs_package
def test_lite0_with_packaged_weights() -> None:
    encoder = load_encoder(parse_encoder("tf_efficientnet_lite0", 64))
    assert (encoder.image_size, encoder.dim) == (64, 1280)
    batch = np.repeat(np.array([0, 128, 255], np.uint8), 64 * 64 * 3).reshape(3, 64, 64, 3)
    vectors = encoder.encode(batch)
    assert np.isfinite(vectors).all()
    assert vectors.std() > 0.01
    path = package_weights()
    assert path is not None
    first = read_state_dict(path)["_conv_stem.weight"]
    loaded = encoder._forward.state_dict()["conv_stem.weight"]  # type: ignore[attr-defined]
    torch.testing.assert_close(loaded, first)


@needs_package
def test_lite0_default_size() -> None:
    assert load_encoder(parse_encoder("tf_efficientnet_lite0")).image_size == 224


# ------------------------------------------------------------------------------------------------------------ open_clip


def test_open_clip_local(clip_files: tuple[Path, Path]) -> None:
    import open_clip

    config, weights = clip_files
    known, paths = open_clip.list_models(), list(open_clip.factory._MODEL_CONFIG_PATHS)
    encoder = load_encoder(parse_encoder(f"open_clip:{config}@{weights}"))
    assert (encoder.image_size, encoder.dim) == (32, 16)
    oracle = open_clip.CLIP(**CLIP_CONFIG).eval()
    oracle.load_state_dict(torch.load(weights, weights_only=True))
    batch = images(4, 32)
    mean, std = torch.tensor(open_clip.OPENAI_DATASET_MEAN), torch.tensor(open_clip.OPENAI_DATASET_STD)
    with torch.no_grad():
        expected = oracle.encode_image(((torch.from_numpy(batch) / 255 - mean) / std).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(encoder.encode(batch), expected, rtol=1e-4, atol=1e-5)
    assert open_clip.list_models() == known
    assert list(open_clip.factory._MODEL_CONFIG_PATHS) == paths


def test_open_clip_image_size_and_preprocessing(clip_files: tuple[Path, Path], tmp_path: Path) -> None:
    config, weights = clip_files
    larger = load_encoder(parse_encoder(f"open_clip:{config}@{weights}", 48))
    assert larger.image_size == 48
    assert larger.encode(images(1, 48)).shape == (1, 16)
    wrapped = tmp_path / "wrapped.json"
    wrapped.write_text(json.dumps({"model_cfg": CLIP_CONFIG, "preprocess_cfg": {"mean": [0.0] * 3, "std": [1.0] * 3}}))
    batch = images(2, 32)
    ours = load_encoder(parse_encoder(f"open_clip:{wrapped}@{weights}")).encode(batch)
    assert not np.allclose(ours, load_encoder(parse_encoder(f"open_clip:{config}@{weights}")).encode(batch))


def test_open_clip_weights_of_another_model(clip_files: tuple[Path, Path], conv_file: Path) -> None:
    config, weights = clip_files
    with pytest.raises(EncoderError, match="Expected weights of this network"):
        load_encoder(parse_encoder(f"open_clip:{config}@{conv_file}"))
    config.write_text(json.dumps({**CLIP_CONFIG, "vision_cfg": {**CLIP_CONFIG["vision_cfg"], "layers": 3}}))
    with pytest.raises(EncoderError, match=r"missing .*resblocks\.2"):
        load_encoder(parse_encoder(f"open_clip:{config}@{weights}"))
    config.write_text(json.dumps({"embed_dim": 16, "vision_cfg": {"no_such_option": 1}}))
    with pytest.raises(EncoderError, match="check model config"):
        load_encoder(parse_encoder(f"open_clip:{config}@{weights}"))


# -------------------------------------------------------------------------------------------------------------- weights


class Attack:
    """A pickle of this would make a directory when it is read the usual way."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [None, 2, 4])
def test_code_in_weights_is_not_executed(tmp_path: Path, protocol: int | None) -> None:
    victim, path = tmp_path / "victim", tmp_path / "evil.pt"
    if protocol is None:
        torch.save({"weight": Attack(victim)}, path)
    else:
        path.write_bytes(pickle.dumps({"weight": Attack(victim)}, protocol=protocol))
    found = "maybe code" if protocol == 4 else r"with code \(.*mkdir\)"
    with pytest.raises(EncoderError, match=f"a pickle .*{found}.*never executed"):
        load_encoder(parse_encoder(f"timm:{CONV}@{path}"))
    assert not victim.exists()


@pytest.mark.parametrize(("name", "content"), [("a.pt", b"not weights"), ("a.safetensors", b"x" * 40), ("a.pth", b"")])
def test_damaged_weights(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EncoderError, match=name):
        load_encoder(parse_encoder(f"timm:{CONV}@{tmp_path / name}"))


def test_wrapped_weights(conv_file: Path) -> None:
    state = torch.load(conv_file, weights_only=True)
    reference = load_encoder(parse_encoder(f"timm:{CONV}@{conv_file}", 32)).encode(images(2, 32))
    wrapped = {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}
    torch.save(wrapped, conv_file)
    again = load_encoder(parse_encoder(f"timm:{CONV}@{conv_file}", 32)).encode(images(2, 32))
    np.testing.assert_array_equal(again, reference)


def test_weights_that_do_not_fit(conv_file: Path) -> None:
    state = torch.load(conv_file, weights_only=True)
    body = [key for key in state if not key.startswith("fc.")]
    changes: list[tuple[dict[str, Any], str]] = [
        ({body[0]: None}, f"1 missing \\({body[0]}\\)"),
        ({"surplus": torch.zeros(1)}, r"1 unexpected \(surplus\)"),
        ({body[0]: torch.zeros(2)}, f"1 of another shape \\({body[0]}\\)"),
    ]
    for change, message in changes:
        changed = {key: value for key, value in {**state, **change}.items() if value is not None}
        torch.save(changed, conv_file)
        with pytest.raises(EncoderError, match=message):
            load_encoder(parse_encoder(f"timm:{CONV}@{conv_file}"))
    torch.save({"epoch": 1}, conv_file)
    with pytest.raises(EncoderError, match="no tensors"):
        load_encoder(parse_encoder(f"timm:{CONV}@{conv_file}"))


def test_order_mapping_checks_roles() -> None:
    from dynacor_ray.models import timm_encoders  # imports timm

    expected = {"bn.weight": torch.zeros(2), "bn.bias": torch.zeros(2)}
    swapped = {"_bn.bias": torch.zeros(2), "_bn.weight": torch.zeros(2), "_fc.weight": torch.zeros(3)}
    with pytest.raises(EncoderError, match="in the place of"):
        timm_encoders._rename_by_order(swapped, expected, Path("w.pth"))
    with pytest.raises(EncoderError, match="1 tensors instead of 2"):
        timm_encoders._rename_by_order({"_bn.weight": torch.zeros(2)}, expected, Path("w.pth"))


# ------------------------------------------------------------------------------------------------------------------ hub


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network and nothing cached, whatever the machine has."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("no_proxy", "*")


@pytest.mark.parametrize("text", ["timm:resnet18", "open_clip:RN50/openai"])
@pytest.mark.usefixtures("no_hub")
def test_offline_is_said(text: str) -> None:
    import huggingface_hub.constants

    spec = parse_encoder(text)
    with pytest.raises(EncoderError, match=r"(?s)from http://127.*refused.*dynacor-ray\[encoders\].*--encoder pixels"):
        load_encoder(spec)
    assert huggingface_hub.constants.HF_HUB_OFFLINE is False


@pytest.mark.usefixtures("no_hub")
def test_offline_uses_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.manual_seed(4)
    model = timm.create_model(CONV, pretrained=False)
    repository = tmp_path / "hub" / f"models--timm--{CONV}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(model.state_dict(), repository / "snapshots" / ("0" * 40) / "model.safetensors")
    encoder = load_encoder(parse_encoder(CONV, 32))
    assert encoder.encode(images(2, 32)).shape == (2, encoder.dim)


@pytest.fixture
def refusing_server() -> Iterator[str]:
    """A hub that answers, but with an error."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(403)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_error_status_is_an_answer(refusing_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    assert hub.hub_problem(refusing_server) is None
    assert hub.hub_problem("http://127.0.0.1:9") is not None


# ---------------------------------------------------------------------------------------------------------------- heads


def test_mlp_is_two_layers_on_scaled_features() -> None:
    torch.manual_seed(0)
    mean = np.array([1.0, -2.0, 0.5], np.float32)
    head = build_classifier("mlp", num_features=3, num_classes=4, mean=mean, scale=2.0).eval()
    x = torch.randn(5, 3)
    state = head.state_dict()
    hidden = ((x - torch.from_numpy(mean)) * 2) @ state["hidden.0.weight"].T + state["hidden.0.bias"]
    expected = hidden.clamp(min=0) @ state["output.weight"].T + state["output.bias"]
    torch.testing.assert_close(head(x), expected)
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    assert shapes == {
        "scaling.mean": (3,),
        "scaling.scale": (),
        "hidden.0.weight": (512, 3),
        "hidden.0.bias": (512,),
        "output.weight": (4, 512),
        "output.bias": (4,),
    }
    assert not any(name.startswith("scaling") for name, _ in head.named_parameters())


def test_scaling_does_not_share_memory_with_its_source() -> None:
    mean = torch.zeros(2)
    scaling = FeatureScaling(mean, 1.0)
    mean += 1
    torch.testing.assert_close(scaling(torch.ones(1, 2)), torch.ones(1, 2))


def test_build_classifier_refuses() -> None:
    good: dict[str, Any] = {"num_features": 2, "num_classes": 3, "mean": np.zeros(2, np.float32), "scale": 1.0}
    with pytest.raises(ConfigError, match=r"a classifier \(mlp\), but got 'resnet'"):
        build_classifier("resnet", **good)
    with pytest.raises(ConfigError, match="at least 2 classes"):
        build_classifier("mlp", **{**good, "num_classes": 1})
    with pytest.raises(ConfigError, match=r"finite mean of shape \(2,\)"):
        build_classifier("mlp", **{**good, "mean": np.zeros(3, np.float32)})
    with pytest.raises(ConfigError, match="finite mean"):
        build_classifier("mlp", **{**good, "mean": np.array([0, np.nan], np.float32)})
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="positive, finite scale"):
            build_classifier("mlp", **{**good, "scale": scale})
