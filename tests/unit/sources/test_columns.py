from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from dynacor_ray.core.errors import DataError
from dynacor_ray.sources.base import SourceOptions
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
