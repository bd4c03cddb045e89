"""Options of a person's review of a finished run."""

from __future__ import annotations

from dataclasses import MISSING, dataclass

from dynacor_ray.config.options import Checked, option


@dataclass(frozen=True, kw_only=True)
class ReviewConfig(Checked):
    """Options of `dynacor review`."""

    run: str = option(MISSING, "arguments", positional=True)
    """Directory of a finished `dynacor detect` or `dynacor sweep`."""
    marks: str | None = option(None, "arguments", positional=True)
    """Answers: CSV with the columns instance_id and mark (wrong, right or unsure), as the report saves it or --sample
    writes it, with the right class in a column `label` where you know it; or an export of Label Studio (JSON, JSON-MIN,
    CSV), CVAT for images (.xml, .zip), FiftyOne (labels.json, samples.json) or Datumaro (.json)."""
    sample: int | None = option(None, "options", within="[1, inf)", hint="pass e.g. --sample 100")
    """Draw that many rows to ask a person about, with known chances over the whole ranking; after answers, where more
    of them tell most. Writes audit.csv, tasks for Label Studio, and the order `audit sample` of the report."""
    seed: int | None = option(None, "options", only_with="--sample")
    """Seed of the draw. Default: that of the run."""
    data: str | None = option(None, "options")
    """Where the data are now, if they were moved since the run; they must be the same files."""
    prefix: str | None = option(None, "options", only_with="--sample")
    """What Label Studio needs before each path, such as `/data/local-files/?d=images/`; the path is encoded for it."""
