"""How many labels are wrong, with a range, and from which P(wrong) on a row is flagged (ours).

The label noise model takes errors that lie where classes are hard to tell apart for doubt: those of people, of a weak
annotator, of rules. Three readings see more of them. The rate is what they say, if that is more than the model's own;
its log odds are raised until they agree with it, and the expected F1 says how many rows to flag.

*The density of the rows* (`class_overlap`, `ModelReadings.errors`): labels that differ from the model's prediction
where classes do not overlap are wrong, but for those that a better model would predict. Where random features help
much, more would help as much again. Real classes have longer tails than Gaussian ones. So only what `FAR` times their
overlap does not account for, nor `CURVED` times what random features help, is wrong whatever else is said.

*The surest predictions* (`noise_rate`) of a network while it trains. They are but 60% of the rows, and errors of people
and of a weak annotator are the more frequent the less sure a prediction is. So what the outer of their two readings has
more than the inner is carried on. A straight line over all rows would add 4/3 of it; `GROWTH` of it is added, as the
network's doubt grows as well. Where classes overlap, a network is sure of what it cannot know: of clean labels of 14
such classes, its surest predictions said that half are wrong. What it knows less than the model, which has not seen the
label, is taken off. Density is right there, and the surest predictions are where tails are long: what both say is
believed, of density what `TAILS` times the overlap and once what random features help do not account for. A model
learns part of such errors, too, and predicts them: `CLEAR` times the rest counts.

*What training has not learned* at its end (`NoiseRate.unlearned`) is wrong where it lasts: right labels of hard rows go
on being learned. `SLOW` times what the second half of the training has learned may be such; up to `LASTING` times the
rest is believed, likewise as far as density bears it out: what a network cannot learn from its features lasts, too.

Of classes with few rows (`noise_rate.for_few_rows`) all three err: what is not predicted, or predicted surely and
wrong, is so for want of rows, and of many classes in few columns density has no gaps to show. Of 287 clean classes with
25 rows each, of images in 16 columns, they said that four labels of ten are wrong, the model 2%. Where not all classes
of a row are kept the model has no matrix scaling to take errors for what classes look like, so it sees some of them. At
most `TIMES_OF_FEW` times its rate is added there. Or `TIMES` times what it leaves unexplained, as far as density bears
that out, if that is more: how many fewer of its surest rows are labeled as it says. Of clean classes a model is too
sure of them where it lacks the features to tell them, so `CURVED` times what random features help is taken off before,
and `EXPLAINED_OF_FEW`. No more is added than would be left to be learned if training went on for as long as its second
half.

Where much is added, the model is fitted once more, to this rate.

Errors that the model took for doubt cannot be more than its doubt: what they add to its rate is at most `DOUBT_SHARE`
of it. A network that was trained for few steps, or of two classes with nearly as many wrong labels as right ones, would
say otherwise.

Where the scores do not explain the labels better than the frequencies of the classes do
(`LabelNoiseModel.labels_tell`), either the features know nothing of the classes or the labels are as good as drawn by
lot. Nothing is flagged then, and the range is everything.

No reading of labels alone can tell doubt from errors that are a function of what a row shows. The range says so: its
high end takes `DOUBT_SHARE` of the model's doubt, the mean of 1 - max p, for errors. Its low end takes errors for
doubt: it is the model's rate less what it has of doubt beyond that rate, 0 where it doubts twice as many rows as it
holds for wrong, as of clean classes that overlap. Of that `TOO_MUCH` is taken off, or all above the low end of the
surest predictions where the model is not sure of its errors, and the sampling error.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dynacor_ray.decision.expected_f1 import best_cut, shift_to_rate, wrong_probability
from dynacor_ray.decision.label_noise_model import LabelNoiseModel
from dynacor_ray.decision.model_readings import ModelReadings
from dynacor_ray.decision.noise_rate import SIGMAS, NoiseRate

GROWTH, TAILS, CLEAR = 0.5, 1.1, 1.4
FAR, CURVED = 1.3, 1.5
SLOW, LASTING = 6.0, 5.0
TIMES_OF_FEW, TIMES, EXPLAINED_OF_FEW = 3.0, 6.0, 0.02
REFIT_FROM = 1.3
"""Ratio of the settled rate to the model's from which on it is fitted again."""
LEAST_PROBABILITY = 0.1
"""P(wrong) below which no row is flagged, whatever the expected F1: of right rows, too, one is the likeliest."""
DOUBT_SHARE, TOO_MUCH, SURE_F1 = 0.75, 0.15, 0.7
_NONE = 2.0
"""A cut that no probability reaches."""


@dataclass(frozen=True)
class NoiseDecision:
    """What was decided. rate: with its range; shift: added to the model's log odds; cut: P(wrong) that flags a row.

    expected_f1: of that cut, in [0, 1]; model_rate, surest_rate: the two readings; doubt: mean of 1 - max p over the
    rows, in [0, 1].
    """

    rate: NoiseRate
    shift: float
    cut: float
    expected_f1: float
    model_rate: float
    surest_rate: float
    doubt: float

    @property
    def needs_refit(self) -> bool:
        """Whether the rate is too far from the model's for log odds that are all raised alike."""
        return self.rate.value > REFIT_FROM * self.model_rate

    def with_cut(self, log_odds: NDArray[np.float64]) -> NoiseDecision:
        """The same rate on the log odds, float64 (n,), of (another fit of) the model."""
        value, own = self.rate.value, float(wrong_probability(log_odds).mean(axis=0))
        shift = 0.0 if value == own else shift_to_rate(log_odds, value)
        cut, expected = best_cut(wrong_probability(log_odds + shift))
        return replace(self, shift=shift, cut=max(cut, LEAST_PROBABILITY), expected_f1=expected)

    def probability(self, log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
        """P(wrong) of rows of any block, float64 (n,) in [0, 1]. log_odds: float64 (n,), of the model."""
        return wrong_probability(log_odds + self.shift)

    def flag(self, log_odds: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which rows of any block are flagged, bool (n,). log_odds: float64 (n,), of the model."""
        flagged: NDArray[np.bool_] = self.probability(log_odds) >= self.cut
        return flagged


def decide(
    log_odds: NDArray[np.float64], readings: ModelReadings, surest: NoiseRate | None, model: LabelNoiseModel
) -> NoiseDecision:
    """Rate, range and cut from (a sample of) the originals.

    log_odds: float64 (n,), n >= 1, log P(wrong) / P(right) of the model; readings: of the same rows; surest: the
    reading of the surest predictions with its range, None where training was too short for it.
    """
    own = wrong_probability(log_odds)
    model_rate, doubt = float(own.mean(axis=0)), float(readings.doubts.mean(axis=0))
    other = NoiseRate(0.0, 0.0, 0.0, 0.0) if surest is None else surest
    if not model.labels_tell:
        unknown = NoiseRate(0.0, 0.0, 1.0, other.surest)
        shift = shift_to_rate(log_odds, 1.0 / len(log_odds))
        return NoiseDecision(unknown, shift, _NONE, 0.0, model_rate, other.value, doubt)
    is_few = other.few_rows and not model.scales_by_matrix
    added = (_added_to_few_rows if is_few else _added)(model_rate, readings, other)
    value = model_rate + min(added, DOUBT_SHARE * doubt)
    sampling = SIGMAS * float(np.sqrt(max(value * (1.0 - value), 1.0 / len(log_odds)) / len(log_odds)))
    low = (1.0 - TOO_MUCH) * min(model_rate, max(0.0, 2.0 * model_rate - doubt))
    if best_cut(own)[1] < SURE_F1:
        low = min(low, other.low)
    high = max(value + DOUBT_SHARE * doubt, other.high) + sampling
    rate = NoiseRate(value, max(0.0, low - sampling), min(1.0, high), other.surest)
    return NoiseDecision(rate, 0.0, _NONE, 0.0, model_rate, other.value, doubt).with_cut(log_odds)


def _added(model_rate: float, readings: ModelReadings, surest: NoiseRate) -> float:
    """What the other readings say beyond the model's rate, in [0, 1]."""
    weakness = max(0.0, readings.early - readings.disagreement)
    said = min(1.0, surest.value + GROWTH * max(0.0, surest.value - surest.surest)) - weakness - model_rate
    unlearned = surest.unlearned - model_rate
    lasting = min(unlearned, LASTING * (unlearned - SLOW * surest.learned))
    clear = CLEAR * readings.errors(TAILS, readings.curved) - model_rate
    beyond = readings.errors(FAR, CURVED * readings.curved) - model_rate
    return max(min(max(said, lasting), clear), beyond, 0.0)


def _added_to_few_rows(model_rate: float, readings: ModelReadings, surest: NoiseRate) -> float:
    """The same of many classes with few rows."""
    curved = CURVED * readings.curved
    unexplained = TIMES * max(0.0, readings.unexplained - curved - EXPLAINED_OF_FEW) * (1.0 - model_rate)
    clear = CLEAR * readings.errors(TAILS) - model_rate
    said = min(_added(model_rate, readings, surest), TIMES_OF_FEW * model_rate)
    left = max(0.0, surest.unlearned - surest.learned - model_rate)
    return min(max(said, min(unexplained, clear)), left)
