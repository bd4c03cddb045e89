"""summary.json by hand, and its warnings."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from dynacor_ray.core.manifest import DataFile, DatasetManifest, FeatureStats
from dynacor_ray.report.summary import (
    RunResults,
    build_summary,
    class_table,
    pair_table,
    rate_warnings,
    transition_matrix,
    trust_warnings,
)

NAMES = ("cat", "dog", "owl")


@dataclass
class Counted:
    """10 cats of which 3 are flagged (2 as dogs, 1 as an owl), 4 dogs of which 1 as a dog, no owl."""

    originals: int = 14
    flagged: int = 4
    copies: int = 4
    copies_flagged: int = 3
    pairs: np.ndarray = field(default_factory=lambda: np.array([[0, 2, 1], [0, 1, 0], [0, 0, 0]], np.int64))
    given: np.ndarray = field(default_factory=lambda: np.array([10, 4, 0], np.int64))


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


def facts(counts: Counted, known: DatasetManifest, noise_rate: dict[str, float] | None = None) -> RunResults:
    records = [{"epoch": 0, "davies_bouldin": None}]
    config = {"seed": 7, "gamma": 0.1, "flag_rule": None, "variant": None}
    return RunResults(config, {"ray": "2"}, known, "pixels@8", counts, records, 0, None, noise_rate)


def test_class_table_by_hand() -> None:
    assert class_table(Counted(), NAMES) == [
        {"class": "cat", "rows": 10, "flagged": 3, "flagged_share": 0.3, "estimated_noise_rate": None},
        {"class": "dog", "rows": 4, "flagged": 1, "flagged_share": 0.25, "estimated_noise_rate": None},
        {"class": "owl", "rows": 0, "flagged": 0, "flagged_share": 0.0, "estimated_noise_rate": None},
    ]


def test_pair_table_by_hand() -> None:
    """Most frequent first; a flagged row whose given label is also predicted names no other class."""
    pairs = Counted().pairs
    assert pair_table(pairs, NAMES) == [
        {"given": "cat", "predicted": "dog", "flagged": 2},
        {"given": "cat", "predicted": "owl", "flagged": 1},
    ]
    assert pairs[1, 1] == 1, "the argument is left alone"
    many = pair_table(np.arange(100, dtype=np.int64).reshape(10, 10), tuple("abcdefghij"))
    assert len(many) == 50
    assert many[0] == {"given": "j", "predicted": "i", "flagged": 98}


def test_transition_matrix_by_hand() -> None:
    """Truly cats: the 7 unflagged. Dogs: 3 unflagged, the one flagged as a dog, 2 given as cats. Owls: 1 as a cat."""
    assert np.allclose(transition_matrix(Counted()), [[1, 0, 0], [2 / 6, 4 / 6, 0], [1, 0, 0]])


def test_transition_matrix_of_a_class_that_nobody_has() -> None:
    pairs = np.array([[0, 1, 0], [0, 0, 0], [0, 0, 0]], np.int64)
    counts = Counted(pairs=pairs, given=np.array([1, 2, 0], np.int64))
    assert np.allclose(transition_matrix(counts), [[1, 0, 0], [1 / 3, 2 / 3, 0], [0, 0, 1]])


def test_warnings_of_doubtful_answers() -> None:
    known = manifest()
    assert trust_warnings(Counted(), known) == []
    assert trust_warnings(Counted(copies_flagged=2), known) == [], "half is enough"
    (weak,) = trust_warnings(Counted(copies_flagged=1), known)
    assert weak.startswith("Only 25% of the errors that were planted on purpose were found")
    (half,) = trust_warnings(Counted(given=np.array([5, 2, 0], np.int64)), known)
    assert half == "More than half of the labels look wrong in 1 class(es): cat. Look at them by hand."
    many = Counted(pairs=np.eye(7, dtype=np.int64), given=np.ones(7, np.int64))
    (all_bad,) = trust_warnings(many, manifest(class_names=tuple("abcdefg")))
    assert "in 7 class(es): a, b, c, d, e and others. Look" in all_bad


def test_an_estimate_that_is_not_followed_is_named() -> None:
    """4 of 14 rows are flagged."""
    wild = {"value": 0.9, "low": 0.3, "high": 1.0}
    (told,) = rate_warnings(facts(Counted(), manifest(), wild))
    assert told.startswith("The estimated noise rate of 90% is not to be believed: flagging 29% of the rows finds 75%")
    assert rate_warnings(facts(Counted(), manifest(), wild | {"value": 0.29})) == []
    other = facts(Counted(), manifest(), wild)
    assert rate_warnings(dataclasses.replace(other, config=other.config | {"variant": "paper"})) == []
    assert rate_warnings(dataclasses.replace(other, config=other.config | {"flag_rule": "mixture"})) == []
    assert rate_warnings(facts(Counted(), manifest())) == []


def test_summary_is_json_and_complete() -> None:
    known = manifest(warnings=("told before",), quarantined=3, quarantine_examples=tuple({"row": i} for i in range(20)))
    summary = build_summary(facts(Counted(copies_flagged=1), known), {"total": 1.5})
    assert json.loads(json.dumps(summary, allow_nan=False)) == json.loads(json.dumps(summary))
    assert summary["num_rows"] == 14
    assert summary["num_flagged"] == 4
    assert summary["flagged_share"] == 4 / 14
    assert summary["estimated_noise_rate"] is summary["noise_rate_range"] is None, "too few epochs for an estimate"
    told = build_summary(facts(Counted(), known, {"value": 0.2, "low": 0.1, "high": 0.3}), {})
    assert (told["estimated_noise_rate"], told["noise_rate_range"]) == (0.2, [0.1, 0.3])
    assert summary["corrupted_recall"] == 0.25
    assert summary["seed"] == 7
    assert summary["seconds"] == {"total": 1.5}
    assert summary["warnings"][0] == "told before"
    assert len(summary["warnings"]) == 2
    assert len(summary["data"]["quarantine_examples"]) == 10
    assert summary["data"]["quarantined"] == 3
    assert not {"parts", "stats"} & summary["data"].keys()


@pytest.mark.parametrize("classes", [100, 101])
def test_a_large_transition_matrix_is_left_out(classes: int) -> None:
    counts = Counted(pairs=np.zeros((classes, classes), np.int64), given=np.ones(classes, np.int64))
    summary = build_summary(facts(counts, manifest(class_names=tuple(map(str, range(classes))))), {})
    assert (summary["transition_matrix"] is None) == (classes > 100)
