from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from dynacor_ray.core.errors import ConfigError, DataError
from dynacor_ray.ground_truth.noise_spec import Noise, given_labels, known_labels, parse_noise, true_labels
from dynacor_ray.ground_truth.synthetic_noise import asymmetric, instance_dependent, symmetric

IDS = np.arange(3000, dtype=np.int64) * 7
TRUTH = IDS % 5


@pytest.mark.parametrize(
    ("text", "noise"),
    [
        ("given", Noise("given")),
        ("symmetric:0.6", Noise("symmetric", (0.6,))),
        ("asymmetric:.3", Noise("asymmetric", (0.3,))),
        ("instance_dependent:0", Noise("instance_dependent", (0.0,))),
        ("by_class:0.4,0.1", Noise("by_class", (0.4, 0.1))),
        ("one_sided:0.3", Noise("one_sided", (0.3,))),
        ("one_sided:0.3:4:9", Noise("one_sided", (0.3,), (4, 9))),
        ("default_label:0.25:3", Noise("default_label", (0.25,), (3,))),
    ],
)
def test_noise_by_name(text: str, noise: Noise) -> None:
    assert parse_noise(text) == noise
    assert parse_noise(str(noise)) == noise


@pytest.mark.parametrize("text", ["", "symetric:0.2", "symmetric", "given:0.1", "symmetric:60", "symmetric:x"])
def test_other_names_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"pass e\.g\. given, symmetric:0\.6"):
        parse_noise(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one_sided:0.3:4", "two classes after the rate of one_sided"),
        ("default_label:0.3:4:9", "one class after the rate of default_label"),
        ("symmetric:0.3:4", "no class after the rate of symmetric"),
    ],
)
def test_as_many_classes_are_named_as_a_kind_has(text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        parse_noise(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("one_sided:0.3:4:5", "two classes in 0..4"), ("default_label:0.3:5", "a default label in 0..4")],
)
def test_named_classes_exist(text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        given_labels(parse_noise(text), TRUTH, IDS, 5, 0)


def test_one_class_is_taken_for_another() -> None:
    given = given_labels(parse_noise("one_sided:0.3:4:2"), TRUTH, IDS, 5, 0)
    wrong = given != TRUTH
    assert (TRUTH[wrong] == 4).all()
    assert (given[wrong] == 2).all()
    assert wrong[TRUTH == 4].mean() == pytest.approx(0.3, abs=0.06)


def test_rows_of_any_class_have_the_default_label() -> None:
    given = given_labels(parse_noise("default_label:0.25:3"), TRUTH, IDS, 5, 0)
    wrong = given != TRUTH
    assert (given[wrong] == 3).all()
    for other in (0, 1, 2, 4):
        assert wrong[other == TRUTH].mean() == pytest.approx(0.25, abs=0.06)


def test_labels_are_those_of_the_noise_models() -> None:
    assert (given_labels(Noise("symmetric", (0.4,)), TRUTH, IDS, 5, 3) == symmetric(TRUTH, IDS, 0.4, 5, 3)).all()
    assert (given_labels(Noise("asymmetric", (0.4,)), TRUTH, IDS, 5, 3) == asymmetric(TRUTH, IDS, 0.4, 5, 3)).all()
    features = np.random.default_rng(0).normal(size=(len(IDS), 6))
    noise = Noise("instance_dependent", (0.4,))
    expected = instance_dependent(
        TRUTH, IDS, 0.4, 5, 3, 10 * features / np.linalg.norm(features, axis=1, keepdims=True)
    )
    assert (given_labels(noise, TRUTH, IDS, 5, 3, features) == expected).all()
    assert (given_labels(noise, TRUTH, IDS, 5, 3, 50 * features) == expected).all(), "only directions count"
    halves = [given_labels(noise, TRUTH[s], IDS[s], 5, 3, features[s]) for s in (slice(0, 999), slice(999, None))]
    assert (np.concatenate(halves) == expected).all(), "block by block"


def test_a_row_without_direction_has_a_label_too() -> None:
    """A feature equal to the mean: nothing is to be scaled, and nothing overflows."""
    features = np.array([[1, 2], [-1, -2], [0, 0]], np.float32)
    labels = given_labels(Noise("instance_dependent", (0.4,)), TRUTH[:3], IDS[:3], 5, 0, features)
    assert labels.shape == (3,)


def test_features_are_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"instance_dependent:0\.4 without features"):
        given_labels(Noise("instance_dependent", (0.4,)), TRUTH, IDS, 5, 0)
    with pytest.raises(ConfigError, match="given without features"):
        given_labels(Noise("given"), TRUTH, IDS, 5, 0, np.ones((len(IDS), 2)))


def test_what_labels_are_made_from_is_named() -> None:
    said = [
        parse_noise(text).made_from("encoder features")
        for text in ("given", "symmetric:0.1", "asymmetric:0.1", "instance_dependent:0.1")
    ]
    assert "own labels" in said[0]
    assert "(i + 1) mod C" in said[2]
    assert "encoder features" in said[3]
    assert len(set(said)) == 4


def test_truth_is_sorted_by_id_and_must_be_whole() -> None:
    table = pa.table({"instance_id": [4, 0, 9], "true_label": pa.array([1, 2, 0], pa.int32())})
    ids, labels = true_labels(table, 3)
    assert ids.tolist() == [0, 4, 9]
    assert labels.tolist() == [2, 1, 0]
    partial = pa.table({"instance_id": [4, 0, 9], "true_label": pa.array([1, None, 0], pa.int32())})
    assert [column.tolist() for column in known_labels(partial)] == [[4, 9], [1, 0]]
    with pytest.raises(DataError, match="1 of 3 without, or with a class that no label names; use --label-noise given"):
        true_labels(partial, 3)
