"""`report.html`: plain data in, one self-contained page out. No network, no file; data are always escaped."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dynacor_ray.report import wording
from dynacor_ray.report.page_model import Page, Suspect
from dynacor_ray.report.summary import explain_duplicates
from dynacor_ray.report.terminal import score_text, shown
from dynacor_ray.runs.records import RunSummary

MATRIX_CLASSES = 24
"""Most classes on a side of the class-pair matrix; of more, those with the most frequent pairs."""
NUMBERED_CLASSES = 12
"""Most classes on a side of a matrix with numbers in its cells."""
TABLE_CLASSES = 1000
"""Most classes in the table, those with the most flagged rows first."""
SHADES = 9
URI_LENGTH = 300
"""Most characters of a path that are shown."""


def render(page: Page) -> str:
    """The page as HTML. Text from data is escaped in markup and in the data block; scripts run by their hash only."""
    return render_template("report.html", "report.js", {"data": Markup(embedded(_data(page))), **_context(page)})


def render_template(template: str, script_name: str | None, content: dict[str, Any]) -> str:
    """A page of the report's style, with its script if it has one; both run by their hash only."""
    environment = Environment(
        loader=PackageLoader("dynacor_ray.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = _source(environment, "report.css")
    script = _source(environment, script_name) if script_name is not None else ""
    allowed = _hash(script) if script_name is not None else "'none'"
    frame = {
        "policy": f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'",
        "style": Markup(style),
        "script": Markup(script),
    }
    return environment.get_template(template).render(frame | content)


def _source(environment: Environment, name: str) -> str:
    """One of our own files, which no data enters, as it stands between its tags."""
    assert environment.loader is not None
    text = environment.loader.get_source(environment, name)[0]
    return f"\n{text.strip()}\n"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def embedded(value: Any) -> str:
    r"""JSON that is safe inside a `<script>` element: no tag, comment or line separator can appear in it.

    >>> embedded("</script>")
    '"\\u003c/script\\u003e"'
    """
    # In ASCII a letter of most scripts would take six bytes.
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


# ----------------------------------------------------------------------------------------------------------------- data


def _data(page: Page) -> dict[str, Any]:
    """Input of the script."""
    summary, names = page.summary, page.names
    epochs = int(summary.config["epochs"])
    return {
        "classes": _known(page),
        "rows": [_row(suspect, names, epochs) for suspect in page.suspects],
        "bands": {
            name: {"rows": band.rows, **{part: _rounded(getattr(band, part)) for part in ("mean", "low", "high")}}
            for name, band in page.bands.items()
        },
        "histogram": page.histogram,
        "metric": summary.validation_metric,
        "chosen": summary.validation["chosen_epoch"],
        "flagged": summary.num_flagged,
    }


def _row(suspect: Suspect, names: list[str], epochs: int) -> dict[str, Any]:
    return {
        "id": str(suspect.instance_id),  # a script's numbers end at 2^53
        "uri": _middle_cut(shown(suspect.uri or "")),
        "rank": suspect.rank,
        "given": suspect.given_label,
        "suggested": suspect.predicted_label,
        "flagged": suspect.is_label_issue,
        "audit": suspect.audit_place,
        "quality": round(suspect.label_quality, 6),
        "score": round(suspect.noise_score, 4),
        "margin": round(suspect.mean_margin, 3),
        "share": round(suspect.predicted_share, 4),
        "why": wording.explain_row(suspect, names, epochs) + wording.twin_note(suspect),
        "path": _rounded(suspect.margins),
        "image": suspect.thumbnail,
    }


def _middle_cut(text: str) -> str:
    """Text without its middle where it is longer than URI_LENGTH."""
    half = URI_LENGTH // 2
    return text if len(text) <= URI_LENGTH else f"{text[:half]}…{text[-half:]}"


def _known(page: Page) -> list[str]:
    """Class names by index; of more than TABLE_CLASSES an empty text for those that do not occur on the page."""
    names = page.names
    if len(names) <= TABLE_CLASSES:
        return names
    used = {index for row in page.suspects for index in (row.given_label, row.predicted_label)}
    used |= {row["index"] for row in _classes(page)} | {index for index, _ in _matrix(page)["columns"]}
    return [name if index in used else "" for index, name in enumerate(names)]


def _rounded(values: tuple[float, ...]) -> list[float]:
    return [float(f"{value:.3g}") for value in values]


# --------------------------------------------------------------------------------------------------------------- markup


def _context(page: Page) -> dict[str, Any]:
    summary = page.summary
    classes = _classes(page)
    return {
        "title": wording.headline(summary),
        "source": shown(str(summary.config["data"])),
        "summary": summary,
        "percent": wording.percent,
        "score_text": score_text,
        "noise": _noise(summary),
        "trust": wording.trust(summary) | {"high": wording.HIGH, "fair": wording.FAIR},
        "notes": [shown(note) for note in wording.warnings(summary)],
        "review": wording.format_review(page.review),
        "matrix": _matrix(page),
        "duplicates": _duplicates(summary),
        "classes": classes,
        "hidden_classes": summary.num_classes - TABLE_CLASSES,
        "with_rates": any(row["estimated_noise_rate"] is not None for row in summary.classes),
        "with_remarks": any(row["remark"] for row in classes),
        "charts": wording.charts(page),
        "images": page.images,
        "has_dynamics": bool(page.bands["unflagged"].rows or page.bands["flagged"].rows),
        "stages": stages(summary.seconds, summary.cluster),
        "with_costs": bool(summary.cluster),
        "config": [(name, shown(wording.option(value))) for name, value in summary.config.items()],
        "versions": summary.versions.items(),
        "facts": [(name, shown(text)) for name, text in wording.run_overview(summary)],
    }


def _noise(summary: RunSummary) -> dict[str, float] | None:
    """The estimate and its range, and the end of the scale that they are drawn on."""
    value = summary.estimated_noise_rate
    if value is None or summary.noise_rate_range is None:
        return None
    low, high = summary.noise_rate_range
    end = next((end for end in (0.05, 0.1, 0.2, 0.3, 0.5) if max(high, value) <= end), 1.0)
    return {"value": value, "low": low, "high": high, "end": end}


def _duplicates(summary: RunSummary) -> dict[str, Any] | None:
    """What is said of equal rows with different labels; None without any."""
    found = summary.duplicates
    if found is None or not found["conflicting_groups"]:
        return None
    listed = [
        (group["duplicate_of"], ", ".join(f"{shown(name)} ({count:,})" for name, count in group["labels"].items()))
        for group in found["examples"]
    ]
    told = explain_duplicates(found, summary.data.kind)
    return found | {"told": told, "listed": listed, "hidden": found["conflicting_groups"] - len(listed)}


def stages(seconds: dict[str, float], cluster: dict[str, float] | None) -> list[tuple[str, float, float, str]]:
    """Name, seconds, share of the longest stage in [0, 1] (its bar), and cost as text, of each stage.

    seconds: by stage. cluster: what it had, as in `summary.json`; None where costs are not shown.
    """
    parts = [(name, value) for name, value in seconds.items() if name != "total"]
    most = max((value for _, value in parts), default=0.0) or 1.0
    return [(name, value, value / most, wording.format_cost(value, cluster)) for name, value in parts]


def _matrix(page: Page) -> dict[str, Any]:
    """The class-pair matrix: its classes, and per cell count and shade. The diagonal is empty."""
    names = page.names
    off = sorted(((g, p, n) for g, p, n in page.pairs if g != p), key=lambda pair: -pair[2])
    chosen: list[int] = []
    for given, predicted, _ in off:
        chosen += [c for c in (given, predicted) if c not in chosen]
        if len(chosen) >= MATRIX_CLASSES:
            break
    if len(names) <= MATRIX_CLASSES:
        chosen = list(range(len(names)))
    kept = sorted(chosen[:MATRIX_CLASSES])
    counts = {(given, predicted): count for given, predicted, count in off}
    most = max((counts.get((g, p), 0) for g in kept for p in kept), default=0)
    rows = [
        (g, names[g], [(p, counts.get((g, p), 0), _shade(counts.get((g, p), 0), most)) for p in kept]) for g in kept
    ]
    covered = sum(count for _, _, cells in rows for _, count, _ in cells)
    return {
        "columns": [(c, names[c]) for c in kept],
        "rows": rows,
        "dense": len(kept) > NUMBERED_CLASSES,
        "short": all(len(names[c]) <= 2 for c in kept),
        "hidden": len(names) - len(kept),
        "outside": sum(counts.values()) - covered,
    }


def _shade(count: int, most: int) -> int:
    """0 for none, then 1 to SHADES by the root of the count, so that rare pairs differ from none."""
    return 0 if count == 0 else max(1, round(SHADES * (count / most) ** 0.5))


def _classes(page: Page) -> list[dict[str, Any]]:
    """Rows of the class table, most flagged first, each with its most frequent suggestion."""
    names, classes = page.names, page.summary.classes
    kept = sorted(range(len(classes)), key=lambda index: (-classes[index]["flagged"], index))[:TABLE_CLASSES]
    best: dict[int, tuple[int, int]] = {}
    for given, predicted, count in page.pairs:
        if given != predicted and count > best.get(given, (0, 0))[1]:
            best[given] = (predicted, count)
    return [
        {
            **classes[index],
            "index": index,
            "name": names[index],
            "suggested": names[best[index][0]] if index in best else None,
            "suggested_rows": best[index][1] if index in best else 0,
            "remark": wording.class_remark(classes[index]),
        }
        for index in kept
    ]
