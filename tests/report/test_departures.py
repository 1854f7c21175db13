"""A study's setting beside the paper's: what departs is told, what does not is told as the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import FACTS, PROTOCOL, SE, make_record, write_record

from senet_ablate.report.departures import Setting, compare_setting
from senet_ablate.results.arms import Outcomes, load_outcomes
from senet_ablate.results.records import StudyPin
from senet_ablate.results.store import Study
from senet_ablate.spec.loading import declarations_dir, load_protocol
from senet_ablate.spec.protocol import DataFacts

IMAGENET = DataFacts(
    fingerprint="f00d",
    channels=3,
    class_names=tuple(f"n{number:08}" for number in range(1000)),
    n_train=1_268_357,
    n_validation=12_810,
    n_test=50_000,
)

UNTRAINED = {"tested on", "runs", "pixels", "precision"}
"""Test images decide nothing here; pixels are divided by their deviation; and a study without runs has none yet."""


def setting_of(name: str, changes: list[str], facts: DataFacts, folder: Path) -> Setting:
    """The setting of a study without runs."""
    protocol = load_protocol(declarations_dir(), name, changes)
    return compare_setting(Outcomes(Study(folder / "none"), StudyPin(protocol=protocol, data=facts), {}))


def departures(setting: Setting) -> dict[str, tuple[str, str]]:
    return {line.what: (line.paper, line.here) for line in setting.departures}


@pytest.mark.parametrize("name", ["imagenet-resnet50", "imagenet-resnet50-plateau"])
def test_the_papers_own_protocols_depart_only_in_what_they_say(name: str, tmp_path: Path) -> None:
    setting = setting_of(name, [], IMAGENET, tmp_path)
    assert setting.reference == name
    assert set(departures(setting)) == UNTRAINED


def test_another_setting_departs_line_by_line(tmp_path: Path) -> None:
    study = Study(tmp_path / "first")
    study.begin(PROTOCOL, FACTS)
    for seed in range(2):
        write_record(study, make_record(SE, seed))
    setting = compare_setting(load_outcomes(study, study.pinned()))
    told = departures(setting)
    assert told["images"] == ("ImageNet: 1,281,167 to train on, 1000 classes", "digits: 900 to train on, 10 classes")
    assert told["runs"][1] == "2 of each network, their mean and its interval"
    assert told["network.backbone"] == ("resnet50", "resnet14")
    assert told["network.width"] == ("64", "16")
    assert told["data.resolution"] == ("224", "8")
    assert told["recipe.epochs"] == ("270", "2")
    assert told["recipe.schedule.kind"] == ("step", "cosine")
    assert told["recipe.schedule.milestones"] == ("125, 200, 250", "none")
    assert told["recipe.augmentation.horizontal_flip"] == ("yes", "no")
    assert told["recipe.label_smoothing"][0] == "0.1 (not printed; the value of the work that is cited)"
    same = "precision (fp32); recipe.lr (0.1); recipe.momentum (0.9); recipe.weight_decay (0.0001)"
    assert setting.in_words == f"Compared with the paper's recipe as imagenet-resnet50.toml has it. The same: {same}."


@pytest.mark.parametrize(
    ("change", "what", "here"),
    [
        ("recipe.nesterov=true", "recipe.nesterov", "yes"),
        ("recipe.label_smoothing=0.0", "recipe.label_smoothing", "0"),
        ("data.resize=300", "data.resize", "300"),
        ("recipe.schedule.milestones=[100, 200]", "recipe.schedule.milestones", "100, 200"),
        ("recipe.batch_size=1024", "recipe.batch_size", "1024"),
        ('network.stem_pool="ceil"', "network.stem_pool", "ceil"),
    ],
)
def test_one_change_of_the_papers_protocol_is_one_departure_more(
    change: str, what: str, here: str, tmp_path: Path
) -> None:
    told = departures(setting_of("imagenet-resnet50", [change], IMAGENET, tmp_path))
    assert set(told) == {*UNTRAINED, what}
    assert told[what][1] == here


def test_a_setting_that_the_papers_protocol_does_not_have_departs(tmp_path: Path) -> None:
    changes = ['network.backbone="timm:resnet50"', "network.arguments.drop_rate=0.1"]
    told = departures(setting_of("imagenet-resnet50", changes, IMAGENET, tmp_path))
    assert told["network.arguments.drop_rate"] == ("none", "0.1")


def test_images_of_other_number_or_classes_are_not_imagenets(tmp_path: Path) -> None:
    some = IMAGENET.model_copy(update={"n_train": 100_000})
    told = departures(setting_of("imagenet-resnet50", [], some, tmp_path))
    assert told["images"][1] == "folder: 100,000 to train on, 1000 classes"
