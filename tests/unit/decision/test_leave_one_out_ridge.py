"""Leave-one-out margins of a ridge regression, against the regression fitted anew without the row."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynacor_ray.decision.leave_one_out_ridge import PENALTIES, Ridge, RidgeSums, best_penalty
from dynacor_ray.method.dynamics import logit_margin

CLASSES = 3


def drawn(rows: int = 60, dim: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, CLASSES, rows)
    center = rng.normal(size=(CLASSES, dim)) * 2
    feature = 7.0 + center[label] + rng.normal(size=(rows, dim))
    return torch.from_numpy(feature.astype(np.float32)), torch.from_numpy(label)


def sums(feature: torch.Tensor, label: torch.Tensor, scale: float = 0.3) -> RidgeSums:
    found = RidgeSums(CLASSES, feature.mean(dim=0) + 0.1, scale)
    found.add(feature, label)
    return found


def solved(feature: torch.Tensor, label: torch.Tensor) -> Ridge:
    ridge = sums(feature, label).solve()
    assert ridge is not None
    return ridge


def fitted_without(feature: np.ndarray, label: np.ndarray, row: int, penalty: float) -> np.ndarray:
    """The solution of the normal equations of the other rows."""
    x, y = feature - feature.mean(axis=0), np.eye(CLASSES)[label]
    rest = np.arange(len(x)) != row
    # The intercept is a column that is hardly penalized: a row's leverage then includes its 1/N.
    wide = np.concatenate([x, np.full((len(x), 1), 1e4)], axis=1)
    gram = wide[rest].T @ wide[rest] + penalty * np.eye(wide.shape[1])
    predicted: np.ndarray = wide[row] @ np.linalg.solve(gram, wide[rest].T @ y[rest])
    return predicted


def test_equals_a_regression_that_is_fitted_without_the_row() -> None:
    feature, label = drawn()
    ridge = solved(feature, label)
    found = ridge.predict(feature, label, torch.ones(len(label), dtype=torch.bool)).double().numpy()
    x = feature.double().numpy()
    values = np.linalg.eigvalsh(np.cov(x.T, bias=True) * len(x))
    for row in range(0, 60, 7):
        expected = fitted_without(x, label.numpy(), row, ridge.penalty * values.mean())
        assert found[row] == pytest.approx(expected, abs=1e-4)


def test_a_row_s_own_label_does_not_touch_its_scores() -> None:
    feature, label = drawn()
    changed = label.clone()
    changed[4] = (label[4] + 1) % CLASSES
    inside = torch.ones(len(label), dtype=torch.bool)
    penalty = np.array([0.3])
    before, after = (
        _with_penalty(sums(feature, given), penalty).predict(feature, given, inside) for given in (label, changed)
    )
    assert torch.allclose(before[4], after[4], atol=1e-5)
    assert not torch.allclose(before[5], after[5], atol=1e-5), "the others do learn from it"


def _with_penalty(found: RidgeSums, penalties: np.ndarray) -> Ridge:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dynacor_ray.decision.leave_one_out_ridge.PENALTIES", penalties)
        ridge = found.solve()
    assert ridge is not None
    assert ridge.penalty == pytest.approx(penalties[0])
    return ridge


def test_leverages_are_computed_for_the_rows_that_are_left_out_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a sample of many rows: the same scores, and of all others no D x D product."""
    feature, label = drawn(400)
    ridge, inside = solved(feature, label), torch.arange(400) % 50 == 7
    seen: list[int] = []
    without = Ridge._without

    def counted(self: Ridge, scores: torch.Tensor, *more: torch.Tensor) -> torch.Tensor:
        seen.append(len(scores))
        return without(self, scores, *more)

    monkeypatch.setattr(Ridge, "_without", counted)
    few = ridge.predict(feature, label, inside)
    monkeypatch.setattr("dynacor_ray.decision.leave_one_out_ridge._FEW", -1.0)
    assert torch.equal(few, ridge.predict(feature, label, inside))
    assert seen == [8, 400]


def test_rows_that_were_not_fitted_are_plainly_predicted() -> None:
    feature, label = drawn()
    ridge = solved(feature, label)
    out = ridge.predict(feature, label, torch.zeros(len(label), dtype=torch.bool))
    assert torch.allclose(out, ridge.predict(feature, (label + 1) % CLASSES, torch.zeros(60, dtype=torch.bool)))
    assert torch.allclose(out.sum(dim=1), torch.ones(60), atol=1e-5)


def test_sums_of_workers_add_up_in_any_order() -> None:
    feature, label = drawn(200)
    mean, whole = feature.mean(dim=0), RidgeSums(CLASSES, feature.mean(dim=0), 0.5)
    parts = [RidgeSums(CLASSES, mean, 0.5) for _ in range(2)]
    whole.add(feature, label)
    order = torch.from_numpy(np.random.default_rng(1).permutation(200))
    for at, index in enumerate(order.split(17)):
        parts[at % 2].add(feature[index], label[index])
    for left, right, total in zip(parts[0].totals, parts[1].totals, whole.totals, strict=True):
        assert torch.allclose(left + right, total, rtol=1e-5, atol=1e-3)


def test_penalty_is_the_one_of_least_cross_validated_error() -> None:
    """Generalized cross-validation by its definition, with the full hat matrix."""
    feature, label = drawn(40, 30)
    x = (feature - feature.mean(dim=0)).double().numpy()
    y = np.eye(CLASSES)[label.numpy()]
    y = y - y.mean(axis=0)
    values, vectors = np.linalg.eigh(x.T @ x)
    unit, scores = values.mean(), []
    for penalty in PENALTIES * unit:
        hat = x @ np.linalg.solve(x.T @ x + penalty * np.eye(30), x.T)
        scores.append(((y - hat @ y) ** 2).sum() / (40 - 1 - np.trace(hat)) ** 2)
    explained = ((vectors.T @ x.T @ y) ** 2).sum(axis=1)
    found = best_penalty(values / unit, explained / unit, (y**2).sum(), 40.0, PENALTIES)
    assert found == PENALTIES[int(np.argmin(scores))]
    assert PENALTIES[0] < found < PENALTIES[-1]
    assert solved(feature, label).penalty == pytest.approx(found)


def test_wrong_labels_have_low_margins_also_where_they_are_of_one_kind() -> None:
    feature, label = drawn(600, 20)
    wrong = torch.from_numpy(np.random.default_rng(3).random(600) < 0.25)
    given = torch.where(wrong, (label + 1) % CLASSES, label)
    ridge = solved(feature, given)
    margin = logit_margin(ridge.predict(feature, given, torch.ones(600, dtype=torch.bool)), given)
    assert (margin[wrong] < 0).float().mean() > 0.95
    assert (margin[~wrong] > 0).float().mean() > 0.95


@pytest.mark.parametrize("rows", [0, 1])
def test_nothing_to_fit(rows: int) -> None:
    feature, label = drawn()
    found = RidgeSums(CLASSES, feature.mean(dim=0), 1.0)
    found.add(feature[:rows], label[:rows])
    assert found.solve() is None


def test_constant_features_say_nothing() -> None:
    assert sums(torch.ones(10, 4), torch.arange(10) % CLASSES).solve() is None


def test_more_features_than_rows_and_a_row_far_out() -> None:
    feature, label = drawn(20, 50)
    feature[3] += 1e4
    scores = solved(feature, label).predict(feature, label, torch.ones(20, dtype=torch.bool))
    assert torch.isfinite(scores).all()


def test_infinite_features_have_no_regression() -> None:
    sums = RidgeSums(2, torch.zeros(3), 1.0)
    features = torch.randn((10, 3), generator=torch.Generator().manual_seed(0))
    features[4, 1] = torch.inf
    sums.add(features, torch.arange(10) % 2)
    assert sums.solve() is None


def test_equal_rows_count_as_one_and_are_left_out_together() -> None:
    """Four copies of a row, two of them with another label, against the regression without the four."""
    feature, label = drawn()
    given = torch.cat([label, (label[:1] + torch.tensor([0, 1, 1])) % CLASSES])
    rows = torch.cat([feature, feature[:1].expand(3, -1)])
    weights = torch.ones(63)
    weights[[0, 60, 61, 62]] = 0.25
    mean = feature.mean(dim=0) + 0.1
    found, rest = RidgeSums(CLASSES, mean, 0.3), RidgeSums(CLASSES, mean, 0.3)
    found.add(rows, given, weights)
    rest.add(feature[1:], label[1:])
    # penalties are in units of the mean eigenvalue, which one row moves
    first, second = (
        float(torch.trace(one.gram - torch.outer(one.total, one.total) / n)) for one, n in ((found, 60), (rest, 59))
    )
    ridge = _with_penalty(found, np.array([0.3]))
    other = _with_penalty(rest, np.array([0.3 * first / second]))
    left_out = torch.zeros(2, CLASSES)
    left_out[:, label[0]], left_out[:, (label[0] + 1) % CLASSES] = 0.5, 0.5
    scores = ridge.predict_without(rows[[0, 62]], left_out)
    assert torch.allclose(scores[0], scores[1], atol=1e-6)
    nothing = torch.zeros(1, CLASSES)
    assert torch.allclose(scores[0], other.predict_without(feature[:1], nothing)[0], atol=1e-4)
    assert not torch.allclose(scores[0], ridge.predict_without(feature[:1], nothing)[0], atol=2e-2)
    plain = sums(feature, label)
    once = RidgeSums(CLASSES, mean, 0.3)
    once.add(torch.cat([feature, feature]), torch.cat([label, label]), torch.full((120,), 0.5))
    for left, right in zip(plain.totals, once.totals, strict=True):
        assert torch.allclose(left, right, rtol=1e-5, atol=1e-3)


def test_a_group_of_all_weight_is_not_divided_by_nothing() -> None:
    feature, label = drawn(6)
    ridge = solved(feature, label)
    everything = torch.full((6, CLASSES), 1e4)
    assert torch.isfinite(ridge.predict_without(feature, everything)).all()
