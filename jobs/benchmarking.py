"""What the benchmarks in jobs/bench_*.py share: turns, memory of all processes, made-up data, the form of the report.

A benchmark prints one JSON object. Its ratios compare things that took turns in the same run, so that a busy machine
slows both down alike; seconds of one thing alone are true of one machine only.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dynacor_ray.core import schema
from dynacor_ray.ground_truth.synthetic_noise import symmetric

PACKAGES = ("dynacor-ray", "ray", "torch", "numpy", "pyarrow", "cleanlab")
CHUNK_ROWS = 32_768
PROC = Path("/proc")
SHOWN = 14
"""Processes in a report."""


@dataclass
class Turns:
    """Seconds of each variant in each round: by the clock, and of this process on its cores (all threads together)."""

    seconds: dict[str, list[float]]
    cpu_seconds: dict[str, list[float]]

    def ratio(self, of: str, to: str, **budget: float) -> dict[str, Any]:
        """Median of one variant over median of another, beside its budget (`at_most` or `at_least`)."""
        found = against(_ratio(self.seconds, of, to), **budget)
        if self.cpu_seconds[of] and self.cpu_seconds[to]:
            found["ratio_of_cpu_seconds"] = round(_ratio(self.cpu_seconds, of, to), 4)
            found["ratio_of_least_cpu_seconds"] = round(min(self.cpu_seconds[of]) / min(self.cpu_seconds[to]), 4)
        return found


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
            told = variants[name]() or watch.lap()
            turns.seconds[name].append(told.seconds)
            if told.cpu_seconds is not None:
                turns.cpu_seconds[name].append(told.cpu_seconds)
    return turns


def against(value: float, *, at_most: float | None = None, at_least: float | None = None) -> dict[str, Any]:
    """A ratio beside its budget, if it has one."""
    found: dict[str, Any] = {"ratio": round(value, 4)}
    if at_most is not None:
        return found | {"budget": f"<= {at_most:g}", "kept": value <= at_most}
    if at_least is not None:
        return found | {"budget": f">= {at_least:g}", "kept": value >= at_least}
    return found


def print_report(
    compared: str, ratios: Mapping[str, Any], seconds: Mapping[str, Sequence[float]], sizes: Any, **more: Any
) -> None:
    """The one JSON object. compared: a sentence; seconds: of every repeat; sizes: how much work it was."""
    found = {
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
    print(json.dumps(found, indent=2))


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
        if PROC.is_dir():
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while True:
            began, memory = time.monotonic(), {}
            for pid in below(self._root, parents()):
                size = shared_size(pid)
                if size is not None:
                    memory[pid, name_of(pid)] = size
            self.samples.append(Sample(time.monotonic() - self._start, memory))
            # At most a twentieth of a core: a look at processes of gigabytes takes a while, in which they stand still.
            if self._done.wait(max(self._interval, 20 * (time.monotonic() - began))):
                return


def parents() -> dict[int, int]:
    """Process id -> that of its parent, of all processes."""
    found = {}
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            try:
                # The name, in brackets, may hold anything.
                found[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has ended
    return found


def below(root: int, parent_of: Mapping[int, int]) -> list[int]:
    """`root` and all processes below it."""
    children = defaultdict(list)
    for pid, parent in parent_of.items():
        children[parent].append(pid)
    found = [root]
    for pid in found:
        found += children[pid]
    return found


def shared_size(pid: int) -> int | None:
    """Proportional set size in bytes; None when the process has ended."""
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), None)


def name_of(pid: int) -> str:
    """What a process calls itself: `ray::NAME` for Ray's workers, else its program or script."""
    try:
        words = (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "?"
    if words[0].startswith("ray::"):
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
    found: dict[str, Any] = {"all_processes": _mb(max(by_stage.values())), "samples": len(samples)}
    if stages:
        found["by_stage"] = {name: _mb(size) for name, size in by_stage.items()}
    largest = sorted(by_name.items(), key=lambda item: -item[1])[:SHOWN]
    holders = sorted(highest.bytes_of.items(), key=lambda item: -item[1])[:SHOWN]
    return found | {
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
    started, start = time.time(), time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True) as process:
            with MemoryWatch(process.pid) as watch:
                output, _ = process.communicate()
            seconds = time.perf_counter() - start
        if process.returncode:
            said.seek(0)
            words = output[-2000:] + said.read()[-4000:]
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{words}")
    return Finished(started, seconds, watch.samples, output)


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


def write_features(
    place: Path, *, rows: int, dim: int, classes: int, noise: float, spread: float = 0.15, seed: int = 0
) -> Path:
    """Gaussian classes with symmetric label noise, as parquet with `feature`, `given_label`, `true_label`.

    Made and written in pieces, so memory does not grow with `rows`. spread: how far the classes' centers are apart, in
    standard deviations of one feature. A file that is there is kept.
    """
    if place.exists():
        return place
    part = place.with_suffix(".part")
    shape = {"dim": dim, "classes": classes, "noise": noise, "spread": spread, "seed": seed}
    writer = None
    for first in range(0, rows, CHUNK_ROWS):
        table = made_features(first, min(CHUNK_ROWS, rows - first), **shape)
        writer = writer or pq.ParquetWriter(part, table.schema, compression="none")
        writer.write_table(table)
    if writer is not None:
        writer.close()
    part.rename(place)
    return place


def made_features(
    first: int, rows: int, *, dim: int, classes: int, noise: float, spread: float = 0.15, seed: int = 0
) -> pa.Table:
    """Some rows of `write_features`, from number `first` on: `feature`, `given_label`, `true_label`."""
    centers = np.random.default_rng(seed).normal(scale=spread, size=(classes, dim)).astype(np.float32)
    random = np.random.default_rng([seed, first])
    true = random.integers(0, classes, rows)
    features = centers[true] + random.standard_normal((rows, dim), dtype=np.float32)
    columns = {
        schema.FEATURE: schema.fixed_size_list(features),
        schema.GIVEN_LABEL: symmetric(true, np.arange(first, first + rows), noise, classes, seed),
        schema.TRUE_LABEL: true,
    }
    return pa.table(columns)
