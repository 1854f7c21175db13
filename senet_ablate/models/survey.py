"""Parameters and multiply-adds of a built network, traced by fvcore under one stated convention.

The convention, for one image: one multiply-add per weight use in convolutions and linear layers, and one per
element that the global squeeze of an SE block reads; batch normalisation, activations, gates, scaling, sums and
the pooling of the network itself are not counted. With the stride in the first 1x1 this meets every GFLOPs
figure printed in Tables 13, 15 and 16. It is the only module that imports fvcore, whose own
defaults count the same block as 811,008 or 8,192 depending on how its pooling is written.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from senet_ablate.spec.protocol import Complexity

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # fvcore (2022) still scripts functions, which torch deprecates
    from fvcore.nn import FlopCountAnalysis
    from fvcore.nn.jit_handles import get_shape

CONVENTION = (
    "multiply-adds of convolutions and linear layers, plus one per element that the global squeeze reads; "
    "no batch normalisation, activation, gate, scaling, sum or final pooling"
)


def _elements_read(inputs: list[Any], outputs: list[Any]) -> int:
    return math.prod(get_shape(inputs[0]))


def _nothing(inputs: list[Any], outputs: list[Any]) -> int:
    return 0  # a None handler would not switch an operator off in fvcore


HANDLERS: dict[str, Callable[[list[Any], list[Any]], int]] = {
    "aten::sum": _elements_read,
    "aten::amax": _elements_read,
    "aten::batch_norm": _nothing,
    "aten::adaptive_avg_pool2d": _nothing,
}


def count_complexity(model: nn.Module, *, in_channels: int, resolution: int) -> Complexity:
    """Trace `model` on one image (1, in_channels, resolution, resolution) and count it (convention above)."""
    image = torch.zeros(1, in_channels, resolution, resolution)
    training = model.training
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the tracer warns about each constant it sees
            trace = FlopCountAnalysis(model.eval(), image).set_op_handle(**HANDLERS)
            macs = int(trace.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total())
    finally:
        model.train(training)
    params = sum(parameter.numel() for parameter in model.parameters())
    # num_batches_tracked is a counter, not a statistic of the data: the paper's figures do not hold it.
    stats = sum(
        module.running_mean.numel() + module.running_var.numel()
        for module in model.modules()
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None
    )
    return Complexity(params=params, params_with_bn_stats=params + stats, macs=macs)
