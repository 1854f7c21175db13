"""The trained networks that are looked into: whose weights, from where, and on which images.

Weights come from a run's folder, from training that run again, or from a file (ours, or a released SE-ResNet's).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from rich.console import Console

from senet_ablate.data.datasets import load_data
from senet_ablate.data.loaders import EpochSampler, Loader, Split
from senet_ablate.errors import UserError
from senet_ablate.execution import driver
from senet_ablate.execution.local import local_executor, warm_up
from senet_ablate.execution.machine import OPTIMISATIONS, Machine, share_out
from senet_ablate.files import ARRAY_LIMIT, WEIGHTS_LIMIT, write_atomic
from senet_ablate.models.pretrained import State, read_weights
from senet_ablate.models.weights import Subject, build, check_channels
from senet_ablate.results.records import Predictions, RunRecord
from senet_ablate.results.store import RunFolder, Study
from senet_ablate.spec.ablation import Arm
from senet_ablate.spec.protocol import DataFacts, Protocol

Say = Callable[[str], None]


@dataclass(frozen=True)
class Images:
    """The images on which a network is looked at."""

    loader: Loader
    facts: DataFacts
    words: str


def of_run(
    arm: Arm, seed: int, study: Study, protocol: Protocol, data_path: Path | None, machine: Machine, say: Say
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
    words = [f"{arm.slug}, seed {seed}, study {study.name}", f"Run `{record.run_id}`: {protocol.in_words}."]
    folder = study.run(record.run_id)
    if folder.weights_file.exists():
        state = read_weights(folder.weights_file, inside=study.root)
    else:
        say(f"{record.run_id} kept no weights; training it again")
        state, outcome = train_again(record, folder, data_path, machine)
        say(f"trained again: {outcome}")
        if not folder.weights_file.exists():
            words.append(f"It kept no weights and was trained again: {outcome}.")
    model = build(protocol.network, arm.variant, state, str(folder.weights_file), protocol.data.resolution)
    check_channels(model, pin.data)
    name = arm.slug if seed == arm.first_seed else f"{arm.slug}-s{seed}"
    return Subject(model, name, tuple(words))


def train_again(record: RunRecord, folder: RunFolder, data_path: Path | None, machine: Machine) -> tuple[State, str]:
    """Repeat a run beside its study, and keep the weights in its folder if it came out the same.

    Returns:
        The weights, and in words whether the predictions equal the recorded ones.

    Raises:
        UserError: it cannot be repeated here.
    """
    then = record.provenance
    left_out = [] if then.levers is None else [name for name in OPTIMISATIONS if name not in then.levers]
    warm_up()
    resources = share_out(machine, 1, then.devices, then.threads, left_out)
    with TemporaryDirectory() as scratch:
        study = Study(Path(scratch).resolve())
        todo = driver.requests([record.spec], study, data_path, record.data_fingerprint, resources, keep_weights=True)
        executor, work = local_executor(resources.environments), {record.run_id: 1.0}
        summary = driver.execute(executor, todo, work, Console(stderr=True))
        if summary.failed:
            raise UserError(f"{record.run_id} could not be trained again: {summary.failed[record.run_id]}")
        again = study.run(record.run_id)
        name = "predictions.npz"
        if not (again.path / name).exists():
            raise UserError(f"{record.run_id} did not diverge when it was recorded, but does here; use another --seed")
        state = read_weights(again.weights_file)
        if again.read(name, ARRAY_LIMIT) == folder.read(name, ARRAY_LIMIT):
            write_atomic(folder.weights_file, again.read(again.weights_file.name, WEIGHTS_LIMIT))
            return state, f"its predictions equal the recorded ones; the weights are kept in {folder.weights_file}"
        here, there = (Predictions.from_file(place.path / name) for place in (again, folder))
    differing = int(np.count_nonzero(here.wrong != there.wrong))
    gap = np.abs(here.cross_entropy.astype(float) - there.cross_entropy.astype(float)).max()
    return state, (
        f"{differing} of {len(here.wrong)} test outcomes differ from the recorded ones, and losses by up to {gap:.2g} "
        f"(recorded on {then.hardware}, torch {then.libraries.get('torch')}, commit {(then.commit or 'unknown')[:7]}; "
        "only equal processors, libraries and code reproduce a run bit for bit); these weights are used but not kept"
    )


def find_images(
    protocol: Protocol, part: str, data_path: Path | None, fingerprint: str | None, machine: Machine, say: Say
) -> Images:
    """Load the `validation` or `test` images of a protocol onto the device.

    Raises:
        UserError: they are not there, or not those of the study.
    """
    stream = protocol.recipe.augmentation.resized_crop
    data = load_data(protocol.data, data_path, stream=stream, announce=say)
    if fingerprint not in (None, data.facts.fingerprint):
        raise UserError(f"{data_path or protocol.data.dataset}: other images than those that the study was begun with")
    split: Split = data.validation if part == "validation" else data.test
    sampler = EpochSampler(len(split), seed=None, batch_size=protocol.recipe.batch_size)
    workers = 0 if machine.device == "cpu" else max(1, machine.cores - 1)
    loader = split.loader(sampler, None, torch.device(machine.device), workers)
    counts = torch.bincount(split.labels, minlength=data.facts.classes)
    each = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
    words = (
        f"Evaluated on the {len(split):,} {part} images of {data.facts.classes:,} classes, {each} of each, in float32."
    )
    return Images(loader, data.facts, words)
