"""DivideMix (Li et al. 2020): two networks that divide the rows for each other, and what DynaCor needs of them (§5.5).

On features a view of a row is the row with a tenth of its numbers put to their mean over the rows, which leaves numbers
alone that are always the same. This is ours: the paper's views are crops and mirror images, as here with a network.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from torch import nn

from dynacor_ray.core import rng, schema
from dynacor_ray.engine.training.batches import Batch
from dynacor_ray.engine.training.dynamics_division import DynamicsDivision
from dynacor_ray.engine.training.instance_targets import InstanceTargets
from dynacor_ray.engine.training.job import Job, RobustTraining
from dynacor_ray.engine.training.module import Recorded, classifier, pictures
from dynacor_ray.engine.training.robust_module import RobustModule
from dynacor_ray.engine.training.signal_files import CLEAN, TARGET, signal_table
from dynacor_ray.method.corruption import LABEL
from dynacor_ray.method.dynamics import cross_entropy_loss, logit_margin
from dynacor_ray.robust import dividemix
from dynacor_ray.robust.dividemix import VIEWS, DivideMix
from dynacor_ray.robust.loss_mixture import LossMixture, count_losses

DROPPED = 0.1
"""Share of the numbers of a feature vector that a view does not show."""
_NETWORKS = 2
_STREAM = 4
"""Of the random numbers here, among those that are derived from the seed of a training."""
_LEAST = 1e-30
_LOSSES = "losses"


class Pair(nn.Module):
    """Two networks side by side."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, first: torch.Tensor, second: torch.Tensor | None = None) -> Any:
        """Logits of each network for inputs of its own; for the same inputs the log of their mean probability.

        Rows (B, ...) and (B, ...) -> float (B, C) twice; rows alone -> float (B, C).
        """
        if second is None:
            return _mean_logits([torch.softmax(network(first).float(), dim=1) for network in self.networks])
        return self.networks[0](first).float(), self.networks[1](second).float()


def _mean_logits(probabilities: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(probabilities).mean(dim=0).clamp(min=_LEAST).log()


class DivideMixModule(RobustModule):
    """Two networks trained by DivideMix: records losses, margins and how the rows were divided."""

    def __init__(self, job: Job, device: torch.device, training: RobustTraining, mix: DivideMix) -> None:
        super().__init__(job, device, training)
        self._mix = mix
        self._mixtures: list[LossMixture | None] = [None] * _NETWORKS
        self._dynamics = DynamicsDivision(job, device) if mix.by_dynamics else None
        self._targets = None if mix.by_dynamics else InstanceTargets(_NETWORKS * mix.loss_epochs, device)
        self._means: list[torch.Tensor] = []
        self._divided = torch.zeros(2, dtype=torch.float64)
        self._epoch = self._step = 0

    def network(self) -> nn.Module:
        """Two classifiers with different starts."""
        self._network = Pair([classifier(self._job) for _ in range(_NETWORKS)])
        return self._network

    def begin_epoch(self, epoch: int) -> None:
        """Divide the rows by what the epoch before recorded."""
        super().begin_epoch(epoch)
        self._epoch, self._step, self._means = epoch, 0, []
        self._divided = torch.zeros(2, dtype=torch.float64, device=self._device)
        if self._dynamics is not None and epoch >= max(self._mix.warm_up, 1):
            self._dynamics.begin(epoch, self.committed)

    def step(self, model: nn.Module, batch: Batch, epoch: int) -> tuple[torch.Tensor, Recorded]:
        """Cross-entropy in the warm-up, then MixMatch; both networks' losses are added."""
        random = self._random(epoch)
        views = self._views(batch, epoch, random)
        if epoch < self._mix.warm_up:
            clean = torch.ones((len(batch.key), _NETWORKS), device=self._device)
            loss, logits = self._warm_up(model, batch, views)
            probabilities = [torch.softmax(one.detach(), dim=1) for one in logits]
            losses = [cross_entropy_loss(one.detach(), batch.label) for one in logits]
        else:
            clean = self._clean(batch.key)
            probabilities, losses = self._look(batch, views)
            loss = self._mixed(model, batch, views, probabilities, clean, random)
        mean = _mean_logits(probabilities)
        now = torch.stack(losses, dim=1)
        seen = {CLEAN: clean, LABEL: batch.label, schema.PREDICTED: mean.argmax(dim=1).int(), _LOSSES: now}
        seen[schema.MARGIN] = logit_margin(mean, batch.label)
        if self._targets is not None:
            seen[TARGET] = torch.cat([self._targets.of(batch.key)[:, _NETWORKS:], now], dim=1)
        return loss, seen

    def _random(self, epoch: int) -> np.random.Generator:
        """Random numbers of the next step of this rank."""
        rank = dist.get_rank() if self._job.plan.workers > 1 else 0
        self._step += 1
        return np.random.Generator(
            np.random.PCG64(rng.derive_seed(self._job.config.seed, _STREAM, epoch, rank, self._step))
        )

    def _views(self, batch: Batch, epoch: int, random: np.random.Generator) -> list[torch.Tensor]:
        """Augmented inputs, float (B, ...) each."""
        augmentation = self._job.config.augmentation
        if augmentation is not None:
            drawn = range(epoch * VIEWS, (epoch + 1) * VIEWS)
            return [pictures(augmentation, batch, one).feature.float() for one in drawn]
        mean = torch.from_numpy(np.array(self._job.rows.mean, np.float32)).to(self._device)
        shown = random.random((VIEWS, *batch.feature.shape), dtype=np.float32) >= DROPPED
        return [torch.where(one, batch.feature, mean) for one in torch.from_numpy(shown).to(self._device)]

    def _warm_up(
        self, model: nn.Module, batch: Batch, views: list[torch.Tensor]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Cross-entropy of the given labels, a view for each network."""
        logits = self._forward(model, *views)
        count = (batch.key >= 0).sum().clamp(min=1)
        loss = torch.zeros((), device=self._device)
        for one in logits:
            losses = cross_entropy_loss(one, batch.label)
            if self._mix.penalize_confidence:
                losses = losses + dividemix.negative_entropy(one)
            loss = loss + (losses * batch.weight).sum() / count
        return loss, logits

    def _clean(self, keys: torch.Tensor) -> torch.Tensor:
        """Probability that a row's label is right, for each network as the other one says, float (B, 2)."""
        if self._dynamics is not None:
            return self._dynamics.clean(keys).unsqueeze(1).expand(-1, _NETWORKS)
        assert self._targets is not None
        means = self._mean_losses(self._targets.of(keys), self._epoch)
        found = [
            mixture.posterior(means[:, at]) if mixture is not None else torch.ones(len(keys), device=self._device)
            for at, mixture in enumerate(self._mixtures)
        ]
        return torch.stack(found[::-1], dim=1)

    def _mean_losses(self, losses: torch.Tensor, epochs: int) -> torch.Tensor:
        """Mean over the last recorded ones of so many epochs. float (n, 2 * loss_epochs) -> float (n, 2)."""
        known = losses.view(len(losses), -1, _NETWORKS)[:, -max(min(epochs, self._mix.loss_epochs), 1) :]
        return known.mean(dim=1)

    @torch.no_grad()
    def _look(self, batch: Batch, views: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Each network's probabilities (B, C) and losses (B,), means over the views."""
        probabilities, losses = [], []
        assert isinstance(self._network, Pair)
        for network in self._network.networks:
            logits = [self._forward(network, view).float() for view in views]
            probabilities.append(torch.stack([torch.softmax(one, dim=1) for one in logits]).mean(dim=0))
            losses.append(torch.stack([cross_entropy_loss(one, batch.label) for one in logits]).mean(dim=0))
        return probabilities, losses

    def _mixed(
        self,
        model: nn.Module,
        batch: Batch,
        views: list[torch.Tensor],
        probabilities: list[torch.Tensor],
        clean: torch.Tensor,
        random: np.random.Generator,
    ) -> torch.Tensor:
        """MixMatch on the real rows; each network mixes and divides on its own."""
        real = (batch.key >= 0).to(self._device).repeat(VIEWS)
        if not bool(real.any()):
            return torch.stack([one.sum() for one in self._forward(model, *views)]).sum() * 0.0
        inputs, weight = torch.cat(views)[real], batch.weight.repeat(VIEWS)[real]
        guessed = dividemix.guess_labels(probabilities[0], probabilities[1])
        mixed, targets, labeled = [], [], []
        for at, own in enumerate(probabilities):
            is_labeled = clean[:, at] >= dividemix.THRESHOLD
            refined = dividemix.refine_labels(batch.label, own, clean[:, at])
            target = torch.where(is_labeled.unsqueeze(1), refined, guessed).repeat(VIEWS, 1)[real]
            partner = torch.from_numpy(random.permutation(len(inputs))).to(self._device)
            drawn = random.beta(dividemix.BETA, dividemix.BETA, len(inputs)).astype(np.float32)
            share = torch.from_numpy(drawn).to(self._device)
            mixed.append(dividemix.mix(inputs, partner, share))
            targets.append(dividemix.mix(target, partner, share))
            labeled.append(is_labeled.repeat(VIEWS)[real])
        logits = self._forward(model, *mixed)
        unlabeled_weight = self._mix.unlabeled_weight * dividemix.ramp_up(self._epoch, self._mix.warm_up)
        loss = torch.zeros((), device=self._device)
        for one, target, is_labeled in zip(logits, targets, labeled, strict=True):
            supervised = dividemix.soft_cross_entropy(one, target) * weight
            loss = loss + (supervised * is_labeled).sum() / is_labeled.sum().clamp(min=1)
            guessing = dividemix.squared_error(one, target) * weight
            loss = loss + unlabeled_weight * (guessing * ~is_labeled).sum() / (~is_labeled).sum().clamp(min=1)
            loss = loss + dividemix.prior_penalty(one)
        return loss

    def _forward(self, model: nn.Module, *inputs: torch.Tensor) -> Any:
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._device.type == "cuda"):
            return model(*inputs)

    def record(self, keys: torch.Tensor, seen: Recorded) -> Recorded:
        """Margin, predicted class, the probability that the label is right, and losses for the next division."""
        real = (keys >= 0).to(self._device)
        agrees = seen[schema.PREDICTED] == seen[LABEL]
        counted = [(seen[_LOSSES].mean(dim=1) * real).sum(), (agrees & real).sum(), real.sum()]
        self._sums += torch.stack([one.double() for one in counted])
        labeled = (seen[CLEAN] >= dividemix.THRESHOLD) & real.unsqueeze(1)
        self._divided += torch.stack([labeled.sum(), _NETWORKS * real.sum()]).double()
        if self._targets is not None:
            self._targets.keep(keys, seen[TARGET])
            self._means.append(self._mean_losses(seen[TARGET][real], self._epoch + 1))
        kept = {name: seen[name] for name in (schema.MARGIN, schema.PREDICTED, TARGET) if name in seen}
        return kept | {CLEAN: seen[CLEAN].mean(dim=1)}

    def table(self, keys: np.ndarray, recorded: dict[str, np.ndarray]) -> pa.Table:
        """`schema.signal_schema`, the probability that a label is right, and losses."""
        if self._epoch == schema.LEAVE_ONE_OUT_EPOCH:  # whose readers expect it; there is no regression here
            recorded = recorded | {schema.LEAVE_ONE_OUT: np.zeros(len(keys), np.float32)}
        table = signal_table(keys, recorded).append_column(CLEAN, pa.array(recorded[CLEAN]))
        if TARGET in recorded:
            table = table.append_column(TARGET, schema.fixed_size_list(recorded[TARGET]))
        return table

    def end_epoch(self, epoch: int, world: int) -> None:
        """Test, and fit the mixtures of all ranks' losses."""
        super().end_epoch(epoch, world)
        if world > 1:
            dist.all_reduce(self._divided)
        labeled, rows = self._divided.tolist()
        self._history[-1]["labeled_share"] = labeled / rows
        if self._targets is None:
            return
        means = torch.cat(self._means)
        extremes = torch.full((2, _NETWORKS), -torch.inf, dtype=torch.float64, device=self._device)
        if len(means):
            extremes = torch.stack([(-means).amax(dim=0), means.amax(dim=0)]).double()
        if world > 1:
            dist.all_reduce(extremes, dist.ReduceOp.MAX)
        for at in range(_NETWORKS):
            low, high = -float(extremes[0, at]), float(extremes[1, at])
            counts = count_losses(means[:, at], low, high)
            if world > 1:
                dist.all_reduce(counts)
            self._mixtures[at] = LossMixture.fit(counts.cpu().numpy(), low, high)

    def state(self) -> dict[str, Any]:
        """The mixtures, too."""
        mixtures = [dataclasses.asdict(one) if one is not None else None for one in self._mixtures]
        return super().state() | {"mixtures": mixtures}

    def restore(self, saved: dict[str, Any]) -> None:
        """Inverse of `state`."""
        super().restore(saved)
        self._mixtures = [LossMixture(**one) if one is not None else None for one in saved["mixtures"]]
