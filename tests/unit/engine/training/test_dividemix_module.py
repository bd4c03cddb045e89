"""Steps and epochs of DivideMix: warm-up, division by the other network, what is recorded, and what a resume needs."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dynacor_ray.core import schema
from dynacor_ray.core.storage import locate
from dynacor_ray.engine.data.row_facts import RowFacts
from dynacor_ray.engine.training.batches import Batch
from dynacor_ray.engine.training.dividemix_module import DivideMixModule, Pair
from dynacor_ray.engine.training.job import Job, RobustTraining, TrainConfig
from dynacor_ray.engine.training.signal_files import CLEAN, SIGNALS, TARGET, write_signals
from dynacor_ray.engine.training.worker import make_module
from dynacor_ray.method.clustering import ClusteringConfig
from dynacor_ray.method.dynamics import cross_entropy_loss
from dynacor_ray.robust.dividemix import DivideMix
from dynacor_ray.robust.losses import RobustLoss
from tests.plans import plan_of

CPU = torch.device("cpu")
KEYS = torch.tensor([0, 2, 4, 6, -1])
LABELS = torch.tensor([0, 1, 2, 0, 0])
FEATURES = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
BATCH = Batch(KEYS, LABELS, FEATURES, torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]))


def module_of(folder: Path, workers: int = 1, **settings: Any) -> tuple[DivideMixModule, Pair]:
    facts = RowFacts(4, 0, 3, 6, np.zeros(6, np.float32), 1.0, np.array([2, 1, 1]))
    mix = DivideMix(**{"warm_up": 1, "unlabeled_weight": 1.0} | settings)
    training = RobustTraining(RobustLoss.published("ce", "cifar10", 10), None, mix, ClusteringConfig(epochs=1))
    job = Job(TrainConfig(epochs=3, robust=training), plan_of(workers), locate(str(folder)), facts)
    module = make_module(job, CPU)
    assert isinstance(module, DivideMixModule)
    torch.manual_seed(0)
    network = module.network()
    assert isinstance(network, Pair)
    module.committed = {}
    return module, network


def epoch_of(module: DivideMixModule, network: Pair, epoch: int, batch: Batch = BATCH) -> tuple[float, dict[str, Any]]:
    module.begin_epoch(epoch)
    loss, seen = module.step(network, batch, epoch)
    kept = module.record(batch.key, seen)
    module.end_epoch(epoch, 1)
    name = f"epoch={epoch:05d}/a.parquet"
    write_signals(
        module._job.run / SIGNALS / name, batch.key.numpy(), {n: v.numpy() for n, v in kept.items()}, module.table
    )
    module.committed[str(epoch)] = [name]
    return float(loss.detach()), kept


def test_two_networks_start_differently_and_predict_together(tmp_path: Path) -> None:
    _, network = module_of(tmp_path)
    first, second = network(FEATURES, FEATURES)
    assert not torch.allclose(first, second)
    mean = (torch.softmax(first, dim=1) + torch.softmax(second, dim=1)) / 2
    assert torch.allclose(torch.softmax(network(FEATURES), dim=1), mean)


def test_a_view_has_some_numbers_at_their_mean(tmp_path: Path) -> None:
    module, _ = module_of(tmp_path)
    module._job = dataclasses.replace(module._job, rows=dataclasses.replace(module._job.rows, mean=np.full(6, 7.0)))
    rows = Batch(*(value[[0] * 500] for value in BATCH))
    first, second = module._views(rows, 0, np.random.default_rng(0))
    hidden = first == 7.0
    assert torch.equal(first[~hidden], rows.feature[~hidden])
    assert 0.07 < float(hidden.float().mean()) < 0.13
    assert not torch.equal(hidden, second == 7.0)


def test_random_numbers_differ_by_epoch_and_step_and_rank_and_return_with_the_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, _ = module_of(tmp_path, workers=2)

    def drawn(epoch: int, rank: int) -> list[float]:
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
        assert module._targets is not None
        module._targets.keep(KEYS, torch.zeros(5, 2))
        module.committed = {str(epoch - 1): []}
        module.begin_epoch(epoch)
        return [module._random(epoch).random() for _ in range(2)]

    found = [drawn(epoch, rank) for epoch in (0, 1) for rank in (0, 1)]
    assert len({number for pair in found for number in pair}) == 8
    assert drawn(0, 0) == found[0], "a resumed training draws what it would have drawn"


def test_each_network_learns_from_a_view_of_its_own(tmp_path: Path) -> None:
    module, network = module_of(tmp_path)
    views = [FEATURES, FEATURES * 2]
    module._views = lambda batch, epoch, random: views  # type: ignore[method-assign]
    loss, _ = epoch_of(module, network, 0)
    losses = [cross_entropy_loss(one.detach(), LABELS) for one in network(*views)]
    assert loss == pytest.approx(float(sum(one[:4].mean() for one in losses)))


def test_the_warm_up_is_cross_entropy_of_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynacor_ray.engine.training.dividemix_module.DROPPED", 0.0)
    module, network = module_of(tmp_path)
    loss, kept = epoch_of(module, network, 0)
    losses = [cross_entropy_loss(one.detach(), LABELS) for one in network(FEATURES, FEATURES)]
    assert loss == pytest.approx(float(sum(one[:4].mean() for one in losses)))
    assert torch.allclose(kept[TARGET], torch.stack(losses, dim=1))
    assert kept[CLEAN].tolist() == [1.0] * 5
    penalized, _ = epoch_of(*module_of(tmp_path / "other", penalize_confidence=True), 0)
    assert penalized < loss


def test_each_network_is_told_what_the_other_ones_losses_say(tmp_path: Path) -> None:
    module, network = module_of(tmp_path)
    module.begin_epoch(0)
    losses = torch.tensor([[0.0, 9.0], [0.1, 0.0], [9.0, 0.1], [0.0, 0.2], [99.0, 99.0]])
    seen = {"losses": losses, TARGET: losses, CLEAN: torch.ones(5, 2), "label": LABELS}
    module.record(KEYS, seen | {schema.PREDICTED: LABELS.int(), schema.MARGIN: torch.ones(5)})
    module.end_epoch(0, 1)
    module.committed = {"0": []}
    module.begin_epoch(1)
    clean = module._clean(KEYS)
    assert (clean[:4, 0] >= 0.5).tolist() == [False, True, True, True], "by the second network's losses"
    assert (clean[:4, 1] >= 0.5).tolist() == [True, True, False, True], "by the first one's"
    loss, seen = module.step(network, BATCH, 1)
    assert torch.isfinite(loss)
    module.record(KEYS, seen)
    module.end_epoch(1, 1)
    assert [row["labeled_share"] for row in module.state()["history"]] == [1.0, 0.75]


def test_a_step_after_the_warm_up_is_its_formula(tmp_path: Path) -> None:
    """An independent loop over networks and rows: refine or guess, mix, and the three terms of the loss."""
    module, network = module_of(tmp_path, unlabeled_weight=8.0)
    module.begin_epoch(0)
    losses = torch.tensor([[0.0, 9.0], [0.5, 0.0], [9.0, 0.1], [0.0, 7.0], [99.0, 99.0]])
    seen = {"losses": losses, TARGET: losses, CLEAN: torch.ones(5, 2), "label": LABELS}
    module.record(KEYS, seen | {schema.PREDICTED: LABELS.int(), schema.MARGIN: torch.ones(5)})
    module.end_epoch(0, 1)
    module.committed = {"4": []}
    module.begin_epoch(5)
    views = [FEATURES, FEATURES * 0.5 + 0.1]
    module._views = lambda batch, epoch, random: views  # type: ignore[method-assign]
    shares = np.linspace(0.1, 0.8, 8)

    def beta(first: float, second: float, count: int) -> np.ndarray:
        assert (first, second, count) == (4.0, 4.0, 8)
        return shares

    drawn = SimpleNamespace(permutation=lambda count: np.arange(count)[::-1].copy(), beta=beta)
    module._random = lambda epoch: drawn  # type: ignore[method-assign,assignment,return-value]
    weight = torch.tensor([1.0, 0.5, 1.5, 2.0, 0.0])
    loss, _ = module.step(network, BATCH._replace(weight=weight), 5)

    clean, expected = module._clean(KEYS), 0.0
    assert (clean[:4] >= 0.5).sum(dim=0).tolist() == [2, 3], "both kinds of rows for both networks"
    seen_by = [sum(torch.softmax(one(view).detach(), dim=1) for view in views) / 2 for one in network.networks]
    for at, one in enumerate(network.networks):
        targets, labeled = [], []
        for row in range(4):
            w = float(clean[row, at])
            labeled.append(w >= 0.5)
            onehot = torch.eye(3)[LABELS[row]]
            target = w * onehot + (1 - w) * seen_by[at][row] if w >= 0.5 else (seen_by[0][row] + seen_by[1][row]) / 2
            targets.append(target**2 / (target**2).sum())
        rows, supervised, guessing, mean = [view[row] for view in views for row in range(4)], 0.0, 0.0, torch.zeros(3)
        for position in range(8):
            larger = max(shares[position], 1 - shares[position])
            mixed = larger * rows[position] + (1 - larger) * rows[7 - position]
            target = larger * targets[position % 4] + (1 - larger) * targets[(7 - position) % 4]
            p = torch.softmax(one(mixed.unsqueeze(0)), dim=1)[0].detach()
            counts = float(weight[position % 4])
            if labeled[position % 4]:
                supervised -= counts * float((target * p.log()).sum()) / (2 * sum(labeled))
            else:
                guessing += counts * float(((p - target) ** 2).mean()) / (8 - 2 * sum(labeled))
            mean += p / 8
        prior = sum(math.log(1 / 3 / float(share)) / 3 for share in mean)
        expected += supervised + 8.0 * (5 - 1) / 16 * guessing + prior
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_without_warm_up_nothing_is_divided_away_before_anything_is_known(tmp_path: Path) -> None:
    module, network = module_of(tmp_path, warm_up=0)
    _, kept = epoch_of(module, network, 0)
    assert kept[CLEAN].tolist() == [1.0] * 5
    assert module.state()["history"][0]["labeled_share"] == 1.0


def test_equal_losses_divide_nothing_away(tmp_path: Path) -> None:
    module, network = module_of(tmp_path, warm_up=0)
    with torch.no_grad():  # all logits 0
        for parameter in network.parameters():
            parameter.zero_()
    epoch_of(module, network, 0)
    _, kept = epoch_of(module, network, 1)
    assert kept[CLEAN].tolist() == [1.0] * 5


def test_the_mean_of_the_last_epochs_divides(tmp_path: Path) -> None:
    module, network = module_of(tmp_path, loss_epochs=2, warm_up=5)
    found = [epoch_of(module, network, epoch)[1][TARGET] for epoch in range(3)]
    assert found[0].shape == (5, 4)
    assert torch.equal(found[1][:4, :2], found[0][:4, 2:])
    assert torch.equal(found[2][:4, :2], found[1][:4, 2:])
    known = module._mean_losses(found[2], 3)
    assert torch.allclose(known, (found[2][:, :2] + found[2][:, 2:]) / 2)
    assert torch.equal(module._mean_losses(found[0], 1), found[0][:, 2:])


def test_padding_changes_nothing(tmp_path: Path) -> None:
    """The same step with a longer padding; and a batch of padding alone."""
    losses = []
    for extra in (1, 3):
        module, network = module_of(tmp_path / str(extra), warm_up=0)
        rows = [0, 1, 2, 3] + [4] * extra
        batch = Batch(*(value[rows] for value in BATCH))
        module._views = lambda batch, epoch, random: [batch.feature] * 2  # type: ignore[method-assign]
        losses.append(epoch_of(module, network, 0, batch)[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    module, network = module_of(tmp_path / "padding", warm_up=0)
    module.begin_epoch(0)
    loss, _ = module.step(network, Batch(*(value[[4, 4]] for value in BATCH)), 0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0.0
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in network.parameters())


def test_a_resumed_training_divides_as_before(tmp_path: Path) -> None:
    """Mixtures from the checkpoint, losses from the files."""
    module, network = module_of(tmp_path, loss_epochs=2)
    for epoch in range(2):
        epoch_of(module, network, epoch)
    other, _ = module_of(tmp_path, loss_epochs=2)
    other.restore(module.state())
    other.committed = module.committed
    for one in (module, other):
        one.begin_epoch(2)
    assert torch.equal(module._clean(KEYS), other._clean(KEYS))
    for one in (module, other):
        one.begin_epoch(2)
    first, second = (one.step(network, BATCH, 2)[0] for one in (module, other))
    assert torch.equal(first, second)


def test_the_second_epoch_has_the_column_that_readers_of_dynamics_expect(tmp_path: Path) -> None:
    module, network = module_of(tmp_path)
    for epoch in range(2):
        epoch_of(module, network, epoch)
    tables = [(module._job.run / SIGNALS / module.committed[str(epoch)][0]).read_table() for epoch in range(2)]
    assert tables[0].column_names == [schema.KEY, schema.MARGIN, schema.PREDICTED, CLEAN, TARGET]
    assert schema.LEAVE_ONE_OUT in tables[1].column_names
    assert tables[1][schema.KEY].to_pylist() == [0, 2, 4, 6]
