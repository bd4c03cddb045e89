"""How sure a share of a sample is."""

from __future__ import annotations

import math

_Z = 1.959963984540054
"""Standard normal quantile of a two-sided interval of 95%."""


def wilson_interval(hits: int, total: int) -> tuple[float, float]:
    """95% interval of a share by Wilson's score (1927): `(p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n)`.

    hits of total >= 1 trials. Returns low and high in [0, 1].

    >>> tuple(round(end, 3) for end in wilson_interval(35, 40))
    (0.739, 0.945)
    """
    share, square = hits / total, _Z * _Z / total
    middle = share + square / 2
    spread = _Z * math.sqrt(share * (1 - share) / total + square / (4 * total))
    low, high = ((middle + sign * spread) / (1 + square) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)
