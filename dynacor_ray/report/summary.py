"""`RunSummary` from what a run counted, and its warnings: all that a script needs to know of a finished run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from dynacor_ray.core import schema
from dynacor_ray.core.duplicates import TwinLabels
from dynacor_ray.core.manifest import DatasetManifest
from dynacor_ray.core.redaction import redact_all
from dynacor_ray.runs.records import ASK_FOR_REVIEW, DataSummary, RunSummary

if TYPE_CHECKING:  # they bring torch, for which what only shows a finished run need not wait
    from dynacor_ray.decision.fitted_decision import FittedDecision
    from dynacor_ray.decision.noise_rate import NoiseRate
    from dynacor_ray.method.selection import EpochRecord

PAIRS_KEPT, GROUPS_KEPT = 50, 100
MATRIX_CLASSES = 100
ALMOST_NONE = 0.001
"""Share of flagged rows below which finding planted errors says little."""
_WIDE, _WIDE_LEAST = 2.0, 0.03
"""A range of a noise rate is wide where an end is farther than this factor and this share from the estimate."""


@dataclass
class FlagCounts:
    """Counts over all rows, gathered block by block."""

    num_classes: int
    originals: int = 0
    flagged: int = 0
    copies: int = 0
    copies_flagged: int = 0
    pairs: sparse.csr_array = field(init=False)
    """[given, predicted] counts over flagged originals, int64 (C, C), of which those that occur are kept."""
    given: NDArray[np.int64] = field(init=False)
    """Originals per given class, int64 (C,)."""

    def __post_init__(self) -> None:
        self.pairs = sparse.csr_array((self.num_classes, self.num_classes), dtype=np.int64)
        self.given = np.zeros(self.num_classes, np.int64)

    def add(self, block: pa.Table) -> None:
        """Count one block of assigned rows: the columns of `issues.parquet` and key."""
        _, is_copy = schema.decode_key(block[schema.KEY].to_numpy())
        flags = block[schema.IS_LABEL_ISSUE].to_numpy().astype(bool)
        given, predicted = block[schema.GIVEN_LABEL].to_numpy(), block[schema.PREDICTED_LABEL].to_numpy()
        chosen = flags & ~is_copy
        self.originals += int((~is_copy).sum())
        self.copies += int(is_copy.sum())
        self.flagged += int(chosen.sum())
        self.copies_flagged += int((flags & is_copy).sum())
        self.given += np.bincount(given[~is_copy], minlength=self.num_classes)
        ones = np.ones(int(chosen.sum()), np.int64)
        self.pairs += sparse.csr_array((ones, (given[chosen], predicted[chosen])), shape=self.pairs.shape)

    @property
    def corrupted_recall(self) -> float:
        """Share of the corrupted copies that were flagged."""
        return self.copies_flagged / self.copies


def build_summary(
    config: dict[str, Any],
    manifest: DatasetManifest,
    counts: FlagCounts,
    *,
    epochs: Sequence[EpochRecord],
    chosen_epoch: int,
    noise_rate: NoiseRate | None = None,
    class_noise_rates: Sequence[float | None] | None = None,
    packed: str = "",
    twins: TwinLabels | None = None,
    decision: FittedDecision | None = None,
    **known: Any,
) -> RunSummary:
    """The summary of a run.

    Args:
        config: The options of the run.
        manifest: Of the packed data.
        counts: Flags over all rows.
        epochs: What is known of each epoch of the clustering.
        chosen_epoch: The epoch of the clustering that was kept.
        noise_rate: The training's estimate, if it was long enough for one.
        class_noise_rates: The same per given class; None for a class of which nothing is known.
        packed: Where the packed data are, seen from the run directory.
        twins: The labels of equal rows, None without any.
        decision: The label noise model, where there is one.
        **known: Fields of `RunSummary` as they are: versions, encoder, and of the others those that differ from their
            defaults, no evaluation, and no seconds.
    """
    names = manifest.class_names
    duplicates = duplicate_table(twins, names) if twins is not None else None
    return RunSummary(
        config=redact_all(config),
        seed=config["seed"],
        data=DataSummary.of(manifest, packed),
        num_rows=counts.originals,
        num_classes=manifest.num_classes,
        num_flagged=counts.flagged,
        flagged_share=counts.flagged / counts.originals,
        estimated_noise_rate=noise_rate.value if noise_rate else None,
        noise_rate_range=[noise_rate.low, noise_rate.high] if noise_rate else None,
        num_corrupted=counts.copies,
        corrupted_recall=counts.corrupted_recall,
        classes=class_table(counts, names, class_noise_rates),
        pairs=pair_table(counts.pairs, names),
        transition_matrix=transition_matrix(counts) if manifest.num_classes <= MATRIX_CLASSES else None,
        validation={"chosen_epoch": chosen_epoch, "epochs": [asdict(epoch) for epoch in epochs]},
        notes=manifest.notes,
        warnings=[
            *manifest.warnings,
            *duplicate_warnings(duplicates, manifest.kind),
            *trust_warnings(counts, manifest, noise_rate),
            *rate_warnings(counts, config, noise_rate, by_model=decision is not None),
        ],
        duplicates=duplicates,
        label_noise=label_noise_table(decision, names) if decision is not None else None,
        **{"evaluation": None, "seconds": {}} | known,
    )


def duplicate_table(twins: TwinLabels, names: Sequence[str]) -> dict[str, Any]:
    """Equal rows: rows, groups; of those with different labels conflicting_groups, conflicting_rows, surely_wrong.

    surely_wrong: rows without the most frequent label of their group, fewer than which cannot be wrong. examples: of
    the groups with the most of them duplicate_of (the first row), labels (name -> rows), most frequent first.
    """
    conflicts, first = twins.conflicts(), np.unique(twins.first)
    most = np.maximum.reduceat(twins.count, twins.start[:-1]) if len(twins.size) else twins.count
    minority = (twins.size - most)[conflicts]
    chosen = conflicts[np.argsort(-minority, kind="stable")[:GROUPS_KEPT]]
    examples = []
    for group in chosen.tolist():
        labels = sorted(twins.labels_of(group).items(), key=lambda item: (-item[1], item[0]))
        examples.append({"duplicate_of": int(first[group]), "labels": {names[label]: n for label, n in labels}})
    return {
        "rows": len(twins.ids),
        "groups": len(twins.size),
        "conflicting_groups": len(conflicts),
        "conflicting_rows": int(twins.size[conflicts].sum()),
        "surely_wrong": int(minority.sum()),
        "examples": examples,
    }


def duplicate_warnings(duplicates: dict[str, Any] | None, kind: str) -> list[str]:
    """A sentence about equal rows with different labels, if there are any; kind: image or feature."""
    if duplicates is None or not duplicates["conflicting_groups"]:
        return []
    return [f"{explain_duplicates(duplicates, kind)} See duplicate_of in issues.parquet."]


def explain_duplicates(duplicates: dict[str, Any], kind: str) -> str:
    """What follows from equal rows with different labels.

    Equal features need not be one thing: rows of several classes may share a few whole numbers, as of a questionnaire.
    """
    rows, groups, wrong = (duplicates[name] for name in ("conflicting_rows", "conflicting_groups", "surely_wrong"))
    found = f"{rows:,} rows in {groups:,} group{'' if groups == 1 else 's'} are the same but have different labels"
    coarse = ", or the features are too coarse to tell the classes apart" if kind == "feature" else ""
    return f"{found}: at least {wrong:,} of these {'is' if wrong == 1 else 'are'} wrong{coarse}."


def label_noise_table(decision: FittedDecision, names: Sequence[str]) -> dict[str, Any]:
    """What the model says beside the rates per class.

    found_recall: share of errors like those found that is flagged, None where too few copies tell; expected_f1 of the
    flags by the model; doubt: mean of 1 - P(most probable class); pairs: the largest P(given | true) of two classes,
    each with true, given, rate and the low and high end of its 95% interval.
    """
    found = decision.pairs
    ends = {"rate": found.rate.value, "low": found.rate.low, "high": found.rate.high}
    pairs = [
        {"true": names[found.true[at]], "given": names[found.given[at]]}
        | {name: float(end[at]) for name, end in ends.items()}
        for at in np.argsort(-found.rate.low, kind="stable")[:PAIRS_KEPT]
    ]
    settled = decision.decision
    return {
        "found_recall": decision.found_recall,
        "expected_f1": settled.expected_f1,
        "doubt": settled.doubt,
        "pairs": pairs,
    }


def class_table(
    counts: FlagCounts, names: Sequence[str], noise_rates: Sequence[float | None] | None = None
) -> list[dict[str, Any]]:
    """Rows, flagged rows, their share and the estimated noise rate per given class, in class order."""
    flagged, rates = counts.pairs.sum(axis=1), noise_rates or [None] * len(names)
    return [
        {
            "class": name,
            "rows": int(counts.given[c]),
            "flagged": int(flagged[c]),
            "flagged_share": float(flagged[c] / counts.given[c]) if counts.given[c] else 0.0,
            "estimated_noise_rate": rates[c],
        }
        for c, name in enumerate(names)
    ]


def pair_table(pairs: sparse.csr_array, names: Sequence[str]) -> list[dict[str, Any]]:
    """The most frequent (given, predicted) pairs among flagged rows, where the two differ."""
    cells = sparse.coo_array(pairs)
    (given, predicted), count = cells.coords, cells.data
    order = [i for i in np.lexsort((predicted, given, -count)).tolist() if given[i] != predicted[i]][:PAIRS_KEPT]
    return [{"given": names[given[i]], "predicted": names[predicted[i]], "flagged": int(count[i])} for i in order]


def transition_matrix(counts: FlagCounts) -> list[list[float]]:
    """Estimate of P(given=j | true=i): a flagged row's true class is taken to be the predicted one. Rows sum to 1."""
    pairs = counts.pairs.toarray()
    joint = pairs.T + np.diag(counts.given - pairs.sum(axis=1))
    total = joint.sum(axis=1, keepdims=True)
    identity = np.eye(len(joint))
    return np.where(total > 0, joint / np.maximum(total, 1), identity).tolist()  # type: ignore[no-any-return]


def is_undecided(value: float, low: float, high: float) -> bool:
    """Whether the data leave open how many labels are wrong, from an estimate and its range, all in [0, 1].

    >>> is_undecided(0.20, 0.15, 0.27), is_undecided(0.01, 0.0, 0.18)
    (False, True)
    """
    return high > _WIDE * value + _WIDE_LEAST or low < value / _WIDE - _WIDE_LEAST


def rate_warnings(
    counts: FlagCounts, config: Mapping[str, Any], rate: NoiseRate | None, by_model: bool = False
) -> list[str]:
    """Says when the range is wide, or fewer rows are flagged than the estimate asks for.

    The latter is most_recall of `thresholds.choose_threshold`. by_model: the label noise model flags, which may well
    expect a better F1 of fewer rows than are wrong.
    """
    if rate is None:
        return []
    found = []
    if is_undecided(rate.value, rate.low, rate.high):
        found.append(
            f"The data do not decide how many labels are wrong, between {rate.low:.1%} and {rate.high:.1%}: rows that "
            "are hard to tell apart and systematic errors look alike. A person's answers on "
            f"{min(100, counts.originals)} rows decide it: {ASK_FOR_REVIEW} --sample {min(100, counts.originals)}."
        )
    flagged = counts.flagged / counts.originals
    named = config["flag_rule"] or config["variant"]
    by_rate = not by_model and (named is None or named == "noise_rate")
    if not by_rate or flagged >= 0.95 * rate.value - 0.005:
        return found
    return [
        *found,
        f"The estimated noise rate of {rate.value:.0%} is not to be believed: flagging {flagged:.0%} of the rows "
        f"finds {counts.corrupted_recall:.0%} of the planted errors. The classifier is too unsure for an estimate; "
        "more --epochs or a stronger --encoder or --network help.",
    ]


def trust_warnings(counts: FlagCounts, manifest: DatasetManifest, rate: NoiseRate | None) -> list[str]:
    """Plain sentences on what makes the answer doubtful."""
    found = []
    recall = counts.corrupted_recall
    # Where no label is wrong, none is flagged, a planted error neither: that few are found is no bad sign then.
    is_clear = rate is not None and not is_undecided(rate.value, rate.low, rate.high)
    almost_none = counts.flagged / counts.originals < ALMOST_NONE
    if recall < 0.5 and not (almost_none and is_clear):
        other = (
            "few labels are wrong, so that only the surest errors are flagged"
            if almost_none
            else "most labels are wrong"
        )
        found.append(
            f"Only {recall:.0%} of the errors that were planted on purpose were found: the features do not tell the "
            f"classes apart, or {other}. Try a stronger --encoder or --network."
        )
    flagged = counts.pairs.sum(axis=1)
    bad = [n for n, f, g in zip(manifest.class_names, flagged, counts.given, strict=True) if g and 2 * f > g]
    if bad:
        names = ", ".join(bad[:5]) + (" and others" if len(bad) > 5 else "")
        many = "1 class" if len(bad) == 1 else f"{len(bad)} classes"
        found.append(f"More than half of the labels look wrong in {many}: {names}. Look at them by hand.")
    return found
