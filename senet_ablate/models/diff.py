"""How a variant differs from the network without a block: what the audit of a variant looks at.

A variant is honest if its inserts are all that differs. Looked at are (a) the module tree less the inserts: names,
classes, settings, tensors and hooks; (b) the inserts: at the declared sites, of the declared class, each called once
for an image; (c) logits and gradients of one batch with every insert replaced by an identity, to the last bit; (d) what
that batch leaves behind: buffers, and the state of the random generator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from senet_ablate.blocks.build import block_class
from senet_ablate.blocks.se import SqueezeExcitation
from senet_ablate.models.build import build_network
from senet_ablate.models.hooks import switched_off
from senet_ablate.models.sites import Insert, find_sites, inserts
from senet_ablate.results.networks import Difference, NetworkDiff
from senet_ablate.spec.network import Network, Variant
from senet_ablate.spec.schema import Spec

BATCH = 4


def compare_to_plain(
    network: Network, variants: Iterable[Variant], *, in_channels: int, classes: int, resolution: int
) -> dict[Variant, NetworkDiff]:
    """Build each variant and the network without a block under one seed, and compare them.

    Raises:
        ValueError: the network cannot carry a variant.
    """
    task = {"in_channels": in_channels, "classes": classes, "resolution": resolution, "seed": 0}
    # One fork around all networks: what draws from the shared generator comes out different in each of them, and
    # is found, while the caller's generator stays where it was.
    with torch.random.fork_rng(devices=[]):
        plain = build_network(network, Variant(), **task)
        images = torch.randn(BATCH, in_channels, resolution, resolution, generator=torch.Generator().manual_seed(0))
        parts, trace = dict(_parts(plain)), _trace(plain, images)
        found = {}
        for variant in dict.fromkeys(variants):
            model = build_network(network, variant, **task)
            found[variant] = NetworkDiff(
                _summary(model),
                (
                    *_tree_differs(model, parts),
                    *_inserts_differ(model, plain, network, variant, images),
                    *_trace_differs(model, trace, images),
                ),
            )
        return found


def _parts(model: nn.Module) -> Iterator[tuple[str, object]]:
    """Every module, public setting, hook and tensor of a network by its dotted name, without its inserts.

    Settings are the modules' own attributes, which say more than their `repr`. None counts as absent.
    """
    own = {id(each.block) for each in inserts(model).values()}
    inside = [name for name, module in model.named_modules() if id(module) in own]
    for name, module in model.named_modules():
        if _is_within(name, inside):
            continue
        prefix = f"{name}." if name else ""
        yield name, type(module)
        for key, value in vars(module).items():
            if not key.startswith("_") and value is not None:
                yield prefix + key, value.model_dump_json() if isinstance(value, Spec) else value
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            owners = [getattr(hook, "__self__", None) for hook in vars(module)[kind].values()]
            if others := [owner for owner in owners if not isinstance(owner, Insert)]:
                yield prefix + kind, len(others)
        for key, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            yield f"{prefix}{key}.shape", tuple(tensor.shape)
            yield f"{prefix}{key}.dtype", tensor.dtype
            yield f"{prefix}{key}.requires_grad", tensor.requires_grad
            yield f"{prefix}{key}.values", _digest(tensor)


def _is_within(name: str, modules: Iterable[str]) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in modules)


def _digest(tensor: Tensor) -> str:
    return hashlib.blake2b(tensor.detach().numpy().tobytes(), digest_size=8).hexdigest()


def _tree_differs(model: nn.Module, plain: Mapping[str, object]) -> Iterator[Difference]:
    """(a) The module tree less the inserts."""
    here = dict(_parts(model))
    sites = [each.site for each in inserts(model).values() if each.site.side == "replace"]
    replaced = [name for site in sites for name in (site.module, *site.dropped)]
    for name in dict.fromkeys((*here, *plain)):
        if _is_within(name, replaced):
            continue
        one, other = here.get(name, "absent"), plain.get(name, "absent")
        if one != other:
            yield Difference("weights" if name.endswith(".values") else "modules", name or "network", one, other)


def _inserts_differ(
    model: nn.Module, plain: nn.Module, network: Network, variant: Variant, images: Tensor
) -> Iterator[Difference]:
    """(b) The inserts are where and what the variant declares, and each works once for a batch."""
    if variant.is_plain:
        for name, each in inserts(model).items():
            yield Difference("blocks", name, type(each.block).__name__, "no block")
        return
    task = {"in_channels": images.shape[1], "resolution": images.shape[-1]}
    sites = find_sites(plain, network.family, variant.placement, stages=network.unit_stages, **task)
    declared = {site.path: site for site in sites}
    here = {each.site.path: each for each in inserts(model).values()}
    wanted = SqueezeExcitation if variant.se else block_class(str(variant.block))
    calls = {path: _Calls() for path in here}
    with ExitStack() as hooks, torch.no_grad():
        for path, each in here.items():
            hooks.enter_context(each.block.register_forward_pre_hook(calls[path].before))
            hooks.enter_context(each.block.register_forward_hook(calls[path].after))
        model.eval()(images)
    model.train()
    for path in here:
        if calls[path].changed:
            yield Difference("blocks", f"input of {path}", "changed by the block", "left alone")
    for path in dict.fromkeys((*declared, *here)):
        if path not in here or path not in declared or here[path].site != declared[path]:
            yield Difference("blocks", f"site {path}", path in here, path in declared)
            continue
        block = here[path].block
        if type(block) is not wanted:
            yield Difference("blocks", path, type(block).__name__, wanted.__name__)
        elif isinstance(block, SqueezeExcitation) and block.config != variant.se:
            yield Difference("blocks", f"settings of {path}", block.config, variant.se)
        if calls[path].count != 1:
            yield Difference("blocks", f"calls of {path}", calls[path].count, 1)


class _Calls:
    """How often a block was called, and whether it changed what it was given."""

    def __init__(self) -> None:
        self.count, self.changed = 0, False
        self.given = torch.empty(0)

    def before(self, module: nn.Module, inputs: tuple[Tensor]) -> None:
        self.given = inputs[0].clone()

    def after(self, module: nn.Module, inputs: tuple[Tensor], output: object) -> None:
        self.count += 1
        self.changed |= not torch.equal(self.given, inputs[0])


GENERATOR = ("random draws", "state of the generator after a step")


def _trace(model: nn.Module, images: Tensor) -> dict[tuple[str, str], str]:
    """Digests of what one training step computes and leaves behind, by aspect and name."""
    torch.manual_seed(0)
    model.train().zero_grad()
    logits = model(images)
    logits.logsumexp(1).sum().backward()
    found: dict[tuple[str, str], Tensor | None] = {("outputs", "logits"): logits}
    found |= {("gradients", name): tensor.grad for name, tensor in model.named_parameters()}
    found |= {("buffers", name): tensor for name, tensor in model.named_buffers()}
    found[GENERATOR] = torch.random.get_rng_state()
    return {key: "none" if tensor is None else _digest(tensor) for key, tensor in found.items()}


def _trace_differs(model: nn.Module, plain: Mapping[tuple[str, str], str], images: Tensor) -> Iterator[Difference]:
    """(c), (d): with identities for inserts the step is the plain network's; a block in a module's place has none."""
    found = inserts(model)
    if not any(each.site.side == "replace" for each in found.values()):
        with switched_off(model, found):
            here = _trace(model, images)
        for (aspect, name), value in plain.items():
            if here.get((aspect, name), "none") != value:
                yield Difference(aspect, f"{name} without the blocks", here.get((aspect, name), "none"), value)
    if _trace(model, images)[GENERATOR] != plain[GENERATOR]:
        yield Difference(GENERATOR[0], f"{GENERATOR[1]} with the blocks", "moved", "as it is")


def _summary(model: nn.Module) -> str:
    """The blocks in words: how many, which, where, and what is learnt."""
    learnt = f"{sum(tensor.numel() for tensor in model.parameters() if tensor.requires_grad):,} learnt"
    found = list(inserts(model).values())
    kinds = dict.fromkeys(
        f", {type(each.block).__name__}({each.block.extra_repr()}) {each.site.side} "
        f"{each.site.module.removeprefix(each.site.unit).strip('.') or 'unit'}"
        for each in found
    )
    return f"{len(found)} blocks{''.join(kinds)}; {learnt}"
