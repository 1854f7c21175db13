"""CBAM: Convolutional Block Attention Module (arXiv 1807.06521).

Equation: F' = Mc(F) * F, F'' = Ms(F') * F', with Mc = sigmoid(MLP(avg F) + MLP(max F)), one MLP for both, and
Ms = sigmoid(conv7x7[max_c F'; avg_c F']) (Eqs. 1 to 3).
Place: end of the residual branch, as SE. Hidden width C // 16.
From the authors' code, not in the equations: the 7x7 convolution is followed by a batch normalisation of momentum 0.01,
whose weight starts at 0, so that the spatial gate is 1/2 everywhere at first; the layers of the MLP have biases.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from senet_ablate.blocks.base import check_count, hidden_width

__all__ = ["CBAM"]


class CBAM(nn.Module):
    """Attend to channels, then to places: x * Mc * Ms (Eqs. 1 to 3 there); (N, C, H, W) to the same.

    Args:
        channels: C.
        reduction: r of the hidden width C // r.
        kernel_size: side of the spatial convolution, odd.

    Raises:
        ValueError: C // r is 0, or the kernel has no centre.

    Example:
        >>> CBAM(64)(torch.zeros(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(self, channels: int, *, reduction: int = 16, kernel_size: int = 7) -> None:
        super().__init__()
        check_count("kernel_size", kernel_size, 7)
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size = {kernel_size!r}: expected an odd number, such as 7 or 3")
        hidden = hidden_width(channels, reduction)
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)
        self.bn = nn.BatchNorm2d(1, momentum=0.01)
        for bias in (self.reduce.bias, self.expand.bias):
            nn.init.zeros_(bias)  # type: ignore[arg-type]
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out")
        nn.init.zeros_(self.bn.weight)

    def channel_gate(self, x: Tensor) -> Tensor:
        """Mc, (N, C, 1, 1)."""
        squeezed = (x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True))
        average, largest = (self.expand(torch.relu(self.reduce(z))) for z in squeezed)
        return torch.sigmoid(average + largest)

    def spatial_gate(self, x: Tensor) -> Tensor:
        """Ms, (N, 1, H, W)."""
        squeezed = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], dim=1)
        return torch.sigmoid(self.bn(self.conv(squeezed)))

    def excitation(self, x: Tensor) -> Tensor:
        """Both gates together, (N, C, H, W)."""
        channels = self.channel_gate(x)
        return channels * self.spatial_gate(x * channels)

    def forward(self, x: Tensor) -> Tensor:
        """Scale each channel, then each place."""
        x = x * self.channel_gate(x)
        return x * self.spatial_gate(x)
