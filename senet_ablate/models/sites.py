"""Put blocks into a plain network at declared edges of its module tree: the one mechanism for all networks.

A site is an edge, (module, before | after). The block becomes a child of its unit, and a hook runs it on that edge; the
network's own code stays as it is, so variants differ in their inserts and in nothing else. A `replace` site puts the
block in the place of a module.
"""

from __future__ import annotations

import copy
import math
import re
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from senet_ablate.seeding import forked, stream_seed
from senet_ablate.spec.backbones import FAMILIES, OURS, Family, Side
from senet_ablate.spec.network import Placement


@dataclass(frozen=True, kw_only=True)
class Site:
    """An edge of the module tree, the unit it belongs to, and the map that passes there.

    A block that replaces a module makes those in `dropped` identities.
    """

    unit: str
    module: str
    side: Side
    stage: int
    index: int
    channels: int
    size: int
    child: str
    dropped: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As the paper calls its blocks: SE_stage_index (section 7.2)."""
        return f"SE_{self.stage}_{self.index}"

    @property
    def path(self) -> str:
        """Name of the block's place, from which its initial weights are keyed."""
        return self.module if self.side == "replace" else f"{self.unit}.{self.child}"


class Insert:
    """A block on its edge: called by torch as a hook of the site's module. `block` may be exchanged for a while."""

    def __init__(self, site: Site, block: nn.Module) -> None:
        self.site = site
        self.block = block

    def before(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Run the block on what the module is given."""
        return (self.block(inputs[0]), *inputs[1:])

    def after(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        """Run the block on what the module gives."""
        return self.block(output)

    def instead(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        """The block is the module itself; nothing is left to do."""


@dataclass
class Seen:
    """What one image showed of a module: sizes of its maps, and how often it was called."""

    calls: int = 0
    given: tuple[int, ...] = ()
    gives: tuple[int, ...] = ()

    def note(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Called by torch as a hook of the module."""
        self.calls += 1
        if inputs and isinstance(inputs[0], Tensor):
            self.given = tuple(inputs[0].shape)
        if isinstance(output, Tensor):
            self.gives = tuple(output.shape)


SIDES = (8, 12, 16, 24, 32, 48, 64, 75, 96, 128, 160, 192, 224, 299)
"""Sides of images that are tried where one is too small."""


def run_once(model: nn.Module, *, in_channels: int, resolution: int) -> dict[str, Seen]:
    """Run one image through a network in evaluation mode and note the maps at every module; nothing is left behind.

    Raises:
        ValueError: the network does not take images of this size.
    """
    seen = {name: Seen() for name, _ in model.named_modules()}
    try:
        with ExitStack() as hooks:
            for name, module in model.named_modules():
                hooks.enter_context(module.register_forward_hook(seen[name].note))
            pass_image(model, in_channels=in_channels, resolution=resolution)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            f"the network does not take images of {resolution}x{resolution} ({error}); use "
            f"{_smallest(model, in_channels, resolution)}, or keep its maps larger with network.unstrided"
        ) from error
    return seen


def _smallest(model: nn.Module, in_channels: int, above: int) -> str:
    """The smallest side of images above one that a network takes, as a setting."""
    bare = copy.deepcopy(model).to("meta")
    for side in SIDES:
        if side > above:
            with suppress(RuntimeError, ValueError, NotImplementedError):
                pass_image(bare, in_channels=in_channels, resolution=side)
                return f"data.resolution = {side}, the smallest of those tried that it takes"
    return "a larger data.resolution"


def pass_image(model: nn.Module, *, in_channels: int, resolution: int) -> None:
    """Pass one black image through a network in evaluation mode, without gradients; nothing is left behind."""
    # On the model's own device: a first step on `meta` costs seconds of imports, which no worker should pay.
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, in_channels, resolution, resolution, device=device))
    finally:
        for module, mode in modes.items():
            module.training = mode


def fitting_family(model: nn.Module) -> Family:
    """The known family whose units and places a network has.

    Raises:
        ValueError: none fits.
    """
    known = OURS if type(model).__module__.startswith(f"{__package__}.") else FAMILIES
    for family in reversed(known.values()):
        if family.places["standard"][0] == "" and family.of_class is None:
            continue  # such units are in networks of many kinds
        units, pattern = _units(model, family), family.places["standard"][0]
        if units and all(_matching(model, unit, pattern) for unit in units):
            return family
    raise ValueError(
        "the network has the structure of no known family; build it with build_model from package.module:function, "
        "with units and places"
    )


def _units(model: nn.Module, family: Family) -> list[str]:
    return [
        name
        for name, module in model.named_modules()
        if re.fullmatch(family.units, name) and family.of_class in (None, type(module).__name__)
    ]


def _matching(model: nn.Module, unit: str, pattern: str) -> list[str]:
    """Those of a unit (itself has the empty name) and its modules whose names within it match."""
    inside = [name for name, _ in model.get_submodule(unit).named_modules() if re.fullmatch(pattern, name)]
    return [f"{unit}.{name}" if name else unit for name in inside]


def find_sites(
    model: nn.Module,
    family: Family,
    placement: Placement,
    *,
    in_channels: int,
    resolution: int,
    stages: tuple[int, ...] = (),
) -> list[Site]:
    """The sites of a plain network that a placement names, first to last.

    `stages` says the stage of each unit where neither its name nor the side of its map tells.

    Raises:
        ValueError: the network has no such place, stage or unit; the message says what it has.
    """
    position = "post" if placement.position == "stage-end" else placement.position
    places = {"post": ("", "after"), **family.places}
    if position not in places:
        inner = "; units without a 1x1 convolution after a 3x3 have no such place, use a bottleneck network"
        why = inner if position == "inner-3x3" else ""
        raise ValueError(f"placement.position = {position!r}: this network has {', '.join(family.places)}{why}")
    pattern, side = places[position]
    units = _units(model, family)
    if not units:
        raise ValueError(f"network.units = {family.units!r} matches no module of {type(model).__name__}")
    if stages and len(stages) != len(units):
        raise ValueError(
            f"network.unit_stages has {len(stages)} numbers for {len(units)} units, {', '.join(units[:4])}, …"
        )
    seen = run_once(model, in_channels=in_channels, resolution=resolution)
    counts: Counter[int] = Counter()
    sites: list[Site] = []
    for number, unit in enumerate(units):
        stage = stages[number] if stages else _stage(family, unit, seen[unit], resolution)
        counts[stage] += 1
        if not placement.covers(stage):
            continue
        names = _matching(model, unit, pattern)
        if _runs_its_layers(model.get_submodule(unit)):
            names = [_leaf(model, name, side) for name in names]
        if not names:
            raise ValueError(f"placement.position = {position!r}: unit {unit} has no module {pattern!r}")
        dropped = tuple(names[1:]) if side == "replace" else ()
        for each, name in enumerate(names[:1] if dropped else names):
            found = seen[name]
            shape = found.given if side in ("before", "replace") else found.gives
            if found.calls != 1:
                raise ValueError(
                    f"{name} is called {found.calls} times for one image; a block needs a module called once"
                )
            if len(shape) != 4 or shape[2] != shape[3]:
                raise ValueError(f"{side} {name} is no square map (N, C, H, W), but {shape}")
            child = family.child if len(names) == 1 else f"{family.child}{each + 1}"
            sites.append(
                Site(
                    unit=unit,
                    module=name,
                    side=side,
                    stage=stage,
                    index=counts[stage],
                    channels=shape[1],
                    size=shape[2],
                    child=child,
                    dropped=dropped,
                )
            )
    placement.check_stages(counts)
    if placement.position == "stage-end":
        sites = list({site.stage: site for site in sites}.values())
    return sites


def _runs_its_layers(module: nn.Module) -> TypeGuard[nn.Sequential]:
    """Whether it is a sequence and nothing more: one with a forward of its own may do other things, too."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _holder(model: nn.Module, site: Site) -> tuple[nn.Module, str]:
    """The module that gets the block as a child, and the child's name: the unit, if it would not run it as a layer."""
    unit, target = model.get_submodule(site.unit), model.get_submodule(site.module)
    if not isinstance(unit, nn.Sequential):
        return unit, site.child
    if not isinstance(target, nn.Sequential):
        return target, site.child
    path = site.unit
    while path and isinstance(model.get_submodule(path), nn.Sequential):
        path = path.rpartition(".")[0]
    if isinstance(model.get_submodule(path), nn.Sequential):
        raise ValueError(f"unit {site.unit} is within sequences alone; put the network into a module of its own")
    return model.get_submodule(path), f"{site.child}_{site.unit.replace('.', '_')}"


def _leaf(model: nn.Module, name: str, side: Side) -> str:
    """The layer at that end of a sequence: a sequence itself would run a block as one more layer."""
    while _runs_its_layers(found := model.get_submodule(name)) and len(found):
        names = list(dict(found.named_children()))
        name = f"{name}.{names[0] if side == 'before' else names[-1]}"
    return name


def _stage(family: Family, unit: str, seen: Seen, resolution: int) -> int:
    found = re.fullmatch(family.units, unit)
    assert found is not None
    if number := found.groupdict().get("stage"):
        return int(number) + family.offset
    if len(seen.gives) != 4:
        raise ValueError(f"unit {unit} gives no map (N, C, H, W), but {seen.gives}; declare network.unit_stages")
    return round(math.log2(resolution / seen.gives[-1]))


def insert(model: nn.Module, sites: list[Site], build: Callable[[Site], nn.Module], seed: int | None = None) -> None:
    """Put a block at each site, built under a fork of the random generator that is keyed by `seed` and its place.

    A block with a method `draw(seed, name)` draws its initial weights by it; others have them from their constructor.
    """
    for site in sites:
        with forked(stream_seed(seed or 0, "block", site.path)):
            block = build(site)
        if seed is not None and hasattr(block, "draw"):
            block.draw(seed, site.path)  # type: ignore[operator]  # seen above
        hook = Insert(site, block)
        if site.side == "replace":
            model.set_submodule(site.module, block)
            for name in site.dropped:
                model.set_submodule(name, nn.Identity())
            block.register_forward_hook(hook.instead)
            continue
        target = model.get_submodule(site.module)
        holder, child = _holder(model, site)
        if hasattr(holder, child):
            raise ValueError(f"{site.unit} has an attribute {child!r} of its own; a block cannot be called so")
        holder.add_module(child, block)
        if site.side == "before":
            target.register_forward_pre_hook(hook.before)
        else:
            target.register_forward_hook(hook.after)


def inserts(model: nn.Module) -> dict[str, Insert]:
    """The blocks of a network by the paper's names, SE_stage_index (section 7.2), first to last."""
    owners = [
        getattr(hook, "__self__", None)
        for module in model.modules()
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    ]
    found = [owner for owner in owners if isinstance(owner, Insert)]
    order = [name for name, _ in model.named_modules()]
    found.sort(key=lambda each: order.index(each.site.unit))
    of_name = Counter(each.site.name for each in found)
    return {
        each.site.name if of_name[each.site.name] == 1 else f"{each.site.name}_{each.site.child[-1]}": each
        for each in found
    }
