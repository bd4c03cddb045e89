"""Look before you run: whether data, encoder, storage and cluster are fit for `detect`, and what it would do."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from rich.console import Console
from rich.table import Table

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.config.options import make_config
from dynacor_ray.core import schema
from dynacor_ray.core.errors import ConfigError, DynacorError, counted, expected_got
from dynacor_ray.core.leftovers import no_empty_folders
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.redaction import redact
from dynacor_ray.engine.data.ingest import count_labels, first_rows, rows_per_part
from dynacor_ray.engine.data.line_up import equal_rows
from dynacor_ray.engine.data.row_facts import RowFacts
from dynacor_ray.engine.runtime.session import on_cluster, require_spill_space, resources
from dynacor_ray.engine.training.job import Job
from dynacor_ray.models.encoders import load_encoder, ready_encoder
from dynacor_ray.models.image_classifiers import build_network
from dynacor_ray.report.terminal import clean
from dynacor_ray.sources.base import Shard
from dynacor_ray.sources.validate import (
    LabelVocabulary,
    Validated,
    build_vocabulary,
    check_quarantine,
    check_unique_ids,
    feature_dim_of,
    reason_kind,
    validate_rows,
    vocabulary_warnings,
)
from dynacor_ray.workflows.cluster_session import plan_for, ray_session, store_bytes
from dynacor_ray.workflows.cost_estimate import (
    Estimate,
    Speeds,
    decode_seconds,
    encode_seconds,
    estimate,
    process_bytes,
    step_seconds,
)
from dynacor_ray.workflows.detect import finished
from dynacor_ray.workflows.open_data import choose_encoder, image_work
from dynacor_ray.workflows.prepare import PreparedRun, prepare

SAMPLE_ROWS = 64
SAMPLE_SHARDS = 4
MORE_SHARDS = 64
"""What is sampled where the first few shards have more unusable rows than a run may have."""
TIMED_ROWS = {"image": 256, "feature": 4096}
"""Rows whose reading is timed: about what is read at once in any case."""


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

    def __repr__(self) -> str:
        wrong = "; ".join(f"{check.name}: {check.message}" for check in self.checks if not check.ok)
        return f"<DoctorReport {f'not ready: {redact(wrong)}' if wrong else 'ready'}>"

    def look(self, name: str, action: Callable[[], str]) -> bool:
        """Do one check; a DynacorError is its finding."""
        try:
            self.checks.append(Check(name, True, action()))
        except DynacorError as error:
            self.checks.append(Check(name, False, str(error)))
        return self.checks[-1].ok


def doctor(data: str, price_per_hour: float | None = None, **options: Any) -> DoctorReport:
    """Check everything that `detect(data, **options)` needs, without running it; reads a small sample of the data.

    price_per_hour: of the whole cluster, in any currency, for an estimate of what the run costs.
    """
    return run_doctor(make_config(DetectConfig, data, **options), price_per_hour)


def run_doctor(config: DetectConfig, price_per_hour: float | None = None) -> DoctorReport:
    """`doctor` for a configuration that is already built; prints its findings unless `quiet`.

    Raises ConfigError for a price below 0.
    """
    if price_per_hour is not None and not 0 <= price_per_hour < math.inf:
        raise ConfigError(
            expected_got("--price-per-hour of at least 0", repr(price_per_hour), "give what the cluster costs")
        )
    report, opened = DoctorReport(), list[PreparedRun]()
    report.plan["base_bytes"] = process_bytes()  # before the data: what a worker has without any row

    def open_all() -> str:
        opened.append(prepare(config))
        source = opened[0].source
        found = f"{source.name}: {counted(source.num_rows, 'row')}, each with one {source.kind}."
        return " ".join([found, *source.notes, *(f"Warning: {sentence}" for sentence in source.warnings)])

    found = report.look("data", open_all)
    with ExitStack() as session:
        report.look("cluster", lambda: _cluster(config, opened[0] if found else None, session, report.plan))
        if found:
            _look_at_data(opened[0], report)
    if report.ok:
        report.plan |= _estimate(opened[0], report.plan, price_per_hour)
    if not config.quiet:
        _print(report)
    return report


def _look_at_data(prepared: PreparedRun, report: DoctorReport) -> None:
    report.look("labels and sample", lambda: sample_rows(prepared, report.plan))
    report.look("encoder", lambda: _encoder(prepared, report.plan))
    if on_cluster():
        report.look("room to spill", lambda: require_spill_space(store_bytes(prepared)))
    report.look("run directory", lambda: _directory(prepared))


def sample_rows(prepared: PreparedRun, plan: dict[str, Any]) -> str:
    """Count all labels; read and validate a few rows spread over the data."""
    source = prepared.source
    counts = count_labels(source.shards(4096))
    vocabulary = build_vocabulary(counts, source)
    most = rows_per_part(first_rows(source))  # as packing has it: huge images are read a few at a time
    shards = source.shards(min(SAMPLE_ROWS, most))
    tables = [shard.read() for shard in _spread(shards, SAMPLE_SHARDS)]
    dim = feature_dim_of(tables[0]) if source.kind == "feature" else None

    def validate(table: pa.Table) -> Validated:
        return validate_rows(table, source.kind, vocabulary, dim, source.feature_names)

    checked = list(map(validate, tables))
    bad, total = _unusable(checked)
    if bad > prepared.config.max_invalid_share * total:  # by chance, or because a run would stop: look closer
        checked = [validate(shard.read()) for shard in _spread(shards, MORE_SHARDS)]
    if source.kind == "feature":
        features = np.concatenate([schema.matrix(one.rows[schema.FEATURE]) for one in checked])
        if len(features) > 1 and (features == features[0]).all():
            raise equal_rows(len(features))
    plan["classes"] = len(vocabulary.names)
    plan["feature_dim"] = dim
    plan["gray"] = all(c.gray for c in checked)
    plan["max_side"] = max((c.max_side or 0 for c in checked), default=0)
    plan["timed"] = _Timed.read(prepared, most, lambda table: validate(table).rows)
    unusable = _check_limits(prepared, counts, vocabulary, checked)
    notes = [f"{len(vocabulary.names)} classes", unusable]
    return "; ".join(notes + vocabulary_warnings(counts, vocabulary))


def _spread(shards: list[Shard], count: int) -> list[Shard]:
    """At most `count` of the shards, spread evenly."""
    return [shards[i] for i in np.linspace(0, len(shards) - 1, min(count, len(shards))).astype(int)]


def _unusable(checked: list[Validated]) -> tuple[int, int]:
    """How many rows are unusable, and how many there are."""
    bad = sum(c.quarantine.num_rows for c in checked)
    return bad, bad + sum(c.rows.num_rows for c in checked)


def _check_limits(
    prepared: PreparedRun, counts: Mapping[str, int], vocabulary: LabelVocabulary, checked: list[Validated]
) -> str:
    """Apply the limits of `detect` to all labels and to the sampled rows; returns how many of these are unusable."""
    source, limit = prepared.source, prepared.config.max_invalid_share
    unlabeled = source.num_rows - sum(count for label, count in counts.items() if label in vocabulary.codes)
    reasons, examples = Counter[str](), dict[str, str]()
    for row in pa.concat_tables([c.quarantine for c in checked]).to_pylist():
        kind = reason_kind(row[schema.REASON])
        reasons[kind] += 1
        where = row[schema.URI] or f"row {row[schema.RAW_ROW]}"
        examples.setdefault(kind, f"{row[schema.REASON]} ({where})")
    bad, total = _unusable(checked)
    shown = {examples[kind]: count for kind, count in reasons.items()}
    check_quarantine(bad, total, limit, shown, source.hint)
    check_quarantine(unlabeled, source.num_rows, limit, {"missing or unknown label": unlabeled}, source.hint)
    if source.has_instance_ids:
        check_unique_ids(np.concatenate([c.rows[schema.INSTANCE_ID].to_numpy() for c in checked]))
    why = ", ".join(f"{count:,} x {example}" for example, count in shown.items())
    return f"{bad} of {total} sampled rows unusable{f': {why}' if why else ''}"


def _encoder(prepared: PreparedRun, plan: dict[str, Any]) -> str:
    """Load the encoder and time a few images."""
    config, kind = prepared.config, prepared.source.kind
    if prepared.training.network is not None:
        return _network(prepared, plan)
    work = image_work(
        config, prepared.source.num_rows, plan.get("max_side", 0), plan.get("gray", False), plan.get("device") == "cuda"
    )
    choice = choose_encoder(config, kind, work)
    if choice.spec.kind == "features":
        plan["dim"] = plan.get("feature_dim")
        return f"the {plan.get('feature_dim')} given features; nothing to embed"
    device = "cuda" if plan.get("device") == "cuda" else "cpu"
    ready = ready_encoder(choice.spec, device == "cuda")
    spec, encoder = ready.spec, load_encoder(ready.spec, device) if device == "cuda" else ready.encoder
    plan["dim"] = encoder.dim
    lines = [f"{spec.slug} at {encoder.image_size} px, {encoder.dim} features", choice.reason, ready.note]
    found = "; ".join(line.rstrip(".") for line in lines if line)
    timed: _Timed | None = plan.get("timed")
    if timed is None or timed.rows.num_rows == 0:
        return found
    images = timed.rows[schema.IMAGE].to_pylist()
    plan["decode"] = decode_seconds(images, encoder.image_size)
    plan["encode"] = encode_seconds(encoder, images, device)
    where = "a GPU" if device == "cuda" else "a core"
    return f"{found}; {1 / plan['encode']:,.0f} images/s on {where} of this machine, decoding {1 / plan['decode']:,.0f}"


def _network(prepared: PreparedRun, plan: dict[str, Any]) -> str:
    """Build the network and time how images are decoded for it."""
    training, timed = prepared.training, plan.get("timed")
    assert training.network is not None
    assert training.augmentation is not None
    network, stored = build_network(training.network, plan.get("classes", 2)), training.augmentation.stored
    plan["dim"], plan["value_type"] = 3 * stored * stored, "uint8"
    if timed is not None and timed.rows.num_rows:
        plan["decode"] = decode_seconds(timed.rows[schema.IMAGE].to_pylist(), stored)
    size = sum(parameter.numel() for parameter in network.parameters())
    return f"{training.network.name} at {training.network.image_size} px, {size:,} parameters; nothing to embed"


def _directory(prepared: PreparedRun) -> str:
    if finished(prepared) is not None:
        return f"{prepared.run} is complete: detect would only show it"
    probe = prepared.run / ".probe"
    with no_empty_folders(prepared.run):
        probe.write_bytes(b"")
        probe.delete()
    return f"{prepared.run} can be written"


def _cluster(config: DetectConfig, prepared: PreparedRun | None, session: ExitStack, plan: dict[str, Any]) -> str:
    """Start or join a cluster where `detect` would, for as long as the session lasts."""
    session.enter_context(ray_session(config, prepared, Progress(quiet=True)))
    have = resources()
    spread = plan_for(config)
    device = ("cuda" if torch.cuda.is_available() else "elsewhere") if spread.use_gpu else "cpu"
    plan |= {"cpus": have.cpus, "gpus": have.gpus, "spread": spread, "device": device}
    where = "GPU" if spread.use_gpu else "CPU"
    what = counted(have.nodes, "node") if on_cluster() else "one process"
    return f"{what}, {have.cpus:g} CPUs, {have.gpus:g} GPUs; training on {where}"


@dataclass(frozen=True)
class _Timed:
    """The usable rows among those whose reading was timed, and the seconds that each of all took on one CPU."""

    rows: pa.Table
    seconds: float

    @classmethod
    def read(cls, prepared: PreparedRun, most: int, validate: Callable[[pa.Table], pa.Table]) -> _Timed:
        """Read and validate the first rows, `most` of them, as a packing task does."""
        shard = prepared.source.shards(min(TIMED_ROWS[prepared.source.kind], most))[0]
        start = time.perf_counter()
        rows = validate(shard.read())
        return cls(rows, (time.perf_counter() - start) / shard.num_rows)


def _estimate(prepared: PreparedRun, plan: dict[str, Any], price_per_hour: float | None) -> dict[str, Any]:
    """What the run would do, in rows, and what that takes by what was measured."""
    config, rows, dim = prepared.config, prepared.source.num_rows, int(plan["dim"])
    copies = round(rows * config.gamma)
    center, counts = np.zeros(dim, np.float32), np.zeros(plan["classes"], np.int64)
    kind = plan.get("value_type", "float32")
    facts = RowFacts(rows, copies, plan["classes"], dim, center, 1.0, counts, value_type=kind)
    job = Job(prepared.training, plan["spread"], prepared.run, facts)
    found = {
        "rows": rows,
        "corrupted copies (§4.2)": copies,
        "signals to record": (rows + copies) * config.epochs,
        "training": f"{config.epochs} epochs, {config.workers} worker(s), "
        + ("rows streamed in every epoch" if job.streamed else "rows kept in memory"),
    }
    if plan["device"] == "elsewhere":
        here = "not estimated: the GPUs are elsewhere; run doctor where one is (ray job submit --entrypoint-num-gpus 1)"
        return {"run": found | {"time": here}}
    timed: _Timed = plan["timed"]
    taken = estimate(
        job,
        Speeds(timed.seconds, plan.get("decode"), plan.get("encode"), step_seconds(job, plan["device"])),
        packed_bytes=timed.rows.nbytes / max(timed.rows.num_rows, 1),
        cpus=plan["cpus"],
        gpus=plan["gpus"],
        base_bytes=plan["base_bytes"],
    )
    return {"run": found | _told(taken, price_per_hour), "estimate": taken}


def _told(taken: Estimate, price_per_hour: float | None) -> dict[str, str]:
    """The estimate in words."""
    stages = {"reading": taken.read_seconds, "embedding": taken.embed_seconds, "training": taken.train_seconds}
    found = {f"time for {name}": _about(seconds) for name, seconds in stages.items() if seconds}
    found["time for all three" if taken.embed_seconds else "time for both"] = _about(taken.seconds)
    found["not in it"] = "starting, clustering, writing"
    found["training rows per worker"] = f"{taken.rows_per_second:,.0f}/s"
    found["memory per worker"] = f"{taken.memory_bytes / 1e9:,.1f} GB"
    found["disk for cache and results"] = f"{taken.disk_bytes / 1e9:,.2f} GB"
    if price_per_hour is not None:
        found["cost"] = f"about {taken.cost(price_per_hour):,.2f} at {price_per_hour:,.2f} per hour"
    return found


def _about(seconds: float) -> str:
    """A time as people say it.

    >>> [_about(seconds) for seconds in (0.4, 90, 5000, 40000)]
    ['about 0.4 s', 'about 90 s', 'about 83 min', 'about 11.1 h']
    """
    if seconds < 120:
        return f"about {seconds:.0f} s" if seconds >= 10 else f"about {seconds:.1f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 7200 else f"about {seconds / 3600:,.1f} h"


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
    ready = "Ready. Next: dynacor detect with the same options."
    console.print(ready if report.ok else "Not ready: correct the lines marked 'no'.")
