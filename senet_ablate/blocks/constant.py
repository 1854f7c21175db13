"""A control of ours: every channel times one given number, with nothing learnt and nothing read.

Equation: factor * x. Place: that of the block which it controls, with that block's own factor at the first step: a gate
that starts at 1/2 halves every residual branch, and in short trainings that alone can decide.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

__all__ = ["Constant"]


class Constant(nn.Module):
    """Scale the map by a constant: factor * x; (N, C, H, W) to the same, no parameter.

    Args:
        channels: C, which does not matter.
        factor: the number; 0.5 is that of a sigmoid at 0, as in SE.

    Raises:
        ValueError: the factor is not a finite number.

    Example:
        >>> Constant(64, factor=1.5)(torch.ones(1, 64, 2, 2)).unique()
        tensor([1.5000])
    """

    def __init__(self, channels: int, *, factor: float = 0.5) -> None:
        super().__init__()
        if not (isinstance(factor, int | float) and math.isfinite(factor)):
            raise ValueError(f"factor = {factor!r}: expected a finite number, such as 0.5")
        self.factor = factor

    def excitation(self, x: Tensor) -> Tensor:
        """The factor, (N, C, 1, 1)."""
        return x.new_full((*x.shape[:2], 1, 1), self.factor)

    def forward(self, x: Tensor) -> Tensor:
        """Scale the map."""
        return x * self.factor

    def extra_repr(self) -> str:
        """Show the factor."""
        return f"factor={self.factor}"
