"""Efficient channel attention (ECA-Net, arXiv 1910.03151): a block of another kind, and how one is added.

Its first weights are drawn as those of all convolutions here (He, fan-out); the authors' code leaves torch's own. By
Eq. 12 a ResNet-50 has 86 of them, where the abstract prints 80.
"""

from __future__ import annotations

from torch import Tensor, nn

from senet_ablate.blocks.se import ChannelAttention
from senet_ablate.spec.geometry import eca_kernel


class EfficientChannelAttention(ChannelAttention):
    """One convolution over neighbouring channels instead of two layers over all: k weights (Eq. 12 there).

    Example:
        >>> block = EfficientChannelAttention(64)
        >>> block(torch.zeros(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    kind = "eca"

    def add_layers(self, channels: int) -> None:
        """The convolution, along the height of an image whose rows are the channels."""
        kernel = eca_kernel(channels)
        self.conv = nn.Conv2d(1, 1, (kernel, 1), padding=(kernel // 2, 0), bias=False)

    def layers(self, z: Tensor) -> Tensor:
        """Each channel's weighted sum with its neighbours; without squeeze at each pixel."""
        return self.conv(z.flatten(2).unsqueeze(1)).reshape(z.shape)

    @property
    def inner(self) -> tuple[str, int]:
        """The kernel's length k."""
        return "kernel", self.conv.kernel_size[0]
