"""Networks for images: sizes as published, gradients everywhere, weights from files, and clear refusals."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from torch import nn

from dynacor_ray.core.errors import ConfigError, EncoderError
from dynacor_ray.models import hub
from dynacor_ray.models.image_classifiers import CIFAR, ImageClassifier, NetworkSpec, build_network, parse_network

# Trainable numbers at 10 classes (He et al. 2016, Table 6: ResNet20 0.27 M; ResNet34 and PreAct-ResNet18 as in the
# usual CIFAR code, the latter with the norm after its last block that He et al. (ECCV 2016) add: 1,024 more).
PARAMETERS = {
    "cifar_resnet8": 75_290,
    "cifar_resnet20": 269_722,
    "cifar_resnet34": 21_282_122,
    "cifar_preact_resnet18": 11_171_146 + 1_024,
}


def images(count: int, side: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@functools.cache
def built(name: str) -> ImageClassifier:
    """A network of ours for 10 classes; the large ones take a while."""
    torch.manual_seed(0)
    return build_network(parse_network(name), 10)


def test_every_network_of_ours_has_its_published_size() -> None:
    assert {name: parameters(built(name)) for name in CIFAR} == PARAMETERS


def test_resnet50_has_its_published_size() -> None:
    assert parameters(build_network(parse_network("resnet50@none"), 1000)) == 25_557_032


@pytest.mark.parametrize("name", CIFAR)
def test_shapes_and_gradients(name: str) -> None:
    model = built(name)
    logits = model(images(3, 16))
    assert logits.shape == (3, 10)
    assert logits.dtype == torch.float32
    logits.logsumexp(dim=1).sum().backward()
    without = [key for key, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert not without


@pytest.mark.parametrize("name", ["cifar_resnet34", "cifar_preact_resnet18"])
def test_three_of_four_stages_halve_the_side(name: str) -> None:
    model, sides = built(name), list[tuple[int, ...]]()
    for number in range(1, 5):
        stage = model.body.get_submodule(f"layer{number}")
        stage.register_forward_hook(lambda _, __, output: sides.append(tuple(output.shape[1:])))
    model(images(1, 32))
    assert sides == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]


def test_pixels_are_normalized_and_stay_channels_last() -> None:
    class Body(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.is_contiguous(memory_format=torch.channels_last)
            return x[:, :, 0, 0]

    model = ImageClassifier(Body(), 3, 2, (0.5, 0.25, 0.0), (0.5, 0.5, 1.0))
    model.output = nn.Identity()  # type: ignore[assignment]
    pixel = torch.tensor([255, 0, 51], dtype=torch.uint8).expand(2, 4, 4, 3).contiguous()
    assert torch.allclose(model(pixel), torch.tensor([[1.0, -0.5, 0.2]]).expand(2, 3), atol=1e-6)


def test_torchvision_s_weights_give_torchvision_s_network(tmp_path: Path) -> None:
    """Also under the short name: resnet50 is the same network in timm and torchvision, tensor by tensor."""
    torch.manual_seed(3)
    import torchvision

    theirs, path = torchvision.models.resnet50(), tmp_path / "resnet50.pth"
    torch.save(theirs.state_dict(), path)
    model = build_network(parse_network(f"resnet50@{path}", 64), 5)
    theirs.fc = nn.Identity()
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(model.body.eval()(pixels), theirs.eval()(pixels), atol=1e-4)
    assert model.output.weight.shape == (5, 2048), "the last layer starts anew for these classes"


def test_any_timm_network_by_name() -> None:
    spec = parse_network("timm:resnet18@none", 32)
    assert build_network(spec, 4)(images(2, 32)).shape == (2, 4)
    assert parse_network("resnet18@none").image_size == 224, "its own"


def test_a_saved_classifier_is_loaded_whole(tmp_path: Path) -> None:
    torch.manual_seed(0)
    saved = build_network(parse_network("cifar_resnet8"), 4)
    usual = {key.removeprefix("body.").replace("output", "linear"): value for key, value in saved.state_dict().items()}
    del usual["scale"], usual["shift"]
    for name, state in (("ours", saved.state_dict()), ("usual", {"state_dict": usual})):
        torch.save(state, tmp_path / f"{name}.pt")
        loaded = build_network(parse_network(f"cifar_resnet8@{tmp_path / name}.pt"), 4)
        assert torch.equal(loaded.eval()(images(2, 32)), saved.eval()(images(2, 32)))


def test_a_file_for_other_classes_is_refused(tmp_path: Path) -> None:
    torch.save(build_network(parse_network("cifar_resnet8"), 100).state_dict(), tmp_path / "w.pt")
    with pytest.raises(EncoderError, match="those of a classifier of 100 classes where the data have 10"):
        build_network(parse_network(f"cifar_resnet8@{tmp_path / 'w.pt'}"), 10)


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save(build_network(parse_network("cifar_resnet8"), 10).state_dict(), tmp_path / "w.pt")
    with pytest.raises(EncoderError, match=r"weights of this network in .* but got \d+ missing"):
        build_network(parse_network(f"cifar_resnet20@{tmp_path / 'w.pt'}"), 10)


def test_a_file_with_code_is_not_executed(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "w.pt")
    with pytest.raises(EncoderError, match="code in a weight file is never executed"):
        build_network(parse_network(f"cifar_resnet8@{tmp_path / 'w.pt'}"), 10)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("resnt50", "did you mean resnet50"),
        ("cifar_resnet18", "did you mean cifar_resnet8"),
        ("timm:cifar_resnet8", "or any of timm's"),
        ("", "or any of timm's"),
        ("resnet50@/nowhere.pth", "a weight file, but got '/nowhere.pth', which is not there"),
        ("resnet50@weights.txt", r"weights in a \.pt, \.pth, \.safetensors file"),
    ],
)
def test_unknown_names_and_files(text: str, words: str) -> None:
    with pytest.raises(EncoderError, match=words):
        parse_network(text)


def test_published_weights_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "hub_problem", lambda endpoint: "no route")
    words = r"weights of timm:resnet50\.tv_in1k .* but got 'no route'; give a file .* or start from random numbers"
    with pytest.raises(EncoderError, match=words):
        build_network(parse_network("resnet50"), 10)


def test_one_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 2 classes, but got 1"):
        build_network(parse_network("cifar_resnet8"), 1)


def test_an_image_size_that_the_network_cannot_take() -> None:
    with pytest.raises(EncoderError, match="images that inception_v3 accepts, but got 8 px"):
        build_network(parse_network("inception_v3@none", 8), 10)


def test_a_fingerprint_tells_what_the_result_depends_on(tmp_path: Path) -> None:
    first, second = tmp_path / "1.pt", tmp_path / "2.pt"
    torch.save({"x": torch.zeros(1)}, first)
    torch.save({"x": torch.ones(1)}, second)
    specs = [
        parse_network("cifar_resnet8"),
        parse_network("cifar_resnet20"),
        parse_network("cifar_resnet8", 64),
        parse_network(f"cifar_resnet8@{first}"),
        parse_network(f"cifar_resnet8@{second}"),
        parse_network("resnet18"),
        parse_network("resnet18@none"),
    ]
    assert len({spec.fingerprint() for spec in specs}) == len({spec.slug for spec in specs}) == len(specs)
    assert parse_network("cifar_resnet8") == NetworkSpec("cifar_resnet8", 32)


def test_a_checkpoint_is_the_same_however_the_network_is_run() -> None:
    """Compiled or not, with a common batch norm or not: what a worker converts in place keeps its names."""
    model = build_network(parse_network("cifar_resnet8"), 4)
    names = list(model.state_dict())
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    model.compile()
    assert list(model.state_dict()) == names
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in model.modules()) == 7
