"""How well wrong labels are found, over data sets and kinds of noise. `python jobs/bench_quality.py --data FOLDER`.

Plain loops on the package's pure functions, without Ray: a training per label set, kept in `--cache`, from which every
detector is judged in seconds. A data file is a parquet file with `feature`, and `label` (taken as true: noise is made
from it) or `true_label` and one or more columns of given labels. Built in are the digits, two Gaussian sets, two more
of classes that overlap, which stand for weak features, two of many classes with few rows, the classes of one
hardly to be told apart, one of classes that overlap in groups, three small tables, and features that know nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import tyro
from numpy.typing import NDArray

from dynacor_ray.core.manifest import TARGET_NORM
from dynacor_ray.core.rng import Purpose, keyed_uniform
from dynacor_ray.core.robust_scaling import RobustScaling
from dynacor_ray.decision.corrupted_copy_rate import with_corrupted_copies
from dynacor_ray.decision.fitted_decision import FittedDecision, ScoredRows, fit_decision
from dynacor_ray.decision.leave_one_out_ridge import RidgeSums
from dynacor_ray.decision.likely_classes import likely_classes
from dynacor_ray.decision.noise_rate import NoiseRate, count_confidence, estimate_noise_rate, for_few_rows
from dynacor_ray.decision.random_features import RandomFeatures, feature_count
from dynacor_ray.decision.thresholds import RowSignals, choose_threshold, row_score
from dynacor_ray.detectors.confident_learning import fold_of, prune_by_noise_rate
from dynacor_ray.detectors.evidence import Evidence
from dynacor_ray.detectors.nearest_neighbors import NearestNeighbors, normalized
from dynacor_ray.detectors.simifeat import NEIGHBORS, simifeat_v
from dynacor_ray.engine.runtime.tasks import one_thread
from dynacor_ray.ground_truth.metrics import detection_metrics
from dynacor_ray.ground_truth.noise_spec import given_labels, parse_noise
from dynacor_ray.ground_truth.synthetic_noise import junk_features
from dynacor_ray.method.clustering import fit, preset
from dynacor_ray.method.corruption import CorruptionConfig, corrupted_label, is_selected
from dynacor_ray.method.dynamics import logit_margin
from dynacor_ray.models.heads import build_classifier

EPOCHS, GAMMA = 20, 0.1
EARLY = range(1, 5)
"""Epochs whose logits are kept: classes are known, and most wrong labels not yet memorized."""
KINDS = (
    *("clean", "symmetric:0.05", "symmetric:0.2", "symmetric:0.5", "asymmetric:0.25", "instance_dependent:0.3"),
    *("by_class:0.4,0.4,0.0,0.0,0.0", "ramp:0.4", "one_sided:0.3", "default_label:0.25"),
    *("weak_annotator:0.5", "hard_rows:0.15", "junk:0.1"),
    *("far_row", "time_stamp", "row_number", "mixed_units"),
)
ODD_FEATURES = ("far_row", "time_stamp", "row_number", "mixed_units")
"""Kinds of features as they come, with 20% symmetric noise."""
FAMILIES = {
    "clean": "clean",
    "symmetric": "symmetric",
    "asymmetric": "class+1, instance",
    "instance_dependent": "class+1, instance",
    "by_class": "by class",
    "ramp": "by class",
    "one_sided": "by class",
    "default_label": "default label",
    "weak_annotator": "weak annotator",
    "hard_rows": "hard rows",
    "junk": "junk",
    **dict.fromkeys(ODD_FEATURES, "odd features"),
}


@dataclass(frozen=True)
class LabelSet:
    """A data set with one set of given labels. wrong: bool (N,), the truth about them."""

    data: str
    kind: str
    family: str
    features: NDArray[np.float32]
    given: NDArray[np.int64]
    wrong: NDArray[np.bool_]
    num_classes: int
    seed: int

    @property
    def lined_up(self) -> NDArray[np.float32]:
        """The features as every detector gets them."""
        return RobustScaling.of(self.features).apply(self.features)


@dataclass(frozen=True)
class Training:
    """What one training recorded of N originals, then M copies.

    labels: int64 (N + M,); source: int64 (M,), the originals that were copied; margins, largest: float32 (N + M, E);
    predicted: int16 (N + M, E); logits: float32 (N + M, C), mean over the EARLY epochs; ridge: float32 (N + M, C),
    leave-one-out scores; wide_ridge: the same with random features beside.
    """

    labels: NDArray[np.int64]
    source: NDArray[np.int64]
    margins: NDArray[np.float32]
    largest: NDArray[np.float32]
    predicted: NDArray[np.int16]
    logits: NDArray[np.float32]
    ridge: NDArray[np.float32]
    wide_ridge: NDArray[np.float32]

    @property
    def num_originals(self) -> int:
        """N."""
        return len(self.labels) - len(self.source)


@dataclass(frozen=True)
class Judged:
    """A detector's answer. score: float (N,), low = likely wrong; rate: estimate with its range, if it has one."""

    flags: NDArray[np.bool_]
    score: NDArray[np.floating]
    rate: tuple[float, float, float] | None = None


# ---------------------------------------------------------------------------------------------------------------- data


def digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """scikit-learn's 1,797 digits."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return data.data.astype(np.float32), data.target.astype(np.int64)


def small(name: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """One of scikit-learn's tables of 150 to 569 rows."""
    from sklearn import datasets

    data = getattr(datasets, f"load_{name}")()
    return data.data.astype(np.float32), data.target.astype(np.int64)


def strangers() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """1,000 rows of four classes whose features know nothing of them."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((1000, 16)).astype(np.float32), rng.integers(0, 4, 1000)


def gaussians(classes: int, distance: float) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """3,000 rows of `classes` normal distributions in 32 dimensions, their means `distance` from the center."""
    rng = np.random.default_rng(classes)
    means = rng.standard_normal((classes, 32))
    means *= distance / np.linalg.norm(means, axis=1, keepdims=True)
    labels = rng.integers(0, classes, 3000)
    return (means[labels] + rng.standard_normal((3000, 32))).astype(np.float32), labels


def many(
    classes: int, rows: int, between: float, within: float, dim: int = 96
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Normal distributions in groups of ten, `rows` rows each; spreads of the groups' means and within a group."""
    rng = np.random.default_rng(0)
    means = between * rng.standard_normal((classes // 10, 1, dim)) + within * rng.standard_normal(
        (classes // 10, 10, dim)
    )
    labels = np.repeat(np.arange(classes), rows)
    noise = rng.standard_normal((len(labels), dim))
    return (means.reshape(classes, dim)[labels] + noise).astype(np.float32), labels


BUILT_IN: dict[str, Callable[[], tuple[NDArray[np.float32], NDArray[np.int64]]]] = {
    "digits": digits,
    "gauss10": lambda: gaussians(10, 3.0),
    "gauss2": lambda: gaussians(2, 2.0),
    "overlap4": lambda: gaussians(4, 1.2),
    "overlap14": lambda: gaussians(14, 1.5),
    "many250": lambda: many(250, 12, 0.8, 0.4),
    "alike100": lambda: many(100, 25, 2.0, 0.1),
    "groups20": lambda: many(20, 150, 1.0, 0.2),
    "iris": lambda: small("iris"),
    "wine": lambda: small("wine"),
    "breast_cancer": lambda: small("breast_cancer"),
    "strangers": strangers,
}


def label_sets(name: str, path: Path | None, kinds: Iterable[str], seed: int, most_rows: int) -> Iterator[LabelSet]:
    """Given labels of each kind on one data set, and those that came with it."""
    if path is None:
        features, truth = BUILT_IN[name]()
        known: dict[str, NDArray[np.int64]] = {}
    else:
        features, truth, known = read(path)
    classes = int(truth.max()) + 1
    for column, given in known.items():
        family = "rules" if "rules" in name else "human"
        yield LabelSet(name, column, family, features, given, given != truth, classes, seed)
    if len(truth) > most_rows:
        chosen = np.random.default_rng(0).permutation(len(truth))[:most_rows]
        features, truth = features[chosen], truth[chosen]
    ids = np.arange(len(truth))
    centered = features - features.mean(axis=0)
    for kind in kinds:
        family = FAMILIES[kind.partition(":")[0]]
        if (kind == "symmetric:0.5" and classes == 2) or (name == "strangers" and kind != "clean"):
            continue  # labels by lot, or features without a class: nothing to be found
        seen, given, junk = features, truth, np.zeros(len(truth), np.bool_)
        if family == "junk":
            seen, junk = junk_features(features, ids, float(kind.partition(":")[2]), seed)
        elif family == "odd features":
            given = given_labels(parse_noise("symmetric:0.2"), truth, ids, classes, seed).astype(np.int64)
            seen = odd_features(kind, features, seed)
        elif family != "clean":
            given = given_labels(parse_noise(kind), truth, ids, classes, seed, centered).astype(np.int64)
        yield LabelSet(name, kind, family, seen, given, (given != truth) | junk, classes, seed)


def odd_features(kind: str, features: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """One row x 1000, a column of times or row numbers, or columns in units from 0.01 to 100."""
    rng, (rows, dim) = np.random.default_rng(seed), features.shape
    if kind == "far_row":
        factors = np.ones((rows, 1), np.float32)
        factors[rng.integers(rows)] = 1000.0
        return features * factors
    if kind == "mixed_units":
        return (features * 10.0 ** rng.uniform(-2, 2, dim)).astype(np.float32)
    more = np.arange(rows) if kind == "row_number" else 1.7e9 + rng.uniform(0, 3e7, rows)
    return np.column_stack([features, more]).astype(np.float32)


def read(path: Path) -> tuple[NDArray[np.float32], NDArray[np.int64], dict[str, NDArray[np.int64]]]:
    """Features, true labels, and given labels by name."""
    table = pq.read_table(path)
    features = np.stack(table["feature"].to_numpy(zero_copy_only=False)).astype(np.float32)
    labels = {name: table[name].to_numpy() for name in table.column_names if name not in ("feature", "instance_id")}
    names = np.unique(np.concatenate(list(labels.values())))
    codes = {name: np.searchsorted(names, values).astype(np.int64) for name, values in labels.items()}
    return features, codes.pop("true_label") if "true_label" in codes else codes.pop("label"), codes


# ------------------------------------------------------------------------------------------------------------ training


def trained(labels: LabelSet, cache: Path) -> tuple[Training, str]:
    """The training of a label set, from the cache if it was made before, and the name that it has there."""
    content = hashlib.sha256(
        labels.given.tobytes() + labels.features[:100].tobytes() + bytes([labels.seed])
    ).hexdigest()
    name = f"{labels.data}-{labels.kind.partition(':')[0]}-{content[:12]}"
    file = cache / f"{name}.npz"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(file, **vars(train(labels)))
    with np.load(file) as held:
        return Training(**held), name


def train(labels: LabelSet) -> Training:
    """Train the classifier of Table 5 on originals and copies with equal weights, and record every row."""
    num_rows, ids = len(labels.given), np.arange(len(labels.given))
    source = np.flatnonzero(is_selected(ids, CorruptionConfig(gamma=GAMMA, seed=labels.seed)))
    copied = corrupted_label(labels.given[source], source, labels.num_classes, labels.seed)
    label = torch.from_numpy(np.concatenate([labels.given, copied]).astype(np.int64))
    lined_up = labels.lined_up
    features = torch.from_numpy(np.concatenate([lined_up, lined_up[source]]))
    center = features.mean(dim=0)
    unit = float(1.0 / (features - center).std())
    scale = unit * TARGET_NORM / features.shape[1] ** 0.5
    torch.manual_seed(labels.seed)
    model = build_classifier(
        "mlp", num_features=features.shape[1], num_classes=labels.num_classes, mean=center, scale=scale
    )
    batch = 512 if num_rows > 4096 else 128
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02 * batch / 128, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * -(-len(label) // batch))
    shape = (len(label), EPOCHS)
    margins, largest = torch.empty(shape), torch.empty(shape)
    predicted, early = torch.empty(shape, dtype=torch.int16), torch.zeros((len(label), labels.num_classes))
    for epoch in range(EPOCHS):
        for rows in torch.split(torch.randperm(len(label)), batch):
            logits = model(features[rows])
            loss = torch.nn.functional.cross_entropy(logits, label[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            seen = logits.detach()
            margins[rows, epoch] = logit_margin(seen, label[rows])
            most, top = torch.softmax(seen, dim=1).max(dim=1)
            largest[rows, epoch], predicted[rows, epoch] = most, top.to(torch.int16)
            if epoch in EARLY:
                early[rows] += seen / len(EARLY)
    fitted = np.ones(len(label), np.bool_)
    fitted[source], fitted[num_rows:] = False, False
    scores = left_out_scores(features, label, torch.from_numpy(fitted), labels.num_classes, center, scale)
    random = RandomFeatures(center, unit, feature_count(num_rows), labels.seed)
    wide = random.widen(features)
    middle = wide[torch.from_numpy(fitted)].mean(dim=0)
    more = left_out_scores(wide, label, torch.from_numpy(fitted), labels.num_classes, middle, 1.0)
    found = (margins, largest, predicted, early, scores, more)
    return Training(label.numpy(), source, *(one.numpy() for one in found))


def left_out_scores(
    features: torch.Tensor, label: torch.Tensor, fitted: torch.Tensor, classes: int, mean: torch.Tensor, scale: float
) -> torch.Tensor:
    """Scores of every class by a ridge regression that has not seen the row's label, float (n, C)."""
    sums = RidgeSums(classes, mean, scale)
    sums.add(features[fitted], label[fitted])
    ridge = sums.solve()
    assert ridge is not None
    return ridge.predict(features, label, fitted)


# ----------------------------------------------------------------------------------------------------------- detectors


def _signals(training: Training, q_noisy: NDArray[np.float32] | None = None) -> tuple[RowSignals, RowSignals]:
    left_out = logit_margin(torch.from_numpy(training.ridge), torch.from_numpy(training.labels)).numpy()
    q = np.zeros(len(left_out), np.float32) if q_noisy is None else q_noisy
    both = RowSignals(margins=training.margins, q_noisy=q, leave_one_out=left_out)
    is_copy = np.arange(len(q)) >= training.num_originals
    return both.of(~is_copy), both.of(is_copy)


def surest(labels: LabelSet, training: Training) -> NoiseRate:
    """How often the surest predictions disagree with the labels, completed by the corrupted copies."""
    originals, copies = _signals(training)
    is_copy = torch.arange(len(training.labels)) >= training.num_originals
    disagrees = torch.from_numpy(training.predicted.astype(np.int64) != training.labels[:, None])
    counts = {
        epoch: count_confidence(torch.from_numpy(training.largest[:, epoch]), disagrees[:, epoch], is_copy).numpy()
        for epoch in range(EPOCHS)
    }
    batch = 512 if training.num_originals > 4096 else 128
    first = estimate_noise_rate(counts, EPOCHS, -(-len(training.labels) // batch))
    assert first is not None
    early = [row_score("early_margin", rows) for rows in (originals, copies)]
    return with_corrupted_copies(first, early[0], early[1], labels.num_classes)


def landed(labels: LabelSet, training: Training) -> Judged:
    """The first round: both margins, cut at the rate of the surest predictions."""
    originals, copies = _signals(training)
    rate = surest(labels, training)
    cut = choose_threshold("noise_rate", "combined_margin", originals, copies, noise_rate=rate.value)
    return Judged(*cut.apply(originals), (rate.value, rate.low, rate.high))


def scored(labels: LabelSet, training: Training) -> ScoredRows:
    """Originals and copies with their class scores."""
    rows, source = training.num_originals, training.source
    others = np.concatenate([np.full(rows, -1), labels.given[source]])
    others[source] = training.labels[rows:]
    uniform = torch.from_numpy(keyed_uniform(labels.seed, Purpose.LIKELY_CLASSES, np.arange(len(others))))
    classes = likely_classes(*map(torch.from_numpy, (training.ridge, training.labels)), uniform).numpy()
    logits = training.logits - training.logits.mean(axis=1, keepdims=True)
    scores = np.stack([np.take_along_axis(one, classes, 1) for one in (training.ridge, training.wide_ridge, logits)])
    is_copy = np.arange(len(others)) >= rows
    return ScoredRows(
        scores=scores, classes=classes, other_labels=others, is_copy=is_copy, num_classes=labels.num_classes
    )


def default_decision(labels: LabelSet, training: Training) -> tuple[ScoredRows, FittedDecision]:
    """Originals and copies, and the default's decision on them."""
    rows = scored(labels, training)
    return rows, fit_decision(rows, for_few_rows(surest(labels, training), len(labels.given), labels.num_classes))


def model(labels: LabelSet, training: Training) -> Judged:
    """The default: the label noise model, its rate settled with the surest predictions, cut at the best expected F1."""
    rows, fitted = default_decision(labels, training)
    log_odds, rate = fitted.log_odds(rows)[~rows.is_copy], fitted.decision.rate
    return Judged(log_odds >= fitted.log_odds_cut, -log_odds, (rate.value, rate.low, rate.high))


def paper(labels: LabelSet, training: Training) -> Judged:
    """The paper's rule: Eq. 4 on the clustering of Eq. 3-9."""
    is_copy = np.arange(len(training.labels)) >= training.num_originals
    has_copy = np.zeros(len(is_copy), np.bool_)
    has_copy[training.source] = True
    fitted = fit(training.margins, is_copy, has_copy, preset("paper", seed=labels.seed))
    originals, copies = _signals(training, fitted.assign(training.margins))
    flags, score = choose_threshold("paper", "soft_assignment", originals, copies).apply(originals)
    return Judged(flags, score)


def left_out(labels: LabelSet, training: Training) -> Judged:
    """The leave-one-out ridge alone: flagged where another class has the larger score."""
    score = _signals(training)[0].leave_one_out
    return Judged(score < 0, score)


def neighbors(labels: LabelSet, training: Training) -> Judged:
    """SimiFeat-V: the vote of the ten nearest by cosine."""
    rows = normalized(torch.from_numpy(labels.lined_up))
    ids = torch.arange(len(rows))
    near, alike = [], []
    for block in torch.split(ids, 2048):
        found = NearestNeighbors(rows[block], block, NEIGHBORS)
        found.update(rows, ids)
        near.append(labels.given[found.ids.numpy()].astype(np.int32))
        alike.append(found.similarity.numpy())
    evidence = Evidence(
        given_label=labels.given,
        num_classes=labels.num_classes,
        neighbor_labels=np.concatenate(near),
        similarity=np.concatenate(alike),
    )
    verdict = simifeat_v(evidence)
    return Judged(verdict.is_label_issue, verdict.score)


def cleanlab(labels: LabelSet, training: Training) -> Judged:
    """Confident learning by the library cleanlab, pruned by noise rate, on a cross-validated logistic regression."""
    from sklearn.linear_model import LogisticRegression

    folds = fold_of(np.arange(len(labels.given)), 5, labels.seed)
    probability = np.zeros((len(folds), labels.num_classes))
    rows = labels.lined_up - labels.lined_up.mean(axis=0)
    rows = rows / rows.std()
    for fold in range(5):
        model = LogisticRegression(C=0.1, max_iter=60, tol=1e-2).fit(rows[folds != fold], labels.given[folds != fold])
        probability[np.ix_(folds == fold, model.classes_)] = model.predict_proba(rows[folds == fold])
    found = Evidence(given_label=labels.given, num_classes=labels.num_classes, trained={"probabilities": probability})
    verdict = prune_by_noise_rate(found)
    return Judged(verdict.is_label_issue, verdict.score)


DETECTORS: dict[str, Callable[[LabelSet, Training], Judged]] = {
    "model": model,
    "landed": landed,
    "paper": paper,
    "leave-one-out": left_out,
    "neighbors": neighbors,
    "cleanlab": cleanlab,
}


# --------------------------------------------------------------------------------------------------------------- table


@one_thread()
def judged(labels: LabelSet, name: str, options: Options) -> dict[str, Any]:
    """A line of the table: how a detector did on a label set; kept beside the training, unless it is `--fresh`."""
    training, key = trained(labels, options.cache)
    kept = options.cache / f"{key}-{name}.json"
    if kept.exists() and name not in options.fresh:
        return dict(json.loads(kept.read_text()))
    answer = DETECTORS[name](labels, training)
    metrics = detection_metrics(answer.flags, np.asarray(answer.score), labels.wrong)
    line = {
        "data": labels.data,
        "kind": labels.kind,
        "family": labels.family,
        "seed": labels.seed,
        "detector": name,
        "wrong": float(labels.wrong.mean()),
        "flagged": float(answer.flags.mean()),
        "f1": metrics["f1"],
        "best": metrics["oracle_f1"],
        "auroc": metrics["auroc"],
        "rate": answer.rate,
    }
    kept.write_text(json.dumps(line))
    return line


def show_sets(lines: list[dict[str, Any]]) -> None:
    """Every label set, a line per detector."""
    for line in lines:
        name = f"{line['data']:18s} {line['kind'][:22]:22s} {line['detector']:14s}"
        rate = "" if line["rate"] is None else " ({:5.1%} {:5.1%}-{:5.1%})".format(*line["rate"])
        if line["f1"] is None:
            print(f"{name} clean, {line['flagged']:6.1%} flagged{rate}")
            continue
        shares = f"wrong {line['wrong']:5.1%} flagged {line['flagged']:5.1%}"
        print(f"{name} {shares} F1 {line['f1']:.3f} of {line['best']:.3f} AUROC {line['auroc']:.3f}{rate}")


def show_families(lines: list[dict[str, Any]]) -> None:
    """Per family and detector: F1, best cut, mean and worst loss to it, how often the range holds the truth."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        groups[line["family"], line["detector"]].append(line)
        if line["family"] not in ("clean", "junk"):
            groups["all noisy", line["detector"]].append(line)
    print(f"{'family':18s} {'detector':14s} sets    F1  best  loss worst covered")
    for (family, name), held in sorted(groups.items()):
        ranged = [line["rate"][1] <= line["wrong"] <= line["rate"][2] for line in held if line["rate"] is not None]
        covered = f"{np.mean(ranged):7.0%}" if ranged else "       "
        if family == "clean":
            shares = [line["flagged"] for line in held]
            said = f"flagged {np.mean(shares):6.2%}, at most {max(shares):6.2%}"
            print(f"{family:18s} {name:14s} {len(held):4d} {said} {covered}")
            continue
        f1, best = (np.array([line[key] for line in held]) for key in ("f1", "best"))
        numbers = f"{f1.mean():5.3f} {best.mean():5.3f} {(best - f1).mean():5.3f} {(best - f1).max():5.3f}"
        print(f"{family:18s} {name:14s} {len(held):4d} {numbers} {covered}")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is judged."""

    data: tuple[Path, ...] = ()
    """Parquet files, or folders of them, beside the built-in sets."""
    built_in: tuple[str, ...] = tuple(BUILT_IN)
    """Built-in sets to judge on."""
    kinds: tuple[str, ...] = KINDS
    """Kinds of noise to make."""
    detectors: tuple[str, ...] = tuple(DETECTORS)
    """Detectors to judge."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of noise, copies and training."""
    most_rows: int = 6000
    """Rows of a data set that noise is made on; labels that came with it are judged on all rows."""
    cache: Path = Path("bench_quality_cache")
    """Where trainings and judgments are kept."""
    fresh: tuple[str, ...] = ()
    """Detectors that are judged again although their judgment is kept."""
    sets: bool = False
    """Show every label set, not only families."""


def all_label_sets(options: Options) -> Iterator[LabelSet]:
    """Those of the built-in data, then of the files."""
    files = [file for path in options.data for file in (sorted(path.glob("*.parquet")) if path.is_dir() else [path])]
    named: dict[str, Path | None] = dict.fromkeys(options.built_in) | {file.stem: file for file in files}
    for name, path in named.items():
        for seed in options.seeds:
            yield from label_sets(name, path, options.kinds, seed, options.most_rows)


def main(options: Options) -> None:
    """Judge every detector on every label set and print the tables."""
    lines = []
    for labels in all_label_sets(options):
        for name in options.detectors:
            lines.append(judged(labels, name, options))
            if options.sets:
                show_sets(lines[-1:])
    show_families(lines)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
