"""Networks that are trained on the images themselves: one registry of image classifiers by name.

`cifar_*` are for images of about 32 px and start from random numbers; `resnet50` (torchvision's, with its ImageNet
weights) and any timm network start from published weights. A file with weights may be given after `@`, and `@none`
starts from random numbers. A file for `cifar_*` holds a whole classifier; else the last layer always starts anew.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dynacor_ray.core.errors import ConfigError, EncoderError, expected_got, first_line
from dynacor_ray.models.cifar_resnet import CifarResNet, cifar_preact_resnet18, cifar_resnet, cifar_resnet34
from dynacor_ray.models.encoder_spec import EncoderSpec
from dynacor_ray.models.load_errors import unfit
from dynacor_ray.models.weights import existing_weights, file_digest, load_exactly, read_state_dict

CIFAR: dict[str, Callable[[], CifarResNet]] = {
    "cifar_resnet8": lambda: cifar_resnet(8),
    "cifar_resnet20": lambda: cifar_resnet(20),
    "cifar_resnet34": cifar_resnet34,
    "cifar_preact_resnet18": cifar_preact_resnet18,
}
"""Name -> network of this package."""
SHORT = {"resnet50": "resnet50.tv_in1k"}
"""Name -> what timm calls it: the same layers and weights as in torchvision."""
CIFAR_SIDE = 32
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""Of the training images of CIFAR-10, which other small photographs are like."""
_HEADS = ("linear", "fc", "output")
"""What the last layer is called in files of CIFAR networks."""


@dataclass(frozen=True)
class NetworkSpec:
    """Which network: enough to build the same one on another machine that sees the same files.

    weights: path of a local file; None for the published ones, or random numbers where there are none. scratch: random
    numbers although there are published ones. image_size: side of the square input in pixels.
    """

    name: str
    image_size: int
    weights: str | None = None
    scratch: bool = False

    def fingerprint(self) -> str:
        """16 hex digits that change with network, image size, start and content of a local file."""
        words = ["network", self.name, str(self.image_size), str(self.scratch)]
        words.append(file_digest(self.weights) if self.weights else "")
        if self.name not in CIFAR:
            words.append(self.encoder().fingerprint())
        return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]

    @property
    def slug(self) -> str:
        """A readable name, different for different fingerprints."""
        name = re.sub(r"[^A-Za-z0-9_.]+", "-", self.name)
        return f"network-{name}-{self.image_size}-{self.fingerprint()[:8]}"

    @property
    def whole_file(self) -> bool:
        """Whether it starts from a file with a whole classifier, which is of one number of classes."""
        return self.name in CIFAR and self.weights is not None

    def encoder(self) -> EncoderSpec:
        """The same network as timm's encoders are named."""
        return EncoderSpec("timm", self.name, self.weights, self.image_size)


def parse_network(text: str, image_size: int | None = None) -> NetworkSpec:
    """Read NAME, NAME@FILE or NAME@none, with or without `timm:` in front.

    Raises EncoderError when network or weight file do not exist. Checks everything that can be checked without a
    network connection and without building the model.
    """
    name, at, start = text.removeprefix("timm:").partition("@")
    scratch = start == "none"
    weights = existing_weights(start) if at and not scratch else None
    if name in CIFAR and not text.startswith("timm:"):
        return NetworkSpec(name, image_size or CIFAR_SIDE, weights, scratch)
    import timm

    known = SHORT.get(name, name) if not text.startswith("timm:") else name
    if not timm.is_model(known):
        names = list(dict.fromkeys([*CIFAR, *SHORT, *timm.list_models()]))
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        remedy = f"did you mean {', '.join(close)}? " if close else ""
        expected = f"a network ({', '.join([*CIFAR, *SHORT])}, or any of timm's)"
        raise EncoderError(
            expected_got(expected, repr(text), f"{remedy}NAME@FILE and NAME@none say what it starts from")
        )
    from dynacor_ray.models.timm_encoders import parse_timm

    parse_timm(known, image_size)
    config = timm.get_pretrained_cfg(known)
    return NetworkSpec(known, image_size or (int(config.input_size[1]) if config else 224), weights, scratch)


class ImageClassifier(nn.Module):
    """Normalizes images, gives them to a network without its last layer, and adds a linear layer for the classes."""

    scale: Tensor
    shift: Tensor

    def __init__(
        self, body: nn.Module, num_features: int, num_classes: int, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__()
        # Images arrive with channels last, and convolutions are faster when they stay so.
        self.body = body.to(memory_format=torch.channels_last)
        self.output = nn.Linear(num_features, num_classes)
        self.register_buffer("scale", (1.0 / (255.0 * torch.tensor(std))).view(1, 3, 1, 1))
        self.register_buffer("shift", (torch.tensor(mean) / torch.tensor(std)).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits. images: uint8 (B, S, S, 3); returns float (B, C)."""
        pixels = images.permute(0, 3, 1, 2).float() * self.scale - self.shift
        vectors = self.body(pixels)
        # In full precision under autocast too: bfloat16 logits tie, and the sign of a tied margin says nothing.
        with torch.autocast(images.device.type, enabled=False):
            logits: Tensor = self.output(vectors.float())
        return logits


def build_network(spec: NetworkSpec, num_classes: int) -> ImageClassifier:
    """Build the network and read what it starts from; seed torch before.

    Raises EncoderError when weights cannot be had or do not fit, also when they are of another number of classes, and
    ConfigError for fewer than two classes.
    """
    if num_classes < 2:
        raise ConfigError(expected_got("at least 2 classes", str(num_classes), "check the label column"))
    if spec.name in CIFAR:
        network = CIFAR[spec.name]()
        built = ImageClassifier(network, network.num_features, num_classes, CIFAR_MEAN, CIFAR_STD)
        if spec.weights is not None:
            _load_whole(built, Path(spec.weights), num_classes)
    else:
        from dynacor_ray.models.timm_encoders import timm_body

        remedy = f"give a file ({spec.name}@weights.safetensors) or start from random numbers ({spec.name}@none)"
        body = timm_body(spec.encoder(), spec.scratch, remedy)
        config = body.pretrained_cfg
        mean, std = tuple(config.get("mean", CIFAR_MEAN)), tuple(config.get("std", CIFAR_STD))
        built = ImageClassifier(body, _length(body, spec), num_classes, mean, std)
    return built


def _length(body: nn.Module, spec: NetworkSpec) -> int:
    """Length of the vector that a network gives for an image. Raises EncoderError when it does not take such images."""
    body.eval()
    try:
        with torch.no_grad():
            vector = body(torch.zeros(1, 3, spec.image_size, spec.image_size))
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        got = f"{spec.image_size} px ({first_line(error)})"
        remedy = "choose another --image-size"
        raise EncoderError(expected_got(f"images that {spec.name} accepts", got, remedy)) from error
    body.train()
    return int(vector.shape[1])


def _load_whole(built: ImageClassifier, path: Path, num_classes: int) -> None:
    """A file with a whole classifier, as this package or the usual CIFAR code saves it."""
    state = read_state_dict(path)
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        first, _, rest = key.partition(".")
        if first in _HEADS:
            renamed[f"output.{rest}"] = value
        elif key not in ("scale", "shift"):
            renamed[key if first == "body" else f"body.{key}"] = value
    head = renamed.get("output.weight")
    if head is not None and len(head) != num_classes:
        got = f"those of a classifier of {len(head)} classes"
        raise unfit(path, f"{got} where the data have {num_classes}")
    load_exactly(built, renamed | {"scale": built.scale, "shift": built.shift}, (), path)
