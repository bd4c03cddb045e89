"""Flagged rows as tasks for Label Studio, each with the suggested label as a prediction."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import pyarrow as pa

from dynacor_ray.core import schema
from dynacor_ray.core.errors import ConfigError, DataError, expected_got
from dynacor_ray.core.storage import Location
from dynacor_ray.core.version import __version__
from dynacor_ray.report.build import ROWS_BY_URI, packed_images
from dynacor_ray.report.thumbnails import read_thumbnails
from dynacor_ray.runs.records import RunSummary

_SIDE = 320


def write_tasks(run: Location, summary: RunSummary, rows: Iterator[pa.Table], out: Location, prefix: str) -> int:
    """Write tasks as a JSON list, one per line, and beside it the labeling configuration that they fit (.xml).

    Args:
        run: directory of the run.
        summary: content of its `summary.json`.
        rows: tables with the columns of `issues.parquet`, classes by name.
        out: the file to write.
        prefix: text before each path (`image_url`).

    Returns:
        Number of rows written.

    Raises:
        DataError: Label Studio could not show a row.
        ConfigError: `out` ends with .xml.
    """
    if summary.data.kind != "image":
        raise DataError(
            expected_got("images to show in Label Studio", "feature vectors", "say --format json, csv or parquet")
        )
    config = out.parent / f"{posixpath.splitext(posixpath.basename(out.path))[0]}.xml"
    if config.path == out.path:
        expected = "another ending than .xml, that of the configuration"
        raise ConfigError(expected_got(expected, str(out), "name it .json"))
    version = f"dynacor_ray {__version__}"
    count = 0
    with out.atomic_replace() as part, part.filesystem.open_output_stream(part.path) as stream:
        stream.write(b"[")
        for table in rows:
            pictures = _pictures(run, summary, table)
            for row in table.to_pylist():
                image = pictures.get(row[schema.INSTANCE_ID]) or image_url(prefix, row[schema.URI] or "")
                if not image:
                    got = f"none for instance_id {row[schema.INSTANCE_ID]}"
                    raise DataError(expected_got("an image or a uri in every row", got, "export to .csv or .parquet"))
                task = json.dumps(_task(row, image, version))
                stream.write(f"{',' if count else ''}\n{task}".encode())
                count += 1
        stream.write(b"\n]\n")
    config.write_bytes(labeling_config(summary.class_names).encode())
    return count


def image_url(prefix: str, uri: str) -> str:
    """Where Label Studio finds an image: the path behind the prefix, encoded as this needs; a URI stays as it is.

    In a query (`/data/local-files/?d=`) and in the path of a URL all but slashes is encoded; behind a bucket
    (`s3://`, `gs://`) nothing is, since Label Studio takes the rest as the name of the object.

    >>> image_url("/data/local-files/?d=a/", "b c/50%.png")
    '/data/local-files/?d=a/b%20c/50%25.png'
    >>> image_url("s3://bucket/", "b c/50%.png")
    's3://bucket/b c/50%.png'
    """
    if "://" in uri or not uri:
        return uri
    scheme = prefix.partition("://")[0] if "://" in prefix else ""
    encoded = prefix and (not scheme or scheme.lower() in ("http", "https"))
    return prefix + (quote(uri, safe="/") if encoded else uri)


def _pictures(run: Location, summary: RunSummary, table: pa.Table) -> dict[int, str]:
    """Images of rows that no uri leads to, because the data hold the images themselves."""
    packed = None if summary.data.source in ROWS_BY_URI else packed_images(run, summary.data)
    return read_thumbnails(packed, table[schema.INSTANCE_ID].to_pylist(), 1 << 50, _SIDE) if packed else {}


def _task(row: dict[str, Any], image: str, version: str) -> dict[str, Any]:
    choice = {"choices": [row[schema.PREDICTED_LABEL]]}
    result = {"from_name": "label", "to_name": "image", "type": "choices", "value": choice}
    kept = (schema.INSTANCE_ID, schema.URI, schema.GIVEN_LABEL, schema.LABEL_QUALITY)
    score = round(1.0 - row[schema.LABEL_QUALITY], 4)
    return {
        "data": {"image": image} | {name: row[name] for name in kept},
        "predictions": [{"model_version": version, "score": score, "result": [result]}],
    }


def labeling_config(names: list[str]) -> str:
    """Label Studio's labeling configuration for these classes."""
    choices = "\n".join(f"    <Choice value={quoteattr(name)}/>" for name in names)
    return f"""<View>
  <Image name="image" value="$image"/>
  <Text name="given" value="given label: $given_label"/>
  <Choices name="label" toName="image" choice="single" showInline="true">
{choices}
  </Choices>
</View>
"""
