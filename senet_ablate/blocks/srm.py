"""SRM: A Style-based Recalibration Module for Convolutional Neural Networks (arXiv 1903.10829).

Equation: x * sigmoid(BN(w1 mean + w2 std)), each channel by itself: mean and standard deviation over the map
are its style, w (C, 2) integrates the two.
Place: end of the residual branch, as SE.
From the authors' code: the variance is that of a sample, divided by HW - 1, with 1e-5 added, so a map
of one pixel has none (NaN): refused where the size is known. w starts at 0, so that the gate is 1/2 at first.
Deviation: the authors train w and BN without weight decay; here the protocol's decay holds for all arms alike.
The normalisation is over the batch: training needs more than one image, and images see each other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from senet_ablate.blocks.base import GatedBlock

__all__ = ["StyleRecalibration"]


class StyleRecalibration(GatedBlock):
    """Scale each channel by its mean and deviation: x * sigmoid(BN(w1 mean + w2 std)); (N, C, H, W) to the same.

    Args:
        channels: C.
        size: side of the map, if known.

    Raises:
        ValueError: the map is one pixel, which has no standard deviation.

    Example:
        >>> StyleRecalibration(64)(torch.zeros(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(self, channels: int, *, size: int | None = None) -> None:
        super().__init__()
        if size == 1:
            raise ValueError("srm on maps of 1x1: one pixel has no standard deviation; put it in earlier stages only")
        self.weight = nn.Parameter(torch.zeros(channels, 2))
        self.bn = nn.BatchNorm2d(channels)

    def excitation(self, x: Tensor) -> Tensor:
        """The gate, (N, C, 1, 1)."""
        pixels = x.flatten(2)
        style = torch.stack([pixels.mean(2), (pixels.var(2) + 1e-5).sqrt()], dim=2)  # (N, C, 2)
        return torch.sigmoid(self.bn((style * self.weight).sum(2)[:, :, None, None]))
