"""Dynamics encoder `Enc: R^E -> R^512` (Kim et al., CVPR 2024, §4.4; Eq. 3 works on its output).

`DynamicsEncoder` is the network as published. `PatternEncoder` is the same function for inputs of -1/+1, evaluated by
a table. Three convolutions of width 3 see 7 epochs, so each output position takes at most 2^7 values (fewer at the
ends), and the linear layer is a sum over positions of table rows. It is exact up to rounding, gradients included. The
parameters are the same numbers; the weight of the linear layer is stored position first.

Deviations from the paper: none. Neither dropout nor batch norm, as in the released forward pass.

Cost per batch at E = 20: a table of 20 x 128 rows of 512 (42M multiply-adds) instead of 0.42M per row; 1,024 rows
forward and backward take 4 ms instead of 24 on one core.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

EMBEDDING_DIM = 512
_CHANNELS = (16, 32, 32)
_REACH = 3  # three convolutions of width 3 see three epochs to either side
_WINDOW = 2 * _REACH + 1


class DynamicsEncoder(nn.Module):
    """The 1-D CNN of §4.4: Conv1d 1->16->32->32, width 3, padding 1, ReLU after each; flatten; Linear(32 E, 512)."""

    def __init__(self, num_epochs: int) -> None:
        super().__init__()
        first, second, third = _CHANNELS
        self.num_epochs = num_epochs
        self.conv1 = nn.Conv1d(1, first, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(first, second, kernel_size=3, padding=1)
        self.conv3 = nn.Conv1d(second, third, kernel_size=3, padding=1)
        self.project = nn.Linear(third * num_epochs, EMBEDDING_DIM)

    def forward(self, dynamics: Tensor) -> Tensor:
        """Embedding z (§4.4). float (B, E), of -1/+1 in DynaCor -> float (B, 512)."""
        hidden = torch.relu(self.conv1(dynamics.unsqueeze(1)))
        hidden = torch.relu(self.conv2(hidden))
        hidden = torch.relu(self.conv3(hidden))
        embedding: Tensor = self.project(hidden.flatten(1))
        return embedding


@dataclass(frozen=True)
class SignWindows:
    """Index of the 7-epoch windows of some sign patterns in the table of `PatternEncoder`.

    Attributes:
        values: float32 (W, 7), the distinct windows; 0 where a window reaches beyond the first or last epoch.
        window_of: int64 (E, V), the window in row v of position e's part of the table; V = most windows at one
            position.
        slots: int32 (u, E), pattern and position -> row e * V + v of the table.
    """

    values: Tensor
    window_of: Tensor
    slots: Tensor

    def select(self, patterns: Tensor) -> SignWindows:
        """The windows of some patterns only, for a smaller table.

        Args:
            patterns: int64 (B,), indices into `slots`.

        Returns:
            SignWindows with `slots` (B, E), in the order of `patterns`.
        """
        slots = self.slots[patterns].long()
        position, width = torch.arange(self.window_of.shape[0]).unsqueeze(1), self.window_of.shape[1]
        present = torch.zeros(self.window_of.numel(), dtype=torch.bool).index_fill_(0, slots.flatten(), True)
        rank = present.view(-1, width).cumsum(dim=1) - 1
        new_width = int(rank[:, -1].max()) + 1
        new_slot = (rank + position * new_width).flatten()
        window_of = torch.zeros(len(position) * new_width, dtype=torch.long)
        window_of[new_slot[present]] = self.window_of.flatten()[present]
        return SignWindows(self.values, window_of.view(-1, new_width), new_slot[slots].int())


def sign_windows(signs: NDArray[np.int8]) -> SignWindows:
    """Index the windows of sign patterns (Eq. 1). signs: int8 (u, E) of -1/+1, u >= 1, E >= 1."""
    num_epochs = signs.shape[1]
    padded = np.pad(signs.astype(np.int16) + np.int16(1), ((0, 0), (_REACH, _REACH)), constant_values=1)
    code = np.zeros(signs.shape, dtype=np.int16)
    for offset in range(_WINDOW):
        code += padded[:, offset : offset + num_epochs] * np.int16(3**offset)
    position = np.arange(num_epochs)
    present = np.zeros((num_epochs, 3**_WINDOW), dtype=np.bool_)
    present[position, code] = True
    rank = np.cumsum(present, axis=1) - 1
    width = int(rank[:, -1].max()) + 1
    codes = np.flatnonzero(present.any(axis=0))
    window_of = np.zeros((num_epochs, width), dtype=np.int64)
    epoch, present_code = np.nonzero(present)
    window_of[epoch, rank[epoch, present_code]] = np.searchsorted(codes, present_code)
    values = codes[:, None] // 3 ** np.arange(_WINDOW) % 3 - 1
    slots = (rank + position[:, None] * width).astype(np.int32)[position, code]
    return SignWindows(
        torch.from_numpy(values.astype(np.float32)), torch.from_numpy(window_of), torch.from_numpy(slots)
    )


class PatternEncoder(nn.Module):
    """`DynamicsEncoder` for sign patterns, evaluated by a table: same values, same gradients.

    Its parameters are copies of the encoder's; `to_state` returns them in the layout of `DynamicsEncoder`.
    """

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        self._names = [name for name in state if name != "project.weight"]
        for name in self._names:
            self.register_parameter(name.replace(".", "_"), nn.Parameter(state[name].clone()))
        by_position = state["project.weight"].view(EMBEDDING_DIM, _CHANNELS[-1], -1).permute(2, 1, 0)
        self.project_weight = nn.Parameter(by_position.contiguous().clone())

    def to_state(self) -> dict[str, Tensor]:
        """A copy of the parameters as a state dict of `DynamicsEncoder`."""
        weight = self.project_weight.detach().permute(2, 1, 0).reshape(EMBEDDING_DIM, -1)
        state = {name: self._parameter(name).detach().clone() for name in self._names}
        return state | {"project.weight": weight.clone()}

    def table(self, windows: SignWindows) -> Tensor:
        """Contribution of every window at every position to z. Returns float (E * V, 512)."""
        hidden = self._window_features(windows.values)
        return torch.bmm(hidden[windows.window_of], self.project_weight).flatten(0, 1)

    def forward(self, table: Tensor, slots: Tensor) -> Tensor:
        """Embedding z (§4.4).

        Args:
            table: from `table`.
            slots: int32 (B, E), rows of `SignWindows.slots`.

        Returns:
            float (B, 512).
        """
        return F.embedding_bag(slots, table, mode="sum") + self._parameter("project.bias")

    def _parameter(self, name: str) -> Tensor:
        return self.get_parameter(name.replace(".", "_"))

    def _window_features(self, values: Tensor) -> Tensor:
        """Third layer's output at the center of each window: float (W, 7) -> float (W, 32).

        Hidden values outside the dynamics are padding, hence 0 and not the convolution of padding: the mask.
        """
        inside = (values != 0).to(values.dtype).unsqueeze(2)
        hidden = torch.relu(self._convolve(values.unsqueeze(2), "conv1")) * inside[:, 1:-1]
        hidden = torch.relu(self._convolve(hidden, "conv2")) * inside[:, 2:-2]
        return torch.relu(self._convolve(hidden, "conv3")).squeeze(dim=1)

    def _convolve(self, hidden: Tensor, layer: str) -> Tensor:
        """Valid convolution of width 3, channels last, as one matrix product: (W, L, C) -> (W, L - 2, C')."""
        weight = self._parameter(f"{layer}.weight").permute(0, 2, 1).flatten(1)
        taps = torch.cat((hidden[:, :-2], hidden[:, 1:-1], hidden[:, 2:]), dim=2)
        return F.linear(taps, weight, self._parameter(f"{layer}.bias"))


def initial_encoder_state(num_epochs: int, seed: int) -> dict[str, Tensor]:
    """Parameters of a fresh `DynamicsEncoder` (§4.4): PyTorch's default initialization under `seed`.

    The global random state is left as it was.

    Returns:
        State dict, float32.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also reseed every GPU
        return {name: value.clone() for name, value in DynamicsEncoder(num_epochs).state_dict().items()}
