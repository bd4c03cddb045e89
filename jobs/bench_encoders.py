"""Frozen encoders on a CPU: OpenVINO against PyTorch, and decoding against both. `python jobs/bench_encoders.py`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import tyro
from benchmarking import Lap, Watch, folder_for, noisy_jpeg, print_report, take_turns

from dynacor_ray.core.image_decoding import load_rgb
from dynacor_ray.engine.runtime.tasks import torch_threads
from dynacor_ray.models.encoders import EncoderSpec, load_encoder, parse_encoder
from dynacor_ray.models.openvino_encoder import OpenVinoEncoder
from dynacor_ray.models.torch_encoder import NetworkEncoder


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is encoded."""

    encoders: tuple[str, ...] = (
        "tf_efficientnet_lite0:128",
        "tf_efficientnet_lite0:224",
        "timm:vit_tiny_patch16_224:224",
        "open_clip:ViT-B-32:224",
    )
    """Network and side in pixels. Random weights, but for the packaged ones: speed does not depend on them."""
    images: int = 64
    """Images per turn."""
    pixels: int = 256
    """Side of the JPEG files."""
    repeats: int = 3
    """Turns of each variant."""


def main(options: Options) -> None:
    """Encode and decode in turns, on one core, and print the report."""
    files = [noisy_jpeg(number, options.pixels) for number in range(options.images)]
    ratios, seconds, facts = {}, {}, {}
    with folder_for(None) as folder, torch_threads(1):
        for text in options.encoders:
            name, _, side = text.rpartition(":")
            spec = dataclasses.replace(with_weights(name, folder), image_size=int(side))
            plain = load_encoder(spec)
            assert isinstance(plain, NetworkEncoder)
            start = Watch()
            compiled = OpenVinoEncoder(plain)
            converting = round(start.lap().cpu_seconds or 0.0, 1)
            images = np.stack([load_rgb(file, plain.image_size) for file in files])
            theirs, ours = plain.encode(images), compiled.encode(images)
            turns = take_turns(
                {
                    "torch": partial(lap, partial(plain.encode, images), len(images)),
                    "openvino": partial(lap, partial(compiled.encode, images), len(images)),
                    "decode": partial(lap, partial(decode, files, plain.image_size), len(images)),
                },
                options.repeats,
            )
            budget = {"at_least": 3.0} if "lite0" in name else {}
            ratios[f"{text}, torch / openvino"] = turns.ratio("torch", "openvino", **budget)
            ratios[f"{text}, decode / openvino"] = turns.ratio("decode", "openvino")
            seconds |= {f"{text}, {variant}": values for variant, values in turns.seconds.items()}
            facts[text] = {
                "images_per_cpu_second": {
                    variant: round(1000 / min(values), 1) for variant, values in turns.cpu_seconds.items()
                },
                "relative_difference_of_features": float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)),
                "cpu_seconds_of_conversion": converting,
            }
    print_report(
        "Seconds per 1,000 images of the same network, PyTorch (channels last) over OpenVINO, one thread each, and of "
        "decoding and resizing the JPEG files, which shares the cores with it. Images per second of processor time: "
        "the best turn.",
        ratios,
        seconds,
        vars(options),
        networks=facts,
    )


def with_weights(name: str, folder: Path) -> EncoderSpec:
    """The encoder of that name; with random weights in a file where none come with a package."""
    torch.manual_seed(0)
    path = folder / "weights.pt"
    kind, _, network = name.rpartition(":")
    if kind == "open_clip":
        import open_clip

        torch.save(open_clip.CLIP(**open_clip.get_model_config(network)).state_dict(), path)
    elif kind == "timm":
        import timm

        torch.save(timm.create_model(network, pretrained=False, num_classes=0).state_dict(), path)
    return parse_encoder(f"{name}@{path}" if kind else name)


def lap(action: Callable[[], object], images: int) -> Lap:
    """One turn, per 1,000 images."""
    watch = Watch()
    action()
    return watch.lap(1000 / images)


def decode(files: list[bytes], side: int) -> None:
    """Decode and resize each file."""
    for file in files:
        load_rgb(file, side)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
