"""The report in plain words: of a run, of a class, of a row."""

from __future__ import annotations

from typing import Any

from dynacor_ray.core.errors import counted
from dynacor_ray.report.page_model import Page, Suspect
from dynacor_ray.report.summary import ALMOST_NONE, is_undecided
from dynacor_ray.report.terminal import format_embedding
from dynacor_ray.runs.audit import Review
from dynacor_ray.runs.records import RunSummary

RARE_ROWS = 30
"""A class with fewer rows is called rare: a single row changes its share by more than three percentage points."""
_LATE = 0.5
HIGH, FAIR = 0.85, 0.6
"""Shares of planted errors found from which trust is called high and fair: rules of thumb, as the page states."""


def percent(share: float | None, digits: int = 1) -> str:
    """A share in [0, 1] as text.

    >>> percent(0.0834), percent(None)
    ('8.3%', 'unknown')
    """
    return "unknown" if share is None else f"{share:.{digits}%}"


def headline(summary: RunSummary) -> str:
    """The sentence at the top."""
    flagged, rows = summary.num_flagged, summary.num_rows
    if flagged == 0:
        text = f"None of {rows:,} labels looks wrong"
    else:
        text = f"{flagged:,} of {rows:,} labels {'looks' if flagged == 1 else 'look'} wrong"
    ends = summary.noise_rate_range
    if ends is None or not _is_undecided(summary):
        return text
    span = "up to" if flagged == 0 else f"between {percent(ends[0], 0)} and"
    return f"{text}; {span} {percent(ends[1], 0)} may be"


def _is_undecided(summary: RunSummary) -> bool:
    value, ends = summary.estimated_noise_rate, summary.noise_rate_range
    return value is not None and ends is not None and is_undecided(value, *ends)


def trust(summary: RunSummary) -> dict[str, str]:
    """The share of planted errors found, as a word, a CSS class and a sentence.

    Flagging rows at random finds as large a share as is flagged, so only what is found beyond that counts. Where next
    to nothing is flagged, or the data leave open how much is wrong, the word is never "high".
    """
    recall, flagged = summary.corrupted_recall, summary.flagged_share
    found = (summary.label_noise or {}).get("found_recall")
    beyond = (recall - flagged) / (1.0 - flagged) if flagged < 1.0 else 0.0
    text = f"of the {summary.num_corrupted:,} errors that were planted on purpose."
    if flagged < ALMOST_NONE and not _is_undecided(summary):
        so_few = "" if recall >= FAIR else ", so few of them are"
        text += f" Next to nothing is flagged{so_few}: the labels agree with what the rows show."
        return {"word": "fair", "level": "fair", "text": text}
    if found is not None:
        text += f" Weighted by class pair as the errors in the data: {percent(found, 0)}."
    level = min(beyond, found if found is not None else beyond)
    if level < FAIR:
        if recall >= FAIR and beyond < FAIR:
            text += f" Flagging {percent(flagged, 0)} of all rows finds that share of them by chance."
        return {"word": "low", "level": "poor", "text": f"{text} Many wrong labels will be missed."}
    if _is_undecided(summary):
        text += " How many labels are wrong is open: systematic errors look like hard rows."
        return {"word": "fair", "level": "fair", "text": text}
    if level >= HIGH:
        return {"word": "high", "level": "good", "text": f"{text} Few errors of that kind are missed."}
    return {"word": "fair", "level": "fair", "text": f"{text} Expect that some wrong labels are missed."}


def warnings(summary: RunSummary) -> list[str]:
    """Sentences about what makes the result uncertain: the run's own warnings, and rare classes."""
    sentences = list(summary.warnings)
    rare = [row["class"] for row in summary.classes if 1 < row["rows"] < RARE_ROWS]
    if rare:
        listed = ", ".join(rare[:5]) + (" and others" if len(rare) > 5 else "")
        sentences.append(
            f"{'1 class has' if len(rare) == 1 else f'{len(rare)} classes have'} fewer than {RARE_ROWS} rows, too few "
            f"to be reliable: {listed}. Shares there mean little; look at the rows."
        )
    return sentences


def format_review(review: Review | None) -> dict[str, str] | None:
    """What a person's answers say of the flags, and how many there are; None without answers."""
    if review is None:
        return None
    rows = f"{counted(len(review.marks), 'row')} marked"
    if review.precision is None or review.recall is None:
        return {"share": "–", "text": f"{rows}, none of the audit sample: they count for themselves only."}
    precision, recall = (f"{percent(one[1])} to {percent(one[2])}" for one in (review.precision, review.recall))
    text = (
        f"of the flagged are wrong ({precision}), and {percent(review.recall[0])} of the wrong are flagged ({recall})"
    )
    return {"share": percent(review.precision[0]), "text": f"{text}, by {rows}."}


def class_remark(row: dict[str, Any]) -> str:
    """A remark on a class with an unreliable result, else empty. row: of the summary's class table."""
    if row["rows"] == 0:
        return "no rows"
    if row["rows"] < RARE_ROWS:
        return "rare"
    return "more than half flagged" if 2 * row["flagged"] > row["rows"] else ""


def explain_row(suspect: Suspect, names: list[str], epochs: int) -> str:
    """Why a row looks wrong, or why not, by the classifier's predictions during training."""
    given, predicted = names[suspect.given_label], names[suspect.predicted_label]
    times = round(suspect.predicted_share * epochs)
    if suspect.given_label == suspect.predicted_label:
        certainty = "uncertain" if suspect.is_label_issue else "as its label says"
        return f"Seen as {given} in {times} of {epochs} epochs, {certainty}."
    text = f"Seen as {predicted} in {times} of {epochs} epochs"
    if not suspect.margins:
        return f"{text}."
    agreeing = [epoch for epoch, margin in enumerate(suspect.margins) if margin >= 0]
    if not agreeing:
        return f"{text}; {given} never came first."
    if agreeing[0] >= _LATE * epochs:
        return f"{text}; {given} came first only from epoch {agreeing[0] + 1} on: memorized."
    return f"{text}; {given} came first in {len(agreeing)}."


def twin_note(suspect: Suspect) -> str:
    """That a row is the same as another one; empty where it has no twin."""
    first = suspect.duplicate_of
    if first is None:
        return ""
    return " Other rows are the same." if first == suspect.instance_id else f" The same as row {first}."


def option(value: Any) -> str:
    """The value of an option in words."""
    if value is None:
        return "default"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def format_cost(seconds: float, cluster: dict[str, float] | None) -> str:
    """Cost of a stage: hours of all processors of the cluster, used or not; empty where these are unknown.

    >>> format_cost(90, {"nodes": 1, "cpus": 2.0, "gpus": 0.0})
    '0.05 CPU-h'
    >>> format_cost(72000, {"nodes": 3, "cpus": 480.0, "gpus": 2.0})
    '9,600 CPU-h, 40 GPU-h'
    """
    parts = [(cluster or {}).get(name, 0.0) * seconds / 3600 for name in ("cpus", "gpus")]
    texts = [f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}" for hours in parts]
    return ", ".join(f"{text} {name}-h" for text, name in zip(texts, ("CPU", "GPU"), strict=True) if text != "0")


def run_overview(summary: RunSummary) -> list[tuple[str, str]]:
    """Name and value of the main facts about a run."""
    data, config, cost = summary.data, summary.config, format_cost(summary.total_seconds, summary.cluster)
    return [
        ("Data", f"{config['data']} ({data.source}, each row with one {data.kind})"),
        *([("Read as", " ".join(summary.notes))] if summary.notes else []),
        ("Rows checked", f"{summary.num_rows:,} in {summary.num_classes:,} classes"),
        ("Rows quarantined as unusable", f"{data.quarantined:,}"),
        ("Encoder", f"{summary.encoder}. {summary.encoder_reason}" if summary.encoder_reason else summary.encoder),
        ("Epochs", f"{config['epochs']}"),
        ("Planted errors", f"{summary.num_corrupted:,} (gamma {config['gamma']:g})"),
        ("Seed", f"{summary.seed}"),
        ("Time in all", f"{summary.total_seconds:,.1f} s" + (f" ({cost})" if cost else "")),
        *([("Embedding", format_embedding(summary.embedding))] if summary.embedding else []),
    ]


def charts(page: Page) -> dict[str, str]:
    """Text alternatives of the charts."""
    summary = page.summary
    ends = {name: band.mean[-1] for name, band in page.bands.items() if band.mean}
    means = ", ".join(f"{name} {value:.1f}" for name, value in ends.items())
    metric, chosen = summary.validation_metric, summary.validation["chosen_epoch"]
    return {
        "dynamics": f"Mean logit margin per epoch with its middle half. In the last epoch: {means or 'nothing'}.",
        "histogram": f"Histogram of label quality from 0 to 1, cut at 0.5: {summary.num_flagged:,} rows below, "
        f"{summary.num_rows - summary.num_flagged:,} above.",
        "metric": f"Validation metric in {len(metric)} epochs of the clustering; chosen: epoch {chosen} "
        f"with {metric[chosen]:.4f}.",
    }
