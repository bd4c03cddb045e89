"""summary.json by hand, and its warnings."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from dynacor_ray.core.duplicates import Duplicates, TwinLabels
from dynacor_ray.core.errors import RunDirectoryError
from dynacor_ray.core.manifest import DataFile, DatasetManifest, FeatureStats
from dynacor_ray.decision.noise_rate import NoiseRate
from dynacor_ray.method.selection import EpochRecord
from dynacor_ray.report.summary import (
    FlagCounts,
    build_summary,
    class_table,
    duplicate_table,
    duplicate_warnings,
    pair_table,
    rate_warnings,
    transition_matrix,
    trust_warnings,
)
from dynacor_ray.runs.records import RunSummary
from tests.made_runs import counts_of

NAMES = ("cat", "dog", "owl")


PAIRS = np.array([[0, 2, 1], [0, 1, 0], [0, 0, 0]], np.int64)
CONFIG = {"seed": 7, "gamma": 0.1, "flag_rule": None, "variant": None}


def counted(pairs: np.ndarray = PAIRS, given: tuple[int, ...] = (10, 4, 0), copies_flagged: int = 3) -> FlagCounts:
    """10 cats of which 3 are flagged (2 as dogs, 1 as an owl), 4 dogs of which 1 as a dog, no owl."""
    return counts_of(pairs, np.array(given, np.int64), 4, copies_flagged)


def manifest(**changes: Any) -> DatasetManifest:
    values: dict[str, Any] = {
        "source": "parquet",
        "uri": "/data",
        "kind": "feature",
        "fingerprint": "f",
        "content_hash": "c",
        "payload_hash": "p",
        "num_rows": 14,
        "class_names": NAMES,
        "class_counts": (10, 4, 0),
        "feature_dim": 2,
        "parts": (DataFile("p", 14, 0, 13),),
        "quarantine": "a1/quarantine.parquet",
        "truth": None,
        "allows_thumbnails": True,
        "stats": FeatureStats(1, (0.0, 0.0), 1.0),
    }
    return DatasetManifest(**(values | changes))


def built(counts: FlagCounts, known: DatasetManifest, noise_rate: NoiseRate | None = None) -> RunSummary:
    epoch = EpochRecord(
        epoch=0, validation_metric=0.5, davies_bouldin=None, flagged_originals=0.2, flagged_corrupted=0.9
    )
    return build_summary(
        CONFIG,
        known,
        counts,
        versions={"ray": "2"},
        encoder="pixels@8",
        epochs=[epoch],
        chosen_epoch=0,
        noise_rate=noise_rate,
        seconds={"total": 1.5},
    )


def test_class_table_by_hand() -> None:
    assert class_table(counted(), NAMES) == [
        {"class": "cat", "rows": 10, "flagged": 3, "flagged_share": 0.3, "estimated_noise_rate": None},
        {"class": "dog", "rows": 4, "flagged": 1, "flagged_share": 0.25, "estimated_noise_rate": None},
        {"class": "owl", "rows": 0, "flagged": 0, "flagged_share": 0.0, "estimated_noise_rate": None},
    ]


def test_pair_table_by_hand() -> None:
    """Most frequent first; a flagged row whose given label is also predicted names no other class."""
    assert pair_table(sparse.csr_array(PAIRS), NAMES) == [
        {"given": "cat", "predicted": "dog", "flagged": 2},
        {"given": "cat", "predicted": "owl", "flagged": 1},
    ]
    many = pair_table(sparse.csr_array(np.arange(100, dtype=np.int64).reshape(10, 10)), tuple("abcdefghij"))
    assert len(many) == 50
    assert many[0] == {"given": "j", "predicted": "i", "flagged": 98}


def test_transition_matrix_by_hand() -> None:
    """Truly cats: the 7 unflagged. Dogs: 3 unflagged, the one flagged as a dog, 2 given as cats. Owls: 1 as a cat."""
    assert np.allclose(transition_matrix(counted()), [[1, 0, 0], [2 / 6, 4 / 6, 0], [1, 0, 0]])


def test_transition_matrix_of_a_class_that_nobody_has() -> None:
    pairs = np.array([[0, 1, 0], [0, 0, 0], [0, 0, 0]], np.int64)
    counts = counted(pairs, (1, 2, 0))
    assert np.allclose(transition_matrix(counts), [[1, 0, 0], [1 / 3, 2 / 3, 0], [0, 0, 1]])


def test_warnings_of_doubtful_answers() -> None:
    known = manifest()
    assert trust_warnings(counted(), known, None) == []
    assert trust_warnings(counted(copies_flagged=2), known, None) == [], "half is enough"
    (weak,) = trust_warnings(counted(copies_flagged=1), known, None)
    assert weak.startswith("Only 25% of the errors that were planted on purpose were found")
    assert "or most labels are wrong. Try" in weak
    clean = counted(np.zeros((3, 3), np.int64), copies_flagged=0)
    assert trust_warnings(clean, known, NoiseRate(0.0, 0.0, 0.02, 0.0)) == [], "right labels are no reason to doubt"
    (open_one,) = trust_warnings(clean, known, NoiseRate(0.0, 0.0, 1.0, 0.0))
    assert "or few labels are wrong, so that only the surest errors are flagged. Try" in open_one
    (half,) = trust_warnings(counted(given=(5, 2, 0)), known, None)
    assert half == "More than half of the labels look wrong in 1 class: cat. Look at them by hand."
    many = counted(np.eye(7, dtype=np.int64), (1,) * 7)
    (all_bad,) = trust_warnings(many, manifest(class_names=tuple("abcdefg")), None)
    assert "in 7 classes: a, b, c, d, e and others. Look" in all_bad


def test_an_estimate_that_is_not_followed_is_named() -> None:
    """4 of 14 rows are flagged."""
    wild = NoiseRate(0.9, 0.5, 1.0, 0.9)
    (told,) = rate_warnings(counted(), CONFIG, wild)
    assert told.startswith("The estimated noise rate of 90% is not to be believed: flagging 29% of the rows finds 75%")
    assert rate_warnings(counted(), CONFIG, wild, by_model=True) == []
    assert rate_warnings(counted(), CONFIG, replace(wild, value=0.29, low=0.2, high=0.4)) == []
    assert rate_warnings(counted(), CONFIG | {"variant": "paper"}, wild) == []
    assert rate_warnings(counted(), CONFIG | {"flag_rule": "mixture"}, wild) == []
    assert rate_warnings(counted(), CONFIG, None) == []


def test_a_range_that_leaves_the_answer_open_names_the_next_step() -> None:
    (told,) = rate_warnings(counted(), CONFIG, NoiseRate(0.01, 0.0, 0.18, 0.0))
    assert told.startswith("The data do not decide how many labels are wrong, between 0.0% and 18.0%")
    assert "answers on 14 rows decide it: dynacor review RUN --sample 14." in told
    assert rate_warnings(counted(), CONFIG | {"variant": "paper"}, NoiseRate(0.2, 0.15, 0.3, 0.2)) == []


def test_summary_is_json_and_complete() -> None:
    known = manifest(warnings=("told before",), quarantined=3, quarantine_examples=tuple({"row": i} for i in range(20)))
    summary = built(counted(copies_flagged=1), known)
    held = json.loads(json.dumps(asdict(summary), allow_nan=False))
    assert asdict(RunSummary.from_json(held)) == held
    assert summary.num_rows == 14
    assert summary.num_flagged == 4
    assert summary.flagged_share == 4 / 14
    assert summary.estimated_noise_rate is summary.noise_rate_range is None, "too few epochs for an estimate"
    told = built(counted(), known, NoiseRate(0.2, 0.1, 0.3, 0.2))
    assert (told.estimated_noise_rate, told.noise_rate_range) == (0.2, [0.1, 0.3])
    assert summary.corrupted_recall == 0.25
    assert summary.seed == 7
    assert summary.seconds == {"total": 1.5}
    assert summary.warnings[0] == "told before"
    assert len(summary.warnings) == 2
    assert len(summary.data.quarantine_examples) == 10
    assert summary.data.quarantined == 3
    assert not {"parts", "stats"} & held["data"].keys()


def test_a_summary_of_another_version_is_read_or_refused() -> None:
    held = json.loads(json.dumps(asdict(built(counted(), manifest()))))
    older = {name: value for name, value in held.items() if name != "cluster"} | {"unheard_of": 1}
    assert RunSummary.from_json(older) == RunSummary.from_json(held)
    del held["num_flagged"]
    for other in (held, {"detectors": []}, []):
        with pytest.raises(RunDirectoryError, match=r"summary\.json of a detect run, but got one that does not"):
            RunSummary.from_json(other)


@pytest.mark.parametrize("classes", [100, 101])
def test_a_large_transition_matrix_is_left_out(classes: int) -> None:
    counts = counted(np.zeros((classes, classes), np.int64), (1,) * classes)
    summary = built(counts, manifest(class_names=tuple(map(str, range(classes)))))
    assert (summary.transition_matrix is None) == (classes > 100)


def test_equal_rows_with_different_labels_by_hand() -> None:
    """Rows 3, 5 and 9 are two cats and a dog; 4 and 6 both dogs; 7 and 8 an owl and a cat."""
    ids = np.array([3, 4, 5, 6, 7, 8, 9])
    equal = Duplicates(ids, np.array([3, 4, 3, 4, 7, 7, 3]))
    twins = TwinLabels.of(equal, np.array([0, 1, 1, 1, 2, 0, 0]), np.ones(7, bool))
    found = duplicate_table(twins, NAMES)
    assert found == {
        "rows": 7,
        "groups": 3,
        "conflicting_groups": 2,
        "conflicting_rows": 5,
        "surely_wrong": 2,
        "examples": [
            {"duplicate_of": 3, "labels": {"cat": 2, "dog": 1}},
            {"duplicate_of": 7, "labels": {"cat": 1, "owl": 1}},
        ],
    }
    (said,) = duplicate_warnings(found, "image")
    assert said.startswith("5 rows in 2 groups are the same but have different labels: at least 2 of these are wrong. ")
    one = found | {"conflicting_rows": 2, "conflicting_groups": 1, "surely_wrong": 1}
    assert duplicate_warnings(one, "feature") == [
        "2 rows in 1 group are the same but have different labels: at least 1 of these is wrong, or the features are "
        "too coarse to tell the classes apart. See duplicate_of in issues.parquet."
    ]
    alike = TwinLabels.of(Duplicates(ids[:2], np.array([3, 3])), np.array([1, 1]), np.ones(2, bool))
    assert duplicate_warnings(duplicate_table(alike, NAMES), "image") == duplicate_warnings(None, "image") == []
