"""How sure a share of a sample is."""

from __future__ import annotations


def wilson_interval(hits: int, total: int) -> tuple[float, float]:
    """95% interval of the share of `hits` in `total` >= 1 trials by Wilson's score (1927): low and high in [0, 1]."""
    from scipy.stats import binomtest  # its import takes long, and only reviews need it

    found = binomtest(hits, total).proportion_ci(confidence_level=0.95, method="wilson")
    return float(found.low), float(found.high)
