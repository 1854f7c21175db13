"""Multiply-adds and reads of a block as it runs, by the operators that reach the dispatcher.

The convention: one multiply-add per weight use in convolutions, linear layers and matrix products, and apart from those
one read per element that a mean, sum, maximum, variance or pooling is given. Activations, gates, scaling, sums of two
maps, normalisation and softmax are not counted. It works on the meta device, too, and does not depend on how a layer is
spelt: a 1x1 convolution and a linear layer cost the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten

REDUCTIONS = frozenset(
    {
        *(aten.mean, aten.sum, aten.amax, aten.amin, aten.max, aten.min, aten.prod, aten.linalg_vector_norm),
        *(aten.std, aten.var, aten.std_mean, aten.var_mean),
        *(aten.avg_pool2d, aten._adaptive_avg_pool2d, aten.max_pool2d_with_indices, aten.adaptive_max_pool2d),
    }
)


class CostCounter(TorchDispatchMode):
    """Count `macs` (weight uses) and `reads` (elements that reductions read) of what runs inside.

    Example:
        >>> with CostCounter() as cost:
        ...     _ = nn.Linear(8, 4)(torch.zeros(1, 8, 3).mean(2))
        >>> cost.macs, cost.reads
        (32, 24)
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs = self.reads = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        operator = func.overloadpacket
        flops: Callable[..., int] | None = flop_registry.get(operator)
        if flops is not None:
            self.macs += flops(*args, **kwargs, out_val=out) // 2  # torch counts a multiply-add as two
        # max and min of two tensors reduce nothing
        elif operator in REDUCTIONS and not (len(args) > 1 and isinstance(args[1], torch.Tensor)):
            self.reads += args[0].numel()
        return out
