"""Put the paper's block into a network of your own.

python examples/use_block.py
"""

import torch
from torch import Tensor, nn

from senet_ablate import SqueezeExcitation, build_model


class SmallNet(nn.Module):
    """Two convolutions, each followed by an SE block, and a classifier."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            SqueezeExcitation(32, reduction=8),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            SqueezeExcitation(64, gate="tanh"),
        )
        self.classifier = nn.Linear(64, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, H, W)."""
        return self.classifier(self.features(images).mean((2, 3)))


def main() -> tuple[torch.Size, int]:
    """The shape of the logits, and how many parameters SE adds to a ResNet-50 (the paper: 28.1 M less 25.6 M)."""
    logits = SmallNet()(torch.zeros(2, 3, 32, 32))
    with_se, without = (
        sum(value.numel() for value in build_model("resnet50", se=se).parameters()) for se in ({}, None)
    )
    return logits.shape, with_se - without


if __name__ == "__main__":
    shape, added = main()
    print(f"logits {tuple(shape)}; SE adds {added:,} parameters to a ResNet-50")
