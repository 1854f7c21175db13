r"""A network of your own, trained with and without SE under the same protocol, without a change to the suite.

In this folder, with `own_network.toml` beside it (a copy of a protocol whose [network] has the three lines below):

senet-ablate plan gain --protocol own_network.toml
senet-ablate run gain --protocol own_network.toml --report

[network]
backbone = "own_network:make"
units = 'stages\.\d+'
places = { standard = "after norm2", post = "after" }
"""

import torch
from torch import Tensor, nn


class Unit(nn.Module):
    """A residual unit that halves the map: (N, C, H, W) to (N, width, H / 2, W / 2)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.shortcut = nn.Conv2d(channels, width, 1, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """ReLU(x + F(x))."""
        y = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(y + self.shortcut(x))


class Net(nn.Module):
    """Three units and a classifier: images (N, in_channels, H, W) to logits (N, num_classes)."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.stages = nn.Sequential(Unit(in_channels, 16), Unit(16, 32), Unit(32, 64))
        self.head = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        return self.head(self.stages(x).mean((2, 3)))


def make(num_classes: int, in_channels: int) -> nn.Module:
    """What `backbone = "own_network:make"` calls; torch's generator is seeded, so weights may be drawn as usual."""
    return Net(num_classes, in_channels)


if __name__ == "__main__":
    from senet_ablate import build_model

    where = {"units": r"stages\.\d+", "places": {"standard": "after norm2"}}
    model = build_model("own_network:make", num_classes=10, in_channels=1, resolution=8, **where)
    print(model(torch.zeros(2, 1, 8, 8)).shape)
    print([name for name, _ in model.named_modules() if name.endswith("inserted")])
