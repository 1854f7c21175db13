"""SK: Selective Kernel Networks (arXiv 1903.06586). It replaces a 3x3 convolution; it is not put beside one.

Equation: V = sum_i a_i U_i with sum_i a_i = 1 per channel: branches U_i of 3x3 convolutions with dilation i (each with
BN and ReLU), z = relu(BN(W mean(sum_i U_i))), a = softmax over branches of (A_i z).
Place: the 3x3 convolution, BN and ReLU of a bottleneck (SKNet-50 is a ResNeXt-50 of 32 groups).
Hidden width d = max(C // 16, 32).
Convolutions and layers have no biases; convolutions are drawn by He's rule, fan-out, as those that they replace.
z is normalised over the batch: training needs more than one image, and images see each other.
"""

from __future__ import annotations

from torch import Tensor, nn

from senet_ablate.blocks.base import check_count

__all__ = ["SelectiveKernel"]


class SelectiveKernel(nn.Module):
    """Let the image choose the kernel: (N, channels, H, W) to (N, out_channels, H / stride, W / stride).

    Its output is not negative: a ReLU that follows the replaced convolution changes nothing.

    Args:
        channels: of the map that comes in.
        out_channels: C, as many by default.
        stride: of all branches.
        groups: G of all branches, which divides both numbers of channels.
        branches: M, the largest dilation.
        reduction: r of the hidden width max(C // r, 32).

    Raises:
        ValueError: G does not divide the channels; or fewer than 2 branches, from which nothing can be selected.

    Example:
        >>> SelectiveKernel(64, out_channels=128, stride=2)(torch.zeros(2, 64, 8, 8)).shape
        torch.Size([2, 128, 4, 4])
    """

    def __init__(
        self,
        channels: int,
        *,
        out_channels: int | None = None,
        stride: int = 1,
        groups: int = 32,
        branches: int = 2,
        reduction: int = 16,
    ) -> None:
        super().__init__()
        width = out_channels or channels
        for name, value, paper in (("groups", groups, 32), ("branches", branches, 2), ("reduction", reduction, 16)):
            check_count(name, value, paper)
        if channels % groups or width % groups:
            raise ValueError(
                f"groups = {groups!r} does not divide {channels} and {width} channels: choose one that does"
            )
        if branches == 1:
            raise ValueError(f"branches = {branches!r}: expected 2 or more; the paper has 2")
        hidden = max(width // reduction, 32)
        convs = [
            nn.Conv2d(channels, width, 3, stride, padding=i, dilation=i, groups=groups, bias=False)
            for i in range(1, branches + 1)
        ]
        for conv in convs:
            nn.init.kaiming_normal_(conv.weight, mode="fan_out")
        self.branches = nn.ModuleList(nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU()) for conv in convs)
        self.reduce = nn.Sequential(nn.Conv2d(width, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU())
        self.select = nn.Conv2d(hidden, branches * width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Split into branches, fuse them to choose, select."""
        maps = [branch(x) for branch in self.branches]
        logits = self.select(self.reduce(sum(maps).mean((2, 3), keepdim=True)))
        weights = logits.unflatten(1, (len(maps), -1)).softmax(1)  # (N, M, C, 1, 1)
        return sum(each * weight for each, weight in zip(maps, weights.unbind(1), strict=True))
