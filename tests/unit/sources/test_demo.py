"""The demo data."""

from __future__ import annotations

from collections import Counter

import numpy as np

from dynacor_ray.core.image_decoding import load_rgb
from dynacor_ray.sources.validate import build_vocabulary, validate_rows
from tests.opened_sources import opened, whole


def test_demo() -> None:
    source = opened("demo")
    assert source.num_rows == 1797
    assert source.has_truth
    assert source.class_names == tuple("0123456789")
    table = whole(source, 700)
    assert table["uri"].to_pylist()[12] == "digits/00012"
    given, truth = table["label"].to_numpy(), table["true_label"].to_numpy()
    assert 0.17 < np.mean(given != truth) < 0.23
    assert load_rgb(table["image"][0].as_py()).shape == (32, 32, 3)
    checked = validate_rows(table, "image", build_vocabulary(Counter(given), source), None)
    assert checked.rows.num_rows == 1797
    assert checked.gray
    other = whole(opened("demo", seed=1), 2000)
    assert other["label"].to_pylist() != list(given)
    assert other["true_label"].to_pylist() == list(truth)
    assert opened("demo", seed=1).fingerprint() != source.fingerprint()
