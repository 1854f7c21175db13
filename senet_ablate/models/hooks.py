"""Look into a trained network: record its gates (section 7.2), switch its blocks off stage by stage (section 4)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from senet_ablate.blocks.se import SqueezeExcitation
from senet_ablate.errors import UserError
from senet_ablate.models.sites import inserts
from senet_ablate.results.gates import BlockExcitation


@contextmanager
def recorded(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Within this context each forward of the network leaves its gates here, (N, C, 1, 1) or (N, C, H, W), by block.

    Hooks compute them anew from what the block was given; the forward itself is as it was.
    """
    gates: dict[str, Tensor] = {}

    def listen(name: str, block: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        gates[name] = block.excitation(inputs[0])  # type: ignore[operator]  # seen below

    with ExitStack() as hooks:
        for name, found in inserts(model).items():
            if _method(found.block, "excitation"):
                hooks.enter_context(found.block.register_forward_hook(partial(listen, name)))
        yield gates


@torch.inference_mode()
def collect(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], classes: int) -> list[BlockExcitation]:
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
                shape = (classes, value.shape[1])
                if name not in totals:
                    totals[name] = (value.new_zeros(shape), value.new_zeros(shape), value.new_zeros(shape[1]))
                sums, squares, magnitudes = totals[name]
                sums.index_add_(0, labels, value)
                squares.index_add_(0, labels, value.square())
                magnitudes += magnitude.sum(0)
    found = {name: _gate(each.block) for name, each in inserts(model).items()}
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


def _method(block: nn.Module, name: str) -> Callable[..., Any] | None:
    """A method of a block; a layer of that name is none."""
    found = getattr(block, name, None)
    return found if inspect.ismethod(found) else None


def _gate(block: nn.Module) -> str:
    """The gate of an SE block; of another block the name of its class."""
    return block.config.gate if isinstance(block, SqueezeExcitation) else type(block).__name__


@contextmanager
def switched_off(
    model: nn.Module, names: Collection[str], gates: Mapping[str, np.ndarray] | None = None
) -> Iterator[None]:
    """Within this context the named blocks pass their maps on as they are, or under the fixed `gates` (C,).

    The blocks and their weights stay in the network, untouched.
    """
    taken = {name: (found, found.block) for name, found in inserts(model).items() if name in names}
    if replacing := [name for name, (found, _) in taken.items() if found.site.side == "replace"]:
        raise UserError(f"{replacing[0]} stands in the place of a layer, so it cannot be switched off")
    device = next(model.parameters()).device
    try:
        for name, (found, block) in taken.items():
            combine = _method(block, "combine") or torch.mul
            found.block = FixedGate(gates[name], combine).to(device) if gates else nn.Identity()
        yield
    finally:
        for found, block in taken.values():
            found.block = block
