"""Coordinate Attention for Efficient Mobile Network Design (arXiv 2103.02907).

Equation: y(i, j) = x(i, j) g_h(i) g_w(j): averages along rows and along columns go together through one 1x1
convolution, BN and hard swish, then apart through one convolution and sigmoid each.
Place: in MobileNetV2 after the depthwise convolution (normalised, activated) of the inverted residual.
Hidden width m = max(8, C // 32); all convolutions have biases, as in the authors' code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_ablate.blocks.base import GatedBlock, check_count

__all__ = ["CoordinateAttention"]


class CoordinateAttention(GatedBlock):
    """Gate by row and by column: x * g_h * g_w; (N, C, H, W) to the same.

    Args:
        channels: C.
        reduction: r of the hidden width max(8, C // r).

    Raises:
        ValueError: the reduction is less than 1.

    Example:
        >>> CoordinateAttention(64)(torch.zeros(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(self, channels: int, *, reduction: int = 32) -> None:
        super().__init__()
        check_count("reduction", reduction, 32)
        hidden = max(8, channels // reduction)
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.bn = nn.BatchNorm2d(hidden)
        self.rows = nn.Conv2d(hidden, channels, 1)
        self.columns = nn.Conv2d(hidden, channels, 1)

    def excitation(self, x: Tensor) -> Tensor:
        """g_h (N, C, H, 1) times g_w (N, C, 1, W): (N, C, H, W)."""
        height, width = x.shape[2:]
        strips = torch.cat(
            [x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)], dim=2
        )  # (N, C, H + W, 1)
        rows, columns = F.hardswish(self.bn(self.reduce(strips))).split([height, width], dim=2)
        return torch.sigmoid(self.rows(rows)) * torch.sigmoid(self.columns(columns.transpose(2, 3)))
