"""A study's setting beside that of the paper's ablations: its protocol field by field, then what no protocol says.

The paper's side is its own protocol in `ablations/protocols/`, which names where each value is printed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from senet_ablate.report.words import span
from senet_ablate.results.arms import Outcomes
from senet_ablate.spec.loading import load_protocol, packaged_declarations
from senet_ablate.spec.protocol import Protocol
from senet_ablate.spec.schema import flat

PAPER = ("imagenet-resnet50", "imagenet-resnet50-plateau")
"""The paper's recipe by the footnote to section 6 and by its text; a study is held against the nearer one."""

NOT_PRINTED = {
    "recipe.batch_size": "that of the released models",
    "recipe.weight_decay": "by an answer of the authors",
    "recipe.label_smoothing": "the value of the work that is cited",
    "recipe.schedule.patience": "our choice",
}
"""Fields whose value the paper does not print, and where it is known from."""

IMAGENET_CLASSES, IMAGENET_TRAIN = 1000, 1_281_167


class Line(NamedTuple):
    """One field of the setting: what the paper has, what the study has, and whether they are the same."""

    what: str
    paper: str
    here: str
    same: bool


@dataclass(frozen=True)
class Setting:
    """The whole setting of a study beside `reference`, one of the paper's protocols."""

    reference: str
    lines: tuple[Line, ...]

    @property
    def departures(self) -> list[Line]:
        """Where the two differ."""
        return [line for line in self.lines if not line.same]

    @property
    def in_words(self) -> str:
        """What was compared, and what is the same of that which the paper's protocol says, as sentences."""
        same = "; ".join(f"{line.what} ({line.here})" for line in self.lines if line.same)
        told = f"Compared with the paper's recipe as {self.reference}.toml has it."
        return f"{told} The same: {same}." if same else told


def compare_setting(outcomes: Outcomes) -> Setting:
    """The setting of a study: images, runs and precision, then the protocol's fields."""
    papers = [load_protocol(packaged_declarations(), name) for name in PAPER]
    compared = {paper.name: _fields(paper, outcomes.pin.protocol) for paper in papers}
    nearest = min(compared, key=lambda name: sum(not line.same for line in compared[name]))
    return Setting(nearest, (*_beside_the_protocol(outcomes), *compared[nearest]))


def _fields(paper: Protocol, ours: Protocol) -> list[Line]:
    """All fields that differ, and of those that do not the ones that the paper's file sets."""
    # The images and their validation part are compared in `_beside_the_protocol`.
    compared: dict[str, Any] = {
        "include": {"network", "data", "recipe"},
        "exclude": {"data": {"dataset", "validation", "splits"}},
    }
    theirs, here = (
        flat(each.model_dump(**compared)) | {"data.resize": each.data.short_side}  # where it is 0, the resolution
        for each in (paper, ours)
    )
    written = flat(paper.model_dump(**compared, exclude_unset=True))
    notes = {field: f" (not printed; {whence})" for field, whence in NOT_PRINTED.items()}
    pairs = {field: (theirs.get(field, ()), here.get(field, ())) for field in (*theirs, *here)}
    return [
        Line(field, _words(one) + notes.get(field, ""), _words(other), one == other)
        for field, (one, other) in pairs.items()
        if field in written or one != other
    ]


def _beside_the_protocol(outcomes: Outcomes) -> list[Line]:
    facts, protocol = outcomes.pin.data, outcomes.pin.protocol
    imagenet = (facts.classes, facts.n_train + facts.n_validation) == (IMAGENET_CLASSES, IMAGENET_TRAIN)
    counts = {len(runs) for runs in outcomes.runs.values()}
    kinds = sorted({record.provenance.precision for record in outcomes.records})
    images, classes = f"{IMAGENET_TRAIN:,} to train on", f"{IMAGENET_CLASSES} classes"
    seen = f"{facts.n_train:,} to train on, {facts.classes} classes"
    tested = (
        f"{facts.n_test:,} test images, read once after the last epoch; {facts.n_validation:,} of the training images "
        "are kept aside for curves and plateaus"
    )
    plateaus = "ImageNet's 50,000 validation images, also used for the plateau schedule"
    runs = f"{span(counts)} of each network, their mean and its interval" if counts else "none yet"
    means = "minus the mean of each channel"
    return [
        Line("images", f"ImageNet: {images}, {classes}", f"{protocol.images_name}: {seen}", imagenet),
        Line("tested on", plateaus, tested, same=False),
        Line("runs", "one of each network", runs, counts == {1}),
        Line("pixels", means, f"{means}, divided by its standard deviation", same=False),
        Line("precision", "not printed; fp32 at its time", " and ".join(kinds) or "not run yet", kinds == ["fp32"]),
    ]


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"
