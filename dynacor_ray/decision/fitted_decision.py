"""From class scores of a sample to a decision that applies to any block of rows (ours).

Three scores of every class are read: of two ridge regressions that leave the row out, and, where there are EARLY_ROWS,
the network's early logits, freed of what the row's own label and that of its copy did to them (`early_scores`). Where
not all classes are kept, a fourth one is made of the first (`alike_classes`). The label noise model weighs them,
`noise_decision` settles the rate, and what was fitted on a sample scores the rows of any block.

Cost: that of `label_noise_fit.fit_label_noise` on the sample; a softmax per row to apply.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.decision.alike_classes import AlikeClasses, alike_classes
from dynacor_ray.decision.early_scores import own_label_influence, two_class_influence, without_own_label
from dynacor_ray.decision.label_noise_fit import fit_label_noise, refit
from dynacor_ray.decision.label_noise_model import LEAST_EVIDENCE, LabelNoiseModel, PairRates, pair_rates
from dynacor_ray.decision.likely_classes import stands_for
from dynacor_ray.decision.model_readings import ModelReadings, read_model
from dynacor_ray.decision.noise_decision import NoiseDecision, decide
from dynacor_ray.decision.noise_rate import NoiseRate

MOST_VALUES = 600_000
"""Most rows times classes of each that the model is fitted to: a fit takes some eight seconds there."""
EARLY_ROWS = 1000
"""Of fewer originals each moves a network by so much that its early logits cannot be freed of its own label."""
_BEYOND = 1000.0
"""Log odds that no row has: the probabilities that they are made of are held above 1e-300."""
_ROUNDING = 1e-6
"""Of log odds that were probabilities near 1: the row at the cut is flagged."""
_LEAST_COPIES = 20.0
"""Copies that must stand for the errors found, by their effective number, to tell how many of such are flagged."""


@dataclass(frozen=True, kw_only=True)
class ScoredRows:
    """Rows with scores of every class, aligned.

    Attributes:
        scores: float (3, n, K): a ridge regression's, one with random features, the mean early logits less the mean of
            all C.
        classes: int64 (n, K): which classes these are of (`likely_classes`), first the row's label: the given one of
            an original, the corrupted one of a copy.
        other_labels: int64 (n,): the second label that the same features were trained with: a copy's for its original,
            the given one for a copy; -1 for none.
        is_copy: bool (n,).
        num_classes: C.
        twins: (n, C): how often each label was given to other rows with the same image or feature (of a copy: to
            those of its original); None where there are none.
    """

    scores: NDArray[np.floating[Any]]
    classes: NDArray[np.int64]
    other_labels: NDArray[np.int64]
    is_copy: NDArray[np.bool_]
    num_classes: int
    twins: sparse.csr_array | None = None

    @property
    def labels(self) -> NDArray[np.int64]:
        """Of each row, int64 (n,)."""
        return self.classes[:, 0]

    @property
    def weight(self) -> NDArray[np.float64]:
        """Of each row in the training, float64 (n,): m equal rows weigh 1/m each."""
        if self.twins is None:
            return np.ones(len(self.labels))
        weight: NDArray[np.float64] = 1.0 / (1.0 + self.twins.sum(axis=1))
        return weight

    @property
    def told(self) -> sparse.csr_array | None:
        """Labels of the twins that tell something of this one's, (n, C).

        Twins that all have the same label may have it from one another, as where a row was stored twice, and tell
        nothing. Where labels differ, each was given for itself.
        """
        if self.twins is None:
            return None
        same = self.among_twins(self.classes[:, :1])[:, 0] == self.twins.sum(axis=1)
        return sparse.diags_array((~same).astype(np.float64)) @ self.twins

    def among_twins(self, classes: NDArray[np.int64]) -> NDArray[np.float64]:
        """How often each row's twins have some classes. int64 (n, K) -> float64 (n, K)."""
        found = np.zeros(classes.shape)
        if self.twins is not None:
            cells = self.twins.tocoo()
            row, label = cells.coords
            np.add.at(found, row, cells.data[:, None] * (classes[row] == label[:, None]))
        return found

    def of(self, rows: NDArray[Any]) -> ScoredRows:
        """Those of some rows: a mask or places, (n,)."""
        return ScoredRows(
            scores=self.scores[:, rows],
            classes=self.classes[rows],
            other_labels=self.other_labels[rows],
            is_copy=self.is_copy[rows],
            num_classes=self.num_classes,
            twins=None if self.twins is None else self.twins[rows],
        )


@dataclass(frozen=True)
class FittedDecision:
    """A model of the label noise, and where its log odds are cut.

    Attributes:
        model: fitted on a sample of the originals.
        asks_twins: whether labels of equal rows tell of one another.
        influence: of a label on its own early logit, as the copies show it; None where early logits are not read.
        alike: which classes are alike; None where all classes are kept.
        decision: the rate with its range, and the cut.
        class_rates: P(wrong) of the rows with each given label, float64 (C,); NaN for a class without rows.
        pairs: P(given = j | true = c) of the class pairs that occur, with its interval.
        found_recall: as of `recall_of_found`.
    """

    model: LabelNoiseModel
    asks_twins: bool
    influence: float | None
    alike: AlikeClasses | None
    decision: NoiseDecision
    class_rates: NDArray[np.float64]
    pairs: PairRates
    found_recall: float | None

    def log_odds(self, rows: ScoredRows) -> NDArray[np.float64]:
        """log P(wrong) / P(right) of rows of any block, float64 (n,)."""
        told = rows.told if self.asks_twins else None
        return self.model.log_odds(model_scores(rows, self.influence, self.alike), rows.classes, told)

    def doubts(self, rows: ScoredRows) -> NDArray[np.float64]:
        """1 - P of the most probable class, without the label, float64 (n,)."""
        probability = self.model.class_probability(model_scores(rows, self.influence, self.alike), rows.classes)
        single = probability / stands_for(probability.shape[1], rows.num_classes)
        doubts: NDArray[np.float64] = 1.0 - single.max(axis=1)
        return doubts

    def suggested(self, rows: ScoredRows) -> NDArray[np.int32]:
        """The most probable true class, int32 (n,), where P(wrong) is that of `decision`."""
        told = rows.told if self.asks_twins else None
        joint = self.model.joint(model_scores(rows, self.influence, self.alike), rows.classes, told)
        joint[:, 1:] *= np.exp(self.decision.shift)
        best = np.argmax(joint / stands_for(joint.shape[1], rows.num_classes), axis=1)
        suggested: NDArray[np.int32] = rows.classes[np.arange(len(joint)), best].astype(np.int32)
        return suggested

    @property
    def log_odds_cut(self) -> float:
        """Rows with at least these log odds are flagged; beyond any row's where none is, and finite, to rank them."""
        cut, shift = self.decision.cut, self.decision.shift
        if not 0.0 < cut <= 1.0:
            return _BEYOND if cut > 1.0 else -_BEYOND
        cut = min(cut, float(np.nextafter(1.0, 0.0)))  # rows of probability 1 are flagged
        return float(np.log(cut) - np.log1p(-cut)) - shift - _ROUNDING


def fit_decision(sample: ScoredRows, surest: NoiseRate | None) -> FittedDecision:
    """Fit the model on (at most MOST_VALUES of) the sample's originals and settle the rate.

    Args:
        sample: originals and copies.
        surest: the reading of the most confident predictions, None where training was too short for it.

    Raises:
        DataError: there is no original.
    """
    originals, copies = sample.of(~sample.is_copy), sample.of(sample.is_copy)
    if not len(originals.labels):
        raise DataError(expected_got("originals to fit a label noise model to", "none", "use a larger sample"))
    influence = _influence(originals, copies)
    classes = sample.num_classes
    step = -(-originals.classes.size // MOST_VALUES)
    fitted = originals.of(np.arange(0, len(originals.labels), step))
    alike = likeness(fitted)
    blocks = model_scores(fitted, influence, alike)
    model = fit_label_noise(blocks, fitted.classes, classes)
    told = fitted.told
    asks_twins = told is None or model.twins_differ(blocks, fitted.classes, told) <= LEAST_EVIDENCE
    readings = read_model(model, blocks, fitted.classes, fitted.scores[2] if influence is None else blocks[2])
    model, decision = settle(model, readings, blocks, fitted.classes, told if asks_twins else None, surest)
    log_odds = model.log_odds(blocks, fitted.classes, told if asks_twins else None)
    counts = np.bincount(fitted.labels, minlength=classes)
    wrong = np.bincount(fitted.labels, decision.probability(log_odds), minlength=classes)
    rates = np.where(counts > 0, wrong / np.maximum(counts, 1), np.nan)
    told = copies.told if asks_twins else None
    flagged = decision.flag(model.log_odds(model_scores(copies, influence, alike), copies.classes, told))
    recall = recall_of_found(model, copies, flagged)
    pairs = pair_rates(model, blocks, fitted.classes)
    return FittedDecision(model, asks_twins, influence, alike, decision, rates, pairs, recall)


def settle(
    model: LabelNoiseModel,
    readings: ModelReadings,
    blocks: NDArray[np.float64],
    classes: NDArray[np.int64],
    told: sparse.csr_array | None,
    surest: NoiseRate | None,
) -> tuple[LabelNoiseModel, NoiseDecision]:
    """The decision from a fitted model, and the model that it is for: another if its own rate is far from the settled.

    blocks: float64 (B, n, K), what it was fitted to; classes, told: as of `LabelNoiseModel.joint`.
    """
    decision = decide(model.log_odds(blocks, classes, told), readings, surest, model)
    if not decision.needs_refit:
        return model, decision
    model = refit(model, blocks, classes, decision.rate.value)
    return model, decision.with_cut(model.log_odds(blocks, classes, told))


def recall_of_found(model: LabelNoiseModel, copies: ScoredRows, flagged: NDArray[np.bool_]) -> float | None:
    """Share of errors like those found that is flagged, in [0, 1] (ours).

    The labels of copies are drawn at random (§4.2). The model makes the error from c to j at the rate
    `error_c pairs_cj`, which is the weight of a copy with label j of an original labeled c in the share of copies that
    are flagged. None where fewer than `_LEAST_COPIES` of them, by their effective number, stand for these errors.
    flagged: bool (n,), of the copies.
    """
    weight = model.transition(copies.other_labels, copies.labels)
    if not weight.any() or weight.sum() ** 2 < _LEAST_COPIES * (weight**2).sum():
        return None
    return float(np.average(flagged, weights=weight))


def _influence(originals: ScoredRows, copies: ScoredRows) -> float | None:
    if len(originals.labels) < EARLY_ROWS:
        return None
    wide, early = 1, 2
    if originals.num_classes > 2:
        given, weight, other = copies.other_labels, copies.weight, copies.scores[wide]
        return own_label_influence(copies.scores[early], copies.classes, given, copies.num_classes, other, weight)
    ridge = originals.scores[0].astype(np.float64)
    has_copy = originals.other_labels >= 0
    return two_class_influence(originals.scores[early], has_copy, ridge[:, 0] - ridge[:, 1], originals.weight)


def likeness(rows: ScoredRows) -> AlikeClasses | None:
    """Which classes are alike, from the originals that the model is fitted to; None where rows keep all classes."""
    if rows.classes.shape[1] == rows.num_classes:
        return None
    ridge, wide, _ = rows.scores.astype(np.float64)
    return alike_classes(ridge, wide, rows.classes, rows.num_classes)


def model_scores(rows: ScoredRows, influence: float | None, alike: AlikeClasses | None) -> NDArray[np.float64]:
    """What the model is fitted to, float64 (B, n, K): the regressions, the early logits, the scores of alike classes.

    Without the early logits where influence is None, without the last where alike is.
    """
    ridge, wide, early = rows.scores.astype(np.float64)
    blocks = [ridge, wide]
    if influence is not None:
        twins = None if rows.twins is None else rows.among_twins(rows.classes)
        also = rows.classes == rows.other_labels[:, None]
        blocks.append(without_own_label(early, influence, rows.num_classes, also, twins))
    if alike is not None:
        blocks.append(alike.mean(ridge, rows.classes))
    return np.stack(blocks)
