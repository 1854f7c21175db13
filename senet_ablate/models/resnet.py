"""ResNets with an SE block at one of five sites of the residual unit (Fig. 5, Tables 13 to 15).

Module names are torchvision's, so that the plain network's state dict is torchvision's too. The
stride of a bottleneck sits in its first 1x1 convolution, as in the paper, unless the network says otherwise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from senet_ablate.blocks.eca import EfficientChannelAttention
from senet_ablate.blocks.se import ChannelAttention, SqueezeExcitation
from senet_ablate.spec.geometry import BlockShape, block_shapes, gated_sites
from senet_ablate.spec.network import EXPANSION, Excitation, Network, Variant

ATTENTION: dict[Excitation, type[ChannelAttention]] = {"fc": SqueezeExcitation, "eca": EfficientChannelAttention}
"""The kinds of block by what they learn between squeeze and gate."""


def conv_bn(channels: int, out: int, kernel: int, stride: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """A convolution without bias that keeps the map's side (but for the stride), and its batch normalisation."""
    return nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(out)


def attention(variant: Variant, channels: int | None) -> ChannelAttention | None:
    """The block that `variant` puts where the map has C = `channels`, or nothing where it puts none."""
    if variant.se is None or channels is None:
        return None
    return ATTENTION[variant.se.excitation](channels, variant.se)


class ResidualBlock(nn.Module, ABC):
    """A residual unit that asks at five sites whether its SE block sits there.

    `pre`: on the branch's input, the shortcut leaves before it. `inner-3x3`: after the 3x3 convolution, its batch
    normalisation and ReLU (the paper does not say before or after these). `standard`: on the branch, before the sum.
    `identity`: on the shortcut, after a projection. `post`: after the sum and the last ReLU.
    """

    def __init__(self, shape: BlockShape, variant: Variant, se: ChannelAttention | None) -> None:
        super().__init__()
        self.downsample: nn.Module = nn.Identity()
        if shape.projects:
            self.downsample = nn.Sequential(*conv_bn(shape.in_channels, shape.out_channels, 1, shape.stride))
        self.relu = nn.ReLU(inplace=True)
        self.site = variant.placement.position
        self.se = se

    def at(self, site: str, x: Tensor) -> Tensor:
        """Gate `x` (N, C, H, W) if the SE block sits at `site`."""
        return self.se(x) if self.se is not None and site == self.site else x

    @abstractmethod
    def branch(self, x: Tensor) -> Tensor:
        """The residual function F(x) before a gate at the standard place."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        residual = self.at("standard", self.branch(self.at("pre", x)))
        shortcut = self.at("identity", self.downsample(x))
        return self.at("post", self.relu(residual + shortcut))


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions (ResNet-18 and -34)."""

    def __init__(self, shape: BlockShape, variant: Variant, stride_in: str, se: ChannelAttention | None) -> None:
        super().__init__(shape, variant, se)
        self.conv1, self.bn1 = conv_bn(shape.in_channels, shape.mid_channels, 3, shape.stride)
        self.conv2, self.bn2 = conv_bn(shape.mid_channels, shape.out_channels, 3, 1)

    def branch(self, x: Tensor) -> Tensor:
        """3x3, 3x3."""
        x = self.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x))


class Bottleneck(ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions, the last four times as wide (ResNet-14, -26, -50, -101, -152)."""

    def __init__(self, shape: BlockShape, variant: Variant, stride_in: str, se: ChannelAttention | None) -> None:
        super().__init__(shape, variant, se)
        first, middle = (shape.stride, 1) if stride_in == "1x1" else (1, shape.stride)
        self.conv1, self.bn1 = conv_bn(shape.in_channels, shape.mid_channels, 1, first)
        self.conv2, self.bn2 = conv_bn(shape.mid_channels, shape.mid_channels, 3, middle)
        self.conv3, self.bn3 = conv_bn(shape.mid_channels, shape.out_channels, 1, 1)

    def branch(self, x: Tensor) -> Tensor:
        """1x1, 3x3, 1x1."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.at("inner-3x3", self.relu(self.bn2(self.conv2(x))))
        return self.bn3(self.conv3(x))


BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck}


class ResNet(nn.Module):
    """A ResNet with the SE blocks of `variant`: images (N, in_channels, H, W) to logits (N, classes).

    Args:
        network: backbone, width, stem and stride place.
        variant: the SE block and its place, or the plain network.
        in_channels: 3 for colour, 1 for grey images.
        classes: number of classes.

    Raises:
        ValueError: the network cannot carry the variant; the message says what would be right.

    Example:
        >>> model = ResNet(Network(backbone="resnet14", width=16, stem="small"), Variant(), in_channels=1, classes=10)
        >>> model(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(self, network: Network, variant: Variant, *, in_channels: int, classes: int) -> None:
        super().__init__()
        # Widths do not depend on the resolution; any will do to ask where the blocks sit.
        gated = {(shape.stage, shape.index): channels for shape, channels, _ in gated_sites(network, variant, 32)}
        large = network.stem == "imagenet"
        self.conv1, self.bn1 = conv_bn(in_channels, network.width, *((7, 2) if large else (3, 1)))
        self.relu = nn.ReLU(inplace=True)
        over = network.stem_pool == "ceil"
        pooling = nn.MaxPool2d(3, 2, padding=0 if over else 1, ceil_mode=over)
        self.maxpool: nn.Module = pooling if large else nn.Identity()
        stages: dict[int, list[nn.Module]] = {2: [], 3: [], 4: [], 5: []}
        for shape in block_shapes(network, 32):
            channels = gated.get((shape.stage, shape.index))
            se = attention(variant, channels)
            stages[shape.stage].append(BLOCKS[shape.kind](shape, variant, network.stride_in, se))
        self.layer1, self.layer2, self.layer3, self.layer4 = (nn.Sequential(*blocks) for blocks in stages.values())
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(network.width * 8 * EXPANSION[shape.kind], classes)

    def se_blocks(self) -> dict[str, ResidualBlock]:
        """The residual blocks that carry SE, first to last, by the paper's names: SE_stage_block (section 7.2)."""
        stages = enumerate((self.layer1, self.layer2, self.layer3, self.layer4), start=2)
        return {
            f"SE_{stage}_{index}": block
            for stage, blocks in stages
            for index, block in enumerate(blocks, start=1)
            if isinstance(block, ResidualBlock) and block.se is not None
        }

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, in_channels, H, W)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))
