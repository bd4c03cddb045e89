"""What answers say of all rows: intervals hold the truth, a good model is kept, a blind one is given up."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from dynacor_ray.decision.audit_sample import RankGroups, draw_audit, first_density
from dynacor_ray.decision.review_model import (
    LEAST_ANSWERS,
    Posterior,
    expected_from_quality,
    expected_from_rate,
    fit_answers,
)
from dynacor_ray.decision.thresholds import DecisionThreshold, RowSignals

ROWS = 4000
GROUPS = RankGroups.of(ROWS)


def chances(level: float, slope: float) -> NDArray[np.float64]:
    """P(wrong) per rank, a falling line in log odds."""
    share = (np.arange(ROWS) + 0.5) / ROWS
    return expit(level - slope * np.log(share / (1 - share)))


def labels(chance: NDArray[np.float64], seed: int) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random(ROWS) < chance


def reviewed(
    wrong: NDArray[np.bool_], expected: NDArray[np.float64] | None, flagged: int, count: int, seed: int
) -> Posterior:
    ranks = draw_audit(GROUPS, first_density(GROUPS, flagged), count, seed).ranks
    return fit_answers(GROUPS, expected, flagged, ranks, wrong[ranks], seed)


def f1_at(wrong: NDArray[np.bool_], cut: int) -> float:
    return float(2 * wrong[:cut].sum() / (cut + wrong.sum()))


def best_f1(wrong: NDArray[np.bool_]) -> float:
    return float(np.max(2 * wrong.cumsum() / (np.arange(1, ROWS + 1) + wrong.sum())))


@pytest.mark.parametrize(("level", "slope"), [(-3.5, 2.0), (-1.5, 1.5), (-0.5, 1.0)])
def test_intervals_hold_the_truth_whatever_the_run_said(level: float, slope: float) -> None:
    """Of rate, precision and recall in at least nine of ten draws: with a right model, a blind one and none."""
    chance = chances(level, slope)
    for said in (chance[GROUPS.middles], np.full(len(GROUPS.sizes), 0.01), None):
        held = np.zeros(3)
        for seed in range(20):
            wrong = labels(chance, seed)
            posterior = reviewed(wrong, said, int(chance.sum()), 100, seed)
            cut = posterior.best_cut()
            found = posterior.figures(cut)
            true = (wrong.mean(), wrong[:cut].mean(), wrong[:cut].sum() / wrong.sum())
            measured = (found.rate, found.precision, found.recall)
            held += [m.low <= t <= m.high for m, t in zip(measured, true, strict=True)]
        assert held[0] >= 18, held
        assert held[1:].min() >= 16, held


def test_a_blind_model_is_given_up() -> None:
    """A run that sees nothing where half is wrong: a hundred answers bring the best cut within 3 points."""
    chance = chances(0.0, 1.0)
    blind = np.full(len(GROUPS.sizes), 0.002)
    loss = []
    for seed in range(10):
        wrong = labels(chance, seed)
        posterior = reviewed(wrong, blind, 0, 100, seed)
        assert posterior.model_weight < 0.01
        loss.append(best_f1(wrong) - f1_at(wrong, posterior.moved_cut(0)))
    assert np.mean(loss) < 0.03


def test_few_answers_do_no_harm_to_a_good_model() -> None:
    """What the run flagged was the best by its own, right, probabilities."""
    chance = chances(-2.0, 2.0)
    said, size = chance[GROUPS.middles], np.arange(1, ROWS + 1)
    flagged = int(size[np.argmax(2 * np.cumsum(chance) / (size + chance.sum()))])
    for count in (LEAST_ANSWERS, 100):
        change = []
        for seed in range(12):
            wrong = labels(chance, seed)
            cut = reviewed(wrong, said, flagged, count, seed).moved_cut(flagged)
            change.append(f1_at(wrong, cut) - f1_at(wrong, flagged))
        assert np.mean(change) > -0.005, count


def test_more_answers_narrow_the_interval_and_all_answers_close_it() -> None:
    chance = chances(-1.5, 1.5)
    wrong, said = labels(chance, 0), chance[GROUPS.middles]
    widths = []
    for count in (50, 200, 800, ROWS):
        rate = reviewed(wrong, said, 700, count, 0).figures(700).rate
        widths.append(rate.high - rate.low)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == 0.0
    assert rate.value == pytest.approx(wrong.mean())


def test_answered_rows_count_as_they_were_answered() -> None:
    """With every row answered the flags are the wrong ones, wherever the cut lies."""
    wrong = labels(chances(-1.5, 1.5), 1)
    ranks = np.arange(ROWS)
    posterior = fit_answers(GROUPS, None, 500, ranks, wrong, 0)
    for cut in (0, 700, ROWS):
        found = posterior.figures(cut)
        assert (found.precision.value, found.recall.value, found.f1.value) == (1.0, 1.0, 1.0)


def test_the_second_round_goes_where_the_cut_is_uncertain() -> None:
    wrong = labels(chances(-1.5, 1.5), 2)
    posterior = reviewed(wrong, None, 700, 100, 2)
    density = posterior.next_density()
    assert density.sum() == pytest.approx(1.0)
    near = np.abs(GROUPS.middles - posterior.best_cut()) < 400
    assert density[near].sum() > 1.5 * first_density(GROUPS, posterior.best_cut())[~near].sum() * near.mean()
    even = GROUPS.sizes / ROWS
    assert density[near].sum() > 1.5 * even[near].sum()
    assert (density > 0).all(), "every row keeps a chance"


def test_the_same_seed_says_the_same() -> None:
    wrong = labels(chances(-1.5, 1.5), 3)
    one, two = (reviewed(wrong, None, 700, 100, 7) for _ in range(2))
    assert one.figures(700) == two.figures(700)
    assert one.best_cut() == two.best_cut()


def test_quality_gives_back_the_model_s_probability() -> None:
    log_odds = np.linspace(-9.0, 9.0, 50)
    signals = RowSignals(
        margins=np.zeros((50, 1)), q_noisy=np.zeros(50, np.float32), leave_one_out=np.zeros(50), log_odds=log_odds
    )
    cut = DecisionThreshold(score="label_noise", value=1.25, scale=0.7)
    _, quality = cut.apply(signals)
    shift = 0.4
    assert expected_from_quality(quality, shift - 1.25, 0.7) == pytest.approx(expit(log_odds + shift))


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5, 0.95])
def test_a_rate_alone_gives_a_falling_line(rate: float) -> None:
    expected = expected_from_rate(GROUPS, rate)
    assert (expected * GROUPS.sizes).sum() / ROWS == pytest.approx(rate, abs=1e-6)
    assert (np.diff(expected) <= 0).all()
