"""Snapshots of networks by which two of them are compared: modules, settings, shapes, first weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from senet_ablate.models.build import build_network
from senet_ablate.models.resnet import ResidualBlock, ResNet
from senet_ablate.spec.network import Network, Variant
from senet_ablate.spec.schema import Spec


@dataclass(frozen=True)
class Snapshot:
    """The value of every module, setting and tensor of a network by its dotted name, and its SE blocks in words."""

    parts: dict[str, object]
    summary: str


def take_snapshots(
    network: Network, variants: Iterable[Variant], channels: int, classes: int, *, seed: int | None = None
) -> dict[Variant, Snapshot]:
    """Build each variant on `network` and take its snapshot.

    With `seed` the weights are drawn, too, and the snapshots hold their digests; without, no tensor is allocated.

    Raises:
        ValueError: the network cannot carry a variant.
    """
    # One fork around all networks: what draws from the shared generator comes out different in each of them, and
    # is found, while the caller's generator stays where it was.
    with torch.random.fork_rng(devices=[]):
        return {
            variant: take_snapshot(_build(network, variant, channels, classes, seed))
            for variant in dict.fromkeys(variants)
        }


def take_snapshot(model: nn.Module) -> Snapshot:
    """List every module, every public setting and every tensor of a network; values only if they are allocated.

    Settings are the modules' own attributes, which say more than their `repr`. None counts as absent, so that a
    network without a block differs in the block alone and not in all that would be in it.
    """
    parts: dict[str, object] = {}
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        parts[name] = type(module)
        for key, value in vars(module).items():
            if isinstance(value, Spec):
                parts[prefix + key] = type(value)
                parts |= {f"{prefix}{key}.{field}": content for field, content in value.model_dump().items()}
            elif not key.startswith("_") and value is not None:
                parts[prefix + key] = value
        for key, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            parts[prefix + key] = type(tensor)
            parts[f"{prefix}{key}.shape"] = tuple(tensor.shape)
            parts[f"{prefix}{key}.dtype"] = tensor.dtype
            parts[f"{prefix}{key}.requires_grad"] = tensor.requires_grad
            if not tensor.is_meta:
                parts[f"{prefix}{key}.values"] = _digest(tensor)
    return Snapshot(parts, _summary(model))


def _build(network: Network, variant: Variant, channels: int, classes: int, seed: int | None) -> ResNet:
    with ExitStack() as stack:
        if seed is None:
            stack.enter_context(torch.device("meta"))
        return build_network(network, variant, in_channels=channels, classes=classes, seed=seed)


def _digest(tensor: Tensor) -> str:
    # Kept in place of the tensors: all arms of a large network at once would not fit into memory.
    return hashlib.blake2b(tensor.detach().numpy().tobytes(), digest_size=8).hexdigest()


def _summary(model: nn.Module) -> str:
    learnt = f"{sum(tensor.numel() for tensor in model.parameters() if tensor.requires_grad):,} learnt"
    sites = [(block.se, block.site) for block in model.modules() if isinstance(block, ResidualBlock) and block.se]
    sizes = sorted(se.inner[1] for se, _ in sites)
    ends = "-".join(dict.fromkeys(map(str, (sizes[0], sizes[-1])))) if sites else ""
    kinds = dict.fromkeys(
        f", {se.inner[0]} {ends}, {se.config.squeeze}, {se.config.gate}, {site}" for se, site in sites
    )
    return f"{len(sites)}{''.join(kinds)}; {learnt}"
