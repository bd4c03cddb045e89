"""Rows are kept or quarantined with a reason; vocabularies are sensible; limits are enforced."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dynacor_ray.core import schema
from dynacor_ray.core.errors import DataError
from dynacor_ray.sources.base import Shard, Source
from dynacor_ray.sources.validate import (
    LabelVocabulary,
    Validated,
    build_vocabulary,
    check_quarantine,
    check_unique_ids,
    feature_dim_of,
    reason_kind,
    validate_rows,
    vocabulary_warnings,
)

VOCABULARY = LabelVocabulary(("cat", "dog"), {"cat": 0, "dog": 1})


class Fake(Source):
    name, uri, kind, num_rows = "fake", "fake", "image", 0

    def __init__(self, names: tuple[str, ...] | None = None) -> None:
        self.class_names = names

    def fingerprint(self) -> str:
        return ""

    def shards(self, max_rows: int) -> list[Shard]:
        return []


def png(width: int = 4, height: int = 3, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def raw(labels: list[str | None], errors: list[str | None] | None = None, **columns: Any) -> pa.Table:
    rows = len(labels)
    return pa.table(
        {
            "row": pa.array(range(rows), pa.int64()),
            "uri": pa.array([f"u{i}" for i in range(rows)]),
            "label": pa.array(labels, pa.string()),
            "error": pa.array(errors or [None] * rows, pa.string()),
            **columns,
        }
    )


def reasons(checked: Validated) -> dict[int, str]:
    table = checked.quarantine
    return dict(zip(table["row"].to_pylist(), table["reason"].to_pylist(), strict=True))


def test_images_good_and_bad() -> None:
    labels = ["cat", "dog", None, "cow", "dog", "cat", "dog"]
    errors = [None, None, None, None, "missing file", None, None]
    images = [png(), png(9, 8), png(), png(), None, b"text", None]
    checked = validate_rows(raw(labels, errors, image=pa.array(images, pa.binary())), "image", VOCABULARY, None)
    assert checked.rows.schema == schema.dataset_schema(None)
    assert checked.rows["instance_id"].to_pylist() == [0, 1]
    assert checked.rows["given_label"].to_pylist() == [0, 1]
    assert checked.rows["image"].to_pylist() == images[:2]
    assert checked.quarantine.schema == schema.quarantine_schema()
    assert reasons(checked) == {
        2: "missing label",
        3: "label 'cow' is not among the 2 classes",
        4: "missing file",
        5: "not an image",
        6: "missing image",
    }
    assert checked.truth is None
    assert checked.max_side == 9
    assert not checked.gray


def test_gray_images() -> None:
    checked = validate_rows(raw(["cat"], image=pa.array([png(mode="L")])), "image", VOCABULARY, None)
    assert checked.gray
    assert checked.max_side == 4


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float16()), pa.list_(pa.float32(), 2)],
    ids=str,
)
def test_features_good_and_bad(kind: pa.DataType) -> None:
    values: list[Any] = [[1, 2], None, [np.nan, 1], [0, np.inf], [3, 4], [None, 1]]
    column = pa.array([v and [None if x is None else np.float16(x) for x in v] for v in values], kind)
    checked = validate_rows(raw(["cat"] * 6, feature=column), "feature", VOCABULARY, 2)
    assert checked.rows.schema == schema.dataset_schema(2)
    np.testing.assert_array_equal(schema.matrix(checked.rows["feature"]), [[1, 2], [3, 4]])
    bad = "feature has NaN or infinite values"
    assert reasons(checked) == {1: "missing feature", 2: bad, 3: bad, 5: bad}
    assert checked.max_side is None


def test_features_of_other_length() -> None:
    column = pa.chunked_array([[[1.0, 2.0], [1.0, 2.0, 3.0]], [[], [4.0, 5.0]]])
    table = raw(["cat", "dog", "cat", "dog"], feature=column)
    assert feature_dim_of(table) == 2
    checked = validate_rows(table, "feature", VOCABULARY, 2)
    assert reasons(checked) == {1: "feature has 3 values, expected 2", 2: "feature has 0 values, expected 2"}
    assert checked.rows["instance_id"].to_pylist() == [0, 3]


def test_doubles_beyond_float32_are_set_aside() -> None:
    checked = validate_rows(raw(["cat"], feature=pa.array([[1e300]])), "feature", VOCABULARY, 1)
    assert reasons(checked) == {0: "feature column 0 (from 0) has NaN or infinite values"}
    checked = validate_rows(raw(["cat"], feature=pa.array([[1e300]])), "feature", VOCABULARY, 1, ["age"])
    assert reasons(checked) == {0: "feature column 'age' has NaN or infinite values"}


def test_no_rows_and_no_good_rows() -> None:
    kind = pa.list_(pa.float32())
    empty = validate_rows(raw([], feature=pa.chunked_array([], kind)), "feature", VOCABULARY, 3)
    assert empty.rows.num_rows == 0
    assert empty.rows.schema == schema.dataset_schema(3)
    none = validate_rows(raw([None], feature=pa.array([[1.0]])), "feature", VOCABULARY, 1)
    assert none.rows.num_rows == 0
    assert none.quarantine.num_rows == 1


def test_no_feature_values() -> None:
    with pytest.raises(DataError, match="at least one value, but got none"):
        feature_dim_of(raw(["cat"], feature=pa.array([[]], pa.list_(pa.float32()))))


def test_truth_is_moved_apart() -> None:
    truth = pa.array(["dog", None, "cow", "cat"])
    own = pa.array([10, 20, 30, 40], pa.int64())
    table = raw(["cat", "dog", "cat", None], feature=pa.array([[1.0]] * 4), true_label=truth, instance_id=own)
    checked = validate_rows(table, "feature", VOCABULARY, 1)
    assert checked.rows["instance_id"].to_pylist() == [10, 20, 30]
    assert "true_label" not in checked.rows.column_names
    assert checked.truth is not None
    assert checked.truth.schema == schema.truth_schema()
    assert checked.truth.to_pylist() == [{"instance_id": 10, "true_label": 1}]


@pytest.mark.parametrize("bad", [None, -3, 1 << 62])
def test_instance_ids_out_of_range(bad: int | None) -> None:
    table = raw(["cat"] * 2, feature=pa.array([[1.0]] * 2), instance_id=pa.array([0, bad], pa.int64()))
    with pytest.raises(DataError, match=rf"instance_id in 0\.\.\d+, but got {'null' if bad is None else bad} in row 1"):
        validate_rows(table, "feature", VOCABULARY, 1)


def test_duplicate_instance_ids_are_named() -> None:
    check_unique_ids(np.arange(5))
    check_unique_ids(np.empty(0, dtype=np.int64))
    with pytest.raises(DataError, match=r"distinct values of instance_id, but got 2 repeated \(4, 7\)"):
        check_unique_ids(np.array([7, 4, 1, 4, 7, 7]))


def test_vocabulary_orders_integers_by_value_and_strings_by_name() -> None:
    numbers = build_vocabulary({"10": 5, "2": 5, "-1": 5}, Fake())
    assert numbers.names == ("-1", "2", "10")
    assert numbers.codes == {"-1": 0, "2": 1, "10": 2}
    assert build_vocabulary({"dog": 5, "10": 5, "cat": 5}, Fake()).names == ("10", "cat", "dog")


def test_declared_vocabulary() -> None:
    found = build_vocabulary({"x": 1}, Fake(("b", "a")))
    assert found.names == ("b", "a")
    assert found.codes == {"b": 0, "a": 1}
    with pytest.raises(DataError, match="at least two classes, but got one, 'b'"):
        build_vocabulary({}, Fake(("b",)))


def test_too_few_and_too_many_classes() -> None:
    with pytest.raises(DataError, match="at least two classes, but got one, 'cat'"):
        build_vocabulary({"cat": 9}, Fake())
    with pytest.raises(DataError, match="at least two classes, but got none; check"):
        build_vocabulary({}, Fake())
    with pytest.raises(DataError, match="60 distinct labels in 100 rows, which looks like an id column"):
        build_vocabulary({f"l{i}": 1 + (i < 40) for i in range(60)}, Fake())


def test_a_quantity_is_no_class() -> None:
    """Prices, ages in years and other targets of a regression."""
    with pytest.raises(
        DataError, match=r"looks like a quantity, such as 0\.5; name .* or cut the quantity into classes"
    ):
        build_vocabulary({f"{i}.5": 1 for i in range(60)}, Fake())
    counts = {f"{i}.5": 9 for i in range(6)}
    (told,) = vocabulary_warnings(counts, build_vocabulary(counts, Fake()))
    assert told.startswith("Fractions are the labels (6 labels such as 0.5)")
    versions = {"1.5": 9, "2.5": 9, "unknown": 9}
    assert vocabulary_warnings(versions, build_vocabulary(versions, Fake())) == []


def test_vocabulary_warnings() -> None:
    vocabulary = LabelVocabulary(("a", "b", "c"), {"0": 0, "1": 1, "2": 2, "a": 0, "b": 1, "c": 2})
    assert vocabulary_warnings({"0": 1, "a": 1, "c": 1, "zzz": 4}, vocabulary) == [
        "Class 'b' is declared, but no instance has this label.",
        "Class 'c' has one instance, which cannot be checked.",
    ]


def test_one_warning_per_kind_of_doubt() -> None:
    names = tuple(f"c{i}" for i in range(1000))
    (single,) = vocabulary_warnings(
        dict.fromkeys(names, 1), LabelVocabulary(names, {n: i for i, n in enumerate(names)})
    )
    assert single == (
        "1,000 classes ('c0', 'c1', 'c2', 'c3', 'c4', ...) have one instance each, which cannot be checked."
    )
    alike = ("One", "ONE ", "two", "T-wo", "three", "-", "--", "-1", "1", "1-0", "10")
    counts = dict.fromkeys(alike, 2)
    assert vocabulary_warnings(counts, LabelVocabulary(alike, {n: i for i, n in enumerate(alike)})) == [
        "Classes differ only in case, blanks, hyphens or leading zeros: One/ONE , two/T-wo; correct the labels if they "
        "are one.",
        "Classes are numbers (-1, 1, 10) beside words (One, ONE , two, T-wo, three, ...); correct the labels if they "
        "come from two lists.",
    ]
    letters = ("0", "1", "a", "b")
    codes = {letter: code for code, letter in enumerate(letters)}
    assert vocabulary_warnings(dict.fromkeys(letters, 2), LabelVocabulary(letters, codes)) == []
    cells = ("cat|small", "cat|large", "dog|small", "dog|large")
    assert vocabulary_warnings(
        dict.fromkeys(cells, 2), LabelVocabulary(cells, {n: i for i, n in enumerate(cells)})
    ) == [
        "Classes look like several labels in one cell, such as 'cat|small'; "
        "each combination counts as a class of its own."
    ]
    cells = ("cat", "dog", "owl", "cat, dog", "dog, owl", "table, dining")
    (said,) = vocabulary_warnings(dict.fromkeys(cells, 2), LabelVocabulary(cells, {n: i for i, n in enumerate(cells)}))
    assert said.startswith("Classes look like several labels in one cell, such as 'cat, dog'")


def test_quarantine_limit() -> None:
    check_quarantine(0, 100, 0.0, {})
    check_quarantine(1, 100, 0.01, {"missing file": 1})
    with pytest.raises(DataError, match=r"at most 1% .*3 of 100 \(3\.0%\): 2 x missing file, 1 x not.*--max-invalid"):
        check_quarantine(3, 100, 0.01, {"not an image": 1, "missing file": 2})
    with pytest.raises(DataError, match="no row is left"):
        check_quarantine(4, 4, 1.0, {"missing file": 4})


def test_reason_kind_drops_what_is_particular() -> None:
    assert reason_kind("label 'a: b' is not among the 10 classes") == "label is not among the 10 classes"
    assert reason_kind("broken image: whatever") == "broken image"
    assert reason_kind("missing file") == "missing file"


def test_one_bad_number_among_many() -> None:
    rows, dim = 200_000, 64
    values = np.zeros((rows, dim), dtype=np.float32)
    values[7, 3] = np.nan
    table = pa.table(
        {
            "row": pa.array(np.arange(rows)),
            "uri": pa.array(["u"] * rows),
            "label": pa.array(["cat", "dog"] * (rows // 2)),
            "error": pa.nulls(rows, pa.string()),
            "feature": schema.fixed_size_list(values),
        }
    )
    checked = validate_rows(table, "feature", VOCABULARY, dim)
    assert checked.rows.num_rows == rows - 1
    assert reasons(checked) == {7: "feature column 3 (from 0) has NaN or infinite values"}
