"""FcaNet: Frequency Channel Attention Networks (arXiv 2012.11879).

Equation: SE whose squeeze is a discrete cosine transform: channels are split into n parts, and part i is squeezed by
its sum with the filter B_i(h, w) = cos(pi u_i (h + 1/2) / H) cos(pi v_i (w + 1/2) / W), scaled to an orthonormal basis.
Place: end of the residual branch, as SE. Hidden width C // 16, no biases, n = 16 frequencies, C a multiple of n.
From the authors' code: the frequencies (u, v) are the n best single ones of 7x7, in the order of their accuracy; on a
map of side S they are multiplied by S // 7; a map of another shape than at construction is average-pooled to it.
Traps: below 7 px that factor is 0, so all filters are the one of frequency 0. That one is the mean times S (sqrt HW),
no mean: the first gates of large maps are spread wider than SE's.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_ablate.blocks.base import GatedBlock, check_count, hidden_width

__all__ = ["FrequencyAttention"]

# (u, v) of the 7x7 basis, the best single frequency first (the authors' `top16`).
BEST = tuple(
    zip((0, 0, 6, 0, 0, 1, 1, 4, 5, 1, 3, 0, 0, 0, 3, 2), (0, 1, 0, 5, 2, 0, 2, 0, 0, 6, 0, 4, 6, 3, 5, 2), strict=True)
)
BASIS = 7


def cosine(frequency: int, size: int) -> Tensor:
    """One row of the orthonormal cosine transform, (size,)."""
    wave = torch.cos(math.pi * frequency * (torch.arange(size) + 0.5) / size)
    return wave * math.sqrt((2 if frequency else 1) / size)


class FrequencyAttention(GatedBlock):
    """SE with cosine filters for the mean: x * sigmoid(W2 relu(W1 dct(x))); (N, C, H, W) to the same.

    Args:
        channels: C, a multiple of `frequencies`.
        size: side of the map, whose filters are made at construction.
        reduction: r of the hidden width C // r.
        frequencies: how many of the best frequencies, 1 to 16.

    Raises:
        ValueError: C // r is 0, or C cannot be split into so many parts.

    Example:
        >>> FrequencyAttention(64, size=8)(torch.zeros(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    filters: Tensor

    def __init__(self, channels: int, *, size: int, reduction: int = 16, frequencies: int = 16) -> None:
        super().__init__()
        check_count("frequencies", frequencies, 16)
        if frequencies > len(BEST) or channels % frequencies:
            fitting = ", ".join(str(n) for n in range(1, len(BEST) + 1) if channels % n == 0)
            raise ValueError(
                f"frequencies = {frequencies!r} cannot share {channels} channels: expected one of {fitting}"
            )
        hidden = hidden_width(channels, reduction)
        scale = size // BASIS
        basis = [torch.outer(cosine(u * scale, size), cosine(v * scale, size)) for u, v in BEST[:frequencies]]
        self.register_buffer("filters", torch.stack(basis), persistent=False)  # (n, size, size)
        self.reduce = nn.Conv2d(channels, hidden, 1, bias=False)
        self.expand = nn.Conv2d(hidden, channels, 1, bias=False)

    def squeeze(self, x: Tensor) -> Tensor:
        """Each channel's sum with the filter of its part: (N, C, 1, 1)."""
        size = self.filters.shape[1:]
        if x.shape[2:] != size:
            x = F.adaptive_avg_pool2d(x, (size[0], size[1]))
        parts = x.unflatten(1, (len(self.filters), -1))  # (N, n, C/n, S, S)
        return (parts * self.filters.unsqueeze(1)).sum((3, 4)).flatten(1)[:, :, None, None]

    def excitation(self, x: Tensor) -> Tensor:
        """The gate, (N, C, 1, 1)."""
        return torch.sigmoid(self.expand(torch.relu(self.reduce(self.squeeze(x)))))
