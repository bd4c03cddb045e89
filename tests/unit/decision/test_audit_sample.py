"""The rows of an audit: as many as asked for, none twice, each with the chance that is said."""

from __future__ import annotations

import numpy as np
import pytest

from dynacor_ray.core.errors import ConfigError
from dynacor_ray.decision.audit_sample import GROUPS, NEAR, RankGroups, draw_audit, first_density


@pytest.mark.parametrize("rows", [1, 2, 7, 200, 8_000, 100_000_000])
def test_groups_hold_every_rank_once(rows: int) -> None:
    groups = RankGroups.of(rows)
    assert groups.num_rows == rows == groups.sizes.sum()
    assert (groups.sizes >= 1).all()
    assert len(groups.sizes) == rows if rows <= 200 else len(groups.sizes) <= 2 * GROUPS
    assert groups.at(groups.middles).tolist() == list(range(len(groups.sizes)))
    assert np.isfinite(groups.log_odds).all()
    assert [np.isfinite(groups.cut_log_odds(flagged)) for flagged in (0, rows)] == [True, True]


def test_of_many_rows_the_likeliest_errors_keep_small_groups() -> None:
    """Of 100 million rows with 0.01% flagged the cut must not fall into a group as large as all of these."""
    groups = RankGroups.of(100_000_000)
    at = groups.at(np.array([10_000]))
    assert groups.sizes[at][0] < 2_000


@pytest.mark.parametrize(("rows", "flagged"), [(300, 0), (300, 30), (300, 300), (5_000, 400), (100_000_000, 1_000_000)])
def test_a_first_sample_looks_everywhere_and_more_near_the_cut(rows: int, flagged: int) -> None:
    groups = RankGroups.of(rows)
    density = first_density(groups, flagged)
    assert density.sum() == pytest.approx(1.0)
    sample = draw_audit(groups, density, 100, seed=3)
    assert len(np.unique(sample.ranks)) == len(sample.ranks) == 100
    assert sample.ranks.min() >= 0
    assert sample.ranks.max() < rows
    assert ((sample.probability > 0) & (sample.probability <= 1)).all()
    lower_half = (sample.ranks >= rows // 2).sum()
    assert lower_half >= 100 * (1 - NEAR) / 2 - 2, "evenly over the whole ranking"
    again = draw_audit(groups, density, 100, seed=3)
    assert sample.ranks.tolist() == again.ranks.tolist()
    assert sample.ranks.tolist() != draw_audit(groups, density, 100, seed=4).ranks.tolist()


def test_each_row_is_drawn_as_often_as_is_said() -> None:
    groups = RankGroups.of(60)
    density = first_density(groups, 12)
    counts, said = np.zeros(60), np.zeros(60)
    for seed in range(1500):
        sample = draw_audit(groups, density, 20, seed, np.array([5, 40]))
        counts[sample.ranks] += 1
        said[sample.ranks] = sample.probability
    assert counts[[5, 40]].tolist() == [0, 0], "not those that were asked about before"
    assert said.sum() == pytest.approx(20)
    assert np.abs(counts / 1500 - said).max() < 0.04


def test_first_answers_are_a_sample_too() -> None:
    """The order is random: the first 30 of 100 lie as the others do."""
    groups = RankGroups.of(10_000)
    firsts = [draw_audit(groups, first_density(groups, 1_000), 100, seed).ranks for seed in range(40)]
    first, rest = (np.concatenate([ranks[part] for ranks in firsts]) for part in (slice(30), slice(30, None)))
    assert abs(first.mean() - rest.mean()) < 400


def test_small_data_are_drawn_whole_and_then_nothing_is_left() -> None:
    groups = RankGroups.of(30)
    sample = draw_audit(groups, first_density(groups, 3), 100, 0)
    assert sorted(sample.ranks.tolist()) == list(range(30))
    assert (sample.probability == 1).all()
    with pytest.raises(ConfigError, match="a sample of 1 row or more, but got 100 of 0 rows"):
        draw_audit(groups, first_density(groups, 3), 100, 0, sample.ranks)
    with pytest.raises(ConfigError, match="but got 0 of 30 rows"):
        draw_audit(groups, first_density(groups, 3), 0, 0)
