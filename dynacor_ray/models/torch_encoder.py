"""An encoder around any torch network: normalizes images and runs the network in evaluation mode."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dynacor_ray.core.errors import EncoderError, expected_got, first_line
from dynacor_ray.models.encoder import GPU_BATCH, Encoder


class PixelScaling(nn.Module):
    """What normalizes images before a network: scale and shift, float (1, 3, 1, 1), of pixels in 0..255.

    Args:
        mean: per channel, of values in [0, 1].
        std: per channel, of values in [0, 1].
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        deviation = torch.tensor(std)
        self.register_buffer("scale", (1.0 / (255.0 * deviation)).view(1, 3, 1, 1))
        self.register_buffer("shift", (torch.tensor(mean) / deviation).view(1, 3, 1, 1))

    def normalized(self, images: Tensor) -> Tensor:
        """uint8 (B, S, S, 3) -> float (B, 3, S, S)."""
        return images.permute(0, 3, 1, 2).float() * self.scale - self.shift


def filled_up(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A copy of the images (B, S, S, 3), with black ones after them up to a multiple of `size`."""
    filled = np.zeros((-(-len(images) // size) * size, *images.shape[1:]), np.uint8)
    filled[: len(images)] = images
    return filled


class NormalizedNetwork(PixelScaling):
    """A network in evaluation mode with the normalization of its images before it.

    Args:
        module: holds the parameters.
        forward: float (B, 3, S, S) -> float (B, D).
        mean: per channel, of values in [0, 1].
        std: per channel, of values in [0, 1].
    """

    def __init__(
        self, module: nn.Module, forward: Callable[[Tensor], Any], mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__(mean, std)
        self.module = module
        self._network = functools.partial(forward)  # not a module: it would be one of ours a second time
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Any:
        """uint8 (B, S, S, 3) -> float (B, D)."""
        return self._network(self.normalized(images))


class NetworkEncoder(Encoder):
    """A network in evaluation mode: in bfloat16 on CUDA where autocast finds that safe, in float32 on a CPU.

    Args:
        module: holds the parameters.
        forward: float (B, 3, S, S) -> float (B, D).
        image_size: S in pixels.
        mean: per channel, of values in [0, 1].
        std: per channel, of values in [0, 1].
        device: name of a torch device.

    Raises:
        EncoderError: the network does not accept images of this size, or does not give one vector per image.
    """

    def __init__(
        self,
        module: nn.Module,
        forward: Callable[[Tensor], Any],
        image_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        device: str,
    ) -> None:
        self.image_size = image_size
        self.device = torch.device(device)
        # Images arrive with channels last, and on a CPU convolutions run 1.7 times as fast when they stay so.
        network = NormalizedNetwork(module, forward, mean, std)
        self.network: nn.Module = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.dim = self._probe()

    def _probe(self) -> int:
        """Length of the vector of one black image."""
        size = self.image_size
        try:
            output = self._run(np.zeros((1, size, size, 3), dtype=np.uint8))
        except (RuntimeError, AssertionError, ValueError, TypeError) as error:
            remedy = f"choose another image size or leave it out ({first_line(error)})"
            raise EncoderError(
                expected_got(f"a network that accepts {size} x {size} images", "a failure", remedy)
            ) from error
        if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != 1:
            got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise EncoderError(expected_got("one vector per image from the network", got, "choose another network"))
        return int(output.shape[1])

    def _run(self, images: NDArray[np.uint8]) -> Any:
        cuda = self.device.type == "cuda"
        cast: AbstractContextManager[Any] = torch.autocast("cuda", torch.bfloat16) if cuda else nullcontext()
        # A copy: the array may be read-only (Ray) or a flipped view, and neither can be shared with torch.
        batch = torch.from_numpy(filled_up(images, GPU_BATCH if cuda else 1)).to(self.device)
        with torch.inference_mode(), cast:
            output = self.network(batch)
        return output[: len(images)] if isinstance(output, Tensor) else output

    def _encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        vectors: NDArray[np.float32] = self._run(images).float().cpu().numpy()
        return vectors
