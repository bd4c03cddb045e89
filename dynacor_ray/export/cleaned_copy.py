"""A cleaned copy of a table or image folder: flagged rows dropped or relabeled, never in place, every change logged."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from dynacor_ray.core import schema
from dynacor_ray.core.arrays import sorted_positions
from dynacor_ray.core.errors import ConfigError, DataError, StorageError, expected_got
from dynacor_ray.core.storage import Location
from dynacor_ray.core.table_files import batches, first_rows
from dynacor_ray.export.copy_rows import CHANGED, Action, RowChanges, copy_folder, copy_table
from dynacor_ray.export.run_data import open_run_data
from dynacor_ray.export.tables import without_formulas
from dynacor_ray.report.answer_files import MARKS
from dynacor_ray.report.answers import Answers
from dynacor_ray.runs.audit import issues_in_use, read_review
from dynacor_ray.runs.directory import ISSUES, finished_run
from dynacor_ray.runs.records import RunSummary
from dynacor_ray.sources.base import SourceOptions
from dynacor_ray.sources.folder import FolderSource
from dynacor_ray.sources.image_files import is_pattern
from dynacor_ray.sources.image_paths import folder_of

LOG = ".changes.csv"
_OPEN, _WRONG = -1, MARKS.index("wrong")


@dataclass(frozen=True)
class Cleaned:
    """Result of a cleaned copy.

    Attributes:
        changed: rows that were dropped or relabeled.
        left: flagged rows that stayed: marked right or unsure, confirmed by nobody, or without another class.
        log: the list of all changes.
    """

    changed: int
    left: int
    log: Location


def clean_run(
    run: Location,
    out: Location,
    action: Action,
    answers: Answers | None = None,
    hard_links: bool = False,
    all_flagged: bool = False,
    data: str | None = None,
) -> Cleaned:
    """Write a copy of the run's data without its flagged rows, or with other labels.

    A row that a person marked wrong is changed, one marked right or unsure stays. Of the others those that are flagged
    are dropped, and relabeled with `all_flagged` only. The new label is the class that the person gave, else the
    suggested one.

    The data must be parquet (file or folder), a CSV table or an image folder, unchanged since the run. All other rows
    and columns stay as they are. Of a folder all images in class folders are copied, but for those that the run could
    not open by their names. Beside `out` a log lists every change (`.changes.csv`).

    Args:
        run: a finished run.
        out: the copy, which must not exist.
        action: "drop" or "relabel".
        answers: a person's answers beside those of a review; they win.
        hard_links: whether an image folder gets hard links instead of copies.
        all_flagged: whether flagged rows that nobody looked at are relabeled, too.
        data: where the data are now, if they were moved since the run.

    Raises:
        ConfigError: nothing is confirmed that could be relabeled.
        DataError: data of another kind, or changed since the run.
        StorageError: `out` exists or cannot hold links.
    """
    run = finished_run(run)
    summary = RunSummary.read(run)
    answers = Answers.of(read_review(run)).updated(answers or Answers())
    if action == "relabel" and not all_flagged and "wrong" not in answers.marks.values():
        remedy = "review them (dynacor review RUN --sample 100), pass --marks, or say --all-flagged"
        raise ConfigError(expected_got("rows that a person confirmed to be wrong", "none", remedy))
    _check_kind(summary, out, data)
    source, root = open_run_data(run, summary, data)
    _check_place(run, summary.data.source, root, out, hard_links)
    names = summary.class_names
    codes = source.label_codes or {name: code for code, name in enumerate(names)}
    changes, left = _changes(run, action, answers, all_flagged, names, codes)
    moved: dict[int, str | None] = {}
    if isinstance(source, FolderSource):
        moved = copy_folder(source, out, changes, hard_links)
        changed = len(moved)
    else:
        changed = copy_table(root, out, SourceOptions.of(summary.config), changes)
    if changed != len(changes.ids):
        got = f"{changed:,} of the {len(changes.ids):,} rows to change"
        raise DataError(expected_got(CHANGED.partition(":")[0], got, "run detect again"))
    log = out.beside(LOG)
    _write_log(log, changes, moved)
    return Cleaned(changed, left, log)


def _check_kind(summary: RunSummary, out: Location, data: str | None) -> None:
    """Refuse what is seen before the data are opened."""
    kind, asked = summary.data.source, data or summary.config["data"]
    if kind not in ("parquet", "table", "folder"):
        expected, got = "parquet, a table or an image folder", f"data of kind '{kind}'"
        raise DataError(expected_got(expected, got, "use dynacor export to .csv instead"))
    if out.exists():
        raise StorageError(expected_got("a new place for the cleaned copy", f"{out}, which exists", "choose another"))
    if is_pattern(asked):
        got = f"files that fit {asked}"
        raise DataError(expected_got("one table, or a folder", got, "use dynacor export to .csv instead"))


def _check_place(run: Location, kind: str, root: Location, out: Location, hard_links: bool) -> None:
    """Refuse a copy within the data, one whose paths would lead nowhere, and links that there cannot be."""
    if f"{out.path}/".startswith(f"{root.path}/"):
        raise StorageError(expected_got(f"a place outside of {root}", str(out), "a copy in it would be taken for data"))
    if kind == "table":
        _check_paths(run, root, out)
    if hard_links and not (kind == "folder" and root.is_local and out.is_local):
        got = f"{kind} data from {root} to {out}"
        expected = "an image folder on this machine for --hard-links"
        raise StorageError(expected_got(expected, got, "leave the option out"))


def _check_paths(run: Location, data: Location, out: Location) -> None:
    """Refuse a copy of a table with relative image paths elsewhere: they start at its folder and would lead nowhere."""
    folder = folder_of(data)
    if not data.is_dir() and folder.path == posixpath.dirname(out.path):
        return
    uris = first_rows(run / ISSUES, 1000)[schema.URI].to_pylist()
    relative = next((uri for uri in uris if uri and "://" not in uri and not uri.startswith("/")), None)
    if relative is not None:
        got = f"{out}, while the table holds relative paths such as {relative!r}"
        if data.is_dir():
            remedy = "use dynacor export to .csv instead"
            raise StorageError(expected_got("absolute paths or URIs in a folder of tables", got, remedy))
        raise StorageError(expected_got("a place beside the table", got, f"write into {folder}"))


def _changes(
    run: Location, action: Action, answers: Answers, all_flagged: bool, names: list[str], codes: dict[str, int]
) -> tuple[RowChanges, int]:
    """The rows to change, and how many flagged rows stay."""
    by_name = {name: code for code, name in enumerate(names)}
    marked = np.array(sorted(answers.marks), np.int64)
    marks = np.array([MARKS.index(answers.marks[row]) for row in marked.tolist()] + [_OPEN])
    labels = np.array([by_name[answers.labels[row]] if row in answers.labels else -1 for row in marked.tolist()] + [-1])
    columns = [schema.INSTANCE_ID, schema.URI, schema.GIVEN_LABEL, schema.PREDICTED_LABEL, schema.LABEL_QUALITY]
    parts = [pa.table({name: pa.array([], schema.issues_schema().field(name).type) for name in columns})]
    left = 0
    for _, table in batches(issues_in_use(run), [*columns, schema.IS_LABEL_ISSUE]):
        at = sorted_positions(marked, table[schema.INSTANCE_ID].to_numpy())
        new = np.where(labels[at] >= 0, labels[at], table[schema.PREDICTED_LABEL].to_numpy()).astype(np.int32)
        flagged = table[schema.IS_LABEL_ISSUE].to_numpy()
        change = np.where(marks[at] == _OPEN, flagged & (action == "drop" or all_flagged), marks[at] == _WRONG)
        if action == "relabel":
            change &= new != table[schema.GIVEN_LABEL].to_numpy()
        left += int((flagged & ~change).sum())
        place = table.schema.get_field_index(schema.PREDICTED_LABEL)
        table = table.set_column(place, schema.PREDICTED_LABEL, pa.array(new))
        parts.append(table.select(columns).filter(pa.array(change)))
    rows = pa.concat_tables(parts).sort_by(schema.INSTANCE_ID)
    ids, given, new, quality = (rows[name].to_numpy() for name in columns if name != schema.URI)
    return RowChanges(action, ids, rows[schema.URI].combine_chunks(), given, new, quality, names, codes), left


def _write_log(place: Location, changes: RowChanges, moved: dict[int, str | None]) -> None:
    """List every change. moved: new paths of images by instance_id."""
    known = pa.array(changes.names, pa.string())
    count = len(changes.ids)
    new = known.take(pa.array(changes.new)) if changes.action == "relabel" else pa.nulls(count, pa.string())
    table = pa.table(
        {
            schema.INSTANCE_ID: pa.array(changes.ids),
            "action": pa.array([changes.action] * count, pa.string()),
            schema.GIVEN_LABEL: known.take(pa.array(changes.given)),
            "new_label": new,
            schema.LABEL_QUALITY: pa.array(changes.quality),
            schema.URI: changes.uris,
            "new_uri": pa.array([moved.get(instance_id) for instance_id in changes.ids.tolist()], pa.string()),
        }
    )
    with place.atomic_replace() as part, part.filesystem.open_output_stream(part.path) as stream:
        pacsv.write_csv(without_formulas(table), stream)
