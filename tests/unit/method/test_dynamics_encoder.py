from __future__ import annotations

import numpy as np
import pytest
import torch

from dynacor_ray.method.dynamics_encoder import DynamicsEncoder, PatternEncoder, initial_encoder_state, sign_windows


def random_signs(rows: int, num_epochs: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.array([-1, 1], dtype=np.int8), (rows, num_epochs))


def published(num_epochs: int, seed: int = 0) -> DynamicsEncoder:
    encoder = DynamicsEncoder(num_epochs)
    encoder.load_state_dict(initial_encoder_state(num_epochs, seed))
    return encoder


def test_the_encoder_is_the_published_network() -> None:
    encoder = DynamicsEncoder(20)
    shapes = {name: tuple(value.shape) for name, value in encoder.state_dict().items()}
    assert shapes == {
        "conv1.weight": (16, 1, 3),
        "conv1.bias": (16,),
        "conv2.weight": (32, 16, 3),
        "conv2.bias": (32,),
        "conv3.weight": (32, 32, 3),
        "conv3.bias": (32,),
        "project.weight": (512, 640),
        "project.bias": (512,),
    }
    reference = torch.nn.Sequential(
        torch.nn.Conv1d(1, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv1d(16, 32, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv1d(32, 32, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(640, 512),
    )
    reference.load_state_dict(dict(zip(reference.state_dict(), encoder.state_dict().values(), strict=True)))
    dynamics = torch.randn(5, 20)
    assert torch.equal(encoder(dynamics), reference(dynamics[:, None, :]))


@pytest.mark.parametrize("num_epochs", [1, 2, 3, 6, 7, 20, 70])
@pytest.mark.parametrize("rows", [1, 40])
def test_the_table_gives_the_embedding_and_its_gradients(num_epochs: int, rows: int) -> None:
    signs = random_signs(rows, num_epochs)
    plain = published(num_epochs)
    tabled = PatternEncoder(plain.state_dict())
    windows = sign_windows(signs)
    direction = torch.randn(rows, 512, generator=torch.Generator().manual_seed(3))
    expected, got = plain(torch.from_numpy(signs).float()), tabled(tabled.table(windows), windows.slots)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    (expected * direction).sum().backward()
    (got * direction).sum().backward()
    for name, parameter in plain.named_parameters():
        gradient = tabled.get_parameter(name.replace(".", "_")).grad
        assert gradient is not None
        if name == "project.weight":
            gradient = gradient.permute(2, 1, 0).reshape(512, -1)
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-3, atol=1e-4)


def test_selected_patterns_keep_their_embedding_with_a_smaller_table() -> None:
    signs = random_signs(300, 12)
    tabled = PatternEncoder(initial_encoder_state(12, 0))
    windows = sign_windows(signs)
    chosen = torch.tensor([7, 2, 250])
    few = windows.select(chosen)
    assert few.window_of.shape[1] <= 3
    whole = tabled(tabled.table(windows), windows.slots)
    torch.testing.assert_close(tabled(tabled.table(few), few.slots), whole[chosen], rtol=0, atol=1e-6)


def test_the_state_survives_the_change_of_layout() -> None:
    state = initial_encoder_state(5, seed=4)
    back = PatternEncoder(state).to_state()
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_the_initial_state_belongs_to_its_seed_and_leaves_the_global_one_alone() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (initial_encoder_state(4, seed)["conv2.weight"] for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
