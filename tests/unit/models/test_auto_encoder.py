"""The encoder that is taken when the user names none, with a hub and a cache that are stand-ins."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dynacor_ray.core.errors import first_line
from dynacor_ray.models import auto_encoder, hub
from dynacor_ray.models.auto_encoder import CLIP, CLIP_FILE, CLIP_REPOSITORY, Work, candidates, choose
from dynacor_ray.models.encoders import EncoderSpec

LITE0, LITE0_SMALL = (EncoderSpec("timm", "tf_efficientnet_lite0", image_size=size) for size in (None, 128))
FEW, MANY = 1000, 1_000_000


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what is cached, what the hub says, and whether the package is installed."""

    def be(cached: bool = False, problem: str | None = None, package: bool = True) -> None:
        monkeypatch.setattr(auto_encoder, "is_cached", lambda repository, file: cached)
        monkeypatch.setattr(auto_encoder, "unreachable", lambda: problem)
        monkeypatch.setattr(auto_encoder, "package_weights", lambda: Path("weights.pth") if package else None)

    be()
    return be


@pytest.mark.usefixtures("world")
def test_tiny_images_are_used_as_they_are() -> None:
    assert choose(Work(FEW, 8)).spec == EncoderSpec("pixels", "pixels", image_size=8)
    assert choose(Work(FEW, 16)).spec == EncoderSpec("pixels", "pixels", image_size=16)
    assert choose(Work(FEW, 28, gray=True)).spec == EncoderSpec("pixels", "gray", image_size=28)
    assert choose(Work(FEW, 28, gray=True, image_size=14)).spec.image_size == 14
    assert "gray and at most 32 px" in choose(Work(FEW, 28, gray=True)).reason
    assert choose(Work(FEW, 33, gray=True)).spec.kind == choose(Work(FEW, 17)).spec.kind == "open_clip"


def test_clip_where_it_can_be_had(world: Callable[..., None]) -> None:
    world(cached=True, problem="no route")
    choice = choose(Work(FEW, 300, cpus=2))
    assert choice.spec == CLIP
    assert "its weights are on this machine and it takes about 1 min on 2 CPUs" in choice.reason
    world(cached=False)
    assert choose(Work(FEW, 300)).spec == CLIP
    assert "the hub has its weights" in choose(Work(FEW, 300)).reason


def test_the_packaged_network_where_it_cannot(world: Callable[..., None]) -> None:
    world(problem="[Errno -2] no route to host")
    choice = choose(Work(FEW, 64))
    assert choice.spec == LITE0_SMALL
    assert "at 128 px" in choice.reason
    assert "needs its weights: --encoder open_clip:ViT-B-32@FILE, or the hub, which cannot be" in choice.reason
    assert "reached (no route to host)" in choice.reason
    assert choose(Work(FEW, 65)).spec == LITE0
    assert choose(Work(FEW, 65, gpu=True)).spec == LITE0
    world()
    late = choose(Work(FEW, 65), failure="connection reset")  # the hub answered, and then it did not
    assert late.spec == LITE0
    assert "connection reset" in late.reason
    assert first_line(late.reason) == late.reason


def test_the_work_has_to_be_bearable(world: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    world(cached=True)
    choice = choose(Work(MANY, 300, cpus=2))
    assert choice.spec == LITE0
    assert "would take about 19.8 h on 2 CPUs: a GPU, or that time with --encoder open_clip:ViT-B-32/" in choice.reason
    assert choose(Work(MANY, 300, cpus=200)).spec == CLIP
    assert choose(Work(MANY, 300, gpu=True)).spec == CLIP
    assert choose(Work(MANY, 300, cpus=2, image_size=32)).spec.image_size == 32
    # No question is asked whose answer would not matter.
    monkeypatch.setattr(auto_encoder, "unreachable", lambda: pytest.fail("asked"))
    world_without_cache = choose(Work(MANY, 300, cpus=2))
    assert world_without_cache.spec == LITE0


def test_without_the_package_nothing_else_is_left(world: Callable[..., None]) -> None:
    world(problem="no route", package=False)
    choice = choose(Work(MANY, 300))
    assert choice.spec == CLIP
    assert "pip install 'dynacor-ray[encoders]'" in choice.reason


def test_candidates_hold_every_choice(world: Callable[..., None]) -> None:
    for work in (Work(FEW, 8), Work(FEW, 64), Work(FEW, 300), Work(MANY, 300), Work(MANY, 300, image_size=96)):
        for problem in (None, "no route"):
            world(problem=problem)
            assert choose(work).spec in candidates(work)


def test_the_place_of_the_weights_is_open_clips() -> None:
    open_clip = pytest.importorskip("open_clip")
    model, _, tag = CLIP.name.partition("/")
    assert open_clip.get_pretrained_cfg(model, tag)["hf_hub"] == f"{CLIP_REPOSITORY}/"
    assert open_clip.constants.HF_SAFE_WEIGHTS_NAME == CLIP_FILE


def test_the_cache_is_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert not hub.is_cached(CLIP_REPOSITORY, CLIP_FILE)
    repository = tmp_path / f"models--{CLIP_REPOSITORY.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (repository / "snapshots" / ("0" * 40) / CLIP_FILE).touch()
    assert hub.is_cached(CLIP_REPOSITORY, CLIP_FILE)


def test_a_hub_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once: a run does not ask again, and its trials all get the same answer."""
    import huggingface_hub.constants

    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        endpoint = f"http://127.0.0.1:{mute.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
        start = time.monotonic()
        assert hub.unreachable(0.1) == "no answer within 0.1 s"
        assert time.monotonic() - start < 2
        monkeypatch.setattr(hub, "hub_problem", lambda endpoint: pytest.fail("asked again"))
        assert hub.unreachable(0.1) == "no answer within 0.1 s"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert hub.unreachable() == "HF_HUB_OFFLINE is set"
