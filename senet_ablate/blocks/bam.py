"""BAM: Bottleneck Attention Module (arXiv 1807.06514).

Equation: F' = F * (1 + sigmoid(M)), where M brings together Mc, two layers on the averaged map, and Ms, a 1x1, two
dilated 3x3 and a 1x1 convolution (Eqs. 1 to 4).
Place: three in a network, after stages 2, 3 and 4 (its bottlenecks). Hidden width C // 16, dilation 4.
From the authors' code: M is the product of the two logits, where Eq. 2 has their sum; a batch normalisation and a ReLU
follow each layer but the last of both branches; every layer has a bias that starts at 0.
Deviation: it averages maps of any shape, the authors' code square ones alone.
The channel branch normalises averages over the batch: training needs more than one image, and images see each other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from senet_ablate.blocks.base import GatedBlock, check_count, hidden_width

__all__ = ["BAM"]


class BAM(GatedBlock):
    """Attend to channels and places at once: x * (1 + sigmoid(Mc * Ms)) (Eq. 1 there); (N, C, H, W) to the same.

    Args:
        channels: C.
        reduction: r of the hidden width C // r.
        dilation: of the two 3x3 convolutions.

    Raises:
        ValueError: C // r is 0, or the dilation is.

    Example:
        >>> BAM(64)(torch.zeros(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(self, channels: int, *, reduction: int = 16, dilation: int = 4) -> None:
        super().__init__()
        check_count("dilation", dilation, 4)
        hidden = hidden_width(channels, reduction)

        def normalised(conv: nn.Conv2d) -> list[nn.Module]:
            return [conv, nn.BatchNorm2d(hidden), nn.ReLU()]

        def dilated() -> nn.Conv2d:
            return nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation)

        self.channel = nn.Sequential(*normalised(nn.Conv2d(channels, hidden, 1)), nn.Conv2d(hidden, channels, 1))
        self.spatial = nn.Sequential(
            *normalised(nn.Conv2d(channels, hidden, 1)),
            *normalised(dilated()),
            *normalised(dilated()),
            nn.Conv2d(hidden, 1, 1),
        )
        for module in self.spatial.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def excitation(self, x: Tensor) -> Tensor:
        """1 + sigmoid(Mc * Ms), (N, C, H, W), between 1 and 2."""
        return 1 + torch.sigmoid(self.channel(x.mean((2, 3), keepdim=True)) * self.spatial(x))
