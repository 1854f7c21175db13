"""Convolutions as processors compute them fastest: small maps as matrix products, depthwise ones in float32."""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALL_MAP = 16
"""Pixels that a convolution makes of a map up to which a matrix product beats it on processors.

oneDNN prepares its weights anew at each call, which for a map of few pixels takes longer than the product does; on
large maps it is as fast.
"""


class SmallMapConv2d(nn.Conv2d):
    """A convolution that on small maps is computed as one matrix product, at the same values.

    Of 1x1 convolutions, the product of pixels and weights. Of a larger one whose kernel reaches from each pixel of the
    map to all others, the product of whole maps and the weights between any two pixels: nothing meets the padding.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        stride, kernel, sides = self.stride[0], self.kernel_size[0], x.shape[2:]
        height, width = (-(-side // stride) for side in sides)
        pixels = height * width
        if pixels > SMALL_MAP or (kernel > 1 and max(sides) > kernel // 2 + 1):
            return super().forward(x)
        if kernel == 1 and stride > 1:
            # Permuted before it is cut, so that the gradient comes back in channels-last memory, too.
            x = x.permute(0, 2, 3, 1)[:, ::stride, ::stride].contiguous().permute(0, 3, 1, 2)
        # Without `contiguous` torch would multiply a strided map by a reference loop, a hundred times as slow.
        rows = x.flatten(1) if x.shape[2:] == (1, 1) else x.permute(0, 2, 3, 1).contiguous()
        if kernel == 1:
            y = F.linear(rows, self.weight.flatten(1), self.bias)
        else:
            bias = self.bias.repeat(pixels) if self.bias is not None else None
            y = F.linear(rows.flatten(1), self.between_pixels(*sides), bias)
        # One pixel has no memory format to speak of, but batch normalisation is slow with the channels last.
        return y.view(len(x), -1, 1, 1) if pixels == 1 else y.view(len(x), height, width, -1).permute(0, 3, 1, 2)

    def between_pixels(self, height: int, width: int) -> Tensor:
        """The weights from each pixel of a map to each that it becomes: (pixels C_out, pixels C_in)."""
        # Cut out in the order of the weights' memory, or the gradient would have to be brought into it.
        weight, middle, stride = self.weight.permute(0, 2, 3, 1), self.kernel_size[0] // 2, self.stride[0]
        bands = [weight[:, middle - row : middle - row + height] for row in range(0, height, stride)]
        columns = range(0, width, stride)
        parts = [band[:, :, middle - left : middle - left + width].flatten(1) for band in bands for left in columns]
        return torch.cat(parts) if len(parts) > 1 else parts[0]


class Float32DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution that takes and gives bf16 maps under autocast, but is computed in float32.

    oneDNN has no fast depthwise kernels for bf16; `make bench` has what this saves in MobileNet.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, m C, H / stride, W / stride)."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.weight.dtype)).to(x.dtype)


def is_usual(layer: nn.Conv2d) -> bool:
    """Whether a convolution is one of all channels, by a square kernel padded so that the map keeps its side."""
    kernel = layer.kernel_size[0]
    square = layer.kernel_size == (kernel, kernel) and layer.padding == (kernel // 2, kernel // 2)
    even = layer.stride[0] == layer.stride[1] and layer.padding_mode == "zeros"
    return square and even and layer.groups == 1 and layer.dilation == (1, 1)


def speed_up(model: nn.Module, optimisations: Collection[str]) -> None:
    """Compute the convolutions of a network, as it was built, in faster ways; parameters and their names stay."""
    for module in model.modules():
        if type(module) is not nn.Conv2d:
            continue
        if "matrix-product" in optimisations and is_usual(module):
            module.__class__ = SmallMapConv2d
        elif "float32-depthwise" in optimisations and module.groups == module.in_channels > 1:
            module.__class__ = Float32DepthwiseConv2d
