"""Start or join a Ray cluster quietly, see what it has, and bring errors of remote code back as they were."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.autoscaler.sdk import request_resources

from dynacor_ray.errors import ClusterError, DynacorError, StorageError, explain
from dynacor_ray.progress import Progress

_NOTICES = ("Token authentication is enabled", "Progress bars disabled")


@dataclass(frozen=True)
class Resources:
    """What the cluster has, and what the largest single node of it has."""

    cpus: float
    gpus: float
    memory_bytes: float
    nodes: int
    object_store_bytes: float


def connect(address: str | None = None) -> None:
    """Join the cluster at `address` (or RAY_ADDRESS), or start one on this machine. Does nothing when connected.

    Raises ClusterError when there is no cluster at the address.
    """
    quieten()
    if ray.is_initialized():
        return
    address = address or os.environ.get("RAY_ADDRESS")
    options = {"address": address} if address else {"address": "local", "include_dashboard": False}
    try:
        with _held_stderr():
            ray.init(**options, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, ValueError, RuntimeError) as error:
        remedy = "start it, correct --address, or leave --address out to use this machine"
        raise ClusterError(explain("a Ray cluster", f"'{error}' at {address or 'local'}", remedy)) from error
    quieten()


@contextmanager
def _held_stderr() -> Iterator[None]:
    """Keep what Ray's core says while it starts, and pass it on only if the start fails."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        saved = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(saved, held.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def quieten() -> None:
    """Keep Ray's own progress bars and notices off the terminal."""
    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("ray._private.authentication.authentication_token_setup", "ray.data._internal.progress"):
        logging.getLogger(name).addFilter(_is_no_notice)
    if ray.is_initialized():
        from ray.data import DataContext

        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.verbose_progress = False
        context.print_on_execution_start = False


def _is_no_notice(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_NOTICES)


def resources() -> Resources:
    """Sum over the living nodes; memory is the smallest node's, since a worker may land there."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    total = ray.cluster_resources()
    return Resources(
        cpus=total.get("CPU", 0.0),
        gpus=total.get("GPU", 0.0),
        memory_bytes=min((n["Resources"].get("memory", 0.0) for n in nodes if n["Resources"].get("CPU")), default=0.0),
        nodes=len(nodes),
        object_store_bytes=total.get("object_store_memory", 0.0),
    )


def autoscales() -> bool:
    """Whether this process runs on the head node of a cluster that `ray up` made, whose workers come on demand."""
    return Path("~/ray_bootstrap_config.yaml").expanduser().exists()


def wait_for_nodes(workers: int, use_gpu: bool, seconds: float, progress: Progress) -> None:
    """Ask the autoscaler for what training needs, and wait at most `seconds` until it is there."""

    def enough(have: Resources) -> bool:
        return have.cpus > workers and (have.gpus >= workers or not use_gpu)

    deadline = time.monotonic() + seconds
    if enough(resources()) or seconds <= 0:
        return
    progress.say(f"Waiting up to {seconds / 60:.0f} min for nodes with {workers} {'GPU' if use_gpu else 'CPU'}(s) ...")
    each = {"CPU": 1, "GPU": 1} if use_gpu else {"CPU": 1}
    request_resources(bundles=[each] * workers + [{"CPU": 1}])
    while not enough(resources()) and time.monotonic() < deadline:
        time.sleep(2.0)


@contextmanager
def remote_errors() -> Iterator[None]:
    """Raise the DynacorError or OSError that remote code raised instead of Ray's wrapping of it."""
    try:
        yield
    except DynacorError:
        raise
    except Exception as error:
        cause = root_cause(error)
        if isinstance(cause, DynacorError):
            raise cause from None
        if isinstance(cause, OSError) and cause.errno in (13, 28, 30, 122):
            raise StorageError(explain("storage to work", f"'{cause}'", "free space or check the rights")) from error
        raise


def root_cause(error: BaseException) -> BaseException:
    """The innermost error of a chain of Ray wrappers and causes; prefers a DynacorError."""
    seen: list[BaseException] = []
    queue: list[BaseException | None] = [error]
    while queue:
        item = queue.pop(0)
        if item is None or item in seen or not isinstance(item, BaseException):
            continue
        seen.append(item)
        failures = getattr(item, "worker_failures", None)
        queue += [getattr(item, "cause", None), item.__cause__, *(failures.values() if failures else ())]
    return next((e for e in seen if isinstance(e, DynacorError)), seen[-1])
