"""Positions in sorted arrays against a plain search."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dynacor_ray.core.arrays import sorted_positions

integers = st.lists(st.integers(-5, 12), unique=True, max_size=8)


@settings(deadline=None)
@given(integers, integers)
def test_positions_are_those_of_a_plain_search(known: list[int], values: list[int]) -> None:
    ordered = sorted(known)
    expected = [ordered.index(value) if value in ordered else -1 for value in values]
    assert sorted_positions(np.array(ordered, np.int64), np.array(values, np.int64)).tolist() == expected
