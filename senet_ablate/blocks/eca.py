"""Efficient channel attention (ECA-Net, arXiv 1910.03151): x * sigmoid(convolution over neighbouring channels).

Its paper puts it where SE is: at the end of the branch. By its Eq. 12 a ResNet-50 has 86 weights, where the abstract
prints 80: those of the released model, whose kernels by stage are 3, 5, 5, 7, in TOML
`settings = { kernel = { 2 = 3, 3 = 5, 4 = 5, 5 = 7 } }`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from senet_ablate.blocks.base import GatedBlock

__all__ = ["EfficientChannelAttention"]


def kernel_length(channels: int) -> int:
    """Length k of the convolution over C channels: log2(C) / 2 + 1 / 2, cut, then up to an odd number (Eq. 12)."""
    length = int((math.log2(channels) + 1) / 2)
    return length if length % 2 else length + 1


class EfficientChannelAttention(GatedBlock):
    """One convolution over neighbouring channels instead of two layers over all: k weights (Eqs. 9 to 12 there).

    Maps (N, C, H, W) to (N, C, H, W).

    Args:
        channels: C.
        kernel: length of the convolution, odd; by default Eq. 12's.

    Raises:
        ValueError: the kernel is even.

    Example:
        >>> block = EfficientChannelAttention(64)
        >>> block(torch.zeros(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(self, channels: int, *, kernel: int | None = None) -> None:
        super().__init__()
        length = kernel_length(channels) if kernel is None else kernel
        if length % 2 == 0:
            raise ValueError(f"kernel = {length} has no middle; use an odd length")
        self.conv = nn.Conv1d(1, 1, length, padding=length // 2, bias=False)

    def excitation(self, x: Tensor) -> Tensor:
        """The gate (N, C, 1, 1)."""
        z = x.mean(dim=(2, 3)).unsqueeze(1)
        return torch.sigmoid(self.conv(z)).transpose(1, 2).unsqueeze(-1)
