from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynacor_ray.core.errors import ConfigError
from dynacor_ray.decision.thresholds import (
    MOST_RECALL,
    DecisionThreshold,
    RowSignals,
    assignment_quality,
    choose_threshold,
    common_unit,
    quantile_threshold,
    row_score,
)

SCORES = st.floats(0, 1, width=32)
MARGINS = st.floats(-65504, 65504, width=32)
EXACT = 2.0**-24
"""Below this q, 1 - q has no more digits to tell two float32 numbers apart."""


def quality_of(*rows: tuple[float, float]) -> list[float]:
    q, margin = np.array(rows, np.float32).T
    found: list[float] = assignment_quality(q, margin).tolist()
    return found


@given(q=SCORES, margin=MARGINS)
def test_quality_is_one_minus_q(q: float, margin: float) -> None:
    (quality,) = quality_of((q, margin))
    assert 0 <= quality <= 1
    assert quality == pytest.approx(1 - q, abs=2**-24)
    assert (quality < 0.5) == (q > 0.5), "flag and quality say the same"


@given(a=SCORES, b=SCORES, margin_a=MARGINS, margin_b=MARGINS)
def test_a_margin_never_changes_the_order_of_different_scores(
    a: float, b: float, margin_a: float, margin_b: float
) -> None:
    first, second = quality_of((max(a, b), margin_a), (min(a, b), margin_b))
    if a != b:
        assert first <= second
        assert first < second or max(a, b) < EXACT


@given(q=SCORES, margin_a=MARGINS, margin_b=MARGINS, steps=st.integers(1, 3))
def test_neighboring_scores_keep_their_order(q: float, margin_a: float, margin_b: float, steps: int) -> None:
    above = np.float32(q)
    for _ in range(steps):
        above = np.nextafter(above, np.float32(1))
    if above > q:
        low, high = quality_of((float(above), margin_a), (q, margin_b))
        assert low <= high
        assert low < high or above < EXACT


@given(q=SCORES, margin_a=MARGINS, margin_b=MARGINS)
def test_equal_scores_are_ordered_by_margin(q: float, margin_a: float, margin_b: float) -> None:
    low, high = quality_of((q, min(margin_a, margin_b)), (q, max(margin_a, margin_b)))
    assert low <= high
    apart = max(margin_a, margin_b) - min(margin_a, margin_b) > 1e-3
    if q >= 0.125 and apart and max(abs(margin_a), abs(margin_b)) < 10:
        assert low < high


def test_certain_scores_are_ordered_too() -> None:
    wrong = quality_of((1, -5), (1, -1), (1, 0), (1, 5))
    assert wrong == sorted(set(wrong))
    assert wrong[0] >= 0
    assert quality_of((0, 3), (0, -3)) == [1, 1]


MARGIN_ROWS = np.array([[3.0, 1.0, 2.0, 0.0], [-1.0, -3.0, 4.0, 8.0], [0.0, 0.5, 0.0, 0.0]], np.float16)
Q = np.array([0.2, 0.7, 0.5], np.float32)
ROWS = RowSignals(margins=MARGIN_ROWS, q_noisy=Q, leave_one_out=np.array([0.5, -0.25, 0.0], np.float32))


def with_margins(scores: np.ndarray) -> RowSignals:
    """Rows of one epoch, about which nothing else is known."""
    nothing = np.zeros(len(scores), np.float32)
    return RowSignals(margins=scores[:, None], q_noisy=nothing, leave_one_out=nothing)


def test_scores_of_a_case_worked_by_hand() -> None:
    assert row_score("early_margin", ROWS).tolist() == [2.0, -2.0, 0.25]
    assert row_score("mean_margin", ROWS).tolist() == [1.5, 2.0, 0.125]
    assert row_score("leave_one_out", ROWS).tolist() == [0.5, -0.25, 0.0]
    assert row_score("combined_margin", ROWS, 4.0).tolist() == [4.0, -3.0, 0.25]
    assert row_score("soft_assignment", ROWS) == pytest.approx([0.8, 0.3, 0.5], abs=1e-6)
    one_epoch = with_margins(MARGIN_ROWS[:, 0])
    assert row_score("early_margin", one_epoch).tolist() == [3.0, -1.0, 0.0], "one epoch is all there is"
    with pytest.raises(ConfigError, match=r"a score among label_noise, .*, but got 'q'"):
        row_score("q", ROWS)


def test_two_margins_are_brought_to_one_unit() -> None:
    random = np.random.default_rng(0)
    early, left_out = random.normal(1, 3, 20_000), random.normal(-1, 0.2, 20_000).astype(np.float32)
    rows = RowSignals(margins=early[:, None], q_noisy=np.zeros(20_000, np.float32), leave_one_out=left_out)
    assert common_unit(rows) == pytest.approx(15.0, rel=0.05)
    cut = choose_threshold("noise_rate", "combined_margin", rows, rows.of(np.arange(20_000) < 50), noise_rate=0.1)
    assert cut.weight == common_unit(rows)
    flags, quality = cut.apply(rows)
    assert flags.mean() == pytest.approx(0.1)
    assert (np.diff((early + cut.weight * left_out)[np.argsort(quality)]) > -1e-4).all()
    assert np.array_equal(flags[:50], cut.apply(rows.of(np.arange(20_000) < 50))[0]), "a block is cut as the whole is"


def test_without_a_leave_one_out_margin_the_early_one_decides() -> None:
    rows = with_margins(np.array([3.0, -1.0, 0.5]))
    cut = choose_threshold("noise_rate", "combined_margin", rows, rows, noise_rate=1 / 3)
    assert cut.weight == 0.0
    assert cut.apply(rows)[0].tolist() == [False, True, False]


@given(
    scores=st.lists(st.floats(-1e4, 1e4, width=16), min_size=1, max_size=60, unique=True),
    share=st.floats(0, 1),
)
def test_the_cut_flags_the_share_of_distinct_scores(scores: list[float], share: float) -> None:
    values = np.array(scores)
    assert (values < quantile_threshold(values, share)).sum() == round(share * len(values))


@given(
    scores=st.lists(st.floats(-100, 100), min_size=2, max_size=40),
    value=st.floats(-100, 100),
    scale=st.floats(1e-3, 1e3),
)
def test_flags_quality_and_score_say_the_same(scores: list[float], value: float, scale: float) -> None:
    flags, quality = DecisionThreshold(score="mean_margin", value=value, scale=scale).apply(
        with_margins(np.array(scores))
    )
    assert np.array_equal(flags, np.array(scores) < value)
    assert np.array_equal(flags, quality < 0.5)
    assert ((quality >= 0) & (quality <= 1)).all()
    order = np.argsort(scores, kind="stable")
    assert (np.diff(quality[order]) > -1e-15).all(), "the quality ranks as the score does, but for its last bit"


def test_each_policy_cuts_where_it_says() -> None:
    random = np.random.default_rng(0)
    originals, copies = random.normal(2, 1, 5000), random.normal(-1, 1, 500)
    both = with_margins(originals), with_margins(copies)
    by_rate = choose_threshold("noise_rate", "mean_margin", *both, noise_rate=0.1)
    assert by_rate.value is not None
    assert (originals < by_rate.value).mean() == pytest.approx(0.1)
    wild = choose_threshold("noise_rate", "mean_margin", *both, noise_rate=1.0)
    assert wild.value is not None
    assert (copies < wild.value).mean() == pytest.approx(MOST_RECALL), "no more than nearly all planted errors ask for"
    assert (originals < wild.value).mean() < 0.5
    bounded = choose_threshold("noise_rate", "mean_margin", *both, noise_rate=1.0, most_recall=0.9)
    by_recall = choose_threshold("corrupted_recall", "mean_margin", *both, target_recall=0.9)
    assert bounded.value == by_recall.value
    assert by_recall.value is not None
    assert (copies < by_recall.value).mean() == pytest.approx(0.9)
    paper = choose_threshold("paper", "soft_assignment", *both)
    flags, quality = paper.apply(ROWS)
    assert flags.tolist() == [False, True, False]
    assert (quality < 0.5).tolist() == flags.tolist()


def test_constant_scores_are_cut_without_dividing_by_their_spread() -> None:
    same = with_margins(np.ones(10))
    cut = choose_threshold("noise_rate", "combined_margin", same, with_margins(np.ones(2)), noise_rate=0.0)
    flags, quality = cut.apply(same)
    assert not flags.any()
    assert np.isfinite(quality).all()


def test_what_cannot_be_cut_is_refused() -> None:
    scores = with_margins(np.zeros(3))
    with pytest.raises(ConfigError, match=r"among label_noise_model, noise_rate, .*, paper, but got 'otsu'"):
        choose_threshold("otsu", "mean_margin", scores, scores)
    with pytest.raises(ConfigError, match="an estimate of the noise rate, but got none"):
        choose_threshold("noise_rate", "mean_margin", scores, scores)
    with pytest.raises(ConfigError, match=r"the score soft_assignment for Eq\. 4, but got 'mean_margin'"):
        choose_threshold("paper", "mean_margin", scores, scores)


def mixture_cut(scores: np.ndarray) -> float:
    value = choose_threshold("mixture", "early_margin", with_margins(scores), with_margins(scores[:9])).value
    assert value is not None
    return value


def test_a_score_that_says_nothing_is_refused() -> None:
    rows = with_margins(np.array([3.0, -1.0, 0.5]))
    with pytest.raises(ConfigError, match=r"leave-one-out margins, but got none.*choose another score"):
        choose_threshold("corrupted_recall", "leave_one_out", rows, rows)


def test_a_mixture_is_cut_between_its_components() -> None:
    """Two Gaussians of equal weight and spread are equally likely half-way between their means."""
    random = np.random.default_rng(0)
    scores = np.concatenate([random.normal(-4, 1, 20_000), random.normal(6, 1, 20_000)])
    assert mixture_cut(scores) == pytest.approx(1.0, abs=0.1)
    few = np.concatenate([random.normal(-4, 1, 2_000), random.normal(6, 1, 38_000)])
    cut = mixture_cut(few)
    # log(w1/w2) moves the point where both are equally likely: (log 19)/(distance of the means) below the middle
    assert cut == pytest.approx(1.0 - np.log(19) / 10, abs=0.15)


def test_a_mixture_of_equal_scores_flags_nothing() -> None:
    assert not (np.full(50, 3.0) < mixture_cut(np.full(50, 3.0))).any()


def test_a_mixture_does_not_depend_on_the_order_of_rows() -> None:
    scores = np.random.default_rng(1).normal(size=500)
    cuts = {mixture_cut(order) for order in (scores, scores[::-1].copy())}
    assert len(cuts) == 1
