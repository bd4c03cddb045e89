"""Residual networks for images of 32 px: 3x3 stem, no max-pooling, three or four stages that each halve the side.

He et al., CVPR 2016, §4.2 (6n+2 layers, shortcuts without parameters) and ECCV 2016 (activation before weights). The
networks of Table 5 are their ImageNet relatives with the stem changed for 32 px: ResNet34 and PreAct-ResNet18.
Parameters at 10 classes: ResNet8 75 k, ResNet20 270 k, PreAct-ResNet18 11.17 M, ResNet34 21.28 M.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional


def conv3x3(wide_in: int, wide_out: int, stride: int = 1) -> nn.Conv2d:
    """3x3 convolution that keeps the side, divided by `stride`."""
    return nn.Conv2d(wide_in, wide_out, 3, stride=stride, padding=1, bias=False)


class PaddedShortcut(nn.Module):
    """He et al.'s option A: every `stride`-th pixel, and zeros for the new channels. No parameters."""

    def __init__(self, more: int, stride: int) -> None:
        super().__init__()
        self.more, self.stride = more, stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, W, S, S) -> (B, W + more, S / stride, S / stride)."""
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each with batch norm, beside a shortcut; ReLU after the sum."""

    def __init__(self, wide_in: int, wide_out: int, stride: int, padded: bool = False) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv3x3(wide_in, wide_out, stride), nn.BatchNorm2d(wide_out)
        self.conv2, self.bn2 = conv3x3(wide_out, wide_out), nn.BatchNorm2d(wide_out)
        self.shortcut: nn.Module = nn.Sequential()
        if wide_in != wide_out or stride != 1:
            projection = nn.Conv2d(wide_in, wide_out, 1, stride=stride, bias=False)
            self.shortcut = (
                PaddedShortcut(wide_out - wide_in, stride)
                if padded
                else nn.Sequential(projection, nn.BatchNorm2d(wide_out))
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, wide_in, S, S) -> (B, wide_out, S / stride, S / stride)."""
        inner = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(inner + self.shortcut(x))


class PreActBlock(nn.Module):
    """Batch norm and ReLU before each 3x3 convolution; the shortcut passes unchanged."""

    def __init__(self, wide_in: int, wide_out: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(wide_in), conv3x3(wide_in, wide_out, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(wide_out), conv3x3(wide_out, wide_out)
        changes = wide_in != wide_out or stride != 1
        self.shortcut = nn.Conv2d(wide_in, wide_out, 1, stride=stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, wide_in, S, S) -> (B, wide_out, S / stride, S / stride)."""
        active = functional.relu(self.bn1(x))
        passed = x if self.shortcut is None else self.shortcut(active)
        inner: Tensor = self.conv2(functional.relu(self.bn2(self.conv1(active))))
        return inner + passed


class CifarResNet(nn.Module):
    """Stem, stages of blocks, mean over the pixels. The first block of each stage but the first halves the side.

    Args:
        widths: channels per stage; `num_features` is the last.
        depths: blocks per stage.
        kind: "basic", "padded" (shortcuts without parameters) or "preact".
    """

    def __init__(self, widths: Sequence[int], depths: Sequence[int], kind: str = "basic") -> None:
        super().__init__()
        self.num_features, self.preact = widths[-1], kind == "preact"
        self.conv1 = conv3x3(3, widths[0])
        # The last addition of a pre-activation network is followed by a norm of its own.
        self.bn1 = nn.BatchNorm2d(widths[-1] if self.preact else widths[0])
        before = widths[0]
        for number, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
            blocks: list[nn.Module] = []
            for block in range(depth):
                stride = 2 if block == 0 and number > 1 else 1
                shape = (before, width, stride)
                blocks.append(PreActBlock(*shape) if self.preact else BasicBlock(*shape, padded=kind == "padded"))
                before = width
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self._stages = [f"layer{number}" for number in range(1, len(widths) + 1)]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """float (B, 3, S, S) -> float (B, num_features)."""
        x = self.conv1(x)
        x = x if self.preact else functional.relu(self.bn1(x))
        for stage in self._stages:
            x = self.get_submodule(stage)(x)
        x = functional.relu(self.bn1(x)) if self.preact else x
        return x.mean(dim=(2, 3))


def cifar_resnet(layers: int) -> CifarResNet:
    """The network of 6n+2 layers (He et al., CVPR 2016, §4.2): 8, 20, 32, ..."""
    return CifarResNet((16, 32, 64), ((layers - 2) // 6,) * 3, "padded")
