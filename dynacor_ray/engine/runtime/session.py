"""Whether Ray is used at all; a cluster that is started or joined quietly, what it has, and errors of remote code.

Ray is imported where it is used: one process is enough for small data, and Ray alone takes seconds to load.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dynacor_ray.core.errors import ClusterError, DynacorError, StorageError, expected_got
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import transient_messages
from dynacor_ray.engine.runtime.machine import Resources, this_machine

SPILL_UNTIL = 0.95
"""How full a disk may be before Ray refuses to spill to it (its local_fs_capacity_threshold)."""
_NOTICES = ("Token authentication is enabled", "Progress bars disabled")


_stays_here = 0
"""How many runs of this process use no cluster at the moment."""


@contextmanager
def one_process() -> Iterator[None]:
    """Use no cluster for a while, also where this process is connected to one."""
    global _stays_here
    _stays_here += 1
    try:
        yield
    finally:
        _stays_here -= 1


def on_cluster() -> bool:
    """Whether work goes to a Ray cluster; else all of it is done in this process."""
    return not _stays_here and is_connected()


def is_connected() -> bool:
    """Whether this process is connected to a Ray cluster."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def connect(address: str | None = None) -> None:
    """Join the cluster at `address` (or RAY_ADDRESS), or start one on this machine ("local", or without either).

    Does nothing when connected.

    Raises ClusterError when there is no cluster at the address, or none could be started.
    """
    import ray

    silence_ray()
    if ray.is_initialized():
        return
    address = address or os.environ.get("RAY_ADDRESS")
    starts = address in (None, "", "local")
    options = {"address": "local", "include_dashboard": False} if starts else {"address": address}
    if starts:
        disable_preemption_watcher()
    try:
        with _held_stderr(), kept_handler(signal.SIGTERM):
            ray.init(**options, log_to_driver=False, logging_level=logging.WARNING)
    except Exception as error:  # Ray raises a bare one where a machine is too busy for its processes to start in time
        remedy = "start it, correct --cluster, or leave --cluster out to use this machine"
        remedy = "run it again when this machine is less busy" if starts else remedy
        raise ClusterError(expected_got("a Ray cluster", f"'{error}' at {address or 'local'}", remedy)) from error
    if starts and (folder := _session_folder()) is not None:
        with suppress(OSError):
            folder.chmod(0o700)  # Ray lets every user of the machine write there
    silence_ray()


def disable_preemption_watcher() -> None:
    """Tell Ray Train that no node will be announced to go away: on one machine a process would wait for it in vain."""
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")


@contextmanager
def kept_handler(number: signal.Signals) -> Iterator[None]:
    """Put back what is done at a signal, where somebody had decided: Ray ends the process without a word."""
    held = signal.getsignal(number)
    try:
        yield
    finally:
        if callable(held) and threading.current_thread() is threading.main_thread():
            signal.signal(number, held)


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


def silence_ray() -> None:
    """Keep Ray's own progress bars and notices off the terminal."""
    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failed trials are named in our own result
    for name in ("ray.data.exceptions", "ray.data._internal.execution.streaming_executor_state"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what they tell is raised to us as an exception
    for name in ("ray._private.authentication.authentication_token_setup", "ray.data._internal.progress"):
        logging.getLogger(name).addFilter(_is_no_notice)
    if is_connected():
        set_up_data()


def set_up_data() -> None:
    """Tell Ray Data to be quiet, and to try again where storage fails for a moment.

    A data set keeps what it was told in the process where it was made; Ray Train makes it in one of its own.
    """
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.verbose_progress = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    known = context.retried_io_errors
    context.retried_io_errors = [*known, *(text for text in transient_messages() if text not in known)]


def _is_no_notice(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_NOTICES)


def resources() -> Resources:
    """Sum over the living nodes with CPUs; memory is the smallest node's, since a worker may land there.

    Without a cluster what this machine has.
    """
    if not on_cluster():
        return this_machine()
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    total = ray.cluster_resources()
    return Resources(
        cpus=total.get("CPU", 0.0),
        gpus=total.get("GPU", 0.0),
        memory_bytes=min((node["Resources"].get("memory", 0.0) for node in nodes), default=0.0),
        nodes=len(nodes),
        object_store_bytes=total.get("object_store_memory", 0.0),
    )


def require_spill_space(needed_bytes: int) -> str:
    """Check this node's disk for what does not fit into the object store; returns what was found.

    needed_bytes: most that a run keeps in the object stores of all nodes at a time. Raises StorageError when this
    node's share of the rest would not fit on the disk; Ray itself stops writing there when it is 95% full.
    """
    have, folder = resources(), spill_folder()
    rest = max(0, int((needed_bytes - have.object_store_bytes) / max(have.nodes, 1)))
    total, _, free = shutil.disk_usage(folder)
    room = max(0, free - int((1 - SPILL_UNTIL) * total))
    if rest > room:
        expected = f"{rest / 1e9:.2f} GB of room in {folder} for what does not fit into Ray's object store"
        remedy = "free some space, give Ray a larger object store, or start it with --temp-dir on a larger disk"
        raise StorageError(expected_got(expected, f"{room / 1e9:.2f} GB (Ray leaves 5% of a disk free)", remedy))
    return f"{have.object_store_bytes / 1e9:.1f} GB in the object store, {room / 1e9:.1f} GB to spill to in {folder}"


def spill_folder() -> Path:
    """Where this node's Ray writes what its object store cannot hold, unless it was started with another place."""
    folder = _session_folder()
    return folder if folder is not None and folder.exists() else Path(tempfile.gettempdir())


def _session_folder() -> Path | None:
    """Ray's own temporary folder on this node; None where this process started no node."""
    import ray

    node = getattr(getattr(ray._private, "worker", None), "_global_node", None)
    return Path(node.get_session_dir_path()) if node is not None else None


def is_autoscaling_head() -> bool:
    """Whether this process runs on the head node of a cluster that `ray up` made, whose workers come on demand."""
    return Path("~/ray_bootstrap_config.yaml").expanduser().exists()


@contextmanager
def wait_for_nodes(workers: int, use_gpu: bool, seconds: float, progress: Progress) -> Iterator[None]:
    """Ask the autoscaler for what training needs and wait at most `seconds` for it; give the nodes free at the end."""

    def enough(have: Resources) -> bool:
        return have.cpus > workers and (have.gpus >= workers or not use_gpu)

    if enough(resources()) or seconds <= 0:
        yield
        return
    progress.say(f"Waiting up to {seconds / 60:.0f} min for nodes with {workers} {'GPU' if use_gpu else 'CPU'}(s) ...")
    each = {"CPU": 1, "GPU": 1} if use_gpu else {"CPU": 1}
    from ray.autoscaler.sdk import request_resources

    deadline = time.monotonic() + seconds
    request_resources(bundles=[each] * workers + [{"CPU": 1}])
    try:
        while not enough(resources()) and time.monotonic() < deadline:
            time.sleep(2.0)
        yield
    finally:
        request_resources(bundles=[])  # the request would outlive us and keep idle nodes


@contextmanager
def remote_errors() -> Iterator[None]:
    """Raise the DynacorError that remote code raised instead of Ray's wrapping of it, and failing storage as such."""
    try:
        yield
    except Exception as error:
        cause = root_cause(error)
        if _is_ray("OutOfDiskError", cause):
            expected = f"room in {spill_folder()} for what does not fit into Ray's object store"
            remedy = "free some space, or start Ray with --temp-dir on a larger disk; the same command goes on"
            raise StorageError(expected_got(expected, "a disk that is 95% full", remedy)) from error
        if cause is error:
            raise
        if isinstance(cause, DynacorError):
            # Ray adds advice of its own below our message.
            raise type(cause)(str(cause).split("\nFailed to apply UDF")[0]) from None
        if isinstance(cause, OSError) and cause.errno in (errno.EACCES, errno.ENOSPC, errno.EROFS, errno.EDQUOT):
            raise StorageError(
                expected_got("storage to work", f"'{cause}'", "free space or check the rights")
            ) from error
        raise


def root_cause(error: BaseException) -> BaseException:
    """The innermost error of a chain of Ray wrappers and causes; prefers a DynacorError.

    Ray's wrapper of a DataError is itself a DataError, with a whole traceback for a message: wrappers never count.
    """
    seen: list[BaseException] = []
    queue: list[BaseException | None] = [error]
    while queue:
        item = queue.pop(0)
        if item is None or item in seen or not isinstance(item, BaseException):
            continue
        seen.append(item)
        failures = getattr(item, "worker_failures", None)
        more = (getattr(item, "cause", None), getattr(item, "controller_failure", None), item.__cause__)
        queue += [*more, *(failures.values() if failures else ())]
    inner = [e for e in seen if not _is_ray("RayTaskError", e)] or seen
    return next((e for e in inner if isinstance(e, DynacorError)), inner[-1])


def _is_ray(name: str, error: BaseException) -> bool:
    """Whether an error is one of `ray.exceptions`, which are not loaded for that."""
    known = sys.modules.get("ray.exceptions")
    return known is not None and isinstance(error, getattr(known, name))
