"""An attention block of your own, compared with SE under the same protocol, without a change to the suite.

In this folder:

senet-ablate try own_block:PeakGate
senet-ablate run attention --block own_block:PeakGate
senet-ablate report attention
"""

import torch
from torch import Tensor, nn


class PeakGate(nn.Module):
    """Gate each channel by its maximum minus its mean: x * sigmoid(w (max - mean) + b); (N, C, H, W) to the same."""

    def __init__(self, channels: int, *, start: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels, 1, 1), start))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def excitation(self, x: Tensor) -> Tensor:
        """The gate, (N, C, 1, 1)."""
        peak = x.amax((2, 3), keepdim=True) - x.mean((2, 3), keepdim=True)
        return torch.sigmoid(self.weight * peak + self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Scale each channel."""
        return x * self.excitation(x)


if __name__ == "__main__":
    from senet_ablate.blocks.contract import Verdict, check_block

    report = check_block(lambda channels, side: PeakGate(channels))
    print({verdict.value: sum(finding.verdict is verdict for finding in report.findings) for verdict in Verdict})
