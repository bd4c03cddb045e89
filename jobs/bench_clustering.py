"""The clustering of dynamics against a plain loop over minibatches of rows. `python jobs/bench_clustering.py`.

`--dynamics runs/x/dynamics.parquet` takes the dynamics of a run instead of synthetic ones.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
import tyro
from benchmarking import Lap, Watch, print_report, take_turns

from dynacor_ray.core import schema
from dynacor_ray.core.storage import locate
from dynacor_ray.method.clustering import ClusteringConfig, fit
from dynacor_ray.method.dynamics import sign_patterns
from dynacor_ray.method.dynamics_encoder import DynamicsEncoder
from dynacor_ray.method.losses import (
    alignment_loss,
    clustering_loss,
    cosine_distance,
    flag,
    soft_assignment,
    target_distribution,
)

OURS, PLAIN = "ours", "plain loop"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is clustered."""

    sizes: tuple[str, ...] = ("55000x20", "1000000x10")
    """Rows x epochs of synthetic dynamics, a tenth of the rows corrupted."""
    dynamics: tuple[str, ...] = ()
    """Files `dynamics.parquet` of runs, instead of synthetic ones."""
    plain_rows: int = 100_000
    """Most rows of an epoch that the plain loop runs through; its seconds are scaled to all rows, to which they are
    proportional."""
    repeats: int = 3
    """Fits of each kind; they take turns."""
    threads: int = 1
    """Threads of torch."""


def main(options: Options) -> None:
    """Cluster in turns and print the report."""
    torch.set_num_threads(options.threads)
    ratios, seconds, sizes = {}, {}, {}
    for name in options.dynamics or options.sizes:
        margins, is_corrupted = read(name) if options.dynamics else synthetic_dynamics(*map(int, name.split("x")))
        plain = functools.partial(plain_epoch, margins, is_corrupted, options.plain_rows)
        ours = functools.partial(our_epoch, margins, is_corrupted)
        turns = take_turns({OURS: ours, PLAIN: plain}, options.repeats)
        ratios[name] = turns.ratio(PLAIN, OURS, at_least=5)
        seconds |= {f"{name}, {kind}": values for kind, values in turns.seconds.items()}
        sizes[name] = {
            "rows": len(margins),
            "epochs": margins.shape[1],
            "patterns": len(sign_patterns(margins).counts),
            "plain_rows": min(len(margins), options.plain_rows),
        }
    print_report(
        "Seconds per epoch of the clustering by a plain loop over minibatches, one embedding per row (the same "
        "encoder, losses, Adam and batch size; training and one assignment of all rows), over those of this package's "
        "fit, which also computes Eq. 9 and the Davies-Bouldin index; one process, in turns.",
        ratios,
        seconds,
        sizes,
        threads=options.threads,
    )


def synthetic_dynamics(rows: int, epochs: int) -> tuple[np.ndarray, np.ndarray]:
    """Margins float16 (rows, epochs) that rise when a label is learned, early or late, with noise; who is corrupted."""
    random = np.random.default_rng(0)
    wrong, middle = random.random(rows) < 0.3, 0.35 * epochs
    learned = random.normal(np.where(wrong, 0.9 * epochs, -middle), middle)
    margins = 6 * (np.arange(epochs) - learned[:, None]) / epochs + 1.5 * random.normal(size=(rows, epochs))
    return margins.astype(np.float16), wrong & (random.random(rows) < 0.3)


def read(place: str) -> tuple[np.ndarray, np.ndarray]:
    """The same of a run."""
    table = locate(place).read_table([schema.KEY, schema.MARGIN])
    _, is_corrupted = schema.decode_key(table[schema.KEY].to_numpy())
    return schema.matrix(table[schema.MARGIN].combine_chunks()), is_corrupted


def our_epoch(margins: np.ndarray, is_corrupted: np.ndarray) -> Lap:
    """Seconds per epoch of the fit, from the state before training to the second epoch."""
    laps: list[Lap] = []
    watch, no_copy = Watch(), np.zeros(len(margins), dtype=bool)
    fit(margins, is_corrupted, no_copy, ClusteringConfig(epochs=2), lambda *_: laps.append(watch.lap()))
    first, *_, last = laps
    cpu_seconds = [one.cpu_seconds or 0.0 for one in (first, last)]
    return Lap((last.seconds - first.seconds) / 2, (cpu_seconds[1] - cpu_seconds[0]) / 2)


def plain_epoch(margins: np.ndarray, is_corrupted: np.ndarray, most: int) -> Lap:
    """Seconds of an epoch written as in the paper: every row is encoded."""
    config, chosen = ClusteringConfig(), np.random.default_rng(0).permutation(len(margins))[:most]
    dynamics = torch.from_numpy(np.where(margins[chosen] >= 0, 1, -1).astype(np.float32))
    corrupted = torch.from_numpy(is_corrupted[chosen])
    encoder = DynamicsEncoder(dynamics.shape[1])
    with torch.no_grad():
        means = [encoder(dynamics[rows][:4096]).mean(dim=0) for rows in (corrupted, ~corrupted)]
    centroids = torch.nn.Parameter(torch.stack(means, dim=0))
    parameters = [*encoder.parameters(), centroids]
    adam = torch.optim.Adam(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    watch = Watch()
    for rows in torch.randperm(len(dynamics)).split(config.batch_size):
        embedding = encoder(dynamics[rows])
        q_noisy = soft_assignment(cosine_distance(embedding, centroids))
        loss = clustering_loss(target_distribution(q_noisy), q_noisy)
        copies = corrupted[rows].float()
        loss = loss + config.alpha * alignment_loss(embedding, flag(q_noisy.detach()), 1 - copies, copies)
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        for rows in dynamics.split(config.batch_size):
            flag(soft_assignment(cosine_distance(encoder(rows), centroids)))
    return watch.lap(len(margins) / len(dynamics))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
