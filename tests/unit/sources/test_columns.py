from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from dynacor_ray.core.errors import DataError
from dynacor_ray.sources.base import SourceOptions
from dynacor_ray.sources.column_hints import with_hints
from dynacor_ray.sources.column_types import joined_parts
from dynacor_ray.sources.columns import Columns, find_columns

KINDS = {"f": pa.float64(), "i": pa.int64(), "s": pa.string()}


def found(table: str, **options: Any) -> Columns:
    """The roles in a table, such as "age:i label:s"."""
    fields = [pa.field(name, KINDS[kind]) for name, kind in (one.split(":") for one in table.split())]
    return find_columns(pa.schema(fields), SourceOptions(**options), "t.csv")


@pytest.mark.parametrize(
    ("table", "label", "features"),
    [
        ("sepal_length:f sepal_width:f species:s", "species", "sepal_length sepal_width"),
        ("f0:f f1:f label:i true_label:i", "label", "f0 f1"),
        ("id:i diagnosis:s radius:f texture:f", "diagnosis", "radius texture"),
        ("age:i children:i fold:i y:i", "y", "age children"),
        ("index:i age:i income:f city:s label:s", "label", "age income"),
        ("x:f y:f label:i", "label", "x y"),
        ("bill_length:f bill_depth:f island:s Species:s", "Species", "bill_length bill_depth"),
    ],
)
def test_a_table_of_measurements_needs_no_options(table: str, label: str, features: str) -> None:
    """As scikit-learn's or UCI's data are saved as CSV."""
    columns = found(table)
    assert (columns.kind, columns.label, columns.parts) == ("feature", label, tuple(features.split()))


@pytest.mark.parametrize(
    ("table", "uri"),
    [("id:i label:s a:i b:i", "id"), ("id:s label:s a:f b:f", "id"), ("path:s label:s a:f b:f", "path")],
)
def test_names_of_images_go_before_numbers(table: str, uri: str) -> None:
    columns = found(table)
    assert (columns.kind, columns.uri, columns.parts) == ("image", uri, ())


@pytest.mark.parametrize("table", ["age:f label:s", "a:i b:i kind:s"])
def test_what_is_not_clear_is_asked_for(table: str) -> None:
    with pytest.raises(DataError, match="name it with --image-column"):
        found(table)


def test_a_pattern_of_features_passes_over_labels_in_words() -> None:
    assert found("a:f b:f label:s", feature_columns=("*",)).parts == ("a", "b")


def test_a_column_of_image_names_is_that_of_the_paths() -> None:
    """Whatever it is called; numbered features go before it, other numbers do not."""
    rows = pa.table({"Image Index": ["1.png", "2.JPG"], "note": ["x", "3.png"], "age": [7, 8], "w": [0.5, 1.5]})
    schema = with_hints(rows.schema, rows)
    columns = find_columns(schema, SourceOptions(label_column="note"), "t.csv")
    assert (columns.kind, columns.uri, columns.parts) == ("image", "Image Index", ())
    assert columns.notes(SourceOptions()) == [
        "Column 'note' taken for the labels.",
        "Column 'Image Index' taken for the paths of images.",
    ]
    wide = rows.append_column("f0", pa.array([1, 2]))
    for number in range(1, 5):
        wide = wide.append_column(f"f{number}", pa.array([1, 2]))
    assert len(find_columns(with_hints(wide.schema, wide), SourceOptions(label_column="note"), "t.csv").parts) == 5


def test_the_first_value_that_is_no_number_is_told() -> None:
    rows = pa.table(
        {f"f{number}": ["1", "-2.5e3", None, "Total", "4"] if number == 2 else [1, 2, 3, 4, 5] for number in range(4)}
    )
    rows = rows.append_column("label", pa.array(list("ababa")))
    with pytest.raises(DataError, match=r"numbers in f0 to f3 of t.csv, but got column 'f2' with 'Total'; correct it"):
        find_columns(with_hints(rows.schema, rows), SourceOptions(), "t.csv")


@pytest.mark.parametrize(("name", "label"), [("ClassId", "ClassId"), ("labelName", "labelName"), ("Class", "Class")])
def test_words_of_a_name_may_be_joined(name: str, label: str) -> None:
    assert found(f"FileName:s {name}:i Width:i Roi.X1:i").label == label


def test_pixels_in_lists_are_no_encoded_images() -> None:
    schema = pa.schema([("image", pa.list_(pa.list_(pa.uint8()))), ("label", pa.string())])
    with pytest.raises(DataError, match=r"encoded images, as files hold them, in column 'image' .*, or pixels as .npz"):
        find_columns(schema, SourceOptions(), "t.parquet")


@pytest.mark.parametrize("name", ["embeddings", "pixels", "Vector"])
def test_lists_of_whole_numbers_are_features_by_their_names(name: str) -> None:
    schema = pa.schema([(name, pa.list_(pa.uint8())), ("label", pa.string())])
    assert find_columns(schema, SourceOptions(), "t.parquet").payload == name


def test_columns_are_joined_one_by_one() -> None:
    """All of them as doubles would take twice what the vectors take, for every piece in work."""
    rows, table = 10_000, pa.table({f"f{column}": pa.array([0.5] * 10_000, pa.float32()) for column in range(40)})
    before, counted = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(counted)
    try:
        joined = joined_parts(table, table.column_names)
    finally:
        pa.set_memory_pool(before)
    assert joined.to_pylist()[0] == [0.5] * 40
    assert 0 < counted.max_memory() <= 3 * 8 * rows
