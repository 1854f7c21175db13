"""What has to be trained: each distinct network once per seed, what is finished, and how long the rest may take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from senet_ablate.errors import UserError
from senet_ablate.overhead import total_cost
from senet_ablate.records import RunRecord
from senet_ablate.specs import (
    CHANNELS_AND_CLASSES,
    Complexity,
    DataConfig,
    DataFacts,
    Protocol,
    Recipe,
    RunSpec,
    Variant,
)
from senet_ablate.store import Study
from senet_ablate.suite import Ablation, arms


@dataclass(frozen=True)
class Arm:
    """One distinct network, the rows it serves, its cost and its runs (one per seed)."""

    variant: Variant
    rows: tuple[str, ...]
    complexity: Complexity
    runs: tuple[RunSpec, ...]


@dataclass(frozen=True)
class Plan:
    """The runs of a study in the order in which they are done."""

    arms: tuple[Arm, ...]
    done: frozenset[str]

    @property
    def todo(self) -> list[RunSpec]:
        """Unfinished runs: seed by seed, so that tables fill evenly; within a seed the longest first."""
        macs = {arm.variant: arm.complexity.macs for arm in self.arms}
        open_runs = [run for arm in self.arms for run in arm.runs if run.run_id not in self.done]
        return sorted(open_runs, key=lambda run: (run.seed, -macs[run.variant]))

    @property
    def runs(self) -> int:
        """Number of runs, finished or not."""
        return sum(len(arm.runs) for arm in self.arms)


def channels_and_classes(config: DataConfig, study: Study, classes: int | None) -> tuple[int, int]:
    """Shape of the task: as the study found it, else as the data set is known, else as the user says."""
    pin = study.pin()
    if pin is not None:
        return pin.data.channels, pin.data.classes
    channels, known = CHANNELS_AND_CLASSES[config.dataset]
    found = known or classes
    if found is None:
        raise UserError(
            f"data.dataset = {config.dataset!r}: only its images tell how many classes; say it with --classes N"
        )
    return channels, found


def make_plan(
    ablations: Iterable[Ablation], protocol: Protocol, seeds: int, study: Study, shape: tuple[int, int]
) -> Plan:
    """Plan `seeds` runs (0, 1, 2, …) of each distinct network; `shape` is (channels, classes)."""
    channels, classes = shape
    planned = tuple(
        Arm(
            variant=variant,
            rows=tuple(rows),
            complexity=total_cost(
                protocol.network,
                variant,
                in_channels=channels,
                classes=classes,
                resolution=protocol.data.resolution,
            ),
            runs=tuple(protocol.run_spec(variant, seed) for seed in range(seeds)),
        )
        for variant, rows in arms(ablations).items()
    )
    finished = {run.run_id for arm in planned for run in arm.runs if study.record(run) is not None}
    return Plan(arms=planned, done=frozenset(finished))


def check_fit(recipe: Recipe, data: DataConfig, facts: DataFacts, devices: int) -> None:
    """Refuse what would fail in every run, before any is begun.

    Raises:
        UserError: the batch does not fit the images or the devices, or the augmentation does not fit the data set.
    """
    batch, images = recipe.batch_size, facts.n_train
    if batch > images:
        raise UserError(
            f"recipe.batch_size = {batch} is more than the {images} training images; use at most {images}, for "
            f"example --set recipe.batch_size={max(2, images // 4)}"
        )
    if batch % devices:
        raise UserError(f"recipe.batch_size = {batch} cannot be shared equally by {devices} devices")
    if recipe.augmentation.resized_crop and data.dataset != "folder":
        raise UserError(
            f"recipe.augmentation.resized_crop needs images of their own size, and those of {data.dataset} have one; "
            'use crop_padding, or data.dataset = "folder"'
        )


@dataclass(frozen=True)
class Estimate:
    """Seconds that the open runs need with one worker, and where the figure comes from."""

    worker_s: float
    basis: str


def estimate(plan: Plan, protocol: Protocol, results: Path) -> Estimate | None:
    """Learn from finished runs in any study of `results`; None if there is none to learn from.

    Runs under the same network, data and recipe give seconds per multiply-add of their kind; else any runs give a
    rough one.
    """
    records = _finished(results)
    alike = [record for record in records if _same_work(record.spec, protocol)]
    known = alike or records
    if not known:
        return None
    work = sum(_work(record.spec, record.complexity) for record in known)
    seconds = sum(record.provenance.wall_s for record in known)
    costs = {arm.variant: arm.complexity for arm in plan.arms}
    todo = sum(_work(run, costs[run.variant]) for run in plan.todo)
    devices = sorted({record.provenance.hardware for record in known})
    of_what = "of this protocol" if alike else "of other protocols, so roughly"
    return Estimate(todo / work * seconds, f"from {len(known)} finished runs {of_what}, on {', '.join(devices)}")


def _finished(results: Path) -> list[RunRecord]:
    records = []
    for file in sorted(results.glob("*/*/record.json")):
        with suppress(UserError):  # a damaged record of some study is that study's to tell
            record = Study(file.parent.parent).run(file.parent.name).record()
            if record is not None:
                records.append(record)
    return records


def _same_work(spec: RunSpec, protocol: Protocol) -> bool:
    return (spec.network, spec.data, spec.recipe) == (protocol.network, protocol.data, protocol.recipe)


def _work(spec: RunSpec, complexity: Complexity) -> float:
    return float(complexity.macs * spec.recipe.epochs)


def row_states(specs: Sequence[RunSpec], study: Study) -> dict[str, list[str]]:
    """What became of an arm's runs, for `status` and for the notes of a table: lists of run ids or causes by state."""
    names = ("finished", "diverged", "failed", "unfinished", "other images", "not run")
    states: dict[str, list[str]] = {name: [] for name in names}
    for spec in specs:
        folder = study.run(spec.run_id)
        record, failure, progress = study.record(spec), folder.failure(), folder.progress()
        if record is not None:
            states["finished" if record.status == "ok" else "diverged"].append(f"seed {spec.seed}")
        elif failure is not None:
            states["failed"].append(f"seed {spec.seed}: {failure.cause}")
        elif progress is not None:
            states["unfinished"].append(f"seed {spec.seed} at epoch {progress.epoch} of {progress.epochs}")
        elif folder.record_file.is_file():
            states["other images"].append(f"seed {spec.seed}")
        else:
            states["not run"].append(f"seed {spec.seed}")
    return states
