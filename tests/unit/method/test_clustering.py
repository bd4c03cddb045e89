"""Eq. 3-8 by hand, and properties of the fit. The independent per-row fit is in test_clustering_reference.py."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch

from dynacor_ray.core.errors import DataError, TrainingError
from dynacor_ray.method import clustering as c
from dynacor_ray.method.dynamics_encoder import DynamicsEncoder

QUICK = c.ClusteringConfig(epochs=2, batch_size=64, learning_rate=1e-3)


def simulated(num_rows: int = 300, num_epochs: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Margins (n, E), is_corrupted, has_copy: right labels are mostly learned, wrong ones mostly not."""
    generator = np.random.default_rng(seed)
    is_corrupted = np.arange(num_rows) >= num_rows * 5 // 6
    wrong = is_corrupted | (generator.random(num_rows) < 0.3)
    margins = np.where(wrong, -0.8, 0.8)[:, None] + generator.normal(size=(num_rows, num_epochs))
    return margins.astype(np.float32), is_corrupted, np.arange(num_rows) < num_rows // 6


def test_distances_by_hand() -> None:
    embedding = torch.tensor([[3.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    centroids = torch.tensor([[1.0, 0.0], [0.0, -2.0]])
    half = 0.5**0.5
    expected = torch.tensor([[0.0, 1.0], [1 - half, 1 + half], [1.0, 1.0]])
    torch.testing.assert_close(c.cosine_distance(embedding, centroids), expected)
    squared = torch.tensor([[4.0, 13.0], [1.0, 10.0], [1.0, 4.0]])
    torch.testing.assert_close(c.squared_euclidean_distance(embedding, centroids), squared)


def test_equation_3_by_hand() -> None:
    # 1 / (1 + 1/2) = 2/3; (1/2) / (1/2 + 1/3) = 3/5
    assert c.soft_assignment(torch.tensor([[0.0, 1.0], [1.0, 2.0], [1.0, 1.0]])).tolist() == pytest.approx(
        [2 / 3, 3 / 5, 1 / 2]
    )


def test_equation_4_does_not_flag_a_tie() -> None:
    assert c.flag(torch.tensor([0.5, 0.50001, 0.49999, 1.0, 0.0])).tolist() == [False, True, False, True, False]


def test_equation_5_by_hand() -> None:
    # s_noisy = 1.2, s_clean = 0.8: p_1 = (.64/1.2) / (.64/1.2 + .04/.8), p_2 = (.16/1.2) / (.16/1.2 + .36/.8)
    q = torch.tensor([0.8, 0.4], requires_grad=True)
    p = c.target_distribution(q)
    assert p.tolist() == pytest.approx([0.9142857, 0.2285714])
    assert not p.requires_grad


def test_equation_5_with_counts_is_that_of_repeated_rows() -> None:
    counts = torch.tensor([2.0, 1.0, 5.0])
    q = torch.tensor([0.8, 0.4, 0.3])
    plain = c.target_distribution(q.repeat_interleave(counts.long()))
    torch.testing.assert_close(c.target_distribution(q, counts).repeat_interleave(counts.long()), plain)


def test_equation_6_by_hand() -> None:
    p, q = torch.tensor([0.5, 1.0]), torch.tensor([0.25, 0.5])
    first = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    second = math.log(2)
    assert float(c.clustering_loss(p, q)) == pytest.approx(first + second)
    assert float(c.clustering_loss(p, q, "batchmean")) == pytest.approx((first + second) / 2)
    counts = torch.tensor([3.0, 1.0])
    assert float(c.clustering_loss(p, q, "sum", counts)) == pytest.approx(3 * first + second)
    assert float(c.clustering_loss(p, q, "batchmean", counts)) == pytest.approx((3 * first + second) / 4)


def test_equation_6_is_zero_only_where_both_agree() -> None:
    q = torch.tensor([0.3, 0.0, 1.0])
    assert float(c.clustering_loss(q, q)) == 0.0


def test_equation_7_by_hand() -> None:
    # flagged: means (1, 0) and (0, 1), distance 1; unflagged: means (2, 0) and (1, 1), distance 1 - 1/sqrt(2)
    embedding = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [3.0, 0.0], [1.0, 1.0]])
    flagged = torch.tensor([True, True, False, False, False])
    corrupted = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0])
    assert float(c.alignment_loss(embedding, flagged, 1 - corrupted, corrupted)) == pytest.approx(
        0.5 * (1 + 1 - 0.5**0.5)
    )


def test_equation_7_drops_a_term_without_both_groups() -> None:
    embedding = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], requires_grad=True)
    corrupted = torch.tensor([0.0, 1.0, 0.0])
    only_flagged = c.alignment_loss(embedding, torch.tensor([True, True, False]), 1 - corrupted, corrupted)
    assert only_flagged.item() == pytest.approx(0.5)
    none = c.alignment_loss(embedding, torch.tensor([True, False, True]), 1 - corrupted, corrupted)
    assert none.item() == 0.0
    none.backward()
    assert embedding.grad is not None
    assert torch.isfinite(embedding.grad).all()


def test_equation_7_with_counts_is_that_of_repeated_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(8, 5, generator=generator)
    flagged = torch.arange(8) % 2 == 0
    originals, corrupted = torch.randint(0, 4, (2, 8), generator=generator)
    times = originals + corrupted
    is_corrupted = torch.cat([torch.arange(int(t)) >= int(o) for t, o in zip(times, originals, strict=True)]).float()
    plain = c.alignment_loss(
        embedding.repeat_interleave(times, dim=0), flagged.repeat_interleave(times), 1 - is_corrupted, is_corrupted
    )
    torch.testing.assert_close(c.alignment_loss(embedding, flagged, originals.float(), corrupted.float()), plain)


def test_equation_8() -> None:
    assert float(c.total_loss(torch.tensor(2.0), torch.tensor(4.0), 0.05)) == pytest.approx(2.2)


def test_centroids_start_at_the_mean_representations() -> None:
    margins, is_corrupted, has_copy = simulated()
    fitted = c.fit(margins, is_corrupted, has_copy, c.preset("paper", epochs=0))
    encoder = DynamicsEncoder(6)
    encoder.load_state_dict(fitted.encoder_state)
    with torch.no_grad():
        z = encoder(torch.from_numpy(np.where(margins >= 0, 1.0, -1.0)).float())
    expected = torch.stack((z[is_corrupted].mean(dim=0), z[~is_corrupted].mean(dim=0)))
    torch.testing.assert_close(fitted.centroids, expected)
    assert (fitted.epoch, len(fitted.records)) == (0, 1)


def test_the_order_of_instances_changes_nothing() -> None:
    margins, is_corrupted, has_copy = simulated()
    order = np.random.default_rng(1).permutation(len(margins))
    first = c.fit(margins, is_corrupted, has_copy, QUICK)
    second = c.fit(margins[order], is_corrupted[order], has_copy[order], QUICK)
    assert first.records == second.records
    assert np.array_equal(first.assign(margins)[order], second.assign(margins[order]))


def test_seeds_differ_and_one_seed_repeats() -> None:
    rows = simulated()
    first, again, other = (c.fit(*rows, c.ClusteringConfig(epochs=1, seed=seed)) for seed in (0, 0, 1))
    assert first.records == again.records
    assert first.records != other.records


def test_every_epoch_visits_every_row_once_in_an_order_of_its_own() -> None:
    orders = [c.batch_order(500, seed, epoch) for seed, epoch in ((0, 1), (0, 2), (1, 1))]
    assert all(order.sort().values.tolist() == list(range(500)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 3
    assert torch.equal(orders[0], c.batch_order(500, 0, 1))


def test_the_global_random_state_and_threads_are_left_alone() -> None:
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    c.fit(*simulated(), QUICK)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_a_fit_survives_pickling_and_is_small() -> None:
    margins, is_corrupted, has_copy = simulated(2000)
    fitted = c.fit(margins, is_corrupted, has_copy, QUICK)
    data = pickle.dumps(fitted)
    assert len(data) < 1_000_000  # the encoder at E = 6 has 0.1M parameters, whatever the number of rows
    assert np.array_equal(pickle.loads(data).assign(margins), fitted.assign(margins))


@pytest.mark.parametrize("rule", ["validation_metric", "noise_rate", "davies_bouldin", "last"])
def test_the_kept_state_is_that_of_the_chosen_epoch(rule: str) -> None:
    margins, is_corrupted, has_copy = simulated()
    options = {"learning_rate": 3e-3, "batch_size": 64, "epoch_choice": rule, "noise_rate": 0.3}
    fitted = c.fit(margins, is_corrupted, has_copy, c.preset("paper", epochs=4, **options))
    assert fitted.epoch == c.choose_epoch(fitted.records, rule, 0.3)
    until = c.fit(
        margins, is_corrupted, has_copy, c.preset("paper", epochs=fitted.epoch, **options | {"epoch_choice": "last"})
    )
    assert np.array_equal(fitted.assign(margins), until.assign(margins))


def test_records_describe_the_assignment() -> None:
    margins, is_corrupted, has_copy = simulated()
    seen: list[tuple[c.EpochRecord, np.ndarray]] = []
    config = c.preset("released", epochs=2, learning_rate=1e-3, batch_size=64, epoch_choice="last")
    fitted = c.fit(margins, is_corrupted, has_copy, config, lambda record, q: seen.append((record, q)))
    assert [record for record, _ in seen] == list(fitted.records)
    assert [record.epoch for record, _ in seen] == [0, 1, 2]
    assert np.array_equal(seen[-1][1], fitted.assign(margins)), "every row's, in the order given"
    q, last = fitted.assign(margins).astype(np.float64), fitted.records[-1]
    assert last.flagged_originals == pytest.approx((q > 0.5)[~is_corrupted].mean())
    assert last.flagged_corrupted == pytest.approx((q > 0.5)[is_corrupted].mean())
    difference = q[is_corrupted & (q > 0.5)].mean() - q[has_copy & (q <= 0.5)].mean()
    assert last.validation_metric == pytest.approx(difference**2)
    marked_too = c.fit(margins, is_corrupted, has_copy | is_corrupted, config)
    assert marked_too.records == fitted.records  # Eq. 9's second mean is over originals only


@pytest.mark.parametrize("num_epochs", [1, 70])
@pytest.mark.parametrize("batch_size", [1, 7, 1024])
def test_extreme_lengths_and_batches(num_epochs: int, batch_size: int) -> None:
    margins, is_corrupted, has_copy = simulated(24, num_epochs)
    config = c.ClusteringConfig(epochs=1, batch_size=batch_size)
    q = c.fit(margins, is_corrupted, has_copy, config).assign(margins)
    assert q.shape == (24,)
    assert q.dtype == np.float32
    assert ((q > 0) & (q < 1)).all()


def test_assign_separates_what_training_saw_and_depends_on_the_row_alone() -> None:
    margins, is_corrupted, has_copy = simulated()
    fitted = c.fit(margins, is_corrupted, has_copy, QUICK)
    q = fitted.assign(margins)
    assert q[is_corrupted].mean() > q[~is_corrupted].mean()
    alone = np.concatenate([fitted.assign(margins[i : i + 1]) for i in range(20)])
    np.testing.assert_allclose(alone, q[:20], atol=1e-6)
    assert np.array_equal(fitted.assign(margins.astype(np.float64) * 100), q)  # only the signs count
    assert fitted.assign(margins[:0]).shape == (0,)
    with pytest.raises(DataError, match=r"shape \(n, 6\)"):
        fitted.assign(margins[:, :5])


def test_assign_works_through_several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    margins, is_corrupted, has_copy = simulated()
    whole = c.fit(margins, is_corrupted, has_copy, QUICK)
    monkeypatch.setattr(c, "_CHUNK", 7)
    chunked = c.fit(margins, is_corrupted, has_copy, QUICK)
    np.testing.assert_allclose(chunked.centroids, whole.centroids, atol=1e-5)
    np.testing.assert_allclose(chunked.assign(margins), whole.assign(margins), atol=1e-5)


def test_presets_are_the_documented_ones() -> None:
    assert c.preset("paper") == c.ClusteringConfig(
        alpha=0.5,
        epochs=10,
        batch_size=1024,
        learning_rate=1e-5,
        weight_decay=5e-4,
        kl_reduction="sum",
        assignment_distance="cosine",
        metric_rows="all",
        epoch_choice="validation_metric",
    )
    released = c.preset("released", alpha=0.05)
    assert released == c.ClusteringConfig(
        alpha=0.05,
        epochs=15,
        weight_decay=1e-4,
        kl_reduction="batchmean",
        assignment_distance="squared_euclidean",
        metric_rows="copied",
    )


def test_unusable_rows_are_refused() -> None:
    margins, is_corrupted, has_copy = simulated(12)
    with pytest.raises(DataError, match="original and corrupted rows, but got 0 corrupted rows of 12"):
        c.fit(margins, np.zeros(12, bool), has_copy, QUICK)
    with pytest.raises(DataError, match="but got 12 corrupted rows"):
        c.fit(margins, np.ones(12, bool), has_copy, QUICK)
    with pytest.raises(DataError, match="without NaN"):
        c.fit(np.full_like(margins, np.nan), is_corrupted, has_copy, QUICK)


def test_a_diverging_fit_stops() -> None:
    with pytest.raises(TrainingError, match=r"finite soft assignments, but got .* after epoch 1; lower"):
        c.fit(*simulated(60), c.preset("released", epochs=1, learning_rate=1e30))
