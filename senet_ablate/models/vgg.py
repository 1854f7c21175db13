"""Networks without shortcuts: VGG for small images, and one of a single convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from senet_ablate.spec.backbones import BACKBONES
from senet_ablate.spec.network import Network


class VGG(nn.Module):
    """VGG with batch normalisation for small images: images (N, in_channels, H, W) to logits (N, classes).

    Full width is 64, 128, 256, 512, 512. The maps are averaged before a single linear layer, where the ImageNet network
    (`torchvision:vgg16_bn`) has three of 4,096; the convolutions have no bias.
    """

    def __init__(self, network: Network, *, in_channels: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for number, depth in enumerate(BACKBONES[network.backbone].depths):
            width = network.width * min(2**number, 8)
            for _ in range(depth):
                conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
                layers += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, in_channels, H, W)."""
        return self.fc(torch.flatten(self.avgpool(self.features(x)), 1))


class SmallNet(nn.Module):
    """One 3x3 convolution, ReLU, a 1x1 convolution to one channel and a classifier on its pixels.

    The network in which SE is usually shown on 28x28 grey images: full width is 32, and convolutions have biases. SE's
    place is after the ReLU, which keeps the map's side, so images of `resolution` alone fit its classifier.
    """

    def __init__(self, network: Network, *, in_channels: int, classes: int, resolution: int) -> None:
        super().__init__()
        width = 32 * network.width // 64
        self.features = nn.Sequential()
        self.features.add_module("conv", nn.Conv2d(in_channels, width, 3, padding=1))
        self.features.add_module("relu", nn.ReLU())
        self.head = nn.Conv2d(width, 1, 1)
        self.fc = nn.Linear(resolution**2, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, in_channels, H, W)."""
        return self.fc(torch.flatten(self.head(self.features(x)), 1))
