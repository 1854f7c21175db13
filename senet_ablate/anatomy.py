"""What differs between the network of each arm and that of its table's reference: modules, shapes, settings, draws."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from senet_ablate.audit import Comparison, Departure, changes, comparisons
from senet_ablate.resnet import ResidualBlock, ResNet
from senet_ablate.seeding import initialise
from senet_ablate.spec.ablation import Ablation, Factor
from senet_ablate.spec.network import Network, Variant
from senet_ablate.spec.protocol import Protocol
from senet_ablate.spec.schema import Spec

_SHAPES = r"se\.(reduce|expand)\.(in_channels|out_channels|(weight|bias)\.shape)"
_KERNEL = r"se\.conv\.(kernel_size|padding|weight\.shape)"

MAY_DIFFER: dict[Factor, str] = {
    "se.squeeze": r"se\.(config\.)?squeeze",
    "se.gate": r"se\.(config\.gate|gating|\w+\.(weight|bias)\.requires_grad)",
    "se.reduction": rf"se\.config\.reduction|{_SHAPES}",
    "se.excitation": r"se|se\.(config\.(excitation|reduction|bias)|\+(reduce|expand|conv))",
    "placement.stages": r"\+se",
    "placement.position": rf"site|{_SHAPES}|{_KERNEL}",
}
"""What in a residual block each factor may change, as a pattern; a plus is before what only one of the two has."""

MAY_DIFFER_WITHOUT_SE = r"\+se|site"


@dataclass(frozen=True)
class Anatomy:
    """A network taken apart: the value of every module, setting and tensor by its dotted name, and its SE in words."""

    parts: dict[str, object]
    summary: str


def audit_networks(
    ablations: Iterable[Ablation], protocol: Protocol, channels: int, classes: int, *, seed: int | None = None
) -> list[Departure]:
    """Compare the network of each arm with that of its reference: module tree, shapes, settings, what is learnt.

    What a row declares is summed up in one departure; all else is undeclared. With `seed` the weights are drawn, too,
    and tensors of equal name and shape must start equal to the last bit; without, no tensor is allocated.

    Raises:
        ValueError: the protocol's network cannot carry an arm.
    """
    known: dict[Variant, Anatomy] = {}

    def anatomy(variant: Variant) -> Anatomy:
        if variant not in known:
            known[variant] = take_apart(_build(protocol.network, variant, channels, classes, seed))
        return known[variant]

    # One fork around all networks: what draws from the shared generator comes out different in each of them, and
    # is found, while the caller's generator stays where it was.
    with torch.random.fork_rng(devices=[]):
        return [
            departure
            for pair in comparisons(ablations)
            for departure in _compare(pair, anatomy(pair.arm.variant), anatomy(pair.reference.variant))
        ]


def take_apart(model: nn.Module) -> Anatomy:
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
    return Anatomy(parts, _summary(model))


def _build(network: Network, variant: Variant, channels: int, classes: int, seed: int | None) -> ResNet:
    with ExitStack() as stack:
        if seed is None:
            stack.enter_context(torch.device("meta"))
        model = ResNet(network, variant, in_channels=channels, classes=classes)
    if seed is not None:
        initialise(model, seed)
    return model


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


def _compare(pair: Comparison, here: Anatomy, reference: Anatomy) -> list[Departure]:
    """One departure for all that is declared, and one for each kind of setting that is not."""
    pattern = MAY_DIFFER_WITHOUT_SE if pair.with_plain else MAY_DIFFER[pair.ablation.factor]
    one_sided = here.parts.keys() ^ reference.parts.keys()
    declared = False
    undeclared: dict[str, list[tuple[str, object, object]]] = {}
    for path, one, other in changes(here.parts, reference.parts):
        parent, _, last = path.rpartition(".")
        if path in one_sided and parent in one_sided:
            continue  # goes without saying
        spelt = f"{parent}.+{last}" if path in one_sided else path
        if last == "values" and here.parts[f"{parent}.shape"] != reference.parts[f"{parent}.shape"]:
            continue
        if re.fullmatch(rf"layer\d+\.\d+\.(?:{pattern})", spelt):
            declared = True
        else:
            undeclared.setdefault(last, []).append((path, one, other))
    found = []
    if declared:
        found.append(pair.departure("modules", "SE blocks", here.summary, reference.summary, declared=True))
    for last, parts in undeclared.items():
        path, one, other = parts[0]
        more = f" and {len(parts) - 1} more" if len(parts) > 1 else ""
        aspect = "weights" if last == "values" else "modules"
        found.append(pair.departure(aspect, (path or "network") + more, one, other, declared=False))
    return found
