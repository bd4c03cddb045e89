"""Table 6 by name: every signal against its formula, all of one orientation, and gram matrices over any batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynacor_ray.method import signals as s


def batch_of(rows: int = 50, classes: int = 4, dim: int = 6) -> s.BatchOutputs:
    generator = torch.Generator().manual_seed(0)
    return s.BatchOutputs(
        torch.randn(rows, classes, generator=generator),
        torch.randint(classes, (rows,), generator=generator),
        torch.randn(rows, dim, generator=generator),
        torch.nn.functional.normalize(torch.randn(classes, dim, generator=generator), dim=1),
    )


def test_every_signal_against_a_loop() -> None:
    seen = batch_of()
    assert seen.directions is not None
    recorded = {name: values.numpy() for name, values in s.record_signals(seen).items()}
    assert tuple(recorded) == s.COLUMNS
    for row in range(50):
        logits, y = seen.logits[row].double().numpy(), int(seen.label[row])
        p = np.exp(logits) / np.exp(logits).sum()
        aligned = float(seen.directions[y].double() @ seen.features[row].double())
        slow = {
            "margin": logits[y] - max(np.delete(logits, y)),
            "margin_sign": 1.0 if logits[y] >= max(np.delete(logits, y)) else -1.0,
            "probability": p[y],
            "probability_difference": p.max() - p[y],
            "loss": -np.log(p[y]),
            "alignment": aligned**2,
        }
        assert set(slow) == set(s.SIGNALS)
        for name, signal in s.SIGNALS.items():
            read = signal.read(recorded[signal.column][row : row + 1, None])
            assert read.dtype == np.float32
            assert read.item() == pytest.approx(slow[name], abs=1e-5), name


def test_the_orientation_of_every_signal() -> None:
    """A row whose label fits, and one whose does not."""
    logits = torch.tensor([[5.0, 0.0], [0.0, 5.0]])
    features, directions = torch.tensor([[2.0, 0.1], [0.1, 2.0]]), torch.eye(2)
    recorded = s.record_signals(s.BatchOutputs(logits, torch.tensor([0, 0]), features, directions))
    for signal in s.SIGNALS.values():
        right, wrong = signal.read(recorded[signal.column].numpy()[:, None])[:, 0]
        assert (wrong > right) == signal.high_is_wrong, signal.name
        assert wrong != right


def test_alignment_without_directions_is_nothing() -> None:
    seen = batch_of()
    first = s.record_signals(s.BatchOutputs(seen.logits, seen.label, seen.features, None))
    assert first["alignment"].tolist() == [0.0] * 50


def test_only_the_sign_of_a_stored_margin_counts() -> None:
    stored = np.array([[-(2.0**-24), 0.0, -0.0, 3.0]], np.float16)
    assert s.SIGNALS["margin_sign"].read(stored).tolist() == [[-1, 1, 1, 1]]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=6))
def test_gram_matrices_over_any_batches(sizes: list[int]) -> None:
    random = np.random.default_rng(len(sizes))
    features = torch.from_numpy(random.normal(size=(sum(sizes), 3)).astype(np.float32))
    labels = torch.from_numpy(random.integers(0, 3, sum(sizes)))  # of 4: one class is absent
    grams = s.ClassGrams.empty(4, 3, torch.device("cpu"))
    for rows, given_label in zip(features.split(sizes), labels.split(sizes), strict=True):
        grams.add(rows, given_label)
    for label in range(4):
        mine = features[labels == label]
        assert torch.allclose(grams.sums[label], mine.T @ mine, atol=1e-4)
        length = grams.directions()[label].norm()
        assert float(length) == pytest.approx(1.0 if len(mine) else 0.0, abs=1e-5)
