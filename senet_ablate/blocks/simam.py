"""SimAM: A Simple, Parameter-Free Attention Module for Convolutional Neural Networks (ICML 2021).

Equation: x * sigmoid(1 / E) with 1 / E = d / (4 (v + lambda)) + 1/2, d = (x - mean)^2, v = sum d / (HW - 1), all per
channel: what stands out from its map has low energy and is kept.
Place: the authors' ResNets put it after the 3x3 convolution and *before its BN*, where rivals come after the last BN:
its own table compares places, too. lambda = 1e-4 is their module's default; their training command has 0.1.
A map of one pixel has no variance (NaN): refused where the size is known.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from senet_ablate.blocks.base import GatedBlock

__all__ = ["SimAM"]


class SimAM(GatedBlock):
    """Keep what stands out from its map: x * sigmoid(d / (4 (v + lambda)) + 1/2); (N, C, H, W) to the same.

    Args:
        channels: C, which does not matter.
        e_lambda: what is added to the variance, greater than 0.
        size: side of the map, if known.

    Raises:
        ValueError: lambda is no number above 0; or the map is one pixel, which has no variance.

    Example:
        >>> SimAM(64)(torch.zeros(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(self, channels: int, *, e_lambda: float = 1e-4, size: int | None = None) -> None:
        super().__init__()
        if not (isinstance(e_lambda, int | float) and 0 < e_lambda < math.inf):
            raise ValueError(f"e_lambda = {e_lambda!r}: expected a number above 0; the authors' default is 1e-4")
        if size == 1:
            raise ValueError("simam on maps of 1x1: one pixel has no variance; put it in earlier stages only")
        self.e_lambda = e_lambda

    def excitation(self, x: Tensor) -> Tensor:
        """The gate, (N, C, H, W), from sigmoid(1/2) = 0.62 up."""
        squared = (x - x.mean((2, 3), keepdim=True)).square()
        others = x.shape[2] * x.shape[3] - 1
        # On one pixel 0 / 0, which is NaN in a tensor's division where Python's would raise.
        variance = squared.sum((2, 3), keepdim=True) / others
        return torch.sigmoid(squared / (4 * (variance + self.e_lambda)) + 0.5)

    def extra_repr(self) -> str:
        """Show lambda."""
        return f"e_lambda={self.e_lambda}"
