"""Counts of flagged rows, and the noise rate that the ranking settles."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynacor_ray.core import schema
from dynacor_ray.decision.noise_rate import NoiseRate
from dynacor_ray.engine.dynamics.clustering import choose_rows, settle_noise_rate
from dynacor_ray.report.summary import FlagCounts, pair_table


def assigned(
    ids: np.ndarray, copy: np.ndarray, flags: np.ndarray, given: np.ndarray, predicted: np.ndarray
) -> pa.Table:
    return pa.table(
        {
            schema.KEY: schema.encode_key(ids, copy),
            schema.IS_LABEL_ISSUE: flags,
            schema.GIVEN_LABEL: given.astype(np.int32),
            schema.PREDICTED_LABEL: predicted.astype(np.int32),
        }
    )


def tallied(*blocks: pa.Table) -> FlagCounts:
    counts = FlagCounts(3)
    for block in blocks:
        counts.add(block)
    return counts


def test_tally_by_hand() -> None:
    table = assigned(
        np.array([0, 0, 1, 2, 3]),
        np.array([False, True, False, False, True]),
        np.array([True, True, False, True, False]),
        np.array([0, 1, 2, 2, 0]),
        np.array([1, 0, 2, 0, 0]),
    )
    counts = tallied(table)
    assert (counts.originals, counts.flagged, counts.copies, counts.copies_flagged) == (3, 2, 2, 1)
    assert counts.given.tolist() == [1, 0, 2]
    assert counts.pairs.toarray().tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(0, 60), cuts=st.lists(st.integers(0, 60), max_size=5))
def test_tally_does_not_depend_on_blocks(seed: int, rows: int, cuts: list[int]) -> None:
    random = np.random.default_rng(seed)
    table = assigned(
        np.arange(rows),
        random.random(rows) < 0.3,
        random.random(rows) < 0.5,
        random.integers(0, 3, rows),
        random.integers(0, 3, rows),
    )
    edges = [0, *sorted(min(cut, rows) for cut in cuts), rows]
    blocks = [table.slice(low, high - low) for low, high in itertools.pairwise(edges)]
    whole, split = tallied(table), tallied(*(blocks[i] for i in random.permutation(len(blocks))))
    assert (whole.originals + whole.copies) == rows
    assert whole.pairs.sum() == whole.flagged
    assert whole.given.sum() == whole.originals
    for name in ("originals", "flagged", "copies", "copies_flagged"):
        assert getattr(whole, name) == getattr(split, name)
    assert np.array_equal(whole.pairs.toarray(), split.pairs.toarray())
    assert np.array_equal(whole.given, split.given)


def test_twenty_thousand_classes_take_memory_by_what_is_flagged() -> None:
    """C x C counts would take 3.2 GB."""
    counts = FlagCounts(20_000)
    for start in range(3):
        given = np.arange(start, start + 4)
        counts.add(assigned(given, np.zeros(4, bool), np.ones(4, bool), given, given + 19_000))
    assert [(row["flagged"], row["given"]) for row in pair_table(counts.pairs, list(map(str, range(20_000))))][:3] == [
        (3, "2"),
        (3, "3"),
        (2, "1"),
    ]
    assert counts.pairs.nnz == 6


@pytest.mark.parametrize("score", ["combined_margin", "mean_margin"])
def test_the_noise_rate_is_settled_by_the_ranking(score: str) -> None:
    """20% of the originals rank as the copies do, in the margins of the score only: early epochs tell nothing."""
    random = np.random.default_rng(0)
    ids, copies = np.arange(20_000), np.arange(2_000)
    keys = np.concatenate([schema.encode_key(ids, False), schema.encode_key(copies, True)])
    wrong = np.concatenate([ids % 5 == 0, np.ones(len(copies), bool)])
    level = np.where(wrong, -4.0, 4.0) + random.normal(size=len(keys))
    left_out = level if score == "combined_margin" else np.zeros(len(keys))
    margins = np.stack([random.normal(size=len(keys)), level if score == "mean_margin" else 0.0 * level], axis=1)
    sample = pa.table(
        {
            schema.KEY: keys,
            schema.MARGIN: schema.fixed_size_list(margins.astype(np.float16)),
            schema.LEAVE_ONE_OUT: left_out.astype(np.float32),
        }
    )
    shuffled = sample.take(random.permutation(len(keys)))
    found = settle_noise_rate(NoiseRate(0.3, 0.2, 0.4, 0.2), shuffled, score, 1000)
    assert found is not None
    assert found.value == pytest.approx(0.2, rel=0.05)
    assert settle_noise_rate(None, sample, score, 1000) is None


def test_a_smaller_share_is_part_of_a_larger_one_and_keeps_copies_with_their_rows() -> None:
    ids = np.arange(4000)
    rows = pa.table({schema.KEY: np.concatenate([2 * ids, 2 * ids[:400] + 1])})
    some, fewer = (set(choose_rows(rows, share, seed=3)[schema.KEY].to_pylist()) for share in (0.5, 0.1))
    assert choose_rows(rows, 1.0, seed=3) is rows
    assert fewer < some
    assert 0.45 < len(some) / len(rows) < 0.55
    assert {key for key in some if key % 2} == {key + 1 for key in some if key % 2 == 0 and key < 800}
