"""A small Inception network for 32 px."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from senet_ablate.spec.network import Network

STAGES = (((32, 32), (32, 48)), ((112, 48), (96, 64), (80, 80), (48, 96)), ((176, 160), (176, 160)))
"""Widths of the 1x1 and the 3x3 branch of each module, by stage."""
BETWEEN = (80, 96)
"""Widths of the convolutions that halve the map between the stages."""


def conv(channels: int, out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU; the map keeps its side, but for the stride."""
    layer = nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(out), nn.ReLU(inplace=True))


class InceptionUnit(nn.Module):
    """A 1x1 and a 3x3 convolution side by side: (N, C, H, W) to (N, C_1 + C_3, H, W)."""

    def __init__(self, channels: int, narrow: int, wide: int) -> None:
        super().__init__()
        self.branch1, self.branch3 = conv(channels, narrow, 1), conv(channels, wide, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Both outputs, concatenated."""
        return torch.cat([self.branch1(x), self.branch3(x)], 1)


class Downsample(nn.Module):
    """A 3x3 convolution with stride 2 beside max pooling: (N, C, H, W) to (N, C + C_3, H / 2, W / 2)."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv, self.pool = conv(channels, out, 3, 2), nn.MaxPool2d(3, 2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Both outputs, concatenated."""
        return torch.cat([self.conv(x), self.pool(x)], 1)


class SmallInception(nn.Module):
    """The small Inception of Zhang et al. 2017 (arXiv 1611.03530, Fig. 3): images (N, in_channels, H, W) to logits.

    Eight Inception modules in three stages; the full width of 64 is the published one, with a stem of 96 channels. SE
    stands after each module, as in the paper's BN-Inception.
    """

    def __init__(self, network: Network, *, in_channels: int, classes: int) -> None:
        super().__init__()

        def scaled(width: int) -> int:
            return width * network.width // 64

        channels = scaled(96)
        self.features = nn.Sequential()
        self.features.add_module("stem", conv(in_channels, channels, 3))
        for number, modules in enumerate(STAGES):
            if number:
                out = scaled(BETWEEN[number - 1])
                self.features.add_module(f"downsample{number}", Downsample(channels, out))
                channels += out
            for index, (narrow, wide) in enumerate(modules, 1):
                unit = InceptionUnit(channels, scaled(narrow), scaled(wide))
                self.features.add_module(f"unit{number + 1}_{index}", unit)
                channels = scaled(narrow) + scaled(wide)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, in_channels, H, W)."""
        return self.fc(torch.flatten(self.avgpool(self.features(x)), 1))
