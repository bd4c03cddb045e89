"""Column names, table schemas and the key of a training row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

INSTANCE_ID = "instance_id"
URI = "uri"
GIVEN_LABEL = "given_label"
TRUE_LABEL = "true_label"
IMAGE = "image"
FEATURE = "feature"
KEY = "key"
MARGIN = "margin"
PREDICTED = "predicted"
PREDICTED_SHARE = "predicted_share"
PROBABILITY = "probability"
WEIGHT = "weight"
PREDICTED_LABEL = "predicted_label"
DUPLICATE_OF = "duplicate_of"
IS_LABEL_ISSUE = "is_label_issue"
LABEL_QUALITY = "label_quality"
NOISE_SCORE = "noise_score"
WRONG_PROBABILITY = "wrong_probability"
MARK = "mark"
MEAN_MARGIN = "mean_margin"
LEAVE_ONE_OUT = "leave_one_out_margin"
LEAVE_ONE_OUT_EPOCH = 1
"""The ridge regression is accumulated in the first epoch and evaluated in the second."""
EARLY_EPOCHS = range(1, 5)
"""Epochs whose logits are recorded for the label noise model: most classes are known, few wrong labels memorized."""
RIDGE_SCORES, WIDE_RIDGE_SCORES, EARLY_LOGITS = "ridge_scores", "wide_ridge_scores", "early_logits"
CLASS_SCORES = (RIDGE_SCORES, WIDE_RIDGE_SCORES, EARLY_LOGITS)
"""Scores of the likely classes that the label noise model reads, float16 (K,) per row: two leave-one-out ridge
regressions, and the network's logits less their mean over all classes."""
LIKELY_CLASSES = "likely_classes"
"""Which classes these are of, int32 (K,): first the row's label, then the most probable others."""
ALL_CLASS_SCORES = "class_scores"
"""The three of a row one after the other, float16 (3 K,)."""
LOG_ODDS = "log_odds"
"""log P(wrong) / P(right) of a label by the label noise model."""

MAX_INSTANCE_ID = (1 << 62) - 1
"""Largest instance_id: one bit of an int64 key says whether a row is a corrupted copy."""
BYTES_PER_SIGNAL = 12
"""Upper bound of what one signal takes on disk in all its forms; 8 were measured with 27,519 rows and 20 epochs."""

# Raw rows: what a source hands to ingest, before labels are encoded and invalid rows quarantined.
RAW_ROW = "row"
RAW_LABEL = "label"
RAW_ERROR = "error"
REASON = "reason"


def encode_key(instance_id: NDArray[np.int64], is_corrupted: NDArray[np.bool_] | bool) -> NDArray[np.int64]:
    """`key = instance_id << 1 | is_corrupted`. int64 (N,) and bool (N,) or scalar -> int64 (N,).

    >>> encode_key(np.array([5, 5, 6]), np.array([False, True, False]))
    array([10, 11, 12])
    """
    return (np.asarray(instance_id, dtype=np.int64) << 1) | np.asarray(is_corrupted, dtype=np.int64)


def decode_key(key: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Inverse of `encode_key`: (instance_id int64 (N,), is_corrupted bool (N,)).

    >>> decode_key(np.array([10, 11]))
    (array([5, 5]), array([False,  True]))
    """
    key = np.asarray(key, dtype=np.int64)
    return key >> 1, (key & 1).astype(np.bool_)


def dataset_schema(feature_dim: int | None) -> pa.Schema:
    """Schema of `dataset/`: images when `feature_dim` is None, else feature vectors of that length."""
    payload = pa.field(IMAGE, pa.binary()) if feature_dim is None else feature_field(feature_dim)
    return pa.schema(
        [
            pa.field(INSTANCE_ID, pa.int64(), nullable=False),
            pa.field(URI, pa.string()),
            pa.field(GIVEN_LABEL, pa.int32(), nullable=False),
            payload,
        ]
    )


def feature_field(dim: int) -> pa.Field[Any]:
    """Column of float32 vectors of length `dim`, as bytes: parquet writes lists value by value, six times as slow."""
    return pa.field(FEATURE, pa.binary(4 * dim), nullable=False)


def feature_column(values: NDArray[np.float32]) -> pa.FixedSizeBinaryArray:
    """Vectors float32 (N, D), D >= 1, as a column of `feature_field`; no copy if they are contiguous."""
    rows = np.ascontiguousarray(values, "<f4")
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(4 * rows.shape[1]), len(rows), [None, pa.py_buffer(rows)])


def quarantine_schema() -> pa.Schema:
    """Schema of `quarantine.parquet`: row in the source, its uri where known, and why it is invalid."""
    return pa.schema([(RAW_ROW, pa.int64()), (URI, pa.string()), (REASON, pa.string())])


def truth_schema() -> pa.Schema:
    """Schema of `truth.parquet`, kept apart from everything that a detector reads."""
    return pa.schema([(INSTANCE_ID, pa.int64()), (TRUE_LABEL, pa.int32())])


def duplicates_schema() -> pa.Schema:
    """Schema of `duplicates.parquet`: rows with a twin, and the smallest id of their group."""
    return pa.schema([(INSTANCE_ID, pa.int64()), (DUPLICATE_OF, pa.int64())])


def signal_schema(leave_one_out: bool = False) -> pa.Schema:
    """Schema of one signal file: one row per key, sorted by key. One epoch also has the leave-one-out margin."""
    more = [(LEAVE_ONE_OUT, pa.float32())] if leave_one_out else []
    return pa.schema([(KEY, pa.int64()), (MARGIN, pa.float16()), (PREDICTED, pa.int32()), *more])


def dynamics_schema(num_epochs: int) -> pa.Schema:
    """Schema of `dynamics.parquet`, Eq. 1: one row per original instance and per corrupted copy."""
    return pa.schema(
        [
            (KEY, pa.int64()),
            (MARGIN, pa.list_(pa.float16(), num_epochs)),
            (PREDICTED_LABEL, pa.int32()),
            (PREDICTED_SHARE, pa.float32()),
            (LEAVE_ONE_OUT, pa.float32()),
        ]
    )


def issues_schema() -> pa.Schema:
    """Schema of `issues.parquet`: cleanlab's column names first, then ours."""
    return pa.schema(
        [
            (INSTANCE_ID, pa.int64()),
            (URI, pa.string()),
            (GIVEN_LABEL, pa.int32()),
            (PREDICTED_LABEL, pa.int32()),
            (IS_LABEL_ISSUE, pa.bool_()),
            (LABEL_QUALITY, pa.float64()),
            (NOISE_SCORE, pa.float32()),
            (MEAN_MARGIN, pa.float32()),
            (PREDICTED_SHARE, pa.float32()),
            (DUPLICATE_OF, pa.int64()),
        ]
    )


def reviewed_schema() -> pa.Schema:
    """Schema of `reviewed_issues.parquet`: flags and quality after a person's answers, P(wrong), and the answer."""
    return issues_schema().append(pa.field(WRONG_PROBABILITY, pa.float64())).append(pa.field(MARK, pa.string()))


def fixed_size_list(values: NDArray[Any]) -> pa.FixedSizeListArray[Any]:
    """A 2-d array (N, D) as an Arrow column of N lists of length D; no copy if it is contiguous."""
    flat = np.ascontiguousarray(values).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), values.shape[1])


def matrix(column: pa.ChunkedArray[Any] | pa.Array[Any]) -> NDArray[Any]:
    """An Arrow column of equal-length lists, or one of `feature_field`, as a 2-d array (N, D)."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    if pa.types.is_fixed_size_binary(column.type):
        width, kind = column.type.byte_width // 4, np.float32
        parts = [_vectors(chunk, width) for chunk in chunks if len(chunk)]
    else:
        width, kind = column.type.list_size, column.type.value_type.to_pandas_dtype()
        parts = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, width) for chunk in chunks]
    if not parts:
        return np.empty((0, width), kind)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _vectors(chunk: pa.FixedSizeBinaryArray, width: int) -> NDArray[np.float32]:
    flat: NDArray[np.float32] = np.frombuffer(chunk.buffers()[1], "<f4", len(chunk) * width, 4 * chunk.offset * width)
    return flat.reshape(-1, width)
