from __future__ import annotations

import numpy as np
import pytest

from dynacor_ray.core.errors import ConfigError, DataError
from dynacor_ray.core.rng import Purpose, derive_seed
from dynacor_ray.ground_truth.synthetic_noise import asymmetric, instance_dependent, symmetric

IDS = np.arange(200_000)
TRUE = (IDS * 13) % 4


def transition_matrix(given: np.ndarray) -> np.ndarray:
    """Observed P(given = j | true = i) of the 4 classes of TRUE."""
    counts = np.bincount(TRUE * 4 + given, minlength=16).reshape(4, 4)
    return counts / counts.sum(axis=1, keepdims=True)


def test_symmetric_noise_has_its_rate_and_transition_matrix() -> None:
    given = symmetric(TRUE, IDS, 0.6, 4, seed=0)
    assert given.dtype == np.int32
    expected = np.full((4, 4), 0.2) + 0.2 * np.eye(4)
    assert transition_matrix(given) == pytest.approx(expected, abs=0.01)
    assert (given != TRUE).mean() == pytest.approx(0.6, abs=0.005)


def test_asymmetric_noise_goes_to_the_next_class_or_along_the_map() -> None:
    step = np.roll(np.eye(4), 1, axis=1)
    given = asymmetric(TRUE, IDS, 0.3, 4, seed=0)
    assert transition_matrix(given) == pytest.approx(0.7 * np.eye(4) + 0.3 * step, abs=0.01)
    mapped = asymmetric(TRUE, IDS, 0.3, 4, seed=0, class_map=[0, 3, 1, 1])
    expected = 0.7 * np.eye(4) + 0.3 * np.eye(4)[[0, 3, 1, 1]]
    assert transition_matrix(mapped) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("kind", [symmetric, asymmetric])
def test_extreme_rates(kind) -> None:  # type: ignore[no-untyped-def]
    clean = kind(TRUE, IDS, 0.0, 4, seed=0)
    assert clean is not TRUE
    assert not np.shares_memory(clean, TRUE)
    assert (clean == TRUE).all()
    assert (kind(TRUE, IDS, 1.0, 4, seed=0) != TRUE).all()


@pytest.mark.parametrize("kind", [symmetric, asymmetric])
def test_noise_belongs_to_the_instance_and_grows_with_the_rate(kind) -> None:  # type: ignore[no-untyped-def]
    order = np.random.default_rng(0).permutation(5000)
    low = kind(TRUE[:5000], IDS[:5000], 0.2, 4, seed=3)
    assert (kind(TRUE[order], IDS[order], 0.2, 4, seed=3) == low[order]).all()
    high = kind(TRUE[:5000], IDS[:5000], 0.5, 4, seed=3)
    wrong = low != TRUE[:5000]
    assert (high[wrong] == low[wrong]).all()
    assert (kind(TRUE[:5000], IDS[:5000], 0.2, 4, seed=4) != low).any()


FEATURES = np.random.default_rng(5).normal(size=(len(IDS), 3))


def test_instance_dependent_noise_has_its_rate_and_keeps_away_from_the_true_class() -> None:
    given = instance_dependent(TRUE, IDS, 0.4, 4, 0, FEATURES)
    assert given.dtype == np.int32
    assert (given != TRUE).mean() == pytest.approx(0.4, abs=0.005)
    assert set(np.unique(given)) == {0, 1, 2, 3}
    assert (instance_dependent(TRUE, IDS, 0.0, 4, 0, FEATURES) != TRUE).mean() == pytest.approx(0.08, abs=0.005)


def test_instance_dependent_noise_follows_the_features() -> None:
    """Equal features of one class share one softmax: the wrong labels of a large group have its probabilities."""
    ids, same = np.arange(200_000), np.tile([[0.3, -0.2]], (200_000, 1))
    given = instance_dependent(np.zeros(200_000, np.int64), ids, 0.5, 4, 1, same)
    share = np.bincount(given[given > 0], minlength=4)[1:] / (given > 0).sum()
    generator = np.random.Generator(np.random.PCG64(derive_seed(1, int(Purpose.NOISE_LABEL), 0)))
    score = np.exp((same[0] @ generator.standard_normal((2, 4)))[1:])
    assert share == pytest.approx(score / score.sum(), abs=0.01)
    scaled = instance_dependent(np.zeros(200_000, np.int64), ids, 0.5, 4, 1, same * 1000)
    assert len(np.unique(scaled)) == 2, "large features make one wrong class certain"


def test_instance_dependent_noise_belongs_to_the_instance() -> None:
    order = np.random.default_rng(0).permutation(5000)
    low = instance_dependent(TRUE[:5000], IDS[:5000], 0.3, 4, 3, FEATURES[:5000])
    shuffled = instance_dependent(TRUE[order], IDS[order], 0.3, 4, 3, FEATURES[order])
    assert (shuffled == low[order]).all()
    high = instance_dependent(TRUE[:5000], IDS[:5000], 0.5, 4, 3, FEATURES[:5000])
    wrong = low != TRUE[:5000]
    assert (high[wrong] == low[wrong]).all()
    assert (instance_dependent(TRUE[:5000], IDS[:5000], 0.3, 4, 4, FEATURES[:5000]) != low).any()
    with pytest.raises(DataError, match=r"finite features of shape \(200000, D\), but got shape \(3, 2\)"):
        instance_dependent(TRUE, IDS, 0.3, 4, 0, np.zeros((3, 2)))


def test_unusable_input_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"noise rate in \[0, 1\], but got 40"):
        symmetric(TRUE, IDS, 40, 4, seed=0)
    with pytest.raises(ConfigError, match="noise rate"):
        asymmetric(TRUE, IDS, float("nan"), 4, seed=0)
    with pytest.raises(ConfigError, match="at least 2 classes"):
        symmetric(np.zeros(3, dtype=np.int64), np.arange(3), 0.1, 1, seed=0)
    with pytest.raises(DataError, match=r"labels in 0\.\.2, but got a range of 0\.\.3"):
        symmetric(TRUE, IDS, 0.1, 3, seed=0)
