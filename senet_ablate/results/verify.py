"""Whether finished runs are what they say: whole, of this study, and possible. Nothing is changed or deleted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from senet_ablate.errors import UserError
from senet_ablate.results.arms import refuse_twins
from senet_ablate.results.networks import Networks
from senet_ablate.results.plan import PLAN_FILE, read_plan
from senet_ablate.results.records import (
    CURVE_FILE,
    PREDICTIONS_FILE,
    CurvePoint,
    Predictions,
    RunRecord,
    StudyPin,
    read_curve,
)
from senet_ablate.results.store import CONFLICTS, RunFolder, Study, changes

CLOCKS = timedelta(days=1)
"""How far the clocks of two machines may be apart."""

HALF = 1e-3
"""Relative error of a loss stored as float16 (2^-11), with room for the sum."""


@dataclass
class Examined:
    """The runs of a study: records of the sound ones by folder, what is wrong with others, and how many are open."""

    sound: dict[RunFolder, RunRecord] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    unfinished: int = 0


@dataclass
class Verdict:
    """What became of checking a study: sound and unfinished runs, conflicts kept, and what is wrong, in words."""

    sound: int = 0
    unfinished: int = 0
    conflicts: int = 0
    problems: list[str] = field(default_factory=list)


def verify(study: Study) -> Verdict:
    """Check all that lies in a study's folder."""
    found = Verdict(conflicts=sum(1 for _ in (study.root / CONFLICTS).glob("*/record.json")))
    told = {study.root / "study.json", study.root / PLAN_FILE, *(folder.path for folder in study.folders())}  # below
    links = sorted(path for path in study.root.glob("*") if path.is_symlink() and path not in told)
    found.problems += [f"{path}: a link, and inside a study none is followed" for path in links]
    pin = None
    try:
        pin = study.pin()
        if pin is None:
            found.problems.append(
                f"{study.root / 'study.json'}: missing; it says to which protocol and images runs belong"
            )
        read_plan(study)
    except UserError as error:
        found.problems.append(str(error))
    runs = examine_all(study, pin)
    found.sound, found.unfinished = len(runs.sound), runs.unfinished
    found.problems += runs.problems
    try:
        refuse_twins(runs.sound.values())
    except UserError as error:
        found.problems.append(f"{study.root}: {error}")
    return found


def examine_all(study: Study, pin: StudyPin | None) -> Examined:
    """Examine each run of a study, see `examine`."""
    found = Examined()
    for folder in study.folders():
        if problems := examine(folder, pin):
            found.problems += problems
        elif record := folder.record():
            found.sound[folder] = record
        else:
            found.unfinished += 1
    return found


def examine(folder: RunFolder, pin: StudyPin | None, now: datetime | None = None) -> list[str]:
    """What is wrong with a finished run, and what to do, a text for each; empty if nothing is or it is unfinished.

    `pin` is what the study's runs share; without one nothing is held to it.
    """
    try:
        record = folder.record()
        if record is None:
            return []
        curve = read_curve(folder.path / CURVE_FILE)
        predictions = Predictions.from_file(folder.path / PREDICTIONS_FILE) if record.metrics else None
    except UserError as error:
        return [str(error)]
    foreign = list(_foreign(record, pin)) if pin else []
    impossible = [
        *(_cost(record, pin, folder.path.parents[1]) if pin and not foreign else ()),
        *_course(record, curve),
        *(_outcomes(record, predictions, pin) if predictions else ()),
        *_times(record, now or datetime.now(UTC)),
    ]
    return [f"{folder.record_file}: foreign: {what}; move it to a study of its own" for what in foreign] + [
        f"{folder.record_file}: impossible: {what}; move the folder away and run it again" for what in impossible
    ]


def _foreign(record: RunRecord, pin: StudyPin) -> Iterator[str]:
    """What makes it another study's run."""
    spec = pin.protocol.run_spec(record.spec.variant, record.spec.seed)
    ours = spec.model_dump() | {"data_fingerprint": pin.data.fingerprint, "n_test": pin.data.n_test}
    theirs = record.spec.model_dump() | {"data_fingerprint": record.data_fingerprint, "n_test": record.n_test}
    yield from changes(ours, theirs, "", ("the study has", "the run"))


def _cost(record: RunRecord, pin: StudyPin, results: Path) -> Iterator[str]:
    """Parameters and multiply-adds follow from the network."""
    try:
        shape = (pin.data.channels, pin.data.classes, record.spec.data.resolution)
        known = Networks(results).find(record.spec.network, record.spec.variant, shape)
    except ValueError as error:
        yield f"no such network: {error}"
        return
    if known is None:
        return  # a network without a closed form that was never surveyed here; its code is not run to verify a record
    yield from changes(
        known.total.model_dump(), record.complexity.model_dump(), "complexity", ("the network has", "the run")
    )


def _course(record: RunRecord, curve: list[CurvePoint]) -> Iterator[str]:
    """The curve has a line for each epoch; only a loss that is no number ends a run early."""
    epochs = record.spec.recipe.epochs
    if [point.epoch for point in curve] != list(range(1, len(curve) + 1)):
        yield f"{CURVE_FILE}: epochs are not 1, 2, …"
    broke_off = record.status == "diverged" and bool(curve) and not math.isfinite(curve[-1].train_loss)
    if len(curve) > epochs or (len(curve) < epochs and not broke_off):
        yield f"{CURVE_FILE}: {len(curve)} epochs of {epochs}"
    if not all(0 <= point.val_top1_err <= 100 for point in curve):
        yield f"{CURVE_FILE}: a validation error outside of 0 to 100 %"
    resumed = record.provenance.resumed_at_epoch
    if resumed is not None and resumed > len(curve):
        yield f"provenance.resumed_at_epoch = {resumed}, after the last epoch"


def _outcomes(record: RunRecord, predictions: Predictions, pin: StudyPin | None) -> Iterator[str]:
    """The metrics follow from the test images, and each image's loss fits its outcome."""
    assert record.metrics is not None
    images = len(predictions.wrong)
    if images != record.n_test:
        yield f"{PREDICTIONS_FILE}: {images} test images, and the record says {record.n_test}"
        return
    for name, wrong in (("top1_err", predictions.wrong), ("top5_err", predictions.wrong_top5)):
        told, right = getattr(record.metrics, name), None if wrong is None else 100 * float(wrong.mean())
        if (told is None) != (right is None) or (right is not None and not math.isclose(told, right, abs_tol=1e-9)):
            yield f"metrics.{name} = {told}, and {right} follows from {PREDICTIONS_FILE}"
    losses, told = predictions.cross_entropy.astype(np.float64), record.metrics.cross_entropy
    largest = float(np.finfo(np.float16).max)
    if not math.isfinite(told) or not (losses < largest).all():  # cut at what float16 can hold
        return
    mean = float(losses.mean())
    if not math.isclose(told, mean, rel_tol=HALF, abs_tol=1e-6):
        yield f"metrics.cross_entropy = {told}, and {mean:.4g} follows from {PREDICTIONS_FILE}"
    # A class that is not the likeliest has at most half the probability; the likeliest has at least a fair share.
    low = predictions.wrong & (losses < math.log(2) * (1 - HALF))
    high = ~predictions.wrong & (losses > math.log(pin.data.classes) * (1 + HALF)) if pin else low
    if (losses < 0).any() or low.any() or high.any():
        yield f"{PREDICTIONS_FILE}: losses that no such outcome can have"
    if predictions.wrong_top5 is not None and (predictions.wrong_top5 & ~predictions.wrong).any():
        yield f"{PREDICTIONS_FILE}: images that are right, and wrong among five"


def _times(record: RunRecord, now: datetime) -> Iterator[str]:
    started = record.provenance.started
    try:
        moment = datetime.fromisoformat(started)
    except ValueError:
        yield f"provenance.started = {started!r} is no time"
        return
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    if moment > now + CLOCKS:
        yield (
            f"provenance.started = {started}, in the future (here it is {now:%Y-%m-%d %H:%M} UTC; if that is wrong, "
            "set the clock and do nothing else)"
        )
