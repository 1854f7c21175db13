"""SE-Var1, 2 and 3: what of SE matters, from ECA-Net (arXiv 1910.03151), section 3.2 and Table 2.

Equation: x * sigmoid(f(y)), y = mean(x): f(y) = y (form 1), w * y with a weight per channel (2), W y with a full matrix
(3).
Place: as SE. Form 1 has no parameter and kept half of SE's gain there: the cheapest arm to try first.
No code was published: initial weights are torch's for a convolution of that shape.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from senet_ablate.blocks.base import GatedBlock

__all__ = ["SEVariant"]


class SEVariant(GatedBlock):
    """SE without its bottleneck: x * sigmoid(y), of w * y, or of W y (Table 2 there); (N, C, H, W) to the same.

    Args:
        channels: C.
        form: 1, 2 or 3, with 0, C or C^2 parameters.

    Raises:
        ValueError: there is no such form.

    Example:
        >>> sum(weight.numel() for weight in SEVariant(64, form=2).parameters())
        64
    """

    def __init__(self, channels: int, *, form: int = 1) -> None:
        super().__init__()
        if form not in (1, 2, 3):
            raise ValueError(f"form = {form!r}: expected 1 (no parameter), 2 (one per channel) or 3 (a full matrix)")
        groups = channels if form == 2 else 1
        self.fc = nn.Identity() if form == 1 else nn.Conv2d(channels, channels, 1, groups=groups, bias=False)

    def excitation(self, x: Tensor) -> Tensor:
        """The gate, (N, C, 1, 1)."""
        return torch.sigmoid(self.fc(x.mean((2, 3), keepdim=True)))
