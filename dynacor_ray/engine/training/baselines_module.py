"""The training of the baselines' classifiers, side by side in one pass (§5.1, Table 1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from dynacor_ray.core import rng, schema
from dynacor_ray.engine.training.batches import Batch
from dynacor_ray.engine.training.job import Job
from dynacor_ray.engine.training.module import Recorded, TrainingModule, classifier, forward, pictures


class Panel(nn.Module):
    """Classifiers side by side. forward: features (B, D) and the rows for each, int64 (b_k,) -> logits (b_k, C_k)."""

    def __init__(self, classifiers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.classifiers = nn.ModuleList(classifiers)

    def forward(self, features: torch.Tensor, rows: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Logits of every classifier for its rows."""
        return [_logits(one, features, chosen) for one, chosen in zip(self.classifiers, rows, strict=True)]


def _logits(classifier: nn.Module, features: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    if len(chosen):
        logits: torch.Tensor = classifier(features.index_select(0, chosen))
        return logits
    return classifier(features[:1])[:0]  # batch norm refuses a batch without rows


class BaselinesModule(TrainingModule):
    """The classifiers that detectors declare, side by side (§5.1, Table 1): one pass over the rows trains them all.

    They share nothing but the order of the rows: each has its own weights, labels, loss and rows to learn from.
    """

    def __init__(self, job: Job) -> None:
        self._job, self._epochs = job, job.config.epochs
        given = (job.rows.num_classes, job.rows.class_counts, job.config.seed)
        self._members = [member for training in job.config.baselines for member in training.classifiers(*given)]
        self._features: torch.Tensor

    def network(self) -> nn.Module:
        """One classifier per member, each with a start of its own that does not depend on who else is there."""
        classifiers = []
        for member in self._members:
            torch.manual_seed(rng.derive_seed(self._job.config.seed, 3, member.stream) % 2**63)
            classifiers.append(classifier(self._job, member.extra_classes))
            if member.keeps_features:
                last = [layer for layer in classifiers[-1].modules() if isinstance(layer, nn.Linear)][-1]
                last.register_forward_pre_hook(self._look)
        return Panel(classifiers)

    def _look(self, _: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self._features = inputs[0].detach().float()

    def groups(self, network: nn.Module) -> list[list[nn.Parameter]]:
        """One group per member."""
        assert isinstance(network, Panel)
        return [list(one.parameters()) for one in network.classifiers]

    def rate_factors(self, epoch: int) -> Sequence[float]:
        """CORES lowers its learning rate as its loss grows."""
        return [member.rate_factor(epoch, self._epochs) for member in self._members]

    def step(self, model: nn.Module, batch: Batch, epoch: int) -> tuple[torch.Tensor, Recorded]:
        """Sum over the members of the mean loss over the rows that each learns from."""
        ids = batch.key.numpy() >> 1
        real, last = batch.key.numpy() >= 0, epoch + 1 == self._epochs
        learned = [real & member.learns(ids) for member in self._members]
        everything = np.ones_like(real)
        pairs = zip(self._members, learned, strict=True)
        shown = [everything if last or member.records else rows for member, rows in pairs]
        if self._job.config.augmentation is not None:
            batch = pictures(self._job.config.augmentation, batch, epoch)
        device = batch.feature.device
        index = [torch.from_numpy(np.flatnonzero(rows)).to(device) for rows in shown]
        outputs = forward(model, batch, index)
        loss, recorded = torch.zeros((), device=device), Recorded()
        given = batch.label.cpu().numpy()
        for member, logits, at, rows, mine in zip(self._members, outputs, index, shown, learned, strict=True):
            label = torch.from_numpy(member.label(ids, given)[rows]).to(device)
            counted = torch.from_numpy(mine[rows]).to(device)
            losses = member.loss(logits.float(), label, epoch, self._epochs)
            loss = loss + (losses * counted).sum() / counted.sum().clamp(min=1)
            with torch.no_grad():
                values = member.record(logits.detach().float(), label, ids[rows], last)
                if last and member.keeps_features:
                    values |= {schema.FEATURE: self._features}
                for name, value in values.items():
                    blank = value.new_zeros((len(ids), *value.shape[1:]))
                    blank[at] = value
                    recorded[name] = recorded[name] + blank if name in recorded else blank
        return loss, recorded

    def table(self, keys: np.ndarray, recorded: dict[str, np.ndarray]) -> pa.Table:
        """Column `key` and one per recorded name; vectors as lists of fixed length."""
        columns = {schema.KEY: pa.array(keys)}
        for name, value in recorded.items():
            columns[name] = schema.fixed_size_list(value) if value.ndim == 2 else pa.array(value)
        return pa.table(columns)
