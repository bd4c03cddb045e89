"""Blocks of dynamics as the label noise model reads them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from dynacor_ray.core import schema
from dynacor_ray.core.duplicates import Duplicates, TwinLabels
from dynacor_ray.decision.fitted_decision import fit_decision
from dynacor_ray.engine.dynamics.assemble import HAS_COPY
from dynacor_ray.engine.dynamics.label_noise import scored_rows, with_log_odds
from dynacor_ray.method.corruption import corrupted_label

CLASSES, SEED = 3, 5


def block(rows: int = 60) -> pa.Table:
    """Originals with their true labels, every third one with a copy, sorted by key."""
    ids = np.arange(rows)
    copied = ids[::3]
    keys = np.sort(np.concatenate([schema.encode_key(ids, False), schema.encode_key(copied, True)]))
    number, _ = schema.decode_key(keys)
    given = (number % CLASSES).astype(np.int32)
    labels = np.where(keys & 1, corrupted_label(given, number, CLASSES, SEED), given)
    classes = (labels[:, None] + np.arange(CLASSES)) % CLASSES
    noise = np.random.default_rng(0).normal(size=(len(keys), 3 * CLASSES))
    scores = np.tile(3.0 * (classes == given[:, None]), 3) + noise
    return pa.table(
        {
            schema.KEY: keys,
            schema.GIVEN_LABEL: given,
            schema.PREDICTED_LABEL: np.zeros(len(keys), np.int32),
            HAS_COPY: np.isin(number, copied),
            schema.LIKELY_CLASSES: schema.fixed_size_list(classes.astype(np.int32)),
            schema.ALL_CLASS_SCORES: schema.fixed_size_list(scores.astype(np.float16)),
        }
    )


def test_a_copy_has_its_corrupted_label_and_its_original_s_as_the_other() -> None:
    table = block()
    rows = scored_rows(table, CLASSES, SEED)
    number, is_copy = schema.decode_key(table[schema.KEY].to_numpy())
    given = table[schema.GIVEN_LABEL].to_numpy()
    corrupted = corrupted_label(given, number, CLASSES, SEED)
    assert np.array_equal(rows.labels, np.where(is_copy, corrupted, given))
    expected = np.where(is_copy, given, np.where(number % 3 == 0, corrupted, -1))
    assert np.array_equal(rows.other_labels, expected)
    assert np.array_equal(rows.is_copy, is_copy)


def test_scores_keep_their_row_and_class() -> None:
    table = block()
    flat = schema.matrix(table[schema.ALL_CLASS_SCORES])
    rows = scored_rows(table, CLASSES, SEED)
    assert rows.scores.shape == (3, table.num_rows, CLASSES)
    assert rows.scores[1, 7, 2] == flat[7, CLASSES + 2]
    assert rows.scores[2, 0, 0] == flat[0, 2 * CLASSES]


def test_log_odds_take_the_place_of_the_scores() -> None:
    table = block()
    fitted = fit_decision(scored_rows(table, CLASSES, SEED), None)
    found = with_log_odds(table, fitted, CLASSES, SEED)
    assert not {schema.ALL_CLASS_SCORES, schema.LIKELY_CLASSES} & set(found.column_names)
    is_copy = schema.decode_key(found[schema.KEY].to_numpy())[1]
    log_odds = found[schema.LOG_ODDS].to_numpy()
    assert log_odds[is_copy].min() > np.median(log_odds[~is_copy])
    assert np.array_equal(found[schema.PREDICTED_LABEL].to_numpy(), fitted.suggested(scored_rows(table, CLASSES, SEED)))
    assert found.column_names.index(schema.PREDICTED_LABEL) == table.column_names.index(schema.PREDICTED_LABEL)
    sample = with_log_odds(table.drop([schema.PREDICTED_LABEL]), fitted, CLASSES, SEED)
    assert np.array_equal(sample[schema.LOG_ODDS].to_numpy(), log_odds)


def test_a_row_has_the_labels_of_its_twins_and_a_copy_those_of_its_original() -> None:
    table = block()
    given = np.arange(60) % CLASSES
    group = np.array([0, 4, 8])  # with labels 0, 1 and 2; 0 has a copy
    twins = TwinLabels.of(Duplicates(group, np.zeros(3, np.int64)), given[group], np.ones(3, bool))
    rows = scored_rows(table, CLASSES, SEED, twins)
    number, is_copy = schema.decode_key(table[schema.KEY].to_numpy())
    assert rows.twins is not None
    assert rows.twins[number == 0].toarray().tolist() == [[0, 1, 1], [0, 1, 1]]
    assert rows.twins[number == 4].toarray().tolist() == [[1, 0, 1]]
    assert not rows.twins[~np.isin(number, group)].sum()
    assert is_copy[number == 0].tolist() == [False, True]
