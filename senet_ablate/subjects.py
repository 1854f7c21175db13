"""The trained networks that are looked into: whose weights, from where, and on which images.

Weights come from a run's folder, from training that run again, or from a file (ours, or a released SE-ResNet's).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from senet_ablate import runner
from senet_ablate.data.datasets import load_data
from senet_ablate.data.loaders import EpochSampler, Loader, Split
from senet_ablate.errors import UserError
from senet_ablate.files import write_atomic
from senet_ablate.legacy import LEGACY_VARIANT, from_legacy, is_legacy, legacy_network
from senet_ablate.levers import LEVERS
from senet_ablate.resnet import ResNet
from senet_ablate.results.records import Predictions, RunRecord
from senet_ablate.results.store import RunFolder, Study
from senet_ablate.results.worklist import ArmPlan, Plan
from senet_ablate.spec.ablation import Arm
from senet_ablate.spec.network import Network, Variant
from senet_ablate.spec.protocol import DataFacts, Protocol

State = dict[str, Tensor]
Say = Callable[[str], None]

PAPER_CLASSES = {"goldfish": "n01443537", "pug": "n02110958", "plane": "n03954731", "cliff": "n09246464"}
"""The classes of Figure 6 and the names of their ImageNet folders. The plane is the carpenter's, no aircraft."""

PAPER_PAIR = ("goldfish", "plane")
"""The classes of Figure 7."""

CLASSES_SHOWN = 5

RELEASED = "a released model; its protocol is imagenet-resnet50 (for another depth --set network.backbone=resnet101)"


@dataclass(frozen=True)
class Subject:
    """A trained network, the name of its folder in reports, and what it is: a heading, then sentences."""

    model: ResNet
    name: str
    words: tuple[str, ...]
    released: bool = False


@dataclass(frozen=True)
class Images:
    """The images on which a network is looked at."""

    loader: Loader
    facts: DataFacts
    words: str


def of_run(
    arm: Arm, seed: int, study: Study, protocol: Protocol, data_path: Path | None, machine: runner.Machine, say: Say
) -> Subject:
    """The network of a finished run; where its weights were not kept, the run is trained again.

    Raises:
        UserError: there is no such run, it diverged, or its training cannot be repeated.
    """
    record, pin = study.record(protocol.run_spec(arm.variant, seed)), study.pin()
    if record is None or pin is None:
        raise UserError(
            f"no finished run of {arm.slug} with seed {seed} in {study.root}; train one with `run … --keep-weights`"
        )
    if record.metrics is None:
        raise UserError(f"{record.run_id} in {study.root} diverged; another seed may not have (--seed)")
    words = [f"{arm.slug}, seed {seed}, study {study.name}", f"Run `{record.run_id}`: {protocol.description}."]
    folder = study.run(record.run_id)
    if folder.weights_file.is_file():
        state = read_weights(folder.weights_file)
    else:
        say(f"{record.run_id} kept no weights; training it again")
        state, outcome = train_again(record, arm, folder, data_path, machine)
        say(f"trained again: {outcome}")
        if not folder.weights_file.is_file():
            words.append(f"It kept no weights and was trained again: {outcome}.")
    model = build(protocol.network, arm.variant, state, str(folder.weights_file))
    check_channels(model, pin.data)
    name = arm.slug if seed == arm.first_seed else f"{arm.slug}-s{seed}"
    return Subject(model, name, tuple(words))


def train_again(
    record: RunRecord, arm: Arm, folder: RunFolder, data_path: Path | None, machine: runner.Machine
) -> tuple[State, str]:
    """Repeat a run beside its study, and keep the weights in its folder if it came out the same.

    Returns:
        The weights, and in words whether the predictions equal the recorded ones.

    Raises:
        UserError: it cannot be repeated here.
    """
    then = record.provenance
    left_out = [] if then.levers is None else [lever for lever in LEVERS if lever not in then.levers]
    runner.warm_up(left_out)
    resources = runner.share_out(machine, 1, then.devices, then.threads, left_out)
    planned = ArmPlan(arm=arm, rows=(), complexity=record.complexity, runs=(record.spec,))
    plan = Plan(arms=(planned,), done=frozenset())
    with TemporaryDirectory() as scratch:
        study = Study(Path(scratch).resolve())
        todo = runner.requests(plan, study, data_path, record.data_fingerprint, resources, keep_weights=True)
        summary = runner.execute(partial(runner.local_executor, resources), todo, plan, Console(stderr=True))
        if summary.failed:
            raise UserError(f"{record.run_id} could not be trained again: {summary.failed[record.run_id]}")
        again = study.run(record.run_id)
        name = "predictions.npz"
        if not (again.path / name).is_file():
            raise UserError(f"{record.run_id} did not diverge when it was recorded, but does here; use another --seed")
        state = read_weights(again.weights_file)
        if (again.path / name).read_bytes() == (folder.path / name).read_bytes():
            write_atomic(folder.weights_file, again.weights_file.read_bytes())
            return state, f"its predictions equal the recorded ones; the weights are kept in {folder.weights_file}"
        here, there = (Predictions.from_file(place.path / name) for place in (again, folder))
    differing = int(np.count_nonzero(here.wrong != there.wrong))
    gap = np.abs(here.cross_entropy.astype(float) - there.cross_entropy.astype(float)).max()
    return state, (
        f"{differing} of {len(here.wrong)} test outcomes differ from the recorded ones, and losses by up to {gap:.2g} "
        f"(recorded on {then.hardware}, torch {then.libraries.get('torch')}, commit {(then.commit or 'unknown')[:7]}; "
        "only equal processors, libraries and code train alike to the last bit); these weights are used but not kept"
    )


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


def read_weights(path: Path) -> State:
    """A state dict from a file, on the processor; never executes what it reads.

    Raises:
        UserError: the file cannot be read or is no state dict.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file that is none makes torch raise
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: cannot be read as weights: {first_line}") from None
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
    model = ResNet(network, variant, in_channels=ends[0][1], classes=ends[1][0])
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        details = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        cause = details[0] if len(details[0]) < 200 else details[0][:200] + "…"
        raise UserError(f"{other} ({cause})") from None
    model.to(memory_format=torch.channels_last)  # as in training: sums in another order have other last bits
    return model.eval()


def find_images(
    protocol: Protocol,
    part: str,
    data_path: Path | None,
    fingerprint: str | None,
    machine: runner.Machine,
    say: Say,
) -> Images:
    """Load the `validation` or `test` images of a protocol onto the device.

    Raises:
        UserError: they are not there, or not those of the study.
    """
    data = load_data(protocol.data, data_path, stream=protocol.recipe.augmentation.resized_crop, announce=say)
    if fingerprint not in (None, data.facts.fingerprint):
        raise UserError(f"{data_path or protocol.data.dataset}: other images than those that the study was begun with")
    split: Split = data.validation if part == "validation" else data.test
    sampler = EpochSampler(len(split), seed=None, batch_size=protocol.recipe.batch_size)
    workers = 0 if machine.device == "cpu" else max(1, machine.cores - 1)
    loader = split.loader(sampler, None, torch.device(machine.device), workers)
    counts = torch.bincount(split.labels, minlength=data.facts.classes)
    each = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
    words = (
        f"Looked at on the {len(split):,} {part} images of {data.facts.classes:,} classes, {each} of each, in float32."
    )
    return Images(loader, data.facts, words)


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


def choose_classes(facts: DataFacts, wanted: Sequence[str] = ()) -> dict[str, int]:
    """Numbers of the classes to draw, by the name to show: those wanted, else the paper's four, else the first five.

    A class is called by its folder's name; the paper's four also as in the paper.

    Raises:
        UserError: there is no such class.
    """
    known = {name: number for number, name in enumerate(facts.class_names)}
    for name, folder in PAPER_CLASSES.items():
        if folder in known:
            known.setdefault(name, known[folder])
    if not wanted:
        four = all(name in known for name in PAPER_CLASSES)
        wanted = tuple(PAPER_CLASSES) if four else facts.class_names[:CLASSES_SHOWN]
    for name in wanted:
        if name not in known:
            some = ", ".join(facts.class_names[:10]) + (", …" if facts.classes > 10 else "")
            raise UserError(f"--classes: no class {name!r} among {some}")
    return {name: known[name] for name in wanted}


def choose_pair(classes: Iterable[str]) -> list[str]:
    """The classes of the second figure: the paper's two if they are there, else the first two."""
    names = list(classes)
    return list(PAPER_PAIR) if set(PAPER_PAIR) <= set(names) else names[:2]
