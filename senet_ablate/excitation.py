"""What the SE blocks of a trained network do (section 7.2, Figs. 6 and 7): excitation by class, and what it amounts to.

Let s_ic be the gate of channel c for image i, and k(i) the image's class. Per block, over all N images and C channels:

- between-class SD: the root of sum_ic (mean of c in class k(i) - mean of c)^2 / (N C);
- within-class SD: the root of sum_ic (s_ic - mean of c in class k(i))^2 / (N C);
- specificity: between^2 / (between^2 + within^2), the share of a gate's variation that the class explains. Classes
  drawn by lot would get (K - 1) / (N - 1) on average;
- a channel is saturated if its mean |s| over all images is above 99 % of the gate's upper limit, dead if below 0.01.

Without squeeze (Table 16) the gate is a map; its mean over the pixels stands for the image's gate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from senet_ablate.resnet import ResNet
from senet_ablate.results.gates import BlockExcitation
from senet_ablate.se import ChannelAttention


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
