"""Clustering of training dynamics into clean and noisy (Kim et al., CVPR 2024, §4.4, Eq. 3-8; epoch choice Eq. 9).

`fit` trains the encoder and the two centroids with the losses of `losses`. Axes: n rows, u distinct sign patterns,
B batch, D embedding, E epochs. Index 0 is the noisy centroid, 1 the clean one.

Sign dynamics repeat, so rows with equal signs share one embedding. Each minibatch is a random draw of rows, as in the
paper, but only its distinct patterns are encoded, weighted by how many originals and copies of the batch have them.
This is exactly the per-row loss, summed in another order. Rows are put in canonical order (patterns in lexicographic
order, originals first) before they are shuffled, so the fit does not depend on the order of the input.

Deviations from the paper:

- `preset("paper")`: none known. Centroids get Adam's weight decay like every parameter.
- `preset("released")` is the authors' repository: KL averaged over the batch, squared Euclidean distance when
  assigning (training keeps the cosine), Eq. 9's second mean over originals with a copy, weight decay 1e-4, 15 epochs.
- Both: the Davies-Bouldin index of more than 16,384 distinct patterns uses 16,384 of them, evenly spaced.

Cost: at 55,000 rows and E = 20 about 0.3 s per epoch on one core, evaluation included. Memory O(n + u E).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynacor_ray.core.eager_optimizer import eager
from dynacor_ray.core.errors import DataError, TrainingError, expected_got
from dynacor_ray.core.rng import derive_seed
from dynacor_ray.method.dynamics import SignPatterns, sign_patterns
from dynacor_ray.method.dynamics_encoder import PatternEncoder, SignWindows, initial_encoder_state, sign_windows
from dynacor_ray.method.losses import (
    alignment_loss,
    clustering_loss,
    cosine_distance,
    flag,
    soft_assignment,
    squared_euclidean_distance,
    target_distribution,
    total_loss,
)
from dynacor_ray.method.selection import EpochRecord, choose_epoch, davies_bouldin, validation_metric

_CHUNK = 8192
_DAVIES_BOULDIN_PATTERNS = 16_384


@dataclass(frozen=True, kw_only=True)
class ClusteringConfig:
    """Options of the clustering (§4.4, Table 5). The defaults are the paper's for a frozen encoder.

    Attributes:
        alpha: weight of Eq. 7 in Eq. 8, >= 0.
        epochs: passes over the dynamics, >= 0.
        batch_size: rows of a minibatch, >= 1.
        learning_rate: of Adam, > 0.
        weight_decay: of Adam, >= 0.
        kl_reduction: "sum" (Eq. 6) or "batchmean".
        assignment_distance: "cosine" or "squared_euclidean", when assigning. Training uses the cosine.
        metric_rows: Eq. 9's second mean over "all" originals or over those with a copy ("copied").
        epoch_choice: one of `selection.EPOCH_CHOICES`.
        noise_rate: an estimate of it in [0, 1], needed by the epoch choice of that name.
        seed: initialization and order of rows.
    """

    alpha: float = 0.5
    epochs: int = 10
    batch_size: int = 1024
    learning_rate: float = 1e-5
    weight_decay: float = 5e-4
    kl_reduction: str = "sum"
    assignment_distance: str = "cosine"
    metric_rows: str = "all"
    epoch_choice: str = "validation_metric"
    noise_rate: float | None = None
    seed: int = 0


_PRESETS = {
    "paper": ClusteringConfig(),
    "released": ClusteringConfig(
        epochs=15,
        weight_decay=1e-4,
        kl_reduction="batchmean",
        assignment_distance="squared_euclidean",
        metric_rows="copied",
    ),
}


def preset(variant: str, **overrides: Any) -> ClusteringConfig:
    """Options of the "paper" (§4.4, Table 5) or of the authors' "released" code.

    Args:
        variant: "paper" or "released".
        **overrides: fields of `ClusteringConfig` to replace.
    """
    return dataclasses.replace(_PRESETS[variant], **overrides)


@dataclass(frozen=True, kw_only=True)
class FittedClustering:
    """A fitted clustering (§4.4): small, picklable, and able to assign any dynamics of the same E.

    Attributes:
        encoder_state: state dict of `DynamicsEncoder(num_epochs)`.
        centroids: float32 (2, 512), noisy then clean.
        epoch: the epoch that was kept.
        records: one per epoch, from 0.
        config: options of the fit.
        num_epochs: E.
    """

    encoder_state: dict[str, Tensor]
    centroids: Tensor
    epoch: int
    records: tuple[EpochRecord, ...]
    config: ClusteringConfig
    num_epochs: int

    def assign(self, margins: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """q_noisy (Eq. 3) of every row; each distinct sign pattern is encoded once.

        Args:
            margins: float (n, E).

        Returns:
            float32 (n,) in [0, 1].

        Raises:
            DataError: dynamics of another E.
        """
        if margins.ndim != 2 or margins.shape[1] != self.num_epochs:
            expected = f"margins of shape (n, {self.num_epochs})"
            remedy = "pass dynamics of the epochs it was fitted on"
            raise DataError(expected_got(expected, f"shape {margins.shape}", remedy))
        patterns = sign_patterns(margins)
        if not len(patterns.counts):
            return np.empty(0, dtype=np.float32)
        model = _Model(self.encoder_state, self.centroids)
        windows = sign_windows(patterns.signs)
        q_noisy = model.assign(model.table(windows), windows, self.config.assignment_distance)
        return q_noisy.numpy()[patterns.inverse]


def fit(
    margins: NDArray[np.floating[Any]],
    is_corrupted: NDArray[np.bool_],
    has_copy: NDArray[np.bool_],
    config: ClusteringConfig,
    on_epoch: Callable[[EpochRecord, NDArray[np.float32]], None] | None = None,
) -> FittedClustering:
    """Train encoder and centroids on dynamics (Eq. 1) by Eq. 8, and keep the epoch chosen by `config.epoch_choice`.

    The result depends on the set of rows, not on their order. The global random state is left alone.

    Args:
        margins: float (n, E); only the signs are used.
        is_corrupted: bool (n,).
        has_copy: bool (n,), originals whose copy is among the rows.
        config: options.
        on_epoch: called from epoch 0 on with the record and every row's q_noisy (Eq. 3), float32 (n,).

    Raises:
        DataError: unusable rows.
        TrainingError: the assignment is no longer finite.
    """
    _check_rows(margins, is_corrupted)
    patterns = sign_patterns(margins)
    data = _PatternRows.of(patterns, is_corrupted, has_copy)
    model = _Model.initial(data, margins.shape[1], config.seed)
    # "fused" is the same Adam in one pass over the parameters
    optimizer = eager(torch.optim.Adam)(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    records: list[EpochRecord] = []
    best, best_epoch = model.snapshot(), 0
    for epoch in range(config.epochs + 1):
        if epoch > 0:
            _train_epoch(model, optimizer, data, config, epoch)
        table = model.table(data.windows)
        q_noisy = model.assign(table, data.windows, config.assignment_distance)
        records.append(_evaluate(model, table, data, config, epoch, q_noisy))
        if choose_epoch(records, config.epoch_choice, config.noise_rate) == epoch:
            best, best_epoch = model.snapshot(), epoch
        if on_epoch is not None:
            on_epoch(records[-1], q_noisy.numpy()[patterns.inverse])
    state, centroids = best
    return FittedClustering(
        encoder_state=state,
        centroids=centroids,
        epoch=best_epoch,
        records=tuple(records),
        config=config,
        num_epochs=margins.shape[1],
    )


@dataclass(frozen=True)
class _PatternRows:
    """Rows grouped by sign pattern.

    Attributes:
        windows: windows of the patterns.
        originals: int64 (u,), originals with each pattern.
        corrupted: int64 (u,), copies with each pattern.
        copied: int64 (u,), originals that have a copy.
        rows: int64 (n,), `2 * pattern + is_corrupted` in ascending order: the canonical order of the rows.
    """

    windows: SignWindows
    originals: Tensor
    corrupted: Tensor
    copied: Tensor
    rows: Tensor

    @classmethod
    def of(cls, patterns: SignPatterns, is_corrupted: NDArray[np.bool_], has_copy: NDArray[np.bool_]) -> _PatternRows:
        """Group rows by pattern. is_corrupted, has_copy: bool (n,)."""
        num_patterns = len(patterns.counts)

        def _count(rows: NDArray[np.bool_]) -> NDArray[np.int64]:
            return np.bincount(patterns.inverse[rows], minlength=num_patterns).astype(np.int64)

        originals, corrupted = _count(~is_corrupted), _count(is_corrupted)
        both = np.stack((originals, corrupted), axis=1).reshape(-1)
        return cls(
            windows=sign_windows(patterns.signs),
            originals=torch.from_numpy(originals),
            corrupted=torch.from_numpy(corrupted),
            copied=torch.from_numpy(_count(has_copy & ~is_corrupted)),
            rows=torch.from_numpy(np.repeat(np.arange(2 * num_patterns), both)),
        )


class _Model(torch.nn.Module):
    """Encoder and trainable centroids of §4.4."""

    def __init__(self, encoder_state: dict[str, Tensor], centroids: Tensor) -> None:
        super().__init__()
        self.encoder = PatternEncoder(encoder_state)
        self.centroids = torch.nn.Parameter(centroids.clone())

    @classmethod
    def initial(cls, data: _PatternRows, num_epochs: int, seed: int) -> _Model:
        """Fresh encoder; centroids at the mean representation of the corrupted and of the original rows (§4.4)."""
        state = initial_encoder_state(num_epochs, derive_seed(seed, 0))
        encoder = PatternEncoder(state)
        count = torch.stack((data.corrupted, data.originals), dim=0).double()
        with torch.no_grad():
            table = encoder.table(data.windows)
            chunks = zip(torch.split(data.windows.slots, _CHUNK), torch.split(count, _CHUNK, dim=1), strict=True)
            total = sum((rows @ encoder(table, slots).double() for slots, rows in chunks), start=torch.zeros(()))
        return cls(state, (total / count.sum(dim=1, keepdim=True)).float())

    def snapshot(self) -> tuple[dict[str, Tensor], Tensor]:
        """Copies of the encoder's state and of the centroids."""
        return self.encoder.to_state(), self.centroids.detach().clone()

    @torch.no_grad()
    def table(self, windows: SignWindows) -> Tensor:
        """The encoder's table without gradients, to assign and evaluate with."""
        return self.encoder.table(windows)

    @torch.no_grad()
    def assign(self, table: Tensor, windows: SignWindows, distance: str) -> Tensor:
        """q_noisy (Eq. 3) per pattern, float32 (u,), with the named distance. table: from `table`."""
        measure = cosine_distance if distance == "cosine" else squared_euclidean_distance
        return torch.cat(
            [
                soft_assignment(measure(self.encoder(table, slots), self.centroids))
                for slots in torch.split(windows.slots, _CHUNK)
            ]
        )


def _train_epoch(
    model: _Model, optimizer: torch.optim.Optimizer, data: _PatternRows, config: ClusteringConfig, epoch: int
) -> None:
    order = batch_order(len(data.rows), config.seed, epoch)
    for rows in torch.split(data.rows[order], config.batch_size):
        optimizer.zero_grad(set_to_none=True)
        _batch_loss(model, data.windows, rows, config).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def batch_order(num_rows: int, seed: int, epoch: int) -> Tensor:
    """Order of the canonical rows in one epoch's minibatches (§4.4): int64 (n,), a permutation of 0..n-1."""
    generator = torch.Generator().manual_seed(derive_seed(seed, epoch) >> 1)
    return torch.randperm(num_rows, generator=generator)


def _batch_loss(model: _Model, windows: SignWindows, rows: Tensor, config: ClusteringConfig) -> Tensor:
    """Eq. 8 of one minibatch of rows `2 * pattern + is_corrupted`, over its distinct patterns."""
    pattern, entry = torch.unique(rows >> 1, return_inverse=True)
    counts = torch.bincount(entry * 2 + (rows & 1), minlength=2 * len(pattern)).view(-1, 2).float()
    present = windows.select(pattern)
    embedding = model.encoder(model.encoder.table(present), present.slots)
    q_noisy = soft_assignment(cosine_distance(embedding, model.centroids))
    total = counts.sum(dim=1)
    clustering = clustering_loss(target_distribution(q_noisy, total), q_noisy, config.kl_reduction, total)
    alignment = alignment_loss(embedding, flag(q_noisy.detach()), counts[:, 0], counts[:, 1])
    return total_loss(clustering, alignment, config.alpha)


@torch.no_grad()
def _evaluate(
    model: _Model, table: Tensor, data: _PatternRows, config: ClusteringConfig, epoch: int, q_noisy: Tensor
) -> EpochRecord:
    """Eq. 9, Davies-Bouldin index and flagged shares over all rows, as distinct patterns with counts."""
    if not bool(torch.isfinite(q_noisy).all()):
        got = f"values that are not finite after epoch {epoch}"
        raise TrainingError(expected_got("finite soft assignments", got, "lower the learning rate of the clustering"))
    flagged, q = flag(q_noisy).numpy(), q_noisy.numpy()
    originals, corrupted = data.originals.numpy(), data.corrupted.numpy()
    compared = originals if config.metric_rows == "all" else data.copied.numpy()
    step = -(-len(q) // _DAVIES_BOULDIN_PATTERNS)
    embedding = model.encoder(table, data.windows.slots[::step]).numpy()
    index = davies_bouldin(embedding, flagged[::step], (originals + corrupted)[::step])
    return EpochRecord(
        epoch=epoch,
        validation_metric=validation_metric(q, flagged, corrupted, compared),
        davies_bouldin=index if np.isfinite(index) else None,
        flagged_originals=float(originals[flagged].sum() / originals.sum()),
        flagged_corrupted=float(corrupted[flagged].sum() / corrupted.sum()),
    )


def _check_rows(margins: NDArray[np.floating[Any]], is_corrupted: NDArray[np.bool_]) -> None:
    if np.isnan(margins).any():
        raise DataError(expected_got("margins without NaN", "NaN", "record them with to_float16_keeping_sign"))
    if not is_corrupted.any() or is_corrupted.all():
        got = f"{int(is_corrupted.sum())} corrupted rows of {len(margins)}"
        raise DataError(expected_got("original and corrupted rows", got, "raise gamma, or pass the originals as well"))
