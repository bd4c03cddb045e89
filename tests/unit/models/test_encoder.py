"""Pixels as features, and images that no encoder takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dynacor_ray.models.encoders import load_encoder, parse_encoder
from tests.small_networks import images


def test_pixels() -> None:
    encoder = load_encoder(parse_encoder("pixels:4"))
    batch = images(3, 4)
    batch[0, 0, 0] = (0, 255, 51)
    vectors = encoder.encode(batch)
    assert vectors.shape == (3, encoder.dim) == (3, 48)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors[0, :3], [0, 1, 0.2], rtol=1e-6)
    np.testing.assert_array_equal(vectors.reshape(batch.shape), batch.astype(np.float32) / 255)


def test_gray_holds_each_number_once() -> None:
    encoder = load_encoder(parse_encoder("gray:4"))
    batch = images(3, 4)
    vectors = encoder.encode(batch)
    assert vectors.shape == (3, encoder.dim) == (3, 16)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, batch.reshape(3, 16, 3).mean(axis=2) / 255, rtol=1e-6)


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
