"""The lever that a network carries itself: its 1x1 convolutions become matrix products where maps are small."""

from __future__ import annotations

from collections.abc import Collection

import torch.nn.functional as F
from torch import Tensor, nn

SMALL_MAP = 4
"""Pixels, per pixel that a stride passes over, up to which a matrix product beats a 1x1 convolution on processors.

oneDNN prepares its weights anew at each call, which on a map of few pixels takes longer than the product does; on
large maps it is the faster one.
"""


class PointwiseConv2d(nn.Conv2d):
    """A 1x1 convolution that on small maps is computed as what it is, a matrix product of pixels and weights."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        stride = self.stride[0]
        pixels = x[:, :, ::stride, ::stride].permute(0, 2, 3, 1)
        if pixels.shape[1] * pixels.shape[2] > SMALL_MAP * stride**2:
            return super().forward(x)
        # Without `contiguous` torch would multiply a strided map by a reference loop, a hundred times as slow.
        return F.linear(pixels.contiguous(), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def speed_up(model: nn.Module, levers: Collection[str]) -> None:
    """Give a network, as it was built, its levers; parameters and their names stay."""
    if "matrix-product" in levers:
        for module in model.modules():
            if type(module) is nn.Conv2d and module.kernel_size == (1, 1):
                module.__class__ = PointwiseConv2d
