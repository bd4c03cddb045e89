"""Which rows a person is asked about: a sample of a whole ranking, each row with a known chance (ours).

Rows are ranked, likely errors first. What is to be learned lies in two places: how many labels are wrong, anywhere in
the ranking, and where right and wrong labels are as frequent, near the cut. So part of a sample is spread evenly over
all rows and the rest over the ranks near the cut. A row's chance depends on its rank alone: whatever is fitted as a
function of the rank needs no weights.

The rows are those of a systematic sample with these chances (Madow 1949): as many as asked for, none twice.

Cost: nothing to speak of. Ranks are kept in some 1,000 groups, whatever N.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from dynacor_ray.core.errors import ConfigError, expected_got
from dynacor_ray.core.rng import Purpose, derive_seed

GROUPS = 500
"""Groups of equal size, and as many of equal width in log odds of the rank, which are small at both ends."""
NEAR = 1 / 3
"""Share of a first sample that is drawn near the cut; the rest is spread evenly."""
BAND = 1.0
"""How near: log odds of the rank on both sides of the cut."""


@dataclass(frozen=True)
class RankGroups:
    """N ranks in G consecutive groups. edges: int64 (G + 1,), from 0 to N, increasing."""

    edges: NDArray[np.int64]

    @classmethod
    def of(cls, num_rows: int) -> RankGroups:
        """Groups of `num_rows` >= 1 ranks; each is one rank where there are few."""
        wide = logit(0.5 / num_rows) * np.linspace(1.0, -1.0, GROUPS)
        shares = np.concatenate([np.linspace(0.0, 1.0, GROUPS + 1), expit(wide)])
        return cls(np.unique(np.round(shares * num_rows).astype(np.int64)))

    @property
    def num_rows(self) -> int:
        """N."""
        return int(self.edges[-1])

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Ranks per group, int64 (G,), at least 1."""
        return np.diff(self.edges)

    @property
    def middles(self) -> NDArray[np.int64]:
        """A rank in the middle of each group, int64 (G,)."""
        middle: NDArray[np.int64] = self.edges[:-1] + (self.sizes - 1) // 2
        return middle

    @property
    def log_odds(self) -> NDArray[np.float64]:
        """log of rows before over rows after the middle of each group, float64 (G,)."""
        middle: NDArray[np.float64] = logit((self.edges[:-1] + self.edges[1:]) / 2.0 / self.num_rows)
        return middle

    def at(self, ranks: NDArray[np.int64]) -> NDArray[np.int64]:
        """The group of each rank, int64 (n,)."""
        return np.searchsorted(self.edges, ranks, side="right") - 1

    def cut_log_odds(self, num_flagged: int) -> float:
        """log of flagged over other rows; finite also where none or all are flagged."""
        return float(logit(min(max(num_flagged, 0.5), self.num_rows - 0.5) / self.num_rows))


@dataclass(frozen=True)
class AuditSample:
    """Drawn ranks in random order: the first n of them are a sample too. int64 (n,), float64 (n,) in (0, 1]."""

    ranks: NDArray[np.int64]
    probability: NDArray[np.float64]
    """Chance of each to be drawn."""


def first_density(groups: RankGroups, num_flagged: int) -> NDArray[np.float64]:
    """Share of a first sample per group, float64 (G,), sums to 1: `NEAR` of it near the cut, the rest evenly."""
    middle, n = groups.cut_log_odds(num_flagged), groups.num_rows
    ends = np.clip(groups.edges / n, expit(middle - BAND), expit(middle + BAND))
    density: NDArray[np.float64] = (1.0 - NEAR) * groups.sizes / n + NEAR * np.diff(ends) / (ends[-1] - ends[0])
    return density


def draw_audit(
    groups: RankGroups, density: NDArray[np.float64], count: int, seed: int, taken: NDArray[np.int64] | None = None
) -> AuditSample:
    """Draw `count` ranks, or all that are left.

    Args:
        groups: Of all ranks.
        density: Share of the sample per group, float64 (G,).
        count: At least 1.
        seed: Of the draw.
        taken: Ranks that were drawn before, int64 (m,), distinct; they are not drawn again.

    Raises:
        ConfigError: `count` is below 1, or nothing is left.
    """
    before = np.zeros(0, np.int64) if taken is None else np.sort(taken)
    left = groups.sizes - np.bincount(groups.at(before), minlength=len(groups.sizes))
    if count < 1 or not left.any():
        got = f"{count} of {left.sum():,} rows that no one was asked about"
        raise ConfigError(expected_got("a sample of 1 row or more", got, "draw fewer, or read the answers"))
    chance = _chances(density, groups.sizes, left, min(count, int(left.sum())))
    rng = np.random.default_rng(derive_seed(seed, int(Purpose.REVIEW_SAMPLE), len(before)))
    ends = np.cumsum(chance * left)
    points = np.arange(min(count, int(left.sum()))) + rng.random()
    group = np.searchsorted(ends, points * (ends[-1] / len(points)), side="right")
    group = np.minimum(group, np.flatnonzero(left)[-1])
    within = (points * (ends[-1] / len(points)) - (ends - chance * left)[group]) / chance[group]
    free = np.concatenate([[0], np.cumsum(left)])[group] + np.clip(within.astype(np.int64), 0, left[group] - 1)
    ranks = free + np.searchsorted(before - np.arange(len(before)), free, side="right")
    order = rng.permutation(len(ranks))
    return AuditSample(ranks[order], chance[group][order])


def _chances(
    density: NDArray[np.float64], sizes: NDArray[np.int64], left: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """Chance of each row of a group, float64 (G,): as the density says, at most 1, `count` in all."""
    each = np.maximum(density / sizes, 1e-12)
    chance, sure = np.zeros(len(each)), np.zeros(len(each), bool)
    while True:
        open_count = count - left[sure].sum()
        chance = np.where(sure, 1.0, each * open_count / max(float((each * left)[~sure].sum()), 1e-300))
        if not (more := (chance > 1.0) & ~sure).any():
            return np.minimum(chance, 1.0)
        sure |= more
