"""How well a training signal could separate wrong labels if it were known which are wrong (App. B, Figs. 2, 5, 6).

Not a detector: it learns from the truth, and bounds what a signal is worth. Two readers: the dynamics encoder of §4.4
as a binary classifier, which sees the signal of every epoch, and an MLP that sees only the mean over the epochs.

Cross-validated: the model that scores a row was trained on other folds, and its epoch and its cut are chosen on yet
another one. Fold k is scored by a model trained on all folds but k and k + 1, the latter being the validation. Folds
and batches belong to the instances and the seed, so the order of the rows does not matter.

Deviations from the paper:

- The paper has one split into training, validation and test rows. Here five folds take turns, so every row is scored.
- Signals are centered and scaled by the training rows, since they differ in unit.
- The cut is that of the highest F1 on the validation fold instead of probability 1/2, which F1 does not favor when
  few labels are wrong.
- A ReLU and one logit follow the encoder's 512-d embedding; the MLP has one hidden layer of that width.

Cost: at 25,000 rows and E = 20 about 90 s of one core per signal for the encoder, 12 s for the MLP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from dynacor_ray.core.eager_optimizer import eager
from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.core.rng import derive_seed
from dynacor_ray.detectors.confident_learning import fold_of
from dynacor_ray.detectors.evidence import Verdict
from dynacor_ray.ground_truth.metrics import f1_curve
from dynacor_ray.method.dynamics_encoder import EMBEDDING_DIM, DynamicsEncoder

READERS = ("dynamics", "mean")
FOLDS = 5
_CHUNK = 8192
_STREAM = 0x424F554E


@dataclass(frozen=True, kw_only=True)
class BoundConfig:
    """Options of the supervised classifier. The defaults are the paper's (App. B).

    Attributes:
        epochs: >= 1.
        batch_size: >= 1.
        learning_rate: of Adadelta, > 0.
        decay: factor of the learning rate after every epoch.
        seed: folds, initialization and order of rows.
    """

    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 1.0
    decay: float = 0.99
    seed: int = 0


@dataclass(frozen=True)
class FoldScores:
    """Scores of one fold.

    Attributes:
        rows: int64 (n,), positions of its rows.
        score: float64 (n,); below 0 is flagged.
    """

    rows: NDArray[np.int64]
    score: NDArray[np.float64]


def merge_folds(folds: Sequence[FoldScores]) -> Verdict:
    """Flags and scores of all rows from those of all folds, in any order."""
    score = np.empty(sum(len(fold.rows) for fold in folds))
    for fold in folds:
        score[fold.rows] = fold.score
    return Verdict(score < 0, score)


def score_fold(
    signal: NDArray[np.floating[Any]],
    ids: NDArray[np.int64],
    is_mislabeled: NDArray[np.bool_],
    reader: str,
    fold: int,
    config: BoundConfig,
) -> FoldScores:
    """Scores of one fold by a model trained on the truth of other rows (App. B); folds may be spread over machines.

    Args:
        signal: float (N, E).
        ids: int64 (N,), distinct.
        is_mislabeled: bool (N,).
        reader: one of READERS.
        fold: 0..FOLDS-1.
        config: options.

    Raises:
        DataError: the training or the validation rows are all right or all wrong.
    """
    order = np.argsort(ids, kind="stable")
    part = fold_of(ids[order], FOLDS, config.seed)
    validation = (fold + 1) % FOLDS
    split = {
        "test": order[part == fold],
        "validation": order[part == validation],
        "training": order[(part != fold) & (part != validation)],
    }
    for name in ("training", "validation"):
        wrong = is_mislabeled[split[name]]
        if wrong.all() or not wrong.any():
            got = f"{int(wrong.sum())} wrong of {len(wrong)} {name} rows"
            remedy = "use more rows, or more noise"
            raise DataError(expected_got("wrong and right labels to learn a bound from", got, remedy))
    inputs = _inputs(signal, reader, split["training"])
    truth = torch.from_numpy(is_mislabeled.astype(np.float32))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(config.seed, _STREAM, fold) % 2**63)
        network = _network(reader, signal.shape[1])
        score = _learn(network, inputs, truth, split, config)
    return FoldScores(split["test"], score)


def _inputs(signal: NDArray[np.floating[Any]], reader: str, training: NDArray[np.int64]) -> Tensor:
    """Input of the reader, float32 (N, E) or (N, 1), centered and scaled by the training rows; 0 if constant."""
    wide = np.asarray(signal, np.float32)
    inputs = wide if reader == "dynamics" else wide.mean(axis=1, keepdims=True)
    known = inputs[training].astype(np.float64)
    deviation = float(known.std())
    centered = inputs - np.float32(known.mean())
    return torch.from_numpy(centered / np.float32(deviation) if deviation > 0 else centered)


def _network(reader: str, num_epochs: int) -> nn.Module:
    """Float (B, E) or (B, 1) -> logit of "wrong", float (B, 1)."""
    first: nn.Module = DynamicsEncoder(num_epochs) if reader == "dynamics" else nn.Linear(1, EMBEDDING_DIM)
    return nn.Sequential(first, nn.ReLU(), nn.Linear(EMBEDDING_DIM, 1))


def _learn(
    network: nn.Module, inputs: Tensor, truth: Tensor, split: dict[str, NDArray[np.int64]], config: BoundConfig
) -> NDArray[np.float64]:
    """Scores of the test rows in the epoch with the best F1 on the validation rows, relative to the cut there."""
    training = torch.from_numpy(split["training"])
    optimizer = eager(torch.optim.Adadelta)(network.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=config.decay)
    wrong = truth[split["validation"]].numpy() > 0
    best, scores = -1.0, np.zeros(len(split["test"]))
    for _ in range(config.epochs):
        for rows in torch.split(training[torch.randperm(len(training))], config.batch_size):
            loss = F.binary_cross_entropy_with_logits(network(inputs[rows]).squeeze(dim=1), truth[rows])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        schedule.step()
        f1, cut = _best_cut(_logits(network, inputs[split["validation"]]), wrong)
        if f1 > best:
            best, scores = f1, cut - _logits(network, inputs[split["test"]])
    return scores


@torch.no_grad()
def _logits(network: nn.Module, inputs: Tensor) -> NDArray[np.float64]:
    parts = [network(chunk).squeeze(dim=1).double() for chunk in torch.split(inputs, _CHUNK)]
    logits: NDArray[np.float64] = torch.cat(parts).numpy() if parts else np.empty(0)
    return logits


def _best_cut(logits: NDArray[np.float64], wrong: NDArray[np.bool_]) -> tuple[float, float]:
    """The highest F1 of any cut, and a cut that reaches it, half way to the next lower logit. float64, bool (n,)."""
    f1, cuts = f1_curve(wrong, logits)
    best = int(f1.argmax())
    below = logits[logits < cuts[best]]
    return float(f1[best]), float((cuts[best] + below.max()) / 2) if below.size else float(cuts[best]) - 1.0
