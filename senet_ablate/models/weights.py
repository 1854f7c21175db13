"""Weights of trained networks: read ours or a released SE-ResNet's, and build the network that they belong to."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from senet_ablate.errors import UserError
from senet_ablate.models.backbones import build_backbone
from senet_ablate.models.build import build_network
from senet_ablate.models.pretrained import State, ends, read_weights
from senet_ablate.results.store import RunFolder
from senet_ablate.spec.ablation import Arm
from senet_ablate.spec.backbones import BACKBONES
from senet_ablate.spec.network import Network, SEConfig, Variant
from senet_ablate.spec.protocol import DataFacts, Protocol
from senet_ablate.spec.sources import is_users

RELEASED = "a released model; its protocol is imagenet-resnet50 (for another depth --set network.backbone=resnet101)"


@dataclass(frozen=True)
class Subject:
    """A trained network, the name of its folder in reports, and what it is: a heading, then sentences."""

    model: nn.Module
    name: str
    words: tuple[str, ...]
    released: bool = False


def of_file(path: Path, arm: Arm, protocol: Protocol) -> Subject:
    """The network of a file: a released SE-ResNet in timm's legacy layout, else the arm under the protocol.

    Raises:
        UserError: the file is no state dict, or one of another network.
    """
    state = read_weights(path)
    released = is_legacy(state)
    if released:
        state, network, variant = from_legacy(state), legacy_network(protocol.network.backbone), LEGACY_VARIANT
        kind = f"Released weights in timm's layout legacy_se{network.backbone}"
    else:
        network, variant = protocol.network, arm.variant
        kind = f"Weights of {arm.slug}, protocol {protocol.name}"
    place = f"{path}: {RELEASED}" if released else str(path)
    model = build(network, variant, state, place, protocol.data.resolution)
    return Subject(model, path.stem, (path.stem, f"{kind}, from the file `{path.name}`."), released)


def build(network: Network, variant: Variant, state: State, place: str, resolution: int) -> nn.Module:
    """The network with these weights; channels of the images and number of classes are read off the weights.

    Raises:
        UserError: the weights are those of another network.
    """
    network = network.model_copy(update={"pretrained": False})
    other = f"{place}: these are not the weights of {variant.slug} on {network.backbone}, width {network.width}"
    with torch.device("meta"):
        bare = build_backbone(network, in_channels=3, classes=10, resolution=resolution)
    first, last = (f"{name}.weight" for name in ends(bare))
    shapes = [tuple(state[name].shape) if name in state else () for name in (first, last)]
    if len(shapes[0]) != 4 or len(shapes[1]) < 2 or 0 in (*shapes[0], *shapes[1]):
        raise UserError(f"{other}: {first.partition('.')[0]} or {last.partition('.')[0]} is missing")
    if wrong := [name for name, value in state.items() if value.is_complex() or value.dtype == torch.bool]:
        raise UserError(f"{other}: {wrong[0]} is {state[wrong[0]].dtype}")
    channels, classes = shapes[0][1], shapes[1][0]
    model = build_network(network, variant, in_channels=channels, classes=classes, resolution=resolution)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        details = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        cause = details[0] if len(details[0]) < 200 else details[0][:200] + "…"
        raise UserError(f"{other} ({cause})") from None
    model.to(memory_format=torch.channels_last)  # as in training: sums in another order have other last bits
    return model.eval()


def check_channels(model: nn.Module, facts: DataFacts) -> None:
    """Refuse images that the network's first convolution cannot take.

    Raises:
        UserError: they have other channels.
    """
    wanted = model.get_submodule(ends(model)[0]).in_channels
    if wanted != facts.channels:
        raise UserError(
            f"the weights take images of {wanted} channels, and these have {facts.channels}; released weights need "
            "--protocol imagenet-resnet50"
        )


def check_classes(subject: Subject, facts: DataFacts) -> None:
    """Refuse classes that are not the network's own, for an error among them would mean nothing.

    Raises:
        UserError: their number differs, or released weights meet folders that are not named by WordNet's numbers.
    """
    outputs = len(subject.model.get_parameter(f"{ends(subject.model)[1]}.weight"))
    if outputs != facts.classes:
        raise UserError(
            f"the network tells {outputs} classes apart and the images are of {facts.classes}; no error then"
        )
    if subject.released and not all(name[:1] == "n" and name[1:].isdigit() for name in facts.class_names):
        raise UserError(
            "released weights number their classes by the folders' WordNet names (n01440764, …), which these are not"
        )


LEGACY_VARIANT = Variant(se=SEConfig(bias=True))
"""The block of the released models: the paper's, with biases."""

LEGACY_NAMES = {
    r"^layer0\.(conv1|bn1)\.": r"\1.",
    r"^last_linear\.": "fc.",
    r"\.se_module\.fc1\.": ".se.reduce.",
    r"\.se_module\.fc2\.": ".se.expand.",
}
"""Parts of names in timm's layout, and what they are in ours."""


def legacy_network(backbone: str) -> Network:
    """The network that the released weights of this depth belong to, at the paper's width.

    Raises:
        UserError: it is made of basic blocks, of which none was released.
    """
    if BACKBONES[backbone].kind == "basic":
        raise UserError(f"{backbone}: released SE-ResNets are resnet50, resnet101 and resnet152 (network.backbone)")
    return Network(backbone=backbone, stem_pool="ceil")


def is_legacy(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is in timm's legacy layout, by a name that no other layout has."""
    return "layer0.conv1.weight" in state


def from_legacy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name the tensors of timm's layout as our network does; the tensors are the same objects.

    Files older than PyTorch's batch counters get counters of 0, which evaluation does not read.
    """
    ours = {}
    for name, value in state.items():
        for theirs, our in LEGACY_NAMES.items():
            name = re.sub(theirs, our, name)
        ours[name] = value
    for name in [name for name in ours if name.endswith(".running_mean")]:
        ours.setdefault(name.replace("running_mean", "num_batches_tracked"), torch.zeros((), dtype=torch.int64))
    return ours


def load_model(folder: str | Path, *, allow: Collection[str] = ()) -> nn.Module:
    """The trained network of a run's folder, in evaluation mode: images (N, C, H, W) to logits (N, classes).

    Train with `run --keep-weights`, or look at the run with `excitation` once, so that the folder has its weights.

    Args:
        folder: of the run, `results/<study>/<run_id>`.
        allow: names of your own code, `my_blocks:MyBlock`, that may be imported if the run has it.

    Raises:
        UserError: the folder has no finished run, or no weights of it, or its network is code that is not allowed.

    Example:
        >>> load_model("results/digits/se-r16-s0-d3e00a6d65")  # doctest: +SKIP
    """
    run = RunFolder(Path(folder))
    record = run.record()
    if record is None:
        raise UserError(f"{run.path}: no finished run in this folder")
    if not run.weights_file.exists():
        raise UserError(f"{run.path}: the run kept no weights; train it with --keep-weights")
    spec = record.spec
    for name in (spec.network.backbone, spec.variant.block):
        if name is not None and is_users(name) and name not in allow:
            raise UserError(f"{run.path}: only its record names the code {name!r}; to run it, add allow=[{name!r}]")
    state = read_weights(run.weights_file, inside=run.path.parent)
    return build(spec.network, spec.variant, state, str(run.weights_file), spec.data.resolution)
