"""Weights of trained networks: read ours or a released SE-ResNet's, and build the network that they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from senet_ablate.environment import unwarned
from senet_ablate.errors import UserError, reason
from senet_ablate.files import WEIGHTS_LIMIT, open_file
from senet_ablate.models.build import build_network
from senet_ablate.models.resnet import ResNet
from senet_ablate.results.store import RunFolder
from senet_ablate.spec.ablation import Arm
from senet_ablate.spec.network import BACKBONES, Network, SEConfig, Variant
from senet_ablate.spec.protocol import DataFacts, Protocol

State = dict[str, Tensor]

RELEASED = "a released model; its protocol is imagenet-resnet50 (for another depth --set network.backbone=resnet101)"


@dataclass(frozen=True)
class Subject:
    """A trained network, the name of its folder in reports, and what it is: a heading, then sentences."""

    model: ResNet
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
    model = build(network, variant, state, f"{path}: {RELEASED}" if released else str(path))
    return Subject(model, path.stem, (path.stem, f"{kind}, from the file `{path.name}`."), released)


def read_weights(path: Path, *, inside: Path | None = None) -> State:
    """A state dict from a file, on the processor; never executes what it reads, follows no link below `inside`.

    Raises:
        UserError: the file cannot be read or is no state dict.
    """
    try:
        with unwarned(), open_file(path, WEIGHTS_LIMIT, inside=inside) as file:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file that is none makes torch raise
        raise UserError(f"{path}: cannot be read as weights: {reason(error)}") from None
    if not isinstance(state, dict) or not all(isinstance(name, str) and _is_whole(state[name]) for name in state):
        raise UserError(
            f"{path}: expected a state dict, tensors by name, as `torch.save(model.state_dict(), …)` writes it"
        )
    return dict(state)  # without the attributes that a file may give to its dict


def _is_whole(value: object) -> bool:
    """Whether it is a plain tensor with all its numbers in the file; a few of them can be stretched to any size."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and value.untyped_storage().nbytes() >= value.nbytes
    )


def build(network: Network, variant: Variant, state: State, place: str) -> ResNet:
    """The network with these weights; channels of the images and number of classes are read off the weights.

    Raises:
        UserError: the weights are those of another network.
    """
    other = f"{place}: these are not the weights of {variant.slug} on {network.backbone}, width {network.width}"
    ends: list[tuple[int, ...]] = [
        tuple(state[name].shape) if name in state else () for name in ("conv1.weight", "fc.weight")
    ]
    if [len(shape) for shape in ends] != [4, 2] or 0 in (*ends[0], *ends[1]):
        raise UserError(f"{other}: conv1 or fc is missing")
    if wrong := [name for name, value in state.items() if value.is_complex() or value.dtype == torch.bool]:
        raise UserError(f"{other}: {wrong[0]} is {state[wrong[0]].dtype}")
    model = build_network(network, variant, in_channels=ends[0][1], classes=ends[1][0])
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        details = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        cause = details[0] if len(details[0]) < 200 else details[0][:200] + "…"
        raise UserError(f"{other} ({cause})") from None
    model.to(memory_format=torch.channels_last)  # as in training: sums in another order have other last bits
    return model.eval()


def check_channels(model: ResNet, facts: DataFacts) -> None:
    """Refuse images that the network's first convolution cannot take.

    Raises:
        UserError: they have other channels.
    """
    wanted = model.conv1.in_channels
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
    outputs = subject.model.fc.out_features
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


def load_model(folder: str | Path) -> ResNet:
    """The trained network of a run's folder, in evaluation mode: images (N, C, H, W) to logits (N, classes).

    Train with `run --keep-weights`, or look at the run with `excitation` once, so that the folder has its weights.

    Raises:
        UserError: the folder has no finished run, or no weights of it.

    Example:
        >>> load_model("results/digits/se-r16-s0-d3e00a6d65")  # doctest: +SKIP
    """
    run = RunFolder(Path(folder))
    record = run.record()
    if record is None:
        raise UserError(f"{run.path}: no finished run in this folder")
    if not run.weights_file.exists():
        raise UserError(f"{run.path}: the run kept no weights; train it with --keep-weights")
    state = read_weights(run.weights_file, inside=run.path.parent)
    return build(record.spec.network, record.spec.variant, state, str(run.weights_file))
