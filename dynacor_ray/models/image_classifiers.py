"""Networks that are trained on the images themselves: one registry of image classifiers by name.

- `cifar_*` are for images of about 32 px and start from random numbers.
- `resnet50` (torchvision's, with its ImageNet weights) and any timm network start from published weights.
- `NAME@FILE` starts from a weight file, `NAME@none` from random numbers. A file for `cifar_*` holds a whole
  classifier; for the others the last layer always starts anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dynacor_ray.core.errors import EncoderError, expected_got, first_line, require_two_classes
from dynacor_ray.models.cifar_resnet import CifarResNet, cifar_resnet
from dynacor_ray.models.encoder_spec import EncoderSpec, did_you_mean, words_digest
from dynacor_ray.models.heads import OutputLayer
from dynacor_ray.models.load_errors import unfit
from dynacor_ray.models.torch_encoder import PixelScaling
from dynacor_ray.models.weights import existing_weights, file_digest, load_exactly, read_state_dict

CIFAR: dict[str, Callable[[], CifarResNet]] = {
    "cifar_resnet8": lambda: cifar_resnet(8),
    "cifar_resnet20": lambda: cifar_resnet(20),
    "cifar_resnet34": lambda: CifarResNet((64, 128, 256, 512), (3, 4, 6, 3)),
    "cifar_preact_resnet18": lambda: CifarResNet((64, 128, 256, 512), (2, 2, 2, 2), "preact"),
}
"""Name -> network of this package; the last two are those of Table 5."""
SHORT = {"resnet50": "resnet50.tv_in1k"}
"""Name -> timm's name of the network with torchvision's layers and weights."""
CIFAR_SIDE = 32
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""Mean and deviation of CIFAR-10's training images, used for all small photographs."""
_HEADS = ("linear", "fc", "output")
"""Names of the last layer in files of CIFAR networks."""


@dataclass(frozen=True)
class NetworkSpec:
    """Which network: enough to build the same one on another machine that sees the same files.

    Attributes:
        name: the network.
        image_size: side of the square input in pixels.
        weights: path of a local file; None for published weights, or random numbers where there are none.
        scratch: random numbers although there are published weights.
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
        return words_digest(words)

    @property
    def slug(self) -> str:
        """A readable name, different for different fingerprints."""
        name = re.sub(r"[^A-Za-z0-9_.]+", "-", self.name)
        return f"network-{name}-{self.image_size}-{self.fingerprint()[:8]}"

    @property
    def whole_file(self) -> bool:
        """Whether it starts from a file with a whole classifier, which fixes the number of classes."""
        return self.name in CIFAR and self.weights is not None

    def encoder(self) -> EncoderSpec:
        """The same network as the spec of a timm encoder."""
        return EncoderSpec("timm", self.name, self.weights, self.image_size)


def parse_network(text: str, image_size: int | None = None) -> NetworkSpec:
    """Parse NAME, NAME@FILE or NAME@none, with or without `timm:` in front.

    Checks everything that can be checked without a network connection and without building the model.

    Args:
        text: what the user wrote.
        image_size: side of the input in pixels, None for the network's own.

    Raises:
        EncoderError: network or weight file do not exist.
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
        expected = f"a network ({', '.join([*CIFAR, *SHORT])}, or any of timm's)"
        remedy = f"{did_you_mean(name, names)}NAME@FILE and NAME@none say what it starts from"
        raise EncoderError(expected_got(expected, repr(text), remedy))
    from dynacor_ray.models.timm_encoders import parse_timm

    parse_timm(known, image_size)
    config = timm.get_pretrained_cfg(known)
    return NetworkSpec(known, image_size or (int(config.input_size[1]) if config else 224), weights, scratch)


class ImageClassifier(PixelScaling):
    """A network without its last layer on normalized images, followed by a linear layer for the classes.

    Args:
        body: float (B, 3, S, S) -> float (B, D).
        num_features: D.
        num_classes: C.
        mean: per channel, of values in [0, 1].
        std: per channel, of values in [0, 1].
    """

    def __init__(
        self, body: nn.Module, num_features: int, num_classes: int, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__(mean, std)
        # Images arrive with channels last, and convolutions are faster when they stay so.
        self.body = body.to(memory_format=torch.channels_last)
        self.output = OutputLayer(num_features, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits. uint8 (B, S, S, 3) -> float (B, C)."""
        logits: Tensor = self.output(self.body(self.normalized(images)).float())
        return logits


def build_network(spec: NetworkSpec, num_classes: int) -> ImageClassifier:
    """Build the network and read the weights that it starts from; seed torch before.

    Raises:
        EncoderError: weights are unavailable or do not fit, for example to the number of classes.
        ConfigError: fewer than two classes.
    """
    require_two_classes(num_classes, "check the label column")
    if spec.name in CIFAR:
        network = CIFAR[spec.name]()
        classifier = ImageClassifier(network, network.num_features, num_classes, CIFAR_MEAN, CIFAR_STD)
        if spec.weights is not None:
            _load_whole(classifier, Path(spec.weights), num_classes)
        return classifier
    from dynacor_ray.models.timm_encoders import timm_body

    remedy = f"give a file ({spec.name}@weights.safetensors) or start from random numbers ({spec.name}@none)"
    body = timm_body(spec.encoder(), spec.scratch, remedy)
    config = body.pretrained_cfg
    mean, std = tuple(config.get("mean", CIFAR_MEAN)), tuple(config.get("std", CIFAR_STD))
    return ImageClassifier(body, _length(body, spec), num_classes, mean, std)


def _length(body: nn.Module, spec: NetworkSpec) -> int:
    """Length of the network's vector for an image. Raises EncoderError when it does not take such images."""
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


def _load_whole(classifier: ImageClassifier, path: Path, num_classes: int) -> None:
    """Load a whole classifier, as this package or the usual CIFAR code saves it."""
    renamed: dict[str, Tensor] = {}
    for key, value in read_state_dict(path).items():
        first, _, rest = key.partition(".")
        if first in _HEADS:
            renamed[f"output.{rest}"] = value
        elif key not in ("scale", "shift"):
            renamed[key if first == "body" else f"body.{key}"] = value
    head = renamed.get("output.weight")
    if head is not None and len(head) != num_classes:
        raise unfit(path, f"those of a classifier of {len(head)} classes where the data have {num_classes}")
    load_exactly(classifier, renamed | {"scale": classifier.scale, "shift": classifier.shift}, (), path)
