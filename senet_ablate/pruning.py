"""Switch the SE blocks of a trained network off, stage by stage (section 4), and see what that does to its error.

Nothing is trained again, so this asks what the trained network uses, not what a network without these blocks would
reach: for that there is the `pruning` table.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from senet_ablate.data.loaders import Loader
from senet_ablate.evaluation import evaluate
from senet_ablate.resnet import ResNet
from senet_ablate.results.gates import IDENTITY, MEAN_GATE, BlockExcitation


class FixedGate(nn.Module):
    """In place of an SE block: the same gate for every image, (C,), combined with the map as the block does it."""

    def __init__(self, gate: np.ndarray, combine: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.combine = combine
        self.gate: Tensor
        self.register_buffer("gate", torch.from_numpy(gate).float().view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        return self.combine(x, self.gate)


@contextmanager
def switched_off(
    model: ResNet, names: Collection[str], gates: Mapping[str, np.ndarray] | None = None
) -> Iterator[None]:
    """Within this context the named SE blocks pass their maps on as they are, or under the fixed `gates` (C,).

    The blocks and their weights are put back afterwards, untouched.
    """
    taken = {name: (block, block.se) for name, block in model.se_blocks().items() if name in names}
    try:
        for name, (block, se) in taken.items():
            assert se is not None
            place = next(se.parameters()).device
            stand_in = FixedGate(gates[name], se.gating.combine).to(place) if gates else None
            block.se = stand_in  # type: ignore[assignment]  # for as long as this context lasts
        yield
    finally:
        for block, se in taken.values():
            block.se = se


def prune_table(model: ResNet, loader: Loader, blocks: Collection[BlockExcitation]) -> pd.DataFrame:
    """Error with all SE blocks and with those of each stage, and of all, switched off in both ways.

    Args:
        model: the trained network.
        loader: labelled images, read once for each line.
        blocks: what its SE blocks did on images, for the mean gate.

    Returns:
        Columns: off (`nothing`, `stage 2`, …, `all`), way, blocks and params (that are off), images, top1_err in
        percent, change in points, broken (images that turned wrong) and mended (that turned right).
    """
    stages = sorted({block.stage for block in blocks})
    groups = {f"stage {stage}": [block.name for block in blocks if block.stage == stage] for stage in stages}
    if len(groups) > 1:
        groups["all"] = [block.name for block in blocks]
    gates = {block.name: block.mean for block in blocks}
    params = {
        name: sum(parameter.numel() for parameter in block.se.parameters())
        for name, block in model.se_blocks().items()
        if block.se is not None
    }
    before = evaluate(model, loader, "fp32")[0].wrong

    def line(off: str, way: str, names: Collection[str], wrong: np.ndarray) -> dict[str, object]:
        return {
            "off": off,
            "way": way,
            "blocks": len(names),
            "params": sum(params[name] for name in names),
            "images": len(wrong),
            "top1_err": 100 * float(wrong.mean()),
            "change": 100 * float(wrong.mean() - before.mean()),
            "broken": int((wrong & ~before).sum()),
            "mended": int((before & ~wrong).sum()),
        }

    lines = [line("nothing", "", [], before)]
    for off, names in groups.items():
        for way, fixed in ((IDENTITY, None), (MEAN_GATE, gates)):
            with switched_off(model, names, fixed):
                wrong = evaluate(model, loader, "fp32")[0].wrong
            lines.append(line(off, way, names, wrong))
    return pd.DataFrame(lines)
