"""A study's setting beside the paper's: what departs is told, what does not is told as the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import FACTS, PROTOCOL, SE, make_record, write_record

from senet_ablate.report.departures import same_in_words, setting_lines
from senet_ablate.results.arms import Outcomes, load_outcomes
from senet_ablate.results.records import StudyPin
from senet_ablate.results.store import Study
from senet_ablate.spec.loading import declarations_dir, load_protocol
from senet_ablate.spec.protocol import DataConfig, DataFacts, Protocol

IMAGENET = DataFacts(
    fingerprint="f00d",
    channels=3,
    class_names=tuple(f"n{number:08}" for number in range(1000)),
    n_train=1_268_357,
    n_validation=12_810,
    n_test=50_000,
)


def outcomes_of(protocol: Protocol, facts: DataFacts, folder: Path) -> Outcomes:
    """A study without runs."""
    return Outcomes(Study(folder / "none"), StudyPin(protocol=protocol, data=facts), {})


@pytest.mark.parametrize("name", ["imagenet-resnet50", "imagenet-resnet50-plateau"])
def test_the_papers_own_protocols_depart_only_in_what_they_say(name: str, tmp_path: Path) -> None:
    lines = setting_lines(outcomes_of(load_protocol(declarations_dir(), name), IMAGENET, tmp_path))
    # Test images decide nothing here; pixels are divided by their deviation; and there are no runs yet.
    assert [line.what for line in lines if not line.same] == ["tested on", "runs", "pixels", "arithmetic"]


def test_another_setting_departs_line_by_line(tmp_path: Path) -> None:
    study = Study(tmp_path / "first")
    study.begin(PROTOCOL, FACTS)
    for seed in range(2):
        write_record(study, make_record(SE, seed))
    pin = study.pin()
    assert pin is not None
    lines = {line.what: line for line in setting_lines(load_outcomes(study, pin))}
    assert lines["network"].here == "resnet14, width 16, small stem, stride in the 1x1"
    assert lines["images"].here == "digits: 900 to train on, 10 classes"
    assert lines["side in pixels"].here == "8x8"
    assert lines["runs"].here == "2 of each network, their mean and its interval"
    assert lines["learning rate"].here == "2 epochs at 0.1, falling to zero along a cosine"
    assert lines["augmentation"].here == "none"
    same = {what for what, line in lines.items() if line.same}
    assert same == {"momentum", "weight decay", "arithmetic"}
    assert same_in_words(lines.values()) == "As in the paper: momentum (0.9); weight decay (0.0001); arithmetic (fp32)."


@pytest.mark.parametrize(
    ("changes", "what", "here"),
    [
        (["recipe.nesterov=true"], "momentum", "0.9, Nesterov"),
        (["recipe.label_smoothing=0.0"], "label smoothing", "none"),
        (["data.resize=300"], "side in pixels", "224x224, tested on the centre of 300"),
        (["recipe.schedule.milestones=[100, 200]"], "learning rate", "270 epochs at 0.1, times 0.1 at 100, 200"),
        (["recipe.batch_size=1024"], "batch", "1024"),
    ],
)
def test_one_change_of_the_papers_protocol_is_one_departure_more(
    changes: list[str], what: str, here: str, tmp_path: Path
) -> None:
    protocol = load_protocol(declarations_dir(), "imagenet-resnet50", changes)
    lines = setting_lines(outcomes_of(protocol, IMAGENET, tmp_path))
    assert [line.what for line in lines if not line.same and line.what == what] == [what]
    assert [line.here for line in lines if line.what == what] == [here]


def test_images_of_other_number_or_classes_are_not_imagenets(tmp_path: Path) -> None:
    protocol = load_protocol(declarations_dir(), "imagenet-resnet50")
    some = IMAGENET.model_copy(update={"n_train": 100_000})
    images = {line.what: line for line in setting_lines(outcomes_of(protocol, some, tmp_path))}["images"]
    assert not images.same
    assert images.here == "folder: 100,000 to train on, 1000 classes"


def test_shifts_and_flips_in_words(tmp_path: Path) -> None:
    protocol = load_protocol(
        declarations_dir(), "cifar10", ["recipe.augmentation.crop_padding=1", "recipe.schedule.warmup_epochs=3"]
    )
    assert protocol.data == DataConfig(dataset="cifar10", resolution=32)
    lines = {line.what: line.here for line in setting_lines(outcomes_of(protocol, FACTS, tmp_path))}
    assert lines["augmentation"] == "shifts of up to 1 pixel, flips"
    assert lines["learning rate"] == "30 epochs at 0.1, falling to zero along a cosine, after 3 of linear rise"
