"""Look before you run: whether data, encoder, storage and cluster are fit for `detect`, and what it would do."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from dynacor_ray.config import DetectConfig, make_config
from dynacor_ray.engine.ingest import count_labels
from dynacor_ray.engine.job import Job, RowFacts
from dynacor_ray.engine.session import connect, require_spill_space, resources
from dynacor_ray.errors import DynacorError
from dynacor_ray.models.encoders import load_encoder
from dynacor_ray.pipeline import finished
from dynacor_ray.prepare import Prepared, choose_encoder, plan_for, prepare, store_bytes
from dynacor_ray.report.terminal import clean
from dynacor_ray.sources.validate import build_vocabulary, feature_dim_of, validate_rows, vocabulary_warnings

SAMPLE_ROWS = 64
SAMPLE_SHARDS = 4
TRIAL_BATCH = 32


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    message: str


@dataclass
class DoctorReport:
    """All checks, and the facts of the run that was planned from them."""

    checks: list[Check] = field(default_factory=list)
    plan: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether `detect` with the same options can be expected to run."""
        return all(check.ok for check in self.checks)

    def look(self, name: str, action: Callable[[], str]) -> bool:
        """Do one check; a DynacorError is its finding."""
        try:
            self.checks.append(Check(name, True, action()))
        except DynacorError as error:
            self.checks.append(Check(name, False, str(error)))
        return self.checks[-1].ok


def doctor(data: str, **options: Any) -> DoctorReport:
    """Check everything that `detect(data, **options)` needs, without running it; reads a small sample of the data."""
    return run_doctor(make_config(data=data, **options))


def run_doctor(config: DetectConfig) -> DoctorReport:
    """`doctor` for a configuration that is already built; prints its findings unless `quiet`."""
    report, opened = DoctorReport(), list[Prepared]()

    def open_all() -> str:
        opened.append(prepare(config))
        source = opened[0].source
        return f"{source.name}: {source.num_rows:,} rows, each with one {source.kind}"

    # First, so that nothing after it starts a cluster of its own.
    report.look("cluster", lambda: _cluster(config, report.plan))
    if report.look("data", open_all):
        prepared = opened[0]
        report.look("labels and sample", lambda: _sample(prepared, report.plan))
        report.look("encoder", lambda: _encoder(prepared, report.plan))
        report.look("room to spill", lambda: require_spill_space(store_bytes(prepared)))
        report.look("run directory", lambda: _directory(prepared))
    if report.ok:
        report.plan |= _estimate(opened[0], report.plan)
    if not config.quiet:
        _print(report)
    return report


def _sample(prepared: Prepared, plan: dict[str, Any]) -> str:
    """Count all labels; read and validate a few rows spread over the data."""
    source = prepared.source
    counts = count_labels(source.shards(4096))
    vocabulary = build_vocabulary(counts, source)
    shards = source.shards(SAMPLE_ROWS)
    chosen = [shards[i] for i in np.linspace(0, len(shards) - 1, min(SAMPLE_SHARDS, len(shards))).astype(int)]
    tables = [shard.read() for shard in chosen]
    dim = feature_dim_of(tables[0]) if source.kind == "feature" else None
    checked = [validate_rows(table, source.kind, vocabulary, dim) for table in tables]
    bad = sum(c.quarantine.num_rows for c in checked)
    total = bad + sum(c.rows.num_rows for c in checked)
    plan["classes"] = len(vocabulary.names)
    plan["feature_dim"] = dim
    plan["grey"] = all(c.grey for c in checked)
    plan["max_side"] = max((c.max_side or 0 for c in checked), default=0)
    notes = [f"{len(vocabulary.names)} classes", f"{bad} of {total} sampled rows unusable"]
    return "; ".join(notes + vocabulary_warnings(counts, vocabulary))


def _encoder(prepared: Prepared, plan: dict[str, Any]) -> str:
    """Load the encoder and time a small batch."""
    config, kind = prepared.config, prepared.source.kind
    spec = choose_encoder(config, kind, plan.get("max_side", 0), plan.get("grey", False))
    if spec.kind == "features":
        plan["embed_rate"], plan["dim"] = None, plan.get("feature_dim")
        return f"the {plan.get('feature_dim')} given features; nothing to embed"
    encoder = load_encoder(spec, "cpu")
    batch = np.zeros((TRIAL_BATCH, encoder.image_size, encoder.image_size, 3), np.uint8)
    encoder.encode(batch)
    start = time.perf_counter()
    encoder.encode(batch)
    rate = TRIAL_BATCH / (time.perf_counter() - start)
    plan["embed_rate"], plan["dim"] = rate, encoder.dim
    return f"{spec.slug} at {encoder.image_size} px, {encoder.dim} features, {rate:,.0f} images/s on this machine's CPU"


def _directory(prepared: Prepared) -> str:
    if finished(prepared) is not None:
        return f"{prepared.run} is complete: detect would only show it"
    probe = prepared.run / ".probe"
    fresh = not prepared.run.exists()
    probe.write_bytes(b"")
    probe.delete()
    if fresh:
        prepared.run.delete()
    return f"{prepared.run} can be written"


def _cluster(config: DetectConfig, plan: dict[str, Any]) -> str:
    connect(config.address)
    have = resources()
    spread = plan_for(config)
    plan |= {"cpus": have.cpus, "spread": spread}
    device = "GPU" if spread.use_gpu else "CPU"
    return f"{have.nodes} node(s), {have.cpus:g} CPUs, {have.gpus:g} GPUs; training on {device}"


def _estimate(prepared: Prepared, plan: dict[str, Any]) -> dict[str, Any]:
    """What the run would do, in rows, bytes and, where it was timed, minutes."""
    config, rows, dim = prepared.config, prepared.source.num_rows, int(plan["dim"])
    copies = round(rows * config.gamma)
    blank = np.zeros(0, np.float32)
    facts = RowFacts(rows, copies, plan["classes"], dim, blank, 1.0, blank)
    job = Job(prepared.training, plan["spread"], prepared.run, facts)
    found = {
        "rows": rows,
        "corrupted copies (§4.2)": copies,
        "signals to record": (rows + copies) * config.epochs,
        "training": f"{config.epochs} epochs, {config.workers} worker(s), "
        + ("rows streamed in every epoch" if job.streamed else "rows kept in memory"),
        "features on disk": f"{(rows + copies) * dim * 4 / 1e9:.2f} GB",
        "memory per worker for rows": f"{0.0 if job.streamed else job.rows_per_rank * dim * 4 / 1e9:.2f} GB",
    }
    if plan["embed_rate"]:
        minutes = (rows + copies) / plan["embed_rate"] / plan["cpus"] / 60
        found["embedding, on the CPUs"] = f"about {minutes:,.1f} min"
    return {"run": found}


def _print(report: DoctorReport) -> None:
    console = Console()
    table = Table(title="dynacor doctor", title_justify="left")
    for name in ("check", "", "finding"):
        table.add_column(name, overflow="fold")
    for check in report.checks:
        table.add_row(check.name, "ok" if check.ok else "[red]no[/red]", clean(check.message))
    console.print(table)
    if "run" in report.plan:
        planned = Table(title="What detect would do", title_justify="left", show_header=False)
        for name, value in report.plan["run"].items():
            planned.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
        console.print(planned)
    console.print("Ready." if report.ok else "Not ready: correct the lines marked 'no'.")
