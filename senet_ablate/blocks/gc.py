"""GC: GCNet, Non-local Networks Meet Squeeze-Excitation Networks and Beyond (arXiv 1904.11492).

Equation: z_i = x_i + W2 relu(LN(W1 sum_j softmax_j(Wk x) x_j)): one attention map over places for all channels
gathers the context; two layers with a layer normalisation transform it; it is *added* to every place.
Place: end of the residual branch, after the last 1x1 convolution. Hidden width C / 16.
From the authors' code: Wk, W1 and W2 have biases; Wk is drawn by He's rule; W2 and its bias start at 0, so that the
block starts as the identity and gates nothing.
"""

from __future__ import annotations

from torch import Tensor, nn

from senet_ablate.blocks.base import hidden_width

__all__ = ["GlobalContext"]


class GlobalContext(nn.Module):
    """Add to each place the transformed context of the whole map; (N, C, H, W) to the same.

    Args:
        channels: C.
        reduction: r of the hidden width C // r.

    Raises:
        ValueError: C // r is 0.

    Example:
        >>> x = torch.randn(2, 64, 8, 8)
        >>> torch.equal(GlobalContext(64)(x), x)
        True
    """

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        hidden = hidden_width(channels, reduction)
        self.attend = nn.Conv2d(channels, 1, 1)
        self.transform = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.LayerNorm([hidden, 1, 1]),
            nn.ReLU(),
            last := nn.Conv2d(hidden, channels, 1),
        )
        nn.init.kaiming_normal_(self.attend.weight, mode="fan_in")
        for zero in (self.attend.bias, last.weight, last.bias):
            nn.init.zeros_(zero)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Gather the context (N, C, 1, 1), transform it, add it."""
        weights = self.attend(x).flatten(2).softmax(2)  # (N, 1, HW)
        context = x.flatten(2) @ weights.transpose(1, 2)  # (N, C, 1)
        return x + self.transform(context.unsqueeze(3))
