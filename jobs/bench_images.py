"""Reading and training on images against PIL, torchvision and DataLoader. `python jobs/bench_images.py`."""

from __future__ import annotations

import functools
import itertools
import os
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro
from bench_engine import engine_epoch, training_rows
from benchmarking import Lap, Watch, folder_for, noisy_jpeg, plain_sgd, print_report, take_turns

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core import schema
from dynacor_ray.engine.data.training_rows import TrainingRows
from dynacor_ray.engine.training.job import TrainConfig, TrainPlan
from dynacor_ray.engine.training.recorded_signals import RecordedSignals
from dynacor_ray.models.image_classifiers import build_network
from dynacor_ray.workflows.cluster_session import plan_for
from dynacor_ray.workflows.prepare import PreparedRun


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is read and trained on."""

    rows: int = 1500
    """Images, without the corrupted copies."""
    pixels: int = 256
    """Side of the JPEG files."""
    network: str = "cifar_resnet8"
    """Network that is trained; `resnet50@none` for one of Clothing1M's size."""
    image_size: int = 64
    """Side that the network sees."""
    classes: int = 4
    """Classes."""
    epochs: int = 3
    """Epochs of a training; the first is not counted."""
    repeats: int = 3
    """Turns of each variant."""
    gpu: bool = False
    """Train on the first GPU, in bfloat16, instead of the CPU."""
    folder: str | None = None
    """Where the images are kept. Default: a temporary folder."""


def main(options: Options) -> None:
    """Read and train in turns and print the report."""
    with folder_for(options.folder) as folder, folder_for(None) as runs:
        images = write_images(folder / f"images-{options.rows}-{options.pixels}-{options.classes}", options)
        config = DetectConfig(
            data=str(images),
            out=str(runs),
            network=options.network,
            image_size=options.image_size,
            epochs=options.epochs,
            quiet=True,
            gpu="yes" if options.gpu else "no",
        )
        with training_rows(config, "none") as (prepared, rows):
            decoding = take_turns(
                {"ours": lambda: ours(rows, prepared), "PIL + torchvision": lambda: theirs(images, prepared)},
                options.repeats,
            )
            places = {name: prepared.run / name for name in ("streamed", "in memory")}
            plans = {
                name: plan_for(replace(config, worker_cache_gb=gigabytes))
                for name, gigabytes in (("streamed", 0.0), ("in memory", None))
            }
            numbers: Iterator[int] = itertools.count()
            training = take_turns(
                {
                    **{
                        name: functools.partial(
                            _per_row, rows.facts.total, rows, prepared.training, plans[name], places[name], numbers
                        )
                        for name in places
                    },
                    "plain loop": lambda: plain_loop(images, prepared, plans["streamed"]),
                },
                options.repeats,
            )
            last = {name: place / max(place.names(), key=int) for name, place in places.items()}
            done = {name: RecordedSignals.read(run) for name, run in last.items()}
            waiting = {name: round((signals and signals.waiting_share()) or 0.0, 4) for name, signals in done.items()}
    print_report(
        "Rows per second, ours over theirs, on the same JPEG files (ours packed before, not counted) and cores. "
        "Reading: decode, resize, random crop, mirror image, as bytes in batches, by this process and its batched "
        "augmentation, and by a DataLoader over PIL and torchvision's transforms with a process per core. Training: an "
        "epoch of the engine, decoding in every epoch (streamed) or in the first (in memory), signals recorded, and "
        "one of a plain loop over such a DataLoader with the same network, batches and SGD. Seconds per 1,000 rows.",
        {
            "decode and augment": decoding.ratio("PIL + torchvision", "ours", at_least=1.0),
            "training, streamed": training.ratio("plain loop", "streamed", at_least=0.9),
            "training, in memory": training.ratio("plain loop", "in memory", at_least=0.9),
        },
        decoding.seconds | training.seconds,
        vars(options) | {"rows with copies": rows.facts.total, "batch": prepared.training.batch_size},
        share_of_time_waiting_for_rows=waiting,
    )


def write_images(folder: Path, options: Options) -> Path:
    """JPEG files of blurred noise, about as large as photographs, whose tint tells the class; kept if there."""
    if folder.exists():
        return folder
    part = folder.with_suffix(".part")
    for number in range(options.rows):
        label = number % options.classes
        place = part / f"class{label}" / f"{number:06d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(noisy_jpeg(number, options.pixels, (label % 3, 2 + label // 3)))
    return part.rename(folder)


def ours(rows: TrainingRows, prepared: PreparedRun) -> Lap:
    """One pass over the originals and copies as a worker sees them."""
    import torch

    watch, seen, augment = Watch(), 0, prepared.training.augmentation
    assert augment is not None
    for block in rows.local(True).iter_batches(batch_size=prepared.training.batch_size, batch_format="pyarrow"):
        pixels = torch.from_numpy(schema.matrix(block[schema.FEATURE]).copy())
        keys = torch.from_numpy(block[schema.KEY].to_numpy().copy())
        seen += len(augment(pixels.view(-1, augment.stored, augment.stored, 3), keys, 0))
    return Lap(watch.lap().seconds / seen * 1000)


def theirs(images: Path, prepared: PreparedRun) -> Lap:
    """One pass over the files as is usual with PyTorch."""
    watch, loader = Watch(), data_loader(images, prepared)
    seen = sum(len(labels) for _, labels in loader)
    return Lap(watch.lap().seconds / seen * 1000)


def data_loader(images: Path, prepared: PreparedRun) -> Any:
    """torchvision's folder of images with its transforms, a process per core."""
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    augment = prepared.training.augmentation
    assert augment is not None
    steps = [
        transforms.Resize(augment.stored, transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(augment.stored),
        transforms.RandomCrop(augment.side, padding=augment.padding or None),
        transforms.RandomHorizontalFlip(),
        transforms.PILToTensor(),
    ]
    folder = datasets.ImageFolder(str(images), transforms.Compose(steps))
    return DataLoader(folder, prepared.training.batch_size, shuffle=True, num_workers=os.cpu_count() or 1)


def _per_row(total: int, *arguments: Any) -> Lap:
    return Lap(engine_epoch(*arguments).seconds / total * 1000)


def plain_loop(images: Path, prepared: PreparedRun, plan: TrainPlan) -> Lap:
    """What one would write without this package: DataLoader, the same network, SGD; bfloat16 on a GPU."""
    import torch

    config: TrainConfig = prepared.training
    assert config.network is not None
    torch.set_num_threads(plan.threads)
    loader = data_loader(images, prepared)
    device = "cuda:0" if plan.use_gpu else "cpu"
    model = build_network(config.network, len(loader.dataset.classes)).to(device)

    def batches() -> Iterator[tuple[Any, Any]]:
        for pixels, labels in loader:
            yield pixels.permute(0, 2, 3, 1).to(device), labels.to(device)

    with torch.autocast(device.partition(":")[0], dtype=torch.bfloat16, enabled=plan.use_gpu):
        seconds = plain_sgd(model, config, batches)
    return Lap(statistics.median(seconds[1:]) / len(loader.dataset) * 1000)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
