"""Residual networks, without a word about attention: those of Table 1, ResNeXt, and those for 32 px (Tables 4, 5).

Module names are torchvision's, so that a state dict of Table 1's networks is torchvision's too. The stride of a
bottleneck sits in its first 1x1 convolution, as in the paper, unless the network says otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from senet_ablate.spec.backbones import BACKBONES, EXPANSION
from senet_ablate.spec.network import Network


def conv(channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the map's side, but for the stride."""
    return nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


def shortcut(channels: int, out: int, stride: int, *, normalised: bool = True) -> nn.Module:
    """The identity, or a projection where map or width change."""
    if stride == 1 and channels == out:
        return nn.Identity()
    layers = [conv(channels, out, 1, stride), *([nn.BatchNorm2d(out)] if normalised else [])]
    return nn.Sequential(*layers)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (ResNet-18 and -34): (N, C_in, H, W) to (N, C_out, H / stride, W / stride)."""

    def __init__(self, channels: int, width: int, stride: int, network: Network) -> None:
        super().__init__()
        self.downsample = shortcut(channels, width, stride)
        self.relu = nn.ReLU(inplace=True)
        self.conv1, self.bn1 = conv(channels, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """ReLU(x + F(x))."""
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, the last four times as wide (ResNet-50 and deeper, ResNeXt by groups)."""

    def __init__(self, channels: int, width: int, stride: int, network: Network) -> None:
        super().__init__()
        inner = width * network.base_width // 64 * network.groups
        first, middle = (stride, 1) if network.stride_in == "1x1" else (1, stride)
        self.downsample = shortcut(channels, 4 * width, stride)
        self.relu = nn.ReLU(inplace=True)
        self.conv1, self.bn1 = conv(channels, inner, 1, first), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = conv(inner, inner, 3, middle, network.groups), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = conv(inner, 4 * width, 1), nn.BatchNorm2d(4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """ReLU(x + F(x))."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class PreActBlock(nn.Module):
    """Two 3x3 convolutions, each after its normalisation and ReLU (He et al. 2016; WRN).

    Where map or width change, the shortcut leaves after the first normalisation.
    """

    def __init__(self, channels: int, width: int, stride: int, network: Network) -> None:
        super().__init__()
        self.downsample = shortcut(channels, width, stride, normalised=False)
        self.projects = not isinstance(self.downsample, nn.Identity)
        self.relu = nn.ReLU(inplace=True)
        self.bn1, self.conv1 = nn.BatchNorm2d(channels), conv(channels, width, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), conv(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """X + F(x)."""
        y = self.relu(self.bn1(x))
        kept = self.downsample(y if self.projects else x)
        y = self.relu(self.bn2(self.conv1(y)))
        return self.conv2(y) + kept


class PreActBottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, each after its normalisation and ReLU."""

    def __init__(self, channels: int, width: int, stride: int, network: Network) -> None:
        super().__init__()
        self.downsample = shortcut(channels, 4 * width, stride, normalised=False)
        self.projects = not isinstance(self.downsample, nn.Identity)
        self.relu = nn.ReLU(inplace=True)
        self.bn1, self.conv1 = nn.BatchNorm2d(channels), conv(channels, width, 1)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), conv(width, width, 3, stride)
        self.bn3, self.conv3 = nn.BatchNorm2d(width), conv(width, 4 * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """X + F(x)."""
        y = self.relu(self.bn1(x))
        kept = self.downsample(y if self.projects else x)
        y = self.relu(self.bn2(self.conv1(y)))
        y = self.relu(self.bn3(self.conv2(y)))
        return self.conv3(y) + kept


def stages(
    unit: type[nn.Module], channels: int, widths: list[int], depths: tuple[int, ...], growth: int, network: Network
) -> list[nn.Sequential]:
    """The stages of a network: the first unit of each but the first halves the map."""
    found = []
    for number, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        units = []
        for index in range(depth):
            units.append(unit(channels, width, 2 if number and not index else 1, network))
            channels = growth * width
        found.append(nn.Sequential(*units))
    return found


class ResNet(nn.Module):
    """A residual network of Table 1: images (N, in_channels, H, W) to logits (N, classes).

    Args:
        network: backbone, width, stem, stride place, groups.
        in_channels: 3 for colour, 1 for grey images.
        classes: number of classes.

    Example:
        >>> model = ResNet(Network(backbone="resnet14", width=16, stem="small"), in_channels=1, classes=10)
        >>> model(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(self, network: Network, *, in_channels: int, classes: int) -> None:
        super().__init__()
        backbone = BACKBONES[network.backbone]
        large = network.stem == "imagenet"
        self.conv1 = conv(in_channels, network.width, 7 if large else 3, 2 if large else 1)
        self.bn1 = nn.BatchNorm2d(network.width)
        self.relu = nn.ReLU(inplace=True)
        over = network.stem_pool == "ceil"
        pooling = nn.MaxPool2d(3, 2, padding=0 if over else 1, ceil_mode=over)
        self.maxpool: nn.Module = pooling if large else nn.Identity()
        unit = BasicBlock if backbone.kind == "basic" else Bottleneck
        growth, widths = EXPANSION[backbone.kind], [network.width * 2**number for number in range(4)]
        layers = stages(unit, network.width, widths, backbone.depths, growth, network)
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(growth * widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, in_channels, H, W)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class PreActResNet(nn.Module):
    """A pre-activation or wide residual network for 32 px (Tables 4, 5): images (N, in_channels, H, W) to logits.

    Full width is 16, 32, 64, times the network's widening factor.
    """

    def __init__(self, network: Network, *, in_channels: int, classes: int) -> None:
        super().__init__()
        backbone = BACKBONES[network.backbone]
        stem = 16 * network.width // 64
        growth, widths = EXPANSION[backbone.kind], [stem * backbone.widen * 2**number for number in range(3)]
        unit = PreActBlock if backbone.kind == "preact" else PreActBottleneck
        self.conv1 = conv(in_channels, stem, 3)
        self.layer1, self.layer2, self.layer3 = stages(unit, stem, widths, backbone.depths, growth, network)
        self.bn, self.relu = nn.BatchNorm2d(growth * widths[-1]), nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(growth * widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, in_channels, H, W)."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return self.fc(torch.flatten(self.avgpool(self.relu(self.bn(x))), 1))
