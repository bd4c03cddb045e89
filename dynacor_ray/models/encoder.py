"""The interface of all encoders, and the simplest one. No torch here."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from dynacor_ray.core.errors import expected_got

GPU_BATCH = 256
"""Images that a GPU encodes at once, always: 256 took an H200 0.03 s, and the first batch of a size 3 to 6 s."""


class Encoder(ABC):
    """A fixed function from images to vectors."""

    image_size: int
    """Side in pixels of the square images that `encode` takes."""
    dim: int
    """Length D of the vectors that `encode` returns."""

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode a batch.

        Args:
            images: uint8 (B, S, S, 3), S = image_size, B >= 0.

        Returns:
            float32 (B, D).

        Raises:
            ValueError: another shape or type.
        """
        shape = (self.image_size, self.image_size, 3)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != shape:
            got = f"{images.dtype} {images.shape}"
            remedy = "resize them first"
            raise ValueError(expected_got(f"uint8 images of shape (B, {shape[0]}, {shape[1]}, 3)", got, remedy))
        if len(images) == 0:
            return np.empty((0, self.dim), dtype=np.float32)
        return self._encode(images)

    @abstractmethod
    def _encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """As `encode`, for checked images and B >= 1."""


class PixelEncoder(Encoder):
    """The image itself, flattened and scaled to [0, 1]: D = 3 * image_size**2, or a third of that in gray.

    gray: the mean of the colors, so that images without colors do not hold every number three times.
    """

    def __init__(self, image_size: int, gray: bool = False) -> None:
        self.image_size, self._gray = image_size, gray
        self.dim = image_size * image_size * (1 if gray else 3)

    def _encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        values = images.mean(axis=3, dtype=np.float32) if self._gray else images.astype(np.float32)
        return values.reshape(len(images), -1) / np.float32(255)
