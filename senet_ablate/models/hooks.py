"""Look into a trained network: record its gates (section 7.2), switch its blocks off stage by stage (section 4)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from senet_ablate.blocks.se import ChannelAttention
from senet_ablate.models.resnet import ResNet
from senet_ablate.results.gates import BlockExcitation


@contextmanager
def recorded(model: ResNet) -> Iterator[dict[str, Tensor]]:
    """Within this context each forward of the network leaves its gates here, (N, C, 1, 1) or (N, C, H, W), by block.

    Hooks compute them anew from what the block was given; the forward itself is as it was.
    """
    gates: dict[str, Tensor] = {}

    def listen(name: str) -> Any:
        def hear(se: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            assert isinstance(se, ChannelAttention)
            gates[name] = se.excitation(inputs[0])

        return hear

    blocks = {name: block.se for name, block in model.se_blocks().items() if block.se is not None}
    handles = [se.register_forward_hook(listen(name)) for name, se in blocks.items()]
    try:
        yield gates
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def collect(model: ResNet, batches: Iterable[tuple[Tensor, Tensor]], classes: int) -> list[BlockExcitation]:
    """Sum the gates of every block over images (N, C, H, W) with labels (N,) of `classes` classes, in evaluation mode.

    Memory is two numbers for each class and channel, whatever the number of images.
    """
    model.eval()
    images = torch.zeros(classes, dtype=torch.int64)
    totals: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    with recorded(model) as gates:
        for pixels, on_device in batches:
            model(pixels)
            labels = on_device.cpu()
            images += torch.bincount(labels, minlength=classes)
            for name, s in gates.items():
                # Doubles from here on, on the processor: Apple's GPUs have none.
                value = s.float().mean((2, 3)).cpu().double()
                magnitude = s.float().abs().mean((2, 3)).cpu().double()
                if name not in totals:
                    zeros = torch.zeros(classes, value.shape[1], dtype=torch.float64)
                    totals[name] = (zeros, zeros.clone(), torch.zeros(value.shape[1], dtype=torch.float64))
                sums, squares, magnitudes = totals[name]
                sums.index_add_(0, labels, value)
                squares.index_add_(0, labels, value.square())
                magnitudes += magnitude.sum(0)
    found = {name: block.se.config.gate for name, block in model.se_blocks().items() if block.se is not None}
    return [
        BlockExcitation(name, found[name], images.numpy(), *(total.numpy() for total in totals[name]))
        for name in totals
    ]


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
