"""SE as MobileNetV3 has it: Searching for MobileNetV3 (arXiv 1905.02244), section 5.3.

Equation: x * hardsigmoid(W2 relu(W1 mean(x) + b1) + b2), hardsigmoid(u) = relu6(u + 3) / 6.
Place: in the inverted residual between the depthwise convolution (normalised, activated) and the projection; C is the
expanded width.
Hidden width C / 4, rounded to a multiple of 8 and up where rounding down would lose more than a tenth; biases.
Deviation: it goes into every site, where MobileNetV3's search chose some of the blocks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_ablate.blocks.base import GatedBlock, check_count

__all__ = ["MobileNetSE"]


def round8(width: float) -> int:
    """The nearest multiple of 8, at least 8, and the next one if that loses more than a tenth (18 -> 24)."""
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * width else nearest


class MobileNetSE(GatedBlock):
    """SE with a hard sigmoid and a hidden width of round8(C / 4); (N, C, H, W) to the same.

    Args:
        channels: C.
        reduction: r of the hidden width round8(C / r).

    Raises:
        ValueError: the reduction is less than 1.

    Example:
        >>> MobileNetSE(72).reduce.out_channels
        24
    """

    def __init__(self, channels: int, *, reduction: int = 4) -> None:
        super().__init__()
        check_count("reduction", reduction, 4)
        hidden = round8(channels / reduction)
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def excitation(self, x: Tensor) -> Tensor:
        """The gate, (N, C, 1, 1)."""
        return F.hardsigmoid(self.expand(torch.relu(self.reduce(x.mean((2, 3), keepdim=True)))))
