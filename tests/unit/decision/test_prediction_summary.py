"""The class predicted most often, and how often."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dynacor_ray.core.errors import DataError
from dynacor_ray.decision.prediction_summary import summarize_predictions


def test_summary_of_predictions_by_hand() -> None:
    predicted = np.array([[1, 1, 2, 1], [3, 0, 0, 3], [0, 3, 3, 0], [5, 4, 3, 2]], dtype=np.int32)
    mode, share = summarize_predictions(predicted)
    assert mode.tolist() == [1, 3, 0, 2]
    assert share.tolist() == [0.75, 0.5, 0.5, 0.25]
    assert (mode.dtype, share.dtype) == (np.int32, np.float32)


@settings(deadline=None)
@given(hnp.arrays(np.int32, st.tuples(st.integers(0, 12), st.integers(1, 9)), elements=st.integers(0, 4)))
def test_summary_of_predictions_against_a_loop(predicted: np.ndarray) -> None:
    mode, share = summarize_predictions(predicted)
    for row, label, part in zip(predicted.tolist(), mode.tolist(), share.tolist(), strict=True):
        counts = Counter(row)
        most = max(counts.values())
        latest = next(c for c in reversed(row) if counts[c] == most)
        assert label == latest
        assert part == pytest.approx(most / len(row))


def test_predictions_without_epochs_are_refused() -> None:
    with pytest.raises(DataError, match="at least one epoch"):
        summarize_predictions(np.zeros((3, 0), dtype=np.int32))
