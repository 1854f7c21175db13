"""The released SE-ResNets in timm's `legacy_seresnet…` layout: into our network and back.

That layout is the Caffe models' (Cadene's conversion): the stride in the first convolution of a block, biases in both
SE layers, and a stem whose pooling has no padding but may hang over the edge. All three are options of our network, so
conversion is a matter of names. Released were bottleneck networks. timm's `legacy_seresnet18` and `34` are another
network, with one more ReLU before each SE block.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from senet_ablate.errors import UserError
from senet_ablate.spec.network import BACKBONES, Network, SEConfig, Variant

LEGACY_VARIANT = Variant(se=SEConfig(bias=True))
"""The block of the released models: the paper's, with biases."""

_STARTS = (("layer0.conv1.", "conv1."), ("layer0.bn1.", "bn1."), ("last_linear.", "fc."))
_INSIDE = ((".se_module.fc1.", ".se.reduce."), (".se_module.fc2.", ".se.expand."))


def legacy_network(backbone: str) -> Network:
    """The network that the released weights of this depth belong to, at the paper's width.

    Raises:
        UserError: it is made of basic blocks, of which none was released.
    """
    if BACKBONES[backbone].block == "basic":
        raise UserError(f"{backbone}: released SE-ResNets are resnet50, resnet101 and resnet152 (network.backbone)")
    return Network(backbone=backbone, stem_pool="ceil")


def is_legacy(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is in timm's legacy layout, by a name that no other layout has."""
    return "layer0.conv1.weight" in state


def from_legacy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name the tensors of timm's layout as our network does; the tensors are the same objects.

    Files older than PyTorch's batch counters get counters of 0, which evaluation does not read.
    """
    ours = {_renamed(name, _STARTS, _INSIDE): value for name, value in state.items()}
    for name in [name for name in ours if name.endswith(".running_mean")]:
        ours.setdefault(name.replace("running_mean", "num_batches_tracked"), torch.zeros((), dtype=torch.int64))
    return ours


def to_legacy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The way back: our network's tensors under timm's names."""
    starts, inside = (tuple((ours, theirs) for theirs, ours in pairs) for pairs in (_STARTS, _INSIDE))
    return {_renamed(name, starts, inside): value for name, value in state.items()}


def _renamed(name: str, starts: tuple[tuple[str, str], ...], inside: tuple[tuple[str, str], ...]) -> str:
    for old, new in starts:
        if name.startswith(old):  # only there: each block has a conv1 and a bn1, too
            return new + name.removeprefix(old)
    for old, new in inside:
        name = name.replace(old, new)
    return name
