"""Parameters, multiply-adds and sites, read off a built network under one stated convention.

The convention, for one image: one multiply-add per weight use in convolutions, linear layers and matrix products, and,
inside attention blocks only, one per element that a reduction reads (the squeeze). Batch normalisation, activations,
gates, scaling, sums and the pooling of the network itself are not counted. With the stride in the first 1x1 this meets
every GFLOPs figure printed in Tables 13, 15 and 16.

The network is built without memory and one image is run through it, so that a count takes a fraction of a second. fvcore,
whose own defaults count the same block as 811,008 or 8,192 depending on how its pooling is written, is the second
opinion (`fvcore_macs`); this is the only module that imports it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from senet_ablate.models.build import build_network
from senet_ablate.models.sites import inserts
from senet_ablate.results.networks import SiteShape, Survey
from senet_ablate.spec.network import Network, Variant
from senet_ablate.spec.protocol import Complexity

CONVENTION = (
    "multiply-adds of convolutions, linear layers and matrix products, plus one per element that a reduction inside an "
    "attention block reads; no batch normalisation, activation, gate, scaling, sum or final pooling"
)

_ATEN = torch.ops.aten
REDUCTIONS = frozenset(
    {
        _ATEN.sum,
        _ATEN.mean,
        _ATEN.amax,
        _ATEN.max,
        _ATEN.std,
        _ATEN.var,
        _ATEN.var_mean,
        _ATEN.std_mean,
        _ATEN.avg_pool2d,
        _ATEN.max_pool2d_with_indices,
        _ATEN._adaptive_avg_pool2d,
        _ATEN.adaptive_max_pool2d,
    }
)
"""Operators by which a block squeezes its map."""


class _Counter(TorchDispatchMode):
    """Add up multiply-adds, and the elements that reductions read while a block is running."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = self.inside = self.depth = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        found = 0
        if packet in flop_registry:
            found = flop_registry[packet](*args, **(kwargs or {}), out_val=out) // 2
        elif self.depth and packet in REDUCTIONS:
            found = args[0].numel()
        self.macs += found
        self.inside += found if self.depth else 0
        return out


@contextmanager
def _counted(blocks: list[nn.Module]) -> Iterator[_Counter]:
    counter = _Counter()

    def enter(module: nn.Module, inputs: Any) -> None:
        counter.depth += 1

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        counter.depth -= 1

    handles = [block.register_forward_pre_hook(enter) for block in blocks]
    handles += [block.register_forward_hook(leave) for block in blocks]
    try:
        with counter:
            yield counter
    finally:
        for handle in handles:
            handle.remove()


def _parameters(modules: list[nn.Module]) -> tuple[int, int]:
    """Parameters, and the running statistics of the batch normalisations; a counter of batches is neither."""
    params = sum(parameter.numel() for module in modules for parameter in module.parameters())
    stats = sum(
        tensor.numel()
        for module in modules
        for name, tensor in module.named_buffers()
        if name.rpartition(".")[2] in ("running_mean", "running_var")
    )
    return params, params + stats


def count(model: nn.Module, blocks: list[nn.Module], *, in_channels: int, resolution: int) -> tuple[Complexity, Complexity]:
    """Count a whole network, and its `blocks` alone, on one image (1, in_channels, resolution, resolution)."""
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), _counted(blocks) as counter:
            model(torch.zeros(1, in_channels, resolution, resolution, device=device))
    finally:
        for module, mode in modes.items():
            module.training = mode
    whole, added = _parameters([model]), _parameters(blocks)
    return (
        Complexity(params=whole[0], params_with_bn_stats=whole[1], macs=counter.macs),
        Complexity(params=added[0], params_with_bn_stats=added[1], macs=counter.inside),
    )


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
