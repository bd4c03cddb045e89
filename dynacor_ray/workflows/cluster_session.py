"""Whether a run needs Ray, decided in this one place, and the run's connection to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core.errors import ConfigError, counted, expected_got
from dynacor_ray.core.progress import Progress
from dynacor_ray.engine.data.ingest import first_rows
from dynacor_ray.engine.runtime.session import (
    connect,
    is_autoscaling_head,
    is_connected,
    on_cluster,
    one_process,
    require_spill_space,
    resources,
    wait_for_nodes,
)
from dynacor_ray.engine.training.job import TrainPlan, plan_training, uses_gpu
from dynacor_ray.models.encoders import parse_encoder
from dynacor_ray.workflows.prepare import PreparedRun

MOST_FEATURES = 4096
"""Numbers that an encoder gives at most, for a bound on memory before it is loaded."""
SAMPLED_FROM = 16_384
"""Numbers per row below which a small part of the memory is enough, so that no row has to be looked at."""
MOST_IMAGES_FOR_GPU = 20_000
"""Images that one process decodes for a GPU: its threads decode a fifth of what processes of their own do."""
SHARE = 0.6
"""Of the free memory, what a run may take."""
BYTES_BESIDE = 800
"""Of a row besides its features, at most: labels, URI, class scores, and the columns of the results. Of a million rows
with 14 classes each took 600."""


@contextmanager
def ray_session(
    config: DetectConfig, prepared: PreparedRun | None, progress: Progress, needs: str | None = None
) -> Iterator[None]:
    """Everything in the block runs in this process where that is enough, else on a Ray cluster.

    Args:
        config: The options of the run.
        prepared: The opened data; None where they could not be opened.
        progress: Where the user is told which of the two it is, and why.
        needs: What asks for a cluster besides the data and the options of a run.

    Raises:
        ConfigError: `--cluster none` and a run that needs one.
        ClusterError: There is none at the address.
    """
    joins, why = _asked_for(config), needs or _too_much(config, prepared)
    if config.cluster == "none":
        if why is not None:
            remedy = "leave out --cluster none"
            raise ConfigError(expected_got("a run that one process is enough for, for --cluster none", why, remedy))
        joins = None
    else:
        why = why or _slow(config, prepared)
    if joins is None and why is None:
        rows = prepared.source.num_rows if prepared else 0
        what = f"{counted(rows, 'row')} fit{'s' * (rows == 1)} into memory" if prepared else "nothing needs more"
        hint = "" if config.cluster == "none" else "; --cluster local starts Ray"
        progress.say(f"One process: {what}{hint}.")
        with one_process():
            yield
        return
    progress.say(f"Ray: {joins or why}.")
    with progress.timed("start"):
        connect(None if config.cluster == "auto" else config.cluster)
        minutes = config.node_timeout_minutes
        minutes = 15.0 * is_autoscaling_head() if minutes is None else minutes
    with wait_for_nodes(config.workers, config.gpu == "yes", 60 * minutes, progress):
        if config.workers > 1 and resources().nodes == 1 and not uses_gpu(config.workers, config.gpu, resources()):
            progress.say(f"{config.workers} workers share the CPUs of one machine: --workers 1 is faster.")
        yield


def _asked_for(config: DetectConfig) -> str | None:
    """The cluster that the user named or is connected to."""
    if config.cluster not in ("auto", "none"):
        return "a cluster on this machine" if config.cluster == "local" else f"the cluster at {config.cluster}"
    if is_connected():
        return "the cluster that this process is connected to"
    return f"the cluster at {os.environ['RAY_ADDRESS']}, by RAY_ADDRESS" if os.environ.get("RAY_ADDRESS") else None


def _too_much(config: DetectConfig, prepared: PreparedRun | None) -> str | None:
    """What of a run is more than one process can do."""
    if config.workers > 1:
        return f"{config.workers} workers"
    if prepared is None:
        return None
    with one_process():
        have = resources()
    if have.gpus > 1 and config.gpu != "no" and prepared.source.kind == "image" and config.network is None:
        return f"{have.gpus:g} GPUs to encode on"
    rows = round(prepared.source.num_rows * (1 + config.gamma))
    given = config.worker_cache_gb
    room = have.memory_bytes * SHARE if given is None else given * 2**30
    beside = rows * (BYTES_BESIDE + 12 * config.epochs)
    if given is None and rows * 4 * SAMPLED_FROM + beside <= room:
        return None
    needed = rows * _row_bytes(prepared) + (beside if given is None else 0)
    if needed <= room:
        return None
    return f"{prepared.source.num_rows:,} rows need {needed / 1e9:.1f} GB, and {room / 1e9:.1f} GB are for one process"


def _slow(config: DetectConfig, prepared: PreparedRun | None) -> str | None:
    """What of a run one process can do, and processes of their own much sooner."""
    if prepared is None or prepared.source.kind != "image" or prepared.source.num_rows <= MOST_IMAGES_FOR_GPU:
        return None
    with one_process():
        have = resources()
    if not uses_gpu(config.workers, config.gpu, have):
        return None
    return f"{prepared.source.num_rows:,} images to decode for a GPU"


def _row_bytes(prepared: PreparedRun) -> int:
    """Of one row as a training keeps it, at most."""
    training, config = prepared.training, prepared.config
    if training.augmentation is not None:
        return 3 * training.augmentation.stored**2
    if prepared.source.kind == "feature":
        sample = first_rows(prepared.source)
        return int(sample.nbytes / max(sample.num_rows, 1))
    if config.encoder != "auto":
        spec = parse_encoder(config.encoder, config.image_size)
        if spec.kind == "pixels" and spec.image_size:
            return 12 * spec.image_size**2
    return 4 * MOST_FEATURES


def plan_for(config: DetectConfig, at_once: int = 1) -> TrainPlan:
    """Spread `at_once` trainings over what there is. Raises ClusterError when it is too small for one."""
    return plan_training(config, resources(), at_once)


def store_bytes(prepared: PreparedRun) -> int:
    """Most that a run keeps in Ray's object stores at a time: rows that are read, dynamics, the ranking.

    0.84 GB were measured with a million rows of 512 features, 10 epochs and a store of 0.3 GB; here it is 1.5 GB.
    """
    config, rows = prepared.config, prepared.source.num_rows
    return min(1 << 30, rows << 16) + int(rows * (1 + config.gamma) * (2 * config.epochs + 400))


def check_storage(prepared: PreparedRun, progress: Progress) -> None:
    """Say so when several nodes could not see what one of them writes. Raises StorageError when Ray has no room."""
    if not on_cluster():
        return
    require_spill_space(store_bytes(prepared))
    run, packed = prepared.run, prepared.packed
    if resources().nodes > 1 and (run.is_local or packed.is_local):
        progress.say(f"Warning: {run} and {packed} must be on storage that all nodes see, such as NFS or s3://.")
