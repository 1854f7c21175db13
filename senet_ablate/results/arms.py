"""The finished runs of a study as evidence: which arms have which seeds, and how each test image came out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from senet_ablate.errors import UserError
from senet_ablate.results.records import CURVE_FILE, Predictions, RunRecord, StudyPin, read_curve
from senet_ablate.results.store import Study
from senet_ablate.spec.ablation import SEED_SERIES, Arm
from senet_ablate.spec.schema import flat

COLLAPSED_SHARE = 0.9
"""A run collapsed if its last training loss is above this share of ln(classes), the loss of knowing nothing."""


def arm_of(record: RunRecord) -> Arm:
    """The arm that a run belongs to."""
    return Arm(variant=record.spec.variant, first_seed=record.spec.seed // SEED_SERIES * SEED_SERIES)


@dataclass(frozen=True)
class Outcomes:
    """All finished runs of a study, by arm and rising seed."""

    study: Study
    pin: StudyPin
    runs: Mapping[Arm, tuple[RunRecord, ...]]

    @property
    def records(self) -> list[RunRecord]:
        """All runs, arm after arm."""
        return [record for runs in self.runs.values() for record in runs]

    def good(self, arm: Arm) -> list[RunRecord]:
        """The arm's runs that did not diverge."""
        return [record for record in self.runs.get(arm, ()) if record.status == "ok"]

    def diverged(self, arm: Arm) -> int:
        """How many of the arm's runs diverged."""
        return len(self.runs.get(arm, ())) - len(self.good(arm))

    def collapsed(self, arm: Arm) -> int:
        """How many of the arm's runs learnt next to nothing, though they did not diverge, by their training loss."""
        limit = COLLAPSED_SHARE * math.log(self.pin.data.classes)
        curves = [read_curve(self.study.run(record.run_id).path / CURVE_FILE) for record in self.good(arm)]
        return sum(bool(curve) and curve[-1].train_loss > limit for curve in curves)

    def at_look(self, seeds: Mapping[Arm, int]) -> Outcomes:
        """The runs with each arm's first so many seeds: what was there when the verdicts were read."""
        kept = {
            arm: tuple(record for record in runs if record.spec.seed in arm.seeds(seeds[arm]))
            for arm, runs in self.runs.items()
            if arm in seeds
        }
        return Outcomes(self.study, self.pin, kept)

    @cached_property
    def predictions(self) -> dict[str, Predictions]:
        """How each test image came out, by run; of runs that did not diverge."""
        return {
            record.run_id: Predictions.from_file(self.study.run(record.run_id).path / "predictions.npz")
            for record in self.records
            if record.status == "ok"
        }


def load_outcomes(study: Study, pin: StudyPin) -> Outcomes:
    """Read all finished runs that were made under the study's protocol on its images.

    Raises:
        UserError: a record is damaged, or two runs came out the same on every image.
    """
    runs: dict[Arm, list[RunRecord]] = {}
    for record in study.records():
        runs.setdefault(arm_of(record), []).append(record)
    ordered = {
        arm: tuple(sorted(runs[arm], key=lambda record: record.spec.seed))
        for arm in sorted(runs, key=lambda arm: (arm.slug, arm.first_seed))
    }
    refuse_twins(record for records in ordered.values() for record in records)
    return Outcomes(study, pin, ordered)


def refuse_twins(records: Iterable[RunRecord]) -> None:
    """Refuse runs whose losses agree on every image: a seed, or a switch of the network, has no effect.

    Raises:
        UserError: the message names both runs.
    """
    seen: dict[str, RunRecord] = {}
    for record in records:
        if record.status != "ok":
            continue
        first = seen.setdefault(record.sha256["predictions.npz"], record)
        if first is not record and not _same_but_for_code(first, record):
            same_network = first.spec.variant == record.spec.variant
            why = "the seed has no effect" if same_network else "what tells the networks apart has no effect"
            raise UserError(
                f"{first.run_id} and {record.run_id} came out the same on every test image, to the last bit: {why}. "
                "Compared like this they would count as evidence; remove one and mend the cause"
            )


def _same_but_for_code(one: RunRecord, other: RunRecord) -> bool:
    """Whether only the text of the user's code differs: a comment, say, which has no effect and need have none."""
    plain = [run.spec.variant.model_copy(update={"source": ""}) for run in (one, other)]
    return plain[0] == plain[1] and one.spec.variant != other.spec.variant and one.spec.seed == other.spec.seed


ABSENT = "absent"
"""What stands for the value of a field that only the other side has."""


def facts(record: RunRecord) -> dict[str, object]:
    """How a run came to be, by aspect; its network change and its seed are what arms are for, and left out."""
    spec, origin = record.spec.model_dump(exclude={"variant", "seed"}), record.provenance
    levers = "not recorded" if origin.levers is None else ", ".join(origin.levers) or "none"
    commit = f"{origin.commit[:10]}{' with changes' if origin.dirty else ''}" if origin.commit else "unknown"
    return flat(
        {
            **spec,
            "data": spec["data"] | {"fingerprint": record.data_fingerprint, "n_test": record.n_test},
            "precision": {"asked": spec["precision"], "used": origin.precision},
            "versions": {"python": origin.python} | origin.libraries,
            "code": {"version": origin.version, "commit": commit},
            "hardware": {
                "kind": origin.device if origin.device in ("cpu", "mps") else "cuda",  # of a card the name is kept
                "name": origin.hardware,
            },
            # Each device normalises its own share of the batch, so their number changes what is learnt.
            "recipe": {"devices": origin.devices},
            "execution": {"threads": origin.threads, "pipeline": origin.pipeline, "levers": levers},
        }
    )
