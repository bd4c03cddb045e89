"""A person's review of a finished run: rows to ask about, answers read back, flags and figures that follow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from dynacor_ray.config.options import make_config
from dynacor_ray.config.review import ReviewConfig
from dynacor_ray.core import schema
from dynacor_ray.core.errors import ConfigError, DataError, counted, expected_got
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.core.table_files import rows_at
from dynacor_ray.decision.audit_sample import RankGroups
from dynacor_ray.decision.review_model import (
    LEAST_ANSWERS,
    Posterior,
    expected_from_quality,
    expected_from_rate,
    fit_answers,
)
from dynacor_ray.export.label_studio import write_tasks
from dynacor_ray.export.tables import named_classes, without_formulas
from dynacor_ray.report.answers import Answers, read_answers
from dynacor_ray.report.build import make_report
from dynacor_ray.report.reviews import review_sentences
from dynacor_ray.runs.audit import (
    AUDIT_ROWS,
    AuditRound,
    Review,
    draw_round,
    first_round,
    issues_digest,
    read_review,
    read_rounds,
    write_rounds,
)
from dynacor_ray.runs.directory import ISSUES, REVIEW, REVIEWED, finished_run
from dynacor_ray.runs.records import RunSummary
from dynacor_ray.workflows.moved_data import bring_data
from dynacor_ray.workflows.reviewed_rows import Revision, write_reviewed

QUESTIONS, TASKS = "audit.csv", "audit_tasks.json"


@dataclass(frozen=True)
class ReviewResult:
    """What `review` did.

    Attributes:
        run: The run's directory.
        summary: Of the run, as it was before.
        review: The answers and what follows from them; None before the first answers.
        drawn: The rows to ask about; None where none were drawn.
        wrote: Names of the files that were written.
    """

    run: Location
    summary: RunSummary
    review: Review | None
    drawn: AuditRound | None
    wrote: Sequence[str]

    def __repr__(self) -> str:
        return f"<ReviewResult {' '.join(self.sentences())}>"

    def questions(self) -> pa.Table:
        """The rows that were drawn, in the order of the questions: instance_id, uri, both labels by name, mark (empty).

        Raises DataError where none were drawn.
        """
        if self.drawn is None:
            raise DataError(expected_got("drawn rows", "none", "pass e.g. sample=100"))
        return _questions(self.run, self.summary, self.drawn)

    def sentences(self) -> list[str]:
        """The result in words."""
        said = [] if self.review is None or REVIEW not in self.wrote else review_sentences(self.review, self.summary)
        if self.drawn is not None:
            said.append(
                f"{counted(len(self.drawn.ids), 'row')} to ask about, over the whole ranking: answer wrong, right or "
                "unsure in one of these files."
            )
        said.append(f"Written to {self.run}: {', '.join(self.wrote)}.")
        return said if self.drawn is None else [*said, f"Then: dynacor review {self.run} ANSWERED_FILE"]


def review(run: str | os.PathLike[str], marks: str | os.PathLike[str] | None = None, **options: Any) -> ReviewResult:
    """Ask a person about a sample of a finished run's rows, or use the answers. Starts nothing.

    Args:
        run: Directory of the run, or its result.
        marks: File of answers.
        options: `sample`, `seed`, `prefix` and `data` of `ReviewConfig`.

    Raises:
        DynacorError: The run is not finished, the answers are not of this run, or no sense can be made of them.
    """
    return run_review(make_config(ReviewConfig, run=run, marks=marks, **options))


def run_review(config: ReviewConfig) -> ReviewResult:
    """`review` for a configuration that is already built."""
    if config.marks is None and config.sample is None:
        remedy = "name a file of answers, or draw rows to answer by --sample 100"
        raise ConfigError(expected_got("MARKS or --sample", "neither", remedy))
    run = finished_run(locate(config.run))
    bring_data(run, config.data)
    summary = RunSummary.read(run)
    held, rounds, wrote = read_review(run), read_rounds(run), list[str]()
    if config.marks is not None:
        new = read_answers(run, summary.class_names, locate(config.marks))
        answers = Answers.of(held).updated(new)
        asked = rounds or [_default_round(run, summary)]
        held = _apply(run, summary, asked, answers)
        wrote += [REVIEWED, REVIEW]
    drawn = None
    if config.sample is not None:
        drawn, written = _ask(run, summary, rounds, held, config)
        wrote += written
    wrote.append(make_report(run).path.rpartition("/")[2])
    return ReviewResult(run, summary, held, drawn, wrote)


# ----------------------------------------------------------------------------------------------------------- questions


def _default_round(run: Location, summary: RunSummary) -> AuditRound:
    """What the report shows as audit sample where nothing was drawn."""
    return first_round(run, summary, AUDIT_ROWS, summary.seed)


def _ask(
    run: Location, summary: RunSummary, rounds: list[AuditRound], held: Review | None, config: ReviewConfig
) -> tuple[AuditRound, list[str]]:
    """Draw a round and write it down. A round without any answer is drawn again in place of the one before."""
    marks = {} if held is None else held.marks
    known = rounds or [_default_round(run, summary)]
    answered = [one for one in known if any(instance_id in marks for instance_id in one.ids)]
    seed = summary.seed if config.seed is None else config.seed
    assert config.sample is not None
    if answered:
        posterior = _posterior(run, summary, answered, marks)
        density = posterior.next_density()
        drawn = draw_round(run, posterior.groups, density, config.sample, seed, answered)
    else:
        drawn = first_round(run, summary, config.sample, seed)
    write_rounds(run, issues_digest(run), [*answered, drawn])
    rows = _questions(run, summary, drawn)
    place, wrote = run / QUESTIONS, [QUESTIONS]
    with place.atomic_replace() as part, part.filesystem.open_output_stream(part.path) as stream:
        pacsv.write_csv(without_formulas(rows), stream)
    if summary.data.kind == "image":
        write_tasks(run, summary, iter([_rows(run, summary, drawn)]), run / TASKS, config.prefix or "")
        wrote.append(TASKS)
    return drawn, wrote


def _rows(run: Location, summary: RunSummary, drawn: AuditRound) -> pa.Table:
    """The drawn rows of `issues.parquet` in the order of the questions, classes by name."""
    places = np.array(drawn.places, np.int64)
    order = np.argsort(places)
    table = rows_at(run / ISSUES, places[order]).take(pa.array(np.argsort(order)))
    return named_classes(table, summary.class_names)


def _questions(run: Location, summary: RunSummary, drawn: AuditRound) -> pa.Table:
    columns = [schema.INSTANCE_ID, schema.URI, schema.GIVEN_LABEL, schema.PREDICTED_LABEL]
    table = _rows(run, summary, drawn).select(columns)
    return table.append_column(schema.MARK, pa.array([""] * table.num_rows, pa.string()))


# ------------------------------------------------------------------------------------------------------------- answers


def _posterior(run: Location, summary: RunSummary, rounds: Sequence[AuditRound], marks: dict[int, str]) -> Posterior:
    """What the answers on the audit sample say."""
    groups = RankGroups.of(summary.num_rows)
    pairs = [pair for one in rounds for pair in zip(one.ids, one.places, strict=True)]
    told = [(place, marks[row] == "wrong") for row, place in pairs if marks.get(row, "unsure") != "unsure"]
    ranks = np.array([place for place, _ in told], np.int64)
    is_wrong = np.array([wrong for _, wrong in told], bool)
    return fit_answers(groups, _expected(run, summary, groups), summary.num_flagged, ranks, is_wrong, summary.seed)


def _expected(run: Location, summary: RunSummary, groups: RankGroups) -> NDArray[np.float64] | None:
    """P(wrong) by the run in the middle of each group of ranks; None where it estimated nothing."""
    if summary.quality_log_odds is not None:
        quality = rows_at(run / ISSUES, groups.middles, [schema.LABEL_QUALITY])[schema.LABEL_QUALITY].to_numpy()
        return expected_from_quality(quality, *summary.quality_log_odds)
    rate = summary.estimated_noise_rate
    return None if rate is None else expected_from_rate(groups, rate)


def _apply(run: Location, summary: RunSummary, rounds: Sequence[AuditRound], answers: Answers) -> Review:
    """Write `reviewed_issues.parquet` and `review.json`."""
    asked = {row for one in rounds for row in one.ids}
    told = sum(mark != "unsure" for row, mark in answers.marks.items() if row in asked)
    posterior = _posterior(run, summary, rounds, answers.marks)
    cut = posterior.moved_cut(summary.num_flagged) if told >= LEAST_ANSWERS else summary.num_flagged
    revision = Revision.of(run, summary.class_names, answers, posterior.groups, posterior.probability, cut)
    flagged = write_reviewed(run, revision, summary.num_classes)
    figures: dict[str, Any] = {}
    if told:
        found = posterior.figures(cut, summary.seed)
        before = posterior.figures(summary.num_flagged, summary.seed).f1
        parts = {name: getattr(found, name) for name in ("rate", "precision", "recall", "f1")} | {"f1_before": before}
        figures = {name: [part.value, part.low, part.high] for name, part in parts.items()}
    made = Review(
        issues=issues_digest(run),
        marks=answers.marks,
        labels=answers.labels,
        num_audited=told,
        num_flagged=int(flagged.sum()),
        flagged_by_class=flagged.tolist(),
        cut=cut,
        model_weight=posterior.model_weight,
        **figures,
    )
    made.write(run)
    return made
