"""eSE: CenterMask, Real-Time Anchor-Free Instance Segmentation (arXiv 1911.06667), effective squeeze-excitation.

Equation: x * hardsigmoid(W mean(x) + b), W of C x C: one layer in place of SE's two, so that no channel is lost.
Place: end of an OSA module of VoVNetV2, before its identity shortcut.
It is not small: C^2 + C parameters, on a ResNet-50 20 million more, 79 %.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from senet_ablate.blocks.base import GatedBlock

__all__ = ["EffectiveSE"]


class EffectiveSE(GatedBlock):
    """SE with one full layer: x * hardsigmoid(W mean(x) + b); (N, C, H, W) to the same.

    Args:
        channels: C.

    Example:
        >>> EffectiveSE(64)(torch.zeros(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def excitation(self, x: Tensor) -> Tensor:
        """The gate, (N, C, 1, 1): relu6(u + 3) / 6."""
        return F.hardsigmoid(self.fc(x.mean((2, 3), keepdim=True)))
