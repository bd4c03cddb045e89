"""The parts of DivideMix by hand-sized cases."""

from __future__ import annotations

import math

import pytest
import torch

from dynacor_ray.robust import dividemix
from dynacor_ray.robust.dividemix import DivideMix

EVEN = torch.zeros(3, 4)
"""Logits that say nothing."""


def test_sharpening_squares_and_normalizes() -> None:
    found = dividemix.sharpen(torch.tensor([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0], [0.25, 0.25, 0.5]]))
    assert torch.allclose(found, torch.tensor([[25, 9, 4], [38, 0, 0], [38 / 6, 38 / 6, 38 * 4 / 6]]) / 38)
    same = torch.tensor([[0.7, 0.3]])
    assert torch.allclose(dividemix.sharpen(same, 1.0), same)


@pytest.mark.parametrize(
    ("clean", "before"),
    [(1.0, [0.0, 1.0]), (0.0, [0.8, 0.2]), (0.5, [0.4, 0.6])],
    ids=["the label", "the prediction", "half of each"],
)
def test_a_label_is_refined_by_how_likely_it_is_right(clean: float, before: list[float]) -> None:
    found = dividemix.refine_labels(torch.tensor([1]), torch.tensor([[0.8, 0.2]]), torch.tensor([clean]))
    assert torch.allclose(found, dividemix.sharpen(torch.tensor([before])))


def test_both_networks_guess() -> None:
    found = dividemix.guess_labels(torch.tensor([[0.9, 0.1]]), torch.tensor([[0.5, 0.5]]))
    assert torch.allclose(found, torch.tensor([[0.49, 0.09]]) / 0.58)


def test_a_row_stays_nearer_to_itself() -> None:
    rows = torch.tensor([[0.0, 0.0], [10.0, 20.0]])
    found = dividemix.mix(rows, torch.tensor([1, 0]), torch.tensor([0.3, 0.9]))
    assert torch.allclose(found, torch.tensor([[3.0, 6.0], [9.0, 18.0]]))
    images = torch.arange(8.0).view(2, 2, 2, 1)
    assert torch.allclose(dividemix.mix(images, torch.tensor([0, 1]), torch.tensor([0.3, 0.9])), images)


def test_losses_by_hand() -> None:
    targets = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25] * 4])
    assert dividemix.soft_cross_entropy(EVEN, targets).tolist() == pytest.approx([math.log(4)] * 3)
    assert dividemix.squared_error(EVEN, targets).tolist() == pytest.approx([0.75 / 4, 0.25 / 4, 0.0])
    assert dividemix.negative_entropy(EVEN).tolist() == pytest.approx([-math.log(4)] * 3)
    assert float(dividemix.prior_penalty(EVEN)) == pytest.approx(0.0, abs=1e-6)
    # mean prediction (3/4, 1/4): half of log(2/3) and of log 2
    logits = torch.tensor([[0.75, 0.25]]).log()
    assert float(dividemix.prior_penalty(logits)) == pytest.approx((math.log(2 / 3) + math.log(2)) / 2)


def test_a_class_that_is_never_predicted_costs_much_but_not_everything() -> None:
    penalty = dividemix.prior_penalty(torch.tensor([[1000.0, -1000.0]]))
    assert 20 < float(penalty) < 100


def test_ramp_up() -> None:
    assert [dividemix.ramp_up(epoch, 5) for epoch in (0, 5, 9, 21, 30)] == [0.0, 0.0, 0.25, 1.0, 1.0]


@pytest.mark.parametrize(
    ("data_set", "classes", "epochs", "on_features", "chosen", "expected"),
    [
        ("cifar10", 10, 300, False, None, 10),
        ("cifar100", 100, 300, False, None, 30),
        ("image_folder", 500, 300, False, None, 30),
        ("cifar100", 100, 300, True, None, 5),
        ("image_folder", 3, 6, False, None, 3),
        ("cifar10", 10, 300, False, 0, 0),
    ],
)
def test_the_warm_up(
    data_set: str, classes: int, epochs: int, on_features: bool, chosen: int | None, expected: int
) -> None:
    more = {"warm_up": chosen, "unlabeled_weight": 25.0}
    settings = DivideMix.published(data_set, classes, epochs, on_features=on_features, **more)
    assert (settings.warm_up, settings.unlabeled_weight) == (expected, 25.0)
