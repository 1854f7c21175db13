"""Gather-Excite: Exploiting Feature Context in Convolutional Neural Networks (arXiv 1810.12348).

Equation: y = x * sigmoid(up(gather(x))), up by nearest neighbours (section 3).
gather is, with extra =
    theta-minus  average pooling over neighbourhoods of extent e (kernel 2e - 1, stride e), or over the whole map
    theta        depthwise convolution: of the whole map, or log2 e of 3x3 with stride 2; normalised
    theta-plus   that of theta, ReLU, and the two layers of SE with biases, hidden width C // 16
Place: end of the residual branch, as SE. The global extent is the best of its paper.
With a global extent the kernel of theta and theta-plus is as large as the map: weights are tied to the resolution, and
what it gives is normalised over the batch, so training needs more than one image, and images see each other.
Readings: the authors published network definitions for Caffe, the global ones of which the counts are held against;
between chained convolutions there is a ReLU, as in timm.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_ablate.blocks.base import GatedBlock, hidden_width

__all__ = ["GatherExcite"]

Extra = Literal["theta-minus", "theta", "theta-plus"]


class GatherExcite(GatedBlock):
    """Gather context over an extent and excite each place by it: x * sigmoid(up(gather(x))); (N, C, H, W) to the same.

    Args:
        channels: C.
        extra: which parameters the gathering has: "theta-minus" (none), "theta" or "theta-plus".
        extent: e, a power of 2 from 2 on, or "global".
        reduction: r of the hidden width C // r of theta-plus.
        size: side of the map, which theta and theta-plus need for a global extent.

    Raises:
        ValueError: a setting is none of these; or a map is not of `size` where that matters.

    Example:
        >>> GatherExcite(64, extra="theta", size=8)(torch.zeros(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        *,
        extra: Extra = "theta-minus",
        extent: int | Literal["global"] = "global",
        reduction: int = 16,
        size: int | None = None,
    ) -> None:
        super().__init__()
        if extra not in get_args(Extra):
            raise ValueError(f"extra = {extra!r}: expected one of {', '.join(get_args(Extra))}")
        if extent != "global" and (not isinstance(extent, int) or extent < 2 or extent & (extent - 1)):
            raise ValueError(f'extent = {extent!r}: expected 2, 4, 8, … or "global"')
        self.extent = extent
        self.side: int | None = None  # of the only maps that fit
        layers: list[nn.Module] = []
        if extra != "theta-minus" and extent == "global":
            if size is None:
                raise ValueError(f"extra = {extra!r} with a global extent needs size, the side of the map")
            self.side = size
            layers = [nn.Conv2d(channels, channels, size, groups=channels, bias=False), nn.BatchNorm2d(channels)]
        elif extra != "theta-minus":
            for number in range(int(extent).bit_length() - 1):
                conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False)
                layers += [*([nn.ReLU()] if number else []), conv, nn.BatchNorm2d(channels)]
        if extra == "theta-plus":
            hidden = hidden_width(channels, reduction)
            layers += [nn.ReLU(), nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1)]
        self.gather = nn.Sequential(*layers) if layers else None

    def excitation(self, x: Tensor) -> Tensor:
        """The gate: (N, C, 1, 1), or (N, C, H, W) where the extent is not global."""
        shape = (x.shape[2], x.shape[3])
        if self.side is not None and shape != (self.side, self.side):
            raise ValueError(
                f"built for maps of {self.side}x{self.side}, given {shape[0]}x{shape[1]}: its kernel is as large as "
                "the map; build it with the right size, or choose an extent"
            )
        if self.gather is not None:
            gathered = self.gather(x)
        elif self.extent == "global":
            gathered = x.mean((2, 3), keepdim=True)
        else:
            extent = int(self.extent)
            gathered = F.avg_pool2d(x, 2 * extent - 1, extent, padding=extent - 1, count_include_pad=False)
        gate = torch.sigmoid(gathered)
        return gate if self.extent == "global" else F.interpolate(gate, shape)
