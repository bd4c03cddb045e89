"""Shared code of the benchmarks in jobs/bench_*.py: turns, memory of all processes, synthetic data, plain training.

A benchmark prints one JSON object. Its ratios compare variants that took turns in the same run, so that a busy machine
slows both down alike. Seconds alone are valid for one machine only.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dynacor_ray.core import schema
from dynacor_ray.ground_truth.synthetic_noise import symmetric

if TYPE_CHECKING:
    from dynacor_ray.engine.training.job import TrainConfig

PACKAGES = ("dynacor-ray", "ray", "torch", "numpy", "pyarrow", "cleanlab", "openvino")
CHUNK_ROWS = 32_768
CENTER_SPREAD = 0.15
"""Standard deviation of the class centers, in those of one feature."""
SHOWN = 14
"""Processes in a report."""


@dataclass
class Turns:
    """Seconds of each variant in each round: by the clock, and of this process on its cores (all threads together)."""

    seconds: dict[str, list[float]]
    cpu_seconds: dict[str, list[float]]

    def ratio(self, of: str, to: str, **budget: float) -> dict[str, Any]:
        """Median of one variant over median of another, beside its budget (`at_most` or `at_least`)."""
        result = against(_ratio(self.seconds, of, to), **budget)
        if self.cpu_seconds[of] and self.cpu_seconds[to]:
            result["ratio_of_cpu_seconds"] = round(_ratio(self.cpu_seconds, of, to), 4)
            result["ratio_of_least_cpu_seconds"] = round(min(self.cpu_seconds[of]) / min(self.cpu_seconds[to]), 4)
        return result


def _ratio(seconds: Mapping[str, Sequence[float]], of: str, to: str) -> float:
    return statistics.median(seconds[of]) / statistics.median(seconds[to])


@dataclass(frozen=True)
class Lap:
    """Seconds by the clock, and of this process on its cores; the latter None for work that other processes do."""

    seconds: float
    cpu_seconds: float | None = None


class Watch:
    """Started when it is made."""

    def __init__(self) -> None:
        self._seconds, self._cpu_seconds = time.perf_counter(), time.process_time()

    def lap(self, times: float = 1.0) -> Lap:
        """What has passed, `times` over."""
        seconds, cpu_seconds = time.perf_counter() - self._seconds, time.process_time() - self._cpu_seconds
        return Lap(seconds * times, cpu_seconds * times)


def take_turns(variants: Mapping[str, Callable[[], Lap | None]], repeats: int) -> Turns:
    """Run each variant once per round; its time is that of the call, unless it returns another.

    Every other round goes backwards, so that no variant always comes after the same one.
    """
    turns = Turns({name: [] for name in variants}, {name: [] for name in variants})
    for number in range(repeats):
        for name in list(variants)[:: -1 if number % 2 else 1]:
            watch = Watch()
            lap = variants[name]() or watch.lap()
            turns.seconds[name].append(lap.seconds)
            if lap.cpu_seconds is not None:
                turns.cpu_seconds[name].append(lap.cpu_seconds)
    return turns


def against(value: float, *, at_most: float | None = None, at_least: float | None = None) -> dict[str, Any]:
    """A ratio beside its budget, if it has one."""
    result: dict[str, Any] = {"ratio": round(value, 4)}
    if at_most is not None:
        return result | {"budget": f"<= {at_most:g}", "kept": value <= at_most}
    if at_least is not None:
        return result | {"budget": f">= {at_least:g}", "kept": value >= at_least}
    return result


def print_report(
    compared: str, ratios: Mapping[str, Any], seconds: Mapping[str, Sequence[float]], sizes: Any, **more: Any
) -> None:
    """The one JSON object. compared: a sentence; seconds: of every repeat; sizes: how much work it was."""
    report = {
        "compared": compared,
        "ratios": ratios,
        "seconds": {name: [round(value, 4) for value in values] for name, values in seconds.items()},
        "median_seconds": {name: round(statistics.median(values), 4) for name, values in seconds.items()},
        "sizes": sizes,
        **more,
        "cores": os.cpu_count(),
        "load_at_end": round(os.getloadavg()[0], 2),
        "versions": {"python": platform.python_version(), **versions()},
    }
    print(json.dumps(report, indent=2))


def versions() -> dict[str, str]:
    """Of the packages that count, where they are installed."""
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


# --------------------------------------------------------------------------------------------------------------- memory


@dataclass(frozen=True)
class Sample:
    """Memory at one moment: seconds since the start, and bytes by (process id, name)."""

    at: float
    bytes_of: Mapping[tuple[int, str], int]


def processes() -> ModuleType:
    """psutil, which Ray brings."""
    import dynacor_ray.engine  # noqa: F401, I001  (sets what Ray reads)
    import ray  # noqa: F401
    import psutil

    return psutil


class MemoryWatch:
    """Samples the memory of a process and all below it in a thread, on Linux; elsewhere there are no samples.

    A page that several processes share, such as those of Ray's object store, counts in equal parts (PSS), so that the
    sum over all processes is what they take together.
    """

    def __init__(self, root: int, interval: float = 0.5) -> None:
        self.samples: list[Sample] = []
        self._root, self._interval = root, interval
        self._done, self._start = threading.Event(), time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> MemoryWatch:
        if sys.platform == "linux":
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        psutil = processes()
        while True:
            began, memory = time.monotonic(), {}
            with suppress(psutil.Error):  # all have ended
                root = psutil.Process(self._root)
                for one in [root, *root.children(recursive=True)]:
                    with suppress(psutil.Error):
                        memory[one.pid, name_of(one.cmdline())] = one.memory_full_info().pss
            self.samples.append(Sample(time.monotonic() - self._start, memory))
            # At most a twentieth of a core: a look at processes of gigabytes takes a while, in which they stand still.
            if self._done.wait(max(self._interval, 20 * (time.monotonic() - began))):
                return


def name_of(words: Sequence[str]) -> str:
    """What a process calls itself, by its command line: `ray::NAME` for Ray's workers, else its program or script."""
    if words and words[0].startswith("ray::"):
        return words[0].partition("(")[0]
    named = [Path(word).name for word in words[:4] if word and not word.startswith("-")]
    return next((name for name in named if not name.startswith("python")), named[0] if named else "?")


def peaks(samples: Sequence[Sample], stages: Mapping[str, float] | None = None) -> dict[str, Any] | None:
    """Peak memory in MB: in all, by stage, of each kind of process (its largest), and who has it at the peak.

    stages: seconds of each, in their order. None without samples.
    """
    if not samples:
        return None
    by_name: dict[str, int] = defaultdict(int)
    highest = max(samples, key=lambda sample: sum(sample.bytes_of.values()))
    by_stage: dict[str, int] = defaultdict(int)
    for sample in samples:
        stage = stage_at(sample.at, stages or {})
        by_stage[stage] = max(by_stage[stage], sum(sample.bytes_of.values()))
        for (_, name), size in sample.bytes_of.items():
            by_name[name] = max(by_name[name], size)
    memory: dict[str, Any] = {"all_processes": _mb(max(by_stage.values())), "samples": len(samples)}
    if stages:
        memory["by_stage"] = {name: _mb(size) for name, size in by_stage.items()}
    largest = sorted(by_name.items(), key=lambda item: -item[1])[:SHOWN]
    holders = sorted(highest.bytes_of.items(), key=lambda item: -item[1])[:SHOWN]
    return memory | {
        "largest_process_of_a_kind": {name: _mb(size) for name, size in largest},
        "at_the_peak": [[name, _mb(size)] for (_, name), size in holders],
    }


def stage_at(at: float, stages: Mapping[str, float]) -> str:
    """The stage that runs at a time, when they follow one another from 0."""
    end = 0.0
    for name, seconds in stages.items():
        end += seconds
        if at < end:
            return name
    return "exit"


def _mb(size: int) -> int:
    return round(size / 1e6)


@dataclass(frozen=True)
class Finished:
    """A command that ended well. started: seconds since 1970; seconds: how long it took."""

    started: float
    seconds: float
    samples: list[Sample]
    output: str


def run(command: Sequence[str]) -> Finished:
    """Run a command, watch its memory and wait for it. Raises SystemExit with what it said when it fails."""
    processes()  # seconds at its first use, in which nothing would be seen of the command
    started, start = time.time(), time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            with MemoryWatch(process.pid) as watch:
                output, _ = process.communicate()
            seconds = time.perf_counter() - start
        if process.returncode:
            errors.seek(0)
            text = output[-2000:] + errors.read()[-4000:]
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{text}")
    return Finished(started, seconds, watch.samples, output)


def run_detect(data: Path | str, out: Path, *options: str) -> tuple[Finished, dict[str, Any]]:
    """Run `detect` in a process of its own; returns it and its summary."""
    script = Path(__file__).with_name("detect.py")
    done = run([sys.executable, str(script), "--data", str(data), "--out", str(out), "--quiet", *options])
    return done, json.loads((out / "summary.json").read_text())


# ------------------------------------------------------------------------------------------------------------- training


def plain_sgd(
    model: Any, config: TrainConfig, batches: Callable[[], Iterable[tuple[Any, Any]]], steps: int | None = None
) -> list[float]:
    """Train a classifier as one would without this package; returns the seconds of each epoch.

    Args:
        model: inputs -> logits.
        config: epochs and options of SGD.
        batches: inputs and labels of one epoch, int64.
        steps: steps of all epochs, for the schedule of the learning rate; None for a constant one.
    """
    # Not above: the engine must be imported first, so that its choice of how threads wait counts here too.
    import torch

    from dynacor_ray.engine.training.lr_schedule import make_schedule

    optimizer = torch.optim.SGD(
        model.parameters(), lr=config.learning_rate, momentum=0.9, weight_decay=config.weight_decay
    )
    schedule = make_schedule(optimizer, config, steps) if steps else None
    times = [time.perf_counter()]
    for _ in range(config.epochs):
        for inputs, labels in batches():
            loss = torch.nn.functional.cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
        times.append(time.perf_counter())
    return np.diff(times).tolist()


def plain_sgd_in_memory(model: Any, config: TrainConfig, features: Any, labels: Any) -> list[float]:
    """`plain_sgd` with shuffled batches of tensors in memory: float32 (N, D) and int64 (N,)."""
    import torch

    def batches() -> Iterator[tuple[Any, Any]]:
        for index in torch.randperm(len(labels)).split(config.batch_size):
            yield features[index], labels[index]

    return plain_sgd(model, config, batches, config.epochs * -(-len(labels) // config.batch_size))


# ----------------------------------------------------------------------------------------------------------------- data


@contextmanager
def folder_for(path: str | None) -> Iterator[Path]:
    """The folder named, which is kept, or one that is removed at the end."""
    if path is not None:
        Path(path).mkdir(parents=True, exist_ok=True)
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="dynacor-bench-") as name:
        yield Path(name)


@dataclass(frozen=True, kw_only=True)
class FeatureOptions:
    """Size of synthetic features."""

    rows: int = 50_000
    """Rows without their corrupted copies."""
    dim: int = 512
    """Length of a feature vector."""
    classes: int = 14
    """Number of classes."""
    noise: float = 0.2
    """Share of wrong labels."""

    @property
    def shape(self) -> dict[str, Any]:
        """Arguments of `write_features`."""
        return {"rows": self.rows, "dim": self.dim, "classes": self.classes, "noise": self.noise}


def noisy_jpeg(number: int, pixels: int, tint: tuple[int, int] | None = None) -> bytes:
    """A file of blurred noise, about as large as a photograph. tint: a color channel, and what divides it."""
    random = np.random.default_rng(number)
    coarse = random.integers(0, 256, (pixels // 8, pixels // 8, 3), np.uint8)
    if tint is not None:
        coarse[:, :, tint[0]] //= tint[1]
    image = Image.fromarray(coarse).resize((pixels, pixels), Image.Resampling.BICUBIC)
    fine = random.integers(0, 16, (pixels, pixels, 3), np.uint8)
    Image.fromarray(np.asarray(image) // 2 + 32 + fine).save(file := io.BytesIO(), "JPEG", quality=85)
    return file.getvalue()


def write_features(folder: Path, *, rows: int, dim: int, classes: int, noise: float, truth: bool = True) -> Path:
    """Write Gaussian classes with symmetric label noise as parquet; an existing file is kept.

    Generated and written in chunks, so memory does not grow with `rows`.

    Args:
        folder: where to write; the file is named after its content.
        rows: number of rows.
        dim: length of a feature vector.
        classes: number of classes.
        noise: share of wrong labels.
        truth: whether to write `true_label` beside `feature` and `given_label`.
    """
    place = folder / f"features-{rows}x{dim}-{classes}-{noise}{'' if truth else '-no-truth'}.parquet"
    if place.exists():
        return place
    part = place.with_suffix(".part")
    columns = [schema.FEATURE, schema.GIVEN_LABEL, *([schema.TRUE_LABEL] if truth else [])]
    types = features_table(0, 0, dim=dim, classes=classes, noise=noise).select(columns).schema
    with pq.ParquetWriter(part, types, compression="none") as writer:
        for first in range(0, rows, CHUNK_ROWS):
            table = features_table(first, min(CHUNK_ROWS, rows - first), dim=dim, classes=classes, noise=noise)
            writer.write_table(table.select(columns))
    return part.rename(place)


def features_table(first: int, rows: int, *, dim: int, classes: int, noise: float) -> pa.Table:
    """Some rows of `write_features`, from number `first` on: `feature`, `given_label`, `true_label`."""
    centers = np.random.default_rng(0).normal(scale=CENTER_SPREAD, size=(classes, dim)).astype(np.float32)
    random = np.random.default_rng([0, first])
    true = random.integers(0, classes, rows)
    features = centers[true] + random.standard_normal((rows, dim), dtype=np.float32)
    columns = {
        schema.FEATURE: schema.fixed_size_list(features),
        schema.GIVEN_LABEL: symmetric(true, np.arange(first, first + rows), noise, classes, 0),
        schema.TRUE_LABEL: true,
    }
    return pa.table(columns)
