"""The residual networks as data (Table 1): which kind of block, how many in each stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BlockKind = Literal["basic", "bottleneck"]
EXPANSION: dict[BlockKind, int] = {"basic": 1, "bottleneck": 4}
"""Output channels of a block per channel of its 3x3 convolutions."""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A residual network's kind of block and the number of blocks in stages 2, 3, 4, 5."""

    block: BlockKind
    depths: tuple[int, int, int, int]


BACKBONES: dict[str, Backbone] = {
    "resnet14": Backbone(block="bottleneck", depths=(1, 1, 1, 1)),
    "resnet18": Backbone(block="basic", depths=(2, 2, 2, 2)),
    "resnet26": Backbone(block="bottleneck", depths=(2, 2, 2, 2)),
    "resnet34": Backbone(block="basic", depths=(3, 4, 6, 3)),
    "resnet50": Backbone(block="bottleneck", depths=(3, 4, 6, 3)),
    "resnet101": Backbone(block="bottleneck", depths=(3, 4, 23, 3)),
    "resnet152": Backbone(block="bottleneck", depths=(3, 8, 36, 3)),
}
