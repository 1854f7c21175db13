"""Joining results of several machines or people into one study, run by run.

A result that is there already stays as it is; one that came out differently is kept beside it, in `conflicts/`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from senet_ablate.errors import UserError
from senet_ablate.files import ARRAY_LIMIT, refuse_links
from senet_ablate.results.arms import facts
from senet_ablate.results.lease import Taken, leased
from senet_ablate.results.plan import PLAN_FILE, read_plan, write_plan
from senet_ablate.results.records import PREDICTIONS_FILE, Predictions, RunRecord
from senet_ablate.results.store import CONFLICTS, RunFolder, Study, pin_changes
from senet_ablate.results.verify import examine_all

COMPARED = ("versions", "code", "hardware", "precision", "recipe", "execution")
"""Facts of a run that may differ from machine to machine."""


@dataclass
class Conflict:
    """One run with two results: the errors, how many test images came out differently, and where the other one lies."""

    run_id: str
    here: float | None
    there: float | None
    images: int | None
    kept: Path


@dataclass
class Merged:
    """What `merge` did: runs added, runs that were there, conflicts; what it left out; and cautions, in words."""

    added: list[str] = field(default_factory=list)
    same: int = 0
    conflicts: list[Conflict] = field(default_factory=list)
    unfinished: int = 0
    busy: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)


def merge(sources: Sequence[Path], target: Study) -> Merged:
    """Add the finished runs of `sources` to `target`; nothing that is there is overwritten or deleted.

    A source is a study's folder, or a results folder that holds a study of the target's name. All are checked before
    anything is written, so a source that does not belong changes nothing. May be repeated, also after an interruption.

    Raises:
        UserError: a source is none, or its protocol or images are not those of the study; each field is named.
    """
    studies = [find_study(source, target) for source in sources]
    pins = [pin for pin in (study.pin() for study in (target, *studies)) if pin is not None]
    first = "study " + target.name if target.pin() else str(studies[0].root)
    for study, pin in zip(studies, pins[-len(studies) :], strict=True):
        if changed := pin_changes(pins[0], pin, ("here", "there")):
            raise UserError(f"{study.root} cannot be merged with {first}:\n  " + "\n  ".join(changed))
    merged = Merged()
    _take_plan(studies, target, merged)
    if target.pin() is None:
        target.begin(pins[0].protocol, pins[0].data)
    for study in studies:
        runs = examine_all(study, pins[0])
        merged.refused += runs.problems
        merged.unfinished += runs.unfinished
        for folder, record in runs.sound.items():
            _join(target, record, {name: folder.read(name, ARRAY_LIMIT) for name in record.files}, merged)
    merged.cautions += mixtures(target.readable())
    return merged


def find_study(source: Path, target: Study) -> Study:
    """The study that a source is, or holds under the target's name.

    Raises:
        UserError: neither, or it is the target itself.
    """
    for place in (source, source / target.name):
        if (place / "study.json").exists():
            if target.root.exists() and place.samefile(target.root):  # whatever the spelling
                raise UserError(f"{source}: that is study {target.name!r} itself; name the folder of another's results")
            return Study(place)
    raise UserError(
        f"{source}: no study.json there nor in {source / target.name}; expected the folder of a study, or a results "
        f"folder with a study {target.name!r}"
    )


def _take_plan(studies: Iterable[Study], target: Study, merged: Merged) -> None:
    """A new study has the plan of the first source that has one; a plan that is there stays."""
    for study in studies:
        plan = read_plan(study)
        if plan is None:
            continue
        if read_plan(target) is None and target.pin() is None and not target.begun():
            write_plan(target, plan)
        elif read_plan(target) != plan:
            merged.cautions.append(f"{study.root / PLAN_FILE} is not the study's plan, by which findings are judged")


def _join(target: Study, record: RunRecord, files: dict[str, bytes], merged: Merged) -> None:
    place = target.run(record.run_id)
    try:
        ours = place.record()
        if ours is None:
            with leased(place.path):  # nobody trains it meanwhile, or merges it from elsewhere
                ours = place.record()
                if ours is None:
                    place.finish(record, files)
                    merged.added.append(record.run_id)
                    return
    except Taken as taken:
        merged.busy.append(f"{record.run_id}: {taken}; merge it again later")
        return
    except UserError as error:
        merged.refused.append(str(error))
        return
    if ours.data_fingerprint != record.data_fingerprint:  # of before the images were changed
        merged.refused.append(f"{place.record_file}: on other images than the study's; move it away and merge again")
        return
    if outcome_digest(ours) == outcome_digest(record):
        merged.same += 1
        return
    beside = RunFolder(target.root / CONFLICTS / f"{record.run_id}-{outcome_digest(record)}")
    refuse_links(beside.path, target.root)
    if not beside.record_file.exists():
        beside.finish(record, files)
    images = None
    if ours.metrics and record.metrics:
        one, other = (Predictions.from_file(folder.path / PREDICTIONS_FILE) for folder in (place, beside))
        images = int((one.wrong != other.wrong).sum())
    here, there = (each.metrics.top1_err if each.metrics else None for each in (ours, record))
    merged.conflicts.append(Conflict(record.run_id, here, there, images, beside.path))


def outcome_digest(record: RunRecord) -> str:
    """Fingerprint of what a run came to: status, metrics, curve and predictions; not of how long it took, and where."""
    parts = [record.status, record.metrics.model_dump_json() if record.metrics else ""]
    parts += [record.sha256[name] for name in record.files]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=5).hexdigest()


def mixtures(records: Iterable[RunRecord]) -> list[str]:
    """In words, in what the ways differ in which runs came to be: versions, code, hardware, precision."""
    counts: dict[str, Counter[str]] = {}
    for record in records:
        for name, value in facts(record).items():
            if name.partition(".")[0] in COMPARED:
                counts.setdefault(name, Counter())[str(value)] += 1
    return [
        f"{name}: " + ", ".join(f"{value} in {count} runs" for value, count in found.most_common())
        for name, found in counts.items()
        if len(found) > 1
    ]
