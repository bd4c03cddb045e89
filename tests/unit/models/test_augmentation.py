"""Augmentation of training images: a function of seed, epoch and key, whatever the order or the way of working."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dynacor_ray.models.augmentation import TrainingAugmentation, stored_side


def made(kind: str = "crop_flip", side: int = 32, seed: int = 0) -> TrainingAugmentation:
    return TrainingAugmentation(side, stored_side(side, kind), kind, seed)


def pictures(count: int, side: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(1, 256, (count, side, side, 3), np.uint8))


@pytest.mark.parametrize(
    ("side", "kind", "stored"),
    [(32, "crop_flip", 32), (64, "crop", 64), (224, "crop_flip", 256), (224, "crop", 256), (224, "none", 224)],
)
def test_how_large_images_are_kept(side: int, kind: str, stored: int) -> None:
    assert stored_side(side, kind) == stored


@pytest.mark.parametrize("side", [32, 80])
def test_each_crop_is_the_one_that_was_drawn(side: int) -> None:
    """Against slices written out, one image at a time; 32 px are padded by 4 black pixels."""
    augment, keys = made(side=side), np.arange(40)
    stored = pictures(40, augment.stored)
    found = augment(stored, torch.from_numpy(keys), 3)
    pad = augment.padding
    assert pad == (4 if side == 32 else 0)
    wide = np.pad(stored.numpy(), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    for at, (top, left, mirrored) in enumerate(zip(*augment.draws(keys, 3), strict=True)):
        crop = wide[at, top : top + side, left : left + side]
        assert np.array_equal(found[at].numpy(), crop[:, ::-1] if mirrored else crop)


@given(seed=st.integers(0, 9), epoch=st.integers(0, 9), split=st.integers(0, 30))
def test_order_and_batches_do_not_matter(seed: int, epoch: int, split: int) -> None:
    augment, keys, images = made(side=8, seed=seed), torch.arange(30) * 7, pictures(30, 8)
    whole = augment(images, keys, epoch)
    assert torch.equal(whole, augment(images, keys, epoch)), "reproducible"
    parts = [augment(images[rows], keys[rows], epoch) for rows in (slice(None, split), slice(split, None))]
    assert torch.equal(whole, torch.cat(parts))
    order = torch.from_numpy(np.random.default_rng(seed).permutation(30))
    assert torch.equal(whole[order], augment(images[order], keys[order], epoch))


def test_a_gpu_s_way_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    augment, keys, images = made(), torch.arange(20), pictures(20, 32)
    expected = augment(images, keys, 0)

    monkeypatch.setattr(TrainingAugmentation, "_cut", None)
    monkeypatch.setattr("dynacor_ray.models.augmentation._BY_IMAGE", ())
    assert torch.equal(augment(images, keys, 0), expected)


def test_epochs_seeds_and_copies_differ() -> None:
    keys = np.arange(2000)
    ways = [np.stack(made(seed=seed).draws(keys, epoch)) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert (ways[first] != ways[second]).any(axis=0).mean() > 0.98
    top, left, mirrored = ways[0]
    assert np.bincount(top).shape == np.bincount(left).shape == (9,)
    assert np.bincount(top).min() > 150
    assert np.bincount(left).min() > 150
    assert 0.45 < mirrored.mean() < 0.55
    assert abs(np.corrcoef(np.stack([top, left, mirrored]))[np.triu_indices(3, 1)]).max() < 0.08


def test_without_mirror_images() -> None:
    assert not made("crop").draws(np.arange(100), 0)[2].any()


def test_none_shows_the_same_in_every_epoch() -> None:
    augment, images = made("none"), pictures(5, 32)
    assert augment(images, torch.arange(5), 4) is images
