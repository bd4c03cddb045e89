"""The robust losses against hand-computed cases, plain loops and numerical gradients; ELR over two epochs."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dynacor_ray.robust import elr, gce, sce
from dynacor_ray.robust.ce import ce_loss
from dynacor_ray.robust.elr import elr_loss, update_targets
from dynacor_ray.robust.gce import gce_loss
from dynacor_ray.robust.losses import RobustLoss
from dynacor_ray.robust.sce import sce_loss

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(40, 4, generator=GENERATOR, dtype=torch.float64) * 3
LABELS = torch.randint(0, 4, (40,), generator=GENERATOR)
TARGETS = torch.softmax(torch.randn(40, 4, generator=GENERATOR, dtype=torch.float64), dim=1) * 0.8


def logits_of(*probabilities: float) -> Tensor:
    return torch.log(torch.tensor([probabilities], dtype=torch.float64))


QUARTER = logits_of(0.25, 0.75)
ZERO = torch.tensor([0])


def softmax(row: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in row)
    return [math.exp(value) / total for value in row]


def test_ce_by_hand() -> None:
    assert float(ce_loss(QUARTER, ZERO)) == pytest.approx(math.log(4))


def test_gce_by_hand() -> None:
    assert float(gce_loss(QUARTER, ZERO, q=0.5)) == pytest.approx((1 - 0.5) / 0.5)
    assert float(gce_loss(QUARTER, ZERO, q=1.0)) == pytest.approx(0.75), "mean absolute error, halved"
    assert float(gce_loss(QUARTER, ZERO, q=1e-9)) == pytest.approx(math.log(4)), "cross-entropy in the limit"


def test_gce_truncated_teaches_nothing_of_unlikely_labels() -> None:
    """Below k the loss is that of k and its gradient 0; above it nothing changes."""
    logits = torch.cat([QUARTER, logits_of(0.75, 0.25)]).requires_grad_()
    loss = gce_loss(logits, torch.tensor([0, 0]), q=0.5, k=0.5)
    assert loss.tolist() == pytest.approx([(1 - 0.5**0.5) / 0.5, (1 - 0.75**0.5) / 0.5])
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert gradient[0].tolist() == [0.0, 0.0]
    assert bool((gradient[1] != 0).all())


def test_sce_by_hand() -> None:
    """-log 0.25, and 0.75 of the probability meets log 1e-4."""
    expected = 0.1 * math.log(4) + 2 * 0.75 * 4 * math.log(10)
    assert float(sce_loss(QUARTER, ZERO, alpha=0.1, beta=2.0)) == pytest.approx(expected)


def test_sce_is_its_formula_over_clipped_one_hot_labels() -> None:
    for row, label, found in zip(LOGITS.tolist(), LABELS.tolist(), sce_loss(LOGITS, LABELS, 6.0, 0.5), strict=True):
        p = softmax(row)
        reverse = -sum(p[k] * math.log(max(float(k == label), 1e-4)) for k in range(4))
        assert float(found) == pytest.approx(-6.0 * math.log(p[label]) + 0.5 * reverse)


def test_elr_by_hand() -> None:
    """The first target is a share 1 - beta of the prediction."""
    targets = update_targets(torch.zeros(1, 2, dtype=torch.float64), QUARTER, momentum=0.6)
    assert targets[0].tolist() == pytest.approx([0.1, 0.3])
    expected = math.log(4) + 3 * math.log(1 - (0.1 * 0.25 + 0.3 * 0.75))
    assert float(elr_loss(QUARTER, ZERO, targets, weight=3.0)) == pytest.approx(expected)


def test_elr_over_two_epochs_is_that_of_a_slow_loop() -> None:
    """An independent loop over rows: clip, normalize, average, regularize."""
    momentum, weight = 0.7, 3.0
    held = [[0.0] * 4 for _ in LABELS]
    targets = torch.zeros(40, 4, dtype=torch.float64)
    for epoch in range(2):
        logits = LOGITS * (1 + epoch)
        targets = update_targets(targets, logits, momentum)
        found = elr_loss(logits, LABELS, targets, weight)
        for at, (row, label) in enumerate(zip(logits.tolist(), LABELS.tolist(), strict=True)):
            p = softmax(row)
            clipped = [min(max(value, 1e-4), 1 - 1e-4) for value in p]
            held[at] = [
                momentum * old + (1 - momentum) * new / sum(clipped) for old, new in zip(held[at], clipped, strict=True)
            ]
            inner = sum(t * value for t, value in zip(held[at], clipped, strict=True))
            assert float(found[at]) == pytest.approx(-math.log(p[label]) + weight * math.log(1 - inner))
    assert targets.sum(dim=1).tolist() == pytest.approx([1 - momentum**2] * 40)


def test_elr_targets_carry_no_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    assert not update_targets(TARGETS, logits, 0.7).requires_grad


def test_elr_pulls_away_from_a_label_that_the_target_contradicts() -> None:
    """Where the target is sure of another class, the step raises that class more than cross-entropy lowers it."""
    logits = logits_of(0.4, 0.6).requires_grad_()
    targets = torch.tensor([[0.0, 0.98]], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(elr_loss(logits, ZERO, targets, weight=3.0).sum(), logits)
    (plain,) = torch.autograd.grad(elr_loss(logits, ZERO, targets, weight=0.0).sum(), logits)
    assert float(gradient[0, 1]) < 0 < float(plain[0, 1])


LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "ce": lambda logits: ce_loss(logits, LABELS),
    "gce": lambda logits: gce_loss(logits, LABELS),
    "sce": lambda logits: sce_loss(logits, LABELS, 0.1, 1.0),
    "elr": lambda logits: elr_loss(logits, LABELS, TARGETS, 3.0),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_differences(name: str) -> None:
    assert torch.autograd.gradcheck(LOSSES[name], LOGITS.clamp(-4, 4).requires_grad_())


@pytest.mark.parametrize("name", LOSSES)
def test_extreme_logits_give_finite_losses_and_gradients(name: str) -> None:
    logits = (LOGITS * 100).requires_grad_()
    loss = LOSSES[name](logits)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert bool(torch.isfinite(loss).all())
    assert bool(torch.isfinite(gradient).all())


# -------------------------------------------------------------------------------------------------------------- by name


@pytest.mark.parametrize(
    ("data_set", "classes", "expected"),
    [
        ("cifar10", 10, (0.1, 1.0, 0.7, 3.0)),
        ("cifar100", 100, (6.0, 1.0, 0.9, 7.0)),
        ("clothing1m", 14, (0.1, 1.0, 0.7, 3.0)),
        ("folder", 99, (0.1, 1.0, 0.7, 3.0)),
        ("folder", 100, (6.0, 1.0, 0.9, 7.0)),
    ],
)
def test_published_settings(data_set: str, classes: int, expected: tuple[float, ...]) -> None:
    loss = RobustLoss.published("ce", data_set, classes)
    assert (loss.sce_alpha, loss.sce_beta, loss.elr_momentum, loss.elr_weight) == expected
    assert (loss.gce_q, loss.gce_truncate_from) == (0.7, None)


def test_chosen_settings_win() -> None:
    loss = RobustLoss.published("elr", "cifar10", 10, elr_weight=1.0, elr_momentum=None, gce_q=0.5)
    assert (loss.elr_weight, loss.elr_momentum, loss.gce_q) == (1.0, 0.7, 0.5)


def of(name: str, epoch: int = 0, **chosen: float) -> tuple[Tensor, Tensor | None]:
    return RobustLoss.published(name, "cifar10", 10, **chosen).per_row(LOGITS, LABELS, epoch, TARGETS)


def test_each_name_is_its_loss() -> None:
    new = update_targets(TARGETS, LOGITS, elr.PUBLISHED["cifar10"][0])
    expected = {
        "ce": torch.nn.functional.cross_entropy(LOGITS, LABELS, reduction="none"),
        "gce": gce_loss(LOGITS, LABELS, gce.Q),
        "sce": sce_loss(LOGITS, LABELS, *sce.PUBLISHED["cifar10"]),
        "elr": elr_loss(LOGITS, LABELS, new, elr.PUBLISHED["cifar10"][1]),
    }
    for name, losses in expected.items():
        found, targets = of(name)
        assert torch.equal(found, losses), name
        assert (targets is not None) == (name == "elr"), name


def test_gce_is_truncated_from_its_epoch_on() -> None:
    before, after = (of("gce", epoch, gce_truncate_from=3)[0] for epoch in (2, 3))
    assert torch.equal(before, gce_loss(LOGITS, LABELS))
    assert torch.equal(after, gce_loss(LOGITS, LABELS, k=0.5))
    assert not torch.equal(before, after)
