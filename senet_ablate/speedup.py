"""The lever that a network carries itself: convolutions become matrix products where maps are small."""

from __future__ import annotations

from collections.abc import Collection

import torch.nn.functional as F
from torch import Tensor, nn

SMALL_MAP = 4
"""Pixels, per pixel that a stride passes over, up to which a matrix product beats a 1x1 convolution on processors.

oneDNN prepares its weights anew at each call, which on a map of few pixels takes longer than the product does; on
large maps it is the faster one.
"""


class SmallMapConv2d(nn.Conv2d):
    """A convolution that on small maps is computed as a matrix product of pixels and weights.

    A 1x1 convolution always is one. Of a larger kernel, padded so that the map keeps its side, only the centre
    meets a map of one pixel.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        stride, kernel = self.stride[0], self.kernel_size[0]
        # Permuted before it is cut, so that the gradient comes back in channels-last memory, too.
        pixels = x.permute(0, 2, 3, 1)[:, ::stride, ::stride]
        count, height, width, _ = pixels.shape
        if height * width > SMALL_MAP * stride**2 or (kernel > 1 and x.shape[2:] != (1, 1)):
            return super().forward(x)
        # Without `contiguous` torch would multiply a strided map by a reference loop, a hundred times as slow.
        weight = self.weight.flatten(1) if kernel == 1 else self.weight[:, :, kernel // 2, kernel // 2]
        out = F.linear(pixels.contiguous(), weight, self.bias)
        # A map of one pixel has no memory format to speak of, but batch normalisation is slow with the channels last.
        return out.permute(0, 3, 1, 2) if height * width > 1 else out.view(count, -1, 1, 1)


def speed_up(model: nn.Module, levers: Collection[str]) -> None:
    """Give a network, as it was built, its levers; parameters and their names stay."""
    if "matrix-product" in levers:
        for module in model.modules():
            if type(module) is nn.Conv2d:
                module.__class__ = SmallMapConv2d
