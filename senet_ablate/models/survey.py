"""Parameters, multiply-adds and sites, read off a built network under one stated convention.

The convention, for one image: one multiply-add per weight use in convolutions, linear layers and matrix products, and,
inside attention blocks only, one per element that a reduction reads (the squeeze). Batch normalisation, activations,
gates, scaling, sums and the pooling of the network itself are not counted. With the stride in the first 1x1 this meets
every GFLOPs figure printed in Tables 13, 15 and 16.

The network is built without memory and one image is run through it, so that a count takes a fraction of a second.
fvcore, whose own defaults count the same block as 811,008 or 8,192 depending on how its pooling is written, is the
second opinion (`fvcore_macs`); this is the only module that imports it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from senet_ablate.blocks.counter import CostCounter
from senet_ablate.models.build import build_network
from senet_ablate.models.sites import inserts, pass_image, run_once
from senet_ablate.results.networks import SiteShape, Survey
from senet_ablate.spec.network import Network, Variant
from senet_ablate.spec.protocol import Complexity

CONVENTION = (
    "multiply-adds of convolutions, linear layers and matrix products, plus one per element that a reduction inside an "
    "attention block reads; no batch normalisation, activation, gate, scaling, sum or final pooling"
)


class _BlockCounter(CostCounter):
    """A counter that tells what runs inside blocks, between a call of `enter` and one of `leave`."""

    def __init__(self) -> None:
        super().__init__()
        self.before = (0, 0)
        self.inside_macs = self.inside_reads = 0

    def enter(self, block: nn.Module, inputs: Any) -> None:
        self.before = (self.macs, self.reads)

    def leave(self, block: nn.Module, inputs: Any, output: Any) -> None:
        self.inside_macs += self.macs - self.before[0]
        self.inside_reads += self.reads - self.before[1]


def _complexity(modules: list[nn.Module], macs: int) -> Complexity:
    """With the running statistics of batch normalisations; a counter of batches is neither parameter nor statistic."""
    params = sum(parameter.numel() for module in modules for parameter in module.parameters())
    stats = sum(
        tensor.numel()
        for module in modules
        for name, tensor in module.named_buffers()
        if name.rpartition(".")[2] in ("running_mean", "running_var")
    )
    return Complexity(params=params, params_with_bn_stats=params + stats, macs=macs)


def count(
    model: nn.Module, blocks: list[nn.Module], *, in_channels: int, resolution: int
) -> tuple[Complexity, Complexity]:
    """Count a whole network, and its `blocks` alone, on one image (1, in_channels, resolution, resolution)."""
    cost = _BlockCounter()
    with ExitStack() as hooks:
        for block in blocks:
            hooks.enter_context(block.register_forward_pre_hook(cost.enter))
            hooks.enter_context(block.register_forward_hook(cost.leave))
        with cost:
            pass_image(model, in_channels=in_channels, resolution=resolution)
    whole = _complexity([model], cost.macs + cost.inside_reads)
    return whole, _complexity(blocks, cost.inside_macs + cost.inside_reads)


def count_complexity(model: nn.Module, *, in_channels: int, resolution: int) -> Complexity:
    """Count a network on one image (1, in_channels, resolution, resolution) by the convention above."""
    blocks = [found.block for found in inserts(model).values()]
    return count(model, blocks, in_channels=in_channels, resolution=resolution)[0]


def survey(network: Network, variant: Variant, *, in_channels: int, classes: int, resolution: int) -> Survey:
    """Build a variant of a network without memory and read its size, cost and sites off it.

    Raises:
        ValueError: the network cannot carry the variant, or does not take images of this size.
        UserError: as `build_network`.
    """
    bare = network.model_copy(update={"pretrained": False})  # its weights change no count
    task = {"in_channels": in_channels, "resolution": resolution}
    try:
        with torch.device("meta"):
            model = build_network(bare, variant, classes=classes, **task)
    except (NotImplementedError, RuntimeError):  # constructors that look at their own numbers
        model = build_network(bare, variant, classes=classes, **task)
    run_once(model, **task)
    found = inserts(model)
    whole, added = count(model, [each.block for each in found.values()], **task)
    sites = [
        SiteShape(name=name, stage=each.site.stage, channels=each.site.channels, size=each.site.size)
        for name, each in found.items()
    ]
    return Survey(total=whole, added=added, sites=tuple(sites))


def fvcore_macs(model: nn.Module, *, in_channels: int, resolution: int) -> int:
    """Multiply-adds as fvcore traces them, with the squeeze counted by the elements that it reads: a second opinion."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fvcore (2022) still scripts functions, which torch deprecates
        from fvcore.nn import FlopCountAnalysis
        from fvcore.nn.jit_handles import get_shape

    def elements(inputs: list[Any], outputs: list[Any]) -> int:
        return math.prod(get_shape(inputs[0]))

    def nothing(inputs: list[Any], outputs: list[Any]) -> int:
        return 0  # a None handler would not switch an operator off in fvcore

    handlers: dict[str, Callable[[list[Any], list[Any]], int]] = {
        "aten::sum": elements,
        "aten::amax": elements,
        "aten::batch_norm": nothing,
        "aten::adaptive_avg_pool2d": nothing,
    }
    image = torch.zeros(1, in_channels, resolution, resolution)
    training = model.training
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the tracer warns about each constant it sees
            trace = FlopCountAnalysis(model.eval(), image).set_op_handle(**handlers)
            return int(trace.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total())
    finally:
        model.train(training)
