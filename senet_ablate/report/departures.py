"""A study's setting beside that of the paper's ablations: what is the same, and every departure.

The paper's side is what section 6 (and 5.1, where section 6 is silent) prints; "not printed" is said with where the
value is known from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from senet_ablate.results.arms import Outcomes
from senet_ablate.spec.protocol import Augmentation, DataFacts, Protocol, Recipe

IMAGENET_CLASSES, IMAGENET_TRAIN = 1000, 1_281_167
FOOTNOTE = (125, 200, 250)
"""Epochs at which the rate falls by the footnote to section 6, which trains 270."""


@dataclass(frozen=True)
class SettingLine:
    """One aspect of the setting: what the paper has, what the study has, and whether they are the same."""

    what: str
    paper: str
    here: str
    same: bool


class _Known(NamedTuple):
    """What a study's lines are made from."""

    protocol: Protocol
    facts: DataFacts
    outcomes: Outcomes


def setting_lines(outcomes: Outcomes) -> list[SettingLine]:
    """The whole setting, line by line, the most consequential first."""
    known = _Known(outcomes.pin.protocol, outcomes.pin.data, outcomes)
    return [SettingLine(what, paper, *here(known)) for what, paper, here in _LINES]


def same_in_words(lines: Iterable[SettingLine]) -> str:
    """What is as in the paper, in a sentence; empty if nothing is."""
    same = [f"{line.what} ({line.here})" for line in lines if line.same]
    return f"As in the paper: {'; '.join(same)}." if same else ""


_Here = tuple[str, bool]


def _network(known: _Known) -> _Here:
    network = known.protocol.network
    text = f"{network.backbone}, width {network.width}, {network.stem} stem, stride in the {network.stride_in}"
    like_it = (network.backbone, network.width, network.stem, network.stride_in)
    return text, like_it == ("resnet50", 64, "imagenet", "1x1")


def _images(known: _Known) -> _Here:
    facts = known.facts
    text = f"{known.protocol.images_name}: {facts.n_train:,} to train on, {facts.classes} classes"
    some = facts.n_train + facts.n_validation
    return text, (facts.classes, some) == (IMAGENET_CLASSES, IMAGENET_TRAIN)


def _size(known: _Known) -> _Here:
    data = known.protocol.data
    centre = f", tested on the centre of {data.resize}" if data.resize else ""
    return f"{data.resolution}x{data.resolution}{centre}", (data.resolution, data.resize) == (224, 256)


def _tested_on(known: _Known) -> _Here:
    facts = known.facts
    kept = f"{facts.n_validation:,} of the training images are kept aside for curves and plateaus"
    return f"{facts.n_test:,} test images, read once after the last epoch; {kept}", False


def _runs(known: _Known) -> _Here:
    counts = sorted({len(runs) for runs in known.outcomes.runs.values()})
    if not counts:
        return "none yet", False
    some = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{some} of each network, their mean and its interval", counts == [1]


def _schedule(known: _Known) -> _Here:
    recipe = known.protocol.recipe
    schedule = recipe.schedule
    plateau = schedule.kind == "plateau" and (schedule.factor, schedule.drops) == (0.1, 3)
    steps = schedule.kind == "step" and (schedule.milestones, schedule.factor, recipe.epochs) == (FOOTNOTE, 0.1, 270)
    return _rate_in_words(recipe), recipe.lr == 0.1 and (plateau or steps)


def _rate_in_words(recipe: Recipe) -> str:
    schedule = recipe.schedule
    rise = f", after {schedule.warmup_epochs} of linear rise" if schedule.warmup_epochs else ""
    falls = {
        "cosine": "falling to zero along a cosine",
        "step": f"times {schedule.factor:g} at {', '.join(map(str, schedule.milestones))}",
        "plateau": f"times {schedule.factor:g} at each of at most {schedule.drops} plateaus",
    }[schedule.kind]
    return f"{recipe.epochs} epochs at {recipe.lr:g}, {falls}{rise}"


def _batch(known: _Known) -> _Here:
    size = known.protocol.recipe.batch_size
    return str(size), size == 256


def _momentum(known: _Known) -> _Here:
    recipe = known.protocol.recipe
    return (
        "AdamW" if recipe.optimizer == "adamw" else f"{recipe.momentum:g}{', Nesterov' if recipe.nesterov else ''}",
        recipe.optimizer == "sgd" and recipe.momentum == 0.9 and not recipe.nesterov,
    )


def _weight_decay(known: _Known) -> _Here:
    decay = known.protocol.recipe.weight_decay
    return f"{decay:g}", decay == 1e-4


def _smoothing(known: _Known) -> _Here:
    smoothing = known.protocol.recipe.label_smoothing
    return f"{smoothing:g}" if smoothing else "none", smoothing == 0.1


def _augmentation(known: _Known) -> _Here:
    views = known.protocol.recipe.augmentation
    return _views_in_words(views), views == Augmentation(resized_crop=True, horizontal_flip=True)


def _views_in_words(views: Augmentation) -> str:
    crops = "random crops of 8 to 100 % of the area" if views.resized_crop else ""
    side = views.crop_padding
    shifts = f"shifts of up to {side} {'pixel' if side == 1 else 'pixels'}" if side else ""
    flips = "flips" if views.horizontal_flip else ""
    return ", ".join(filter(None, (crops, shifts, flips, *views.policies))) or "none"


def _pixels(known: _Known) -> _Here:
    return "less the mean of each channel, divided by its standard deviation", False


def _arithmetic(known: _Known) -> _Here:
    kinds = sorted({record.provenance.precision for record in known.outcomes.records})
    return " and ".join(kinds) or "not run yet", kinds == ["fp32"]


_LINES: tuple[tuple[str, str, Callable[[_Known], _Here]], ...] = (
    ("network", "ResNet-50", _network),
    ("images", "ImageNet: 1,281,167 to train on, 1000 classes", _images),
    ("side in pixels", "224x224, tested on the centre of 256", _size),
    ("tested on", "ImageNet's 50,000 validation images, on whose loss the plateaus were seen, too", _tested_on),
    ("runs", "one of each network", _runs),
    (
        "learning rate",
        "0.1, a tenth of it at each of three plateaus, about 300 epochs (footnote: 270, falling at 125, 200 and 250)",
        _schedule,
    ),
    ("batch", "not printed; 256 for the released models", _batch),
    ("momentum", "0.9 (section 5.1)", _momentum),
    ("weight decay", "not printed; 1e-4 by an answer of the authors", _weight_decay),
    ("label smoothing", "yes; its value is not printed, 0.1 in the work that is cited", _smoothing),
    ("augmentation", "random crops of 8 to 100 % of the area, flips (section 5.1)", _augmentation),
    ("pixels", "less the mean of each channel", _pixels),
    ("arithmetic", "not printed; fp32 at its time", _arithmetic),
)
