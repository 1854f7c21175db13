"""What has to be trained: each distinct network once per seed, what is finished, and how long the rest may take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from heapq import heapreplace
from pathlib import Path

from senet_ablate.errors import UserError
from senet_ablate.results.networks import Networks
from senet_ablate.results.records import RunRecord, StudyPin
from senet_ablate.results.store import Study, studies
from senet_ablate.spec.ablation import Ablation, Arm, arms
from senet_ablate.spec.protocol import CHANNELS_AND_CLASSES, Complexity, DataConfig, DataFacts, Protocol, RunSpec


@dataclass(frozen=True)
class ArmPlan:
    """One arm, the rows it serves, its cost and its runs (one per seed)."""

    arm: Arm
    rows: tuple[str, ...]
    complexity: Complexity
    runs: tuple[RunSpec, ...]


@dataclass(frozen=True)
class Plan:
    """The runs of a study in the order in which they are done."""

    arms: tuple[ArmPlan, ...]
    done: frozenset[str]

    @property
    def todo(self) -> list[RunSpec]:
        """Unfinished runs: seed by seed, so that tables fill evenly; within a seed the longest first."""
        open_runs = [(planned, run) for planned in self.arms for run in planned.runs if run.run_id not in self.done]
        open_runs.sort(key=lambda pair: (pair[1].seed - pair[0].arm.first_seed, -pair[0].complexity.macs))
        return [run for _, run in open_runs]

    @property
    def work(self) -> dict[str, float]:
        """Multiply-adds of the unfinished runs, by id: as the time they take, up to a factor."""
        macs = {planned.arm.variant: planned.complexity.macs for planned in self.arms}
        return {run.run_id: float(macs[run.variant] * run.recipe.epochs) for run in self.todo}

    @property
    def runs(self) -> int:
        """Number of runs, finished or not."""
        return sum(len(arm.runs) for arm in self.arms)


def channels_and_classes(config: DataConfig, facts: DataFacts | None, classes: int | None = None) -> tuple[int, int]:
    """Shape of the task: of the images where they are known, else of the data set, else as the user says."""
    if facts is not None:
        return facts.channels, facts.classes
    channels, known = CHANNELS_AND_CLASSES[config.dataset]
    found = known or classes
    if found is None:
        raise UserError(
            f"data.dataset = {config.dataset!r}: only its images tell how many classes; name them with --data FOLDER, "
            "or say it with --classes N"
        )
    return channels, found


def make_plan(
    ablations: Iterable[Ablation], protocol: Protocol, seeds: Mapping[Arm, int], study: Study, shape: tuple[int, int]
) -> Plan:
    """Plan the first so many seeds of each arm; `shape` is (channels, classes)."""
    known, task = Networks(study.root.parent), (*shape, protocol.data.resolution)
    planned = tuple(
        ArmPlan(
            arm=arm,
            rows=tuple(rows),
            complexity=known.cost(protocol.network, arm.variant, task),
            runs=tuple(protocol.run_spec(arm.variant, seed) for seed in arm.seeds(seeds[arm])),
        )
        for arm, rows in arms(ablations).items()
    )
    finished = {run.run_id for arm in planned for run in arm.runs if study.record(run) is not None}
    return Plan(arms=planned, done=frozenset(finished))


@dataclass(frozen=True)
class Pace:
    """Seconds that one worker needs for one multiply-add of one epoch's image, and where the figure comes from."""

    seconds: float
    basis: str

    def of(self, complexity: Complexity, protocol: Protocol) -> float:
        """Seconds of one run."""
        return self.seconds * complexity.macs * protocol.recipe.epochs


def find_pace(
    protocol: Protocol, results: Path, device: str | None = None, facts: DataFacts | None = None
) -> Pace | None:
    """Learn from finished runs in any study of `results`; None if there is none to learn from.

    Runs under the same network, data and recipe give the pace of their kind; else any runs give a rough one. With
    `device`, part of a processor's or card's name or its kind (`cuda`), only runs that were trained on it count. Of a
    folder, with these `facts`, runs on the same images are of their kind, and others count by their images.

    Raises:
        UserError: no run was trained on such a device.
    """
    finished = _finished(results)
    wanted = (device or "").casefold()
    found = [
        (record, pin)
        for record, pin in finished
        if wanted in f"{record.provenance.device} {record.provenance.hardware}".casefold()
    ]
    if finished and not found:
        devices = sorted({record.provenance.hardware for record, _ in finished})
        raise UserError(
            f"--device {device}: no finished run in results/ is from it; runs are from {', '.join(devices)}"
        )
    alike = [(record, pin) for record, pin in found if _same_work(record.spec, protocol) and _same_images(pin, facts)]
    known = alike or (found if facts or protocol.data.dataset != "folder" else [])
    if not known:
        return None
    seconds = sum(record.provenance.wall_s for record, _ in known)
    work = sum(
        record.complexity.macs
        * record.spec.recipe.epochs
        * (1.0 if alike or facts is None else pin.data.n_train / max(1, facts.n_train))
        for record, pin in known
    )
    devices = sorted({record.provenance.hardware for record, _ in known})
    of_what = "of this protocol" if alike else "of other protocols, so roughly"
    return Pace(seconds / work, f"from {len(known)} finished runs {of_what}, on {', '.join(devices)}")


def _same_images(pin: StudyPin, facts: DataFacts | None) -> bool:
    return facts is None or pin.protocol.data.dataset != "folder" or pin.data.fingerprint == facts.fingerprint


def wall_time(seconds: Iterable[float], workers: int) -> float:
    """How long runs take in this order if the next one begins on the first of the workers that is free."""
    busy = [0.0] * workers
    for each in seconds:
        heapreplace(busy, busy[0] + each)
    return max(busy)


@dataclass(frozen=True)
class Estimate:
    """Seconds of work that the open runs need, and of wall time with `workers` at once; where the figure comes from."""

    worker_s: float
    wall_s: float
    workers: int
    basis: str


def estimate(plan: Plan, protocol: Protocol, pace: Pace | None, workers: int) -> Estimate | None:
    """Time of the open runs at a pace; None without one."""
    if pace is None:
        return None
    costs = {planned.arm.variant: planned.complexity for planned in plan.arms}
    seconds = [pace.of(costs[run.variant], protocol) for run in plan.todo]
    return Estimate(sum(seconds), wall_time(seconds, workers), workers, pace.basis)


def _finished(results: Path) -> list[tuple[RunRecord, StudyPin]]:
    found = []
    for study in studies(results):
        with suppress(UserError):  # what is damaged in some study is that study's to tell
            pin = study.pinned()
            found += [(record, pin) for record in study.readable()]
    return found


def _same_work(spec: RunSpec, protocol: Protocol) -> bool:
    return (spec.network, spec.data, spec.recipe) == (protocol.network, protocol.data, protocol.recipe)


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


def duration(seconds: float) -> str:
    """Seconds as a person says them: `48 s`, `2 min 05 s`, `3 h 20 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
