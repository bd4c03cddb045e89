"""Encoders through OpenVINO give torch's features, or are not used; the back end is part of an encoder's identity."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dynacor_ray.core.errors import EncoderError
from dynacor_ray.models import encoders
from dynacor_ray.models.encoders import EncoderSpec, load_encoder, parse_encoder, ready_encoder
from dynacor_ray.models.torch_encoder import NetworkEncoder
from tests.small_networks import CONV, VIT, images, weights_of

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")


def relative_distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


@pytest.fixture(scope="module")
def vit_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("vit") / "vit.pt"
    torch.save(weights_of(VIT), path)
    return path


@needs_openvino
def test_features_are_those_of_torch(conv_file: Path, vit_file: Path, clip_files: tuple[Path, Path]) -> None:
    """A convolutional network, one with attention, and a CLIP tower, whose fused attention cannot be converted."""
    config, weights = clip_files
    for text, side in ((f"{CONV}@{conv_file}", 32), (f"{VIT}@{vit_file}", 64), (f"open_clip:{config}@{weights}", 32)):
        spec = parse_encoder(text, side)
        ready = ready_encoder(spec, use_gpu=False)
        assert ready.spec.back_end == "openvino", ready.note
        assert ready.note is None
        batch = images(19, side)
        ours, theirs = ready.encoder.encode(batch), load_encoder(spec).encode(batch)
        assert ours.dtype == np.float32
        assert relative_distance(ours, theirs) < 1e-5
        # No batch is too small, and nobody's features depend on who is beside them.
        np.testing.assert_array_equal(ready.encoder.encode(batch[11:12])[0], ours[11])
    assert torch.backends.mha.get_fastpath_enabled()


class Fickle(nn.Module):
    """Takes another way for the images of a test than for the black one by which it is traced."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3)) if x.max() > 0 else x.amax(dim=(2, 3))


class Unknown(nn.Module):
    """Uses an operation that OpenVINO does not have."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvalsh(x.mean(dim=1) + x.mean(dim=1).mT)


@needs_openvino
@pytest.mark.parametrize(("network", "message"), [(Fickle(), "features that differ by"), (Unknown(), "but got")])
def test_a_network_that_does_not_fit_stays_with_torch(
    network: nn.Module, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = NetworkEncoder(network, network, 8, (0.5,) * 3, (0.25,) * 3, "cpu")
    monkeypatch.setattr(encoders, "_load_network", lambda spec, device: plain)
    ready = ready_encoder(EncoderSpec("timm", "made_up"), use_gpu=False)
    assert ready.spec.back_end == "torch"
    assert ready.encoder is plain
    assert ready.note is not None
    assert message in ready.note
    assert "plain PyTorch" in ready.note
    with pytest.raises(EncoderError, match="Expected a network that OpenVINO can run"):
        load_encoder(dataclasses.replace(ready.spec, back_end="openvino"))


class Stack(ctypes.Structure):
    """Where the handlers of a thread's signals run (sigaltstack(2))."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@needs_openvino
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_stack_of_signals_outlives_encoders() -> None:
    """Else Ctrl-C is a segmentation fault once two are gone, on processors with AVX-512."""
    from dynacor_ray.models.openvino_encoder import OpenVinoEncoder

    plain = NetworkEncoder(network := nn.Flatten(), network, 8, (0.5,) * 3, (0.25,) * 3, "cpu")
    made = [OpenVinoEncoder(plain) for _ in range(2)]
    while made:
        made.pop(0)
        gc.collect()
    stack = Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    ranges = [line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines()]
    assert stack.start is None or any(int(low, 16) <= stack.start < int(high, 16) for low, high in ranges)


def test_without_openvino(conv_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process says so in a line; a machine of a cluster that others count on refuses."""
    monkeypatch.setattr(encoders, "_has_openvino", lambda: False)
    spec = parse_encoder(f"{CONV}@{conv_file}", 32)
    ready = ready_encoder(spec, use_gpu=False)
    assert ready.spec == spec
    assert "pip install 'dynacor-ray[encoders]'" in str(ready.note)
    with pytest.raises(EncoderError, match=r"install `dynacor-ray\[encoders\]` on every machine"):
        load_encoder(dataclasses.replace(spec, back_end="openvino"))


def test_the_back_end_is_part_of_the_identity(conv_file: Path) -> None:
    spec = parse_encoder(f"{CONV}@{conv_file}", 32)
    assert len(set(spec.identities())) == 3
    assert spec.identity in spec.identities()
    # A run that was begun with torch goes on with torch, and on a GPU nothing else is tried.
    assert ready_encoder(spec, use_gpu=False, begun=spec.identity).spec == spec
    assert ready_encoder(spec, use_gpu=True).spec.back_end == "cuda"
    assert ready_encoder(parse_encoder("pixels:8"), use_gpu=True).spec == parse_encoder("pixels:8")


@needs_openvino
def test_nobody_is_told_of_what_openvino_does() -> None:
    """Else each import and network is sent to Google Analytics, unasked."""
    importlib.import_module("dynacor_ray.models.quiet_openvino")
    sender = importlib.import_module("openvino.tools.ovc.telemetry_utils").tm
    assert sender.__name__ == "openvino.tools.ovc.telemetry_stub"
    assert "openvino_telemetry" not in sys.modules
