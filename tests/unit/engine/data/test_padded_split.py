"""Rows of padding: as few as make shares equal, and of the type of the others."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from dynacor_ray.core import schema
from dynacor_ray.core.storage import locate
from dynacor_ray.engine.data.padded_split import missing_rows, padding_rows
from dynacor_ray.engine.data.row_facts import RowFacts
from dynacor_ray.engine.training.job import Job, TrainConfig
from tests.plans import plan_of


def test_padding_rows_have_the_type_of_the_others() -> None:
    assert padding_rows(2, 12, "uint8").schema.field(schema.FEATURE).type == pa.list_(pa.uint8(), 12)
    assert padding_rows(2, 12).schema.field(schema.FEATURE).type == schema.feature_field(12).type


def test_padding_rows_have_the_columns_of_weighted_rows() -> None:
    assert padding_rows(2, 1, weighted=True)[schema.WEIGHT].to_pylist() == [0.0, 0.0]
    assert schema.WEIGHT not in padding_rows(2, 1).column_names


@given(total=st.integers(1, 10**9), workers=st.integers(1, 4096))
def test_padding_is_the_least_that_makes_shares_equal(total: int, workers: int) -> None:
    rows = RowFacts(total, 0, 3, 2, np.zeros(2, np.float32), 1.0, np.array([total, 0, 0]))
    job = Job(TrainConfig(batch_size=workers), plan_of(workers), locate("/nowhere"), rows)
    assert total + missing_rows(total, workers) == job.rows_per_rank * workers
    assert 0 <= missing_rows(total, workers) < workers
