"""Hand the flagged rows on: CSV and parquet with cleanlab's column names, and tasks for Label Studio."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import quoteattr

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

import dynacor_ray
from dynacor_ray import schema
from dynacor_ray.errors import ConfigError, DataError, explain
from dynacor_ray.manifest import DatasetManifest
from dynacor_ray.report.thumbnails import read_thumbnails
from dynacor_ray.reports import finished_run, images_of
from dynacor_ray.rundir import ISSUES, SUMMARY
from dynacor_ray.storage import Location

FORMATS = (".csv", ".parquet", ".json")
_BATCH, _TASK_BATCH = 65_536, 4096  # tasks may hold images
_TASK_SIDE = 320
_FORMULA, _NUMBER = r"^[=+\-@\t\r]", r"^[+-]?[0-9.,]+$"


def export_run(run: Location, out: Location, flagged: bool = False, limit: int | None = None, prefix: str = "") -> int:
    """Write rows of `issues.parquet` to `out`, most suspicious first, in the format that its name ends with.

    .csv, .parquet: all rows, or with `flagged` the flagged ones, classes by name; a text that a spreadsheet would take
    for a formula is led by an apostrophe in CSV. .json: Label Studio tasks of flagged rows, pre-annotated, with the
    labelling configuration beside them (.xml); `prefix` comes before each uri. limit: most rows. Returns how many rows
    were written. Raises ConfigError for another format, DataError when Label Studio could not show the rows.
    """
    run = finished_run(run)
    ending = posixpath.splitext(out.path)[1].lower()
    if ending not in FORMATS:
        raise ConfigError(explain(f"a file that ends with {', '.join(FORMATS)}", str(out), "name it so"))
    summary = (run / SUMMARY).read_json()
    names = [row["class"] for row in summary["classes"]]
    if ending == ".json":
        return _write_tasks(run, summary, _rows(run, names, True, limit, _TASK_BATCH), out, prefix)
    return _write_table(_rows(run, names, flagged, limit, _BATCH), out, ending)


def _schema() -> pa.Schema:
    """`issues.parquet` with classes by name."""
    labels = (schema.GIVEN_LABEL, schema.PREDICTED_LABEL)
    fields = [pa.field(f.name, pa.string()) if f.name in labels else f for f in schema.issues_schema()]
    return pa.schema(fields)


def _rows(run: Location, names: list[str], flagged: bool, limit: int | None, size: int) -> Iterator[pa.Table]:
    """Batches of rows with class names instead of codes."""
    known = pa.array(names, pa.string())
    left = limit
    with (run / ISSUES).parquet() as file:
        for batch in file.iter_batches(size):
            table = pa.Table.from_batches([batch])
            if flagged:
                table = table.filter(table[schema.IS_LABEL_ISSUE])
            if left is not None:
                table = table.slice(0, left)
                left -= table.num_rows
            for name in (schema.GIVEN_LABEL, schema.PREDICTED_LABEL):
                place = table.schema.get_field_index(name)
                table = table.set_column(place, name, pa.chunked_array([known.take(c) for c in table[name].chunks]))
            yield table.cast(_schema())
            if left == 0:
                return


def _write_table(rows: Iterator[pa.Table], out: Location, ending: str) -> int:
    count, wanted = 0, _schema()
    with out.replacing() as part, part.filesystem.open_output_stream(part.path) as stream:
        make = pacsv.CSVWriter if ending == ".csv" else pq.ParquetWriter
        with make(stream, wanted) as writer:
            for table in rows:
                writer.write_table(without_formulas(table) if ending == ".csv" else table)
                count += table.num_rows
    return count


def without_formulas(table: pa.Table) -> pa.Table:
    """Texts from data led by an apostrophe where a spreadsheet would compute them."""
    for place, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            text = table.column(place)
            odd = pc.and_not(pc.match_substring_regex(text, _FORMULA), pc.match_substring_regex(text, _NUMBER))
            safe = pc.if_else(odd, pc.binary_join_element_wise("'", text, ""), text)
            table = table.set_column(place, field, safe)
    return table


# --------------------------------------------------------------------------------------------------------- Label Studio


def _write_tasks(run: Location, summary: dict[str, Any], rows: Iterator[pa.Table], out: Location, prefix: str) -> int:
    """Tasks as a JSON list, one a line, and the labelling configuration that they fit."""
    if summary["data"]["kind"] != "image":
        raise DataError(explain("images to show in Label Studio", "feature vectors", "export to .csv or .parquet"))
    version = f"dynacor_ray {dynacor_ray.__version__}"
    count = 0
    with out.replacing() as part, part.filesystem.open_output_stream(part.path) as stream:
        stream.write(b"[")
        for table in rows:
            pictures = _pictures(run, summary, table)
            for row in table.to_pylist():
                image = pictures.get(row[schema.INSTANCE_ID]) or prefix + (row[schema.URI] or "")
                if image == prefix:
                    got = f"none for instance_id {row[schema.INSTANCE_ID]}"
                    raise DataError(explain("an image or a uri in every row", got, "export to .csv or .parquet"))
                task = json.dumps(_task(row, image, version))
                stream.write(f"{',' if count else ''}\n{task}".encode())
                count += 1
        stream.write(b"\n]\n")
    config = Location(out.filesystem, _beside(out.path), _beside(out.uri))
    config.write_bytes(labelling_config([row["class"] for row in summary["classes"]]).encode())
    return count


def _beside(path: str) -> str:
    return posixpath.splitext(path)[0] + ".xml"


def _pictures(run: Location, summary: dict[str, Any], table: pa.Table) -> dict[int, str]:
    """Images of rows that no uri leads to, because the data hold the images themselves."""
    if summary["data"]["source"] in ("folder", "table", "clothing1m"):
        return {}
    dataset, _ = images_of(run, summary["data"], True)
    manifest = DatasetManifest.read(dataset) if dataset is not None else None
    if dataset is None or manifest is None:
        return {}
    return read_thumbnails(dataset, manifest, table[schema.INSTANCE_ID].to_pylist(), 1 << 50, _TASK_SIDE)


def _task(row: dict[str, Any], image: str, version: str) -> dict[str, Any]:
    choice = {"choices": [row[schema.PREDICTED_LABEL]]}
    result = {"from_name": "label", "to_name": "image", "type": "choices", "value": choice}
    kept = (schema.INSTANCE_ID, schema.URI, schema.GIVEN_LABEL, schema.LABEL_QUALITY)
    score = round(1.0 - row[schema.LABEL_QUALITY], 4)
    return {
        "data": {"image": image} | {name: row[name] for name in kept},
        "predictions": [{"model_version": version, "score": score, "result": [result]}],
    }


def labelling_config(names: list[str]) -> str:
    """Label Studio's labelling configuration for these classes."""
    choices = "\n".join(f"    <Choice value={quoteattr(name)}/>" for name in names)
    return f"""<View>
  <Image name="image" value="$image"/>
  <Text name="given" value="given label: $given_label"/>
  <Choices name="label" toName="image" choice="single" showInline="true">
{choices}
  </Choices>
</View>
"""
