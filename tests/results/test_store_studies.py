"""Studies that stay comparable: pinned to a protocol and its images, and to the records made under both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import FACTS, PLAIN, PROTOCOL, SE, make_record, write_record

from senet_ablate.errors import UserError
from senet_ablate.files import write_atomic
from senet_ablate.results.records import Failure
from senet_ablate.results.store import Study
from senet_ablate.spec.network import Placement, SEConfig, Variant
from senet_ablate.spec.protocol import DataConfig, Protocol, Recipe, Schedule


def protocol(**changes: Any) -> Protocol:
    return Protocol(**(dict(PROTOCOL) | changes))


def test_a_study_pins_protocol_and_images_at_its_first_run(tmp_path: Path) -> None:
    study = Study(tmp_path / "first")
    assert study.pin() is None
    study.check(PROTOCOL)
    recipe = Recipe(epochs=9, batch_size=4, lr=0.1, schedule=Schedule(kind="step", milestones=(3, 6)))
    stepwise = protocol(recipe=recipe)
    study.begin(stepwise, FACTS)
    content = (tmp_path / "first" / "study.json").read_bytes()
    study.begin(stepwise, FACTS)
    assert (tmp_path / "first" / "study.json").read_bytes() == content
    pin = study.pin()
    assert pin is not None
    assert (pin.protocol, pin.data) == (stepwise, FACTS)


def begun(root: Path) -> Study:
    """A study with one run on its way."""
    study = Study(root)
    study.begin(PROTOCOL, FACTS)
    write_atomic(study.run("some-run").checkpoint_file, b"")
    return study


def test_a_study_without_a_run_can_still_be_mended(tmp_path: Path) -> None:
    study = Study(tmp_path)
    study.begin(PROTOCOL, FACTS)
    study.check(protocol(precision="bf16"))
    study.begin(protocol(precision="bf16"), FACTS)
    assert study.pin().protocol.precision == "bf16"


def test_seeds_name_and_description_may_differ_from_the_first_run(tmp_path: Path) -> None:
    study = begun(tmp_path)
    study.begin(protocol(seeds=7, name="other", description="other"), FACTS)
    assert study.pin().protocol == PROTOCOL


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"precision": "bf16"}, ["precision: then fp32, now bf16"]),
        (
            {"recipe": Recipe(epochs=3, batch_size=4, lr=0.2)},
            ["recipe.epochs: then 2, now 3", "recipe.lr: then 0.1, now 0.2"],
        ),
        (
            {"recipe": Recipe(epochs=2, batch_size=4, lr=0.1, schedule=Schedule(warmup_epochs=1))},
            ["recipe.schedule.warmup_epochs: then 0, now 1"],
        ),
        ({"data": DataConfig(dataset="digits", resolution=8, validation=0.2)}, ["data.validation: then 0.1, now 0.2"]),
        (
            {"network": PROTOCOL.network.model_copy(update={"width": 32, "stem": "imagenet"})},
            ["network.width: then 16, now 32", "network.stem: then small, now imagenet"],
        ),
    ],
    ids=["precision", "recipe", "schedule", "data", "network"],
)
def test_another_protocol_is_refused_and_each_field_that_differs_is_named(
    changes: dict[str, Any], lines: list[str], tmp_path: Path
) -> None:
    study = begun(tmp_path / "first")
    for attempt in (lambda: study.begin(protocol(**changes), FACTS), lambda: study.check(protocol(**changes))):
        with pytest.raises(UserError) as caught:
            attempt()
        message = str(caught.value)
        assert "'first'" in message
        assert "another protocol" in message
        assert "--study NAME" in message
        assert [line.strip() for line in message.splitlines() if ": then " in line] == lines


def test_other_images_are_refused_and_each_fact_that_differs_is_named(tmp_path: Path) -> None:
    study = begun(tmp_path / "first")
    with pytest.raises(UserError) as caught:
        study.begin(PROTOCOL, FACTS.model_copy(update={"fingerprint": "beef", "n_train": 899, "skipped": 1}))
    message = str(caught.value)
    assert "'first'" in message
    assert "images:" in message
    assert [line.strip() for line in message.splitlines() if ": then " in line] == [
        "data.fingerprint: then f00d, now beef",
        "data.n_train: then 900, now 899",
    ]
    assert study.pin().data == FACTS


def test_a_damaged_study_is_named(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text('{"schema_version": 1')
    with pytest.raises(
        UserError, match=r"study\.json: damaged: .*; take it from a copy, or move it away and give `run` again"
    ):
        Study(tmp_path).pin()


# --- the records of a study ---


def test_runs_that_were_ever_begun_are_known_by_network_and_seed_whatever_became_of_them(tmp_path: Path) -> None:
    study = Study(tmp_path)
    assert study.begun() == set()
    assert Study(tmp_path / "nowhere").begun() == set()
    study.begin(PROTOCOL, FACTS)
    write_record(study, make_record(SE, 0))
    write_record(study, make_record(SE, 1000))
    write_record(study, make_record(SE, 1, None))  # diverged
    runs = {
        name: study.run(PROTOCOL.run_spec(Variant(se=config, placement=placement), seed).run_id)
        for name, seed, config, placement in (
            ("failed", 12, SEConfig(reduction=4), Placement()),
            ("unfinished", 3, SEConfig(), Placement(position="inner-3x3")),
            ("damaged", 2, SEConfig(gate="none"), Placement(stages=(2, 3))),
        )
    }
    runs["failed"].fail(Failure(cause="out of memory", traceback=""))
    write_atomic(runs["unfinished"].checkpoint_file, b"weights")
    write_atomic(runs["damaged"].record_file, b"{")
    for name in ("some-run", "plain-s0-0123", "plain-s0-0123456789-old", "plain-sx-0123456789"):
        (tmp_path / name).mkdir()
    (tmp_path / "plain-s7-0123456789").write_bytes(b"no folder")
    assert study.begun() == {
        ("se-r16", 0),
        ("se-r16", 1000),
        ("se-r16", 1),
        ("se-r4", 12),
        ("se-r16-inner-3x3", 3),
        ("se-r16-ungated-stage23", 2),
    }


def test_the_records_of_a_study_are_those_of_its_protocol_and_images_by_name(tmp_path: Path) -> None:
    study = Study(tmp_path)
    study.begin(PROTOCOL, FACTS)
    ours = [make_record(PLAIN, 2), make_record(SE, 0), make_record(SE, 1, None), make_record(SE, 1000)]
    for record in ours:
        write_record(study, record)
    write_record(study, make_record(SE, 3, fingerprint="beef"))
    write_record(study, make_record(SE, 4, protocol=protocol(precision="bf16")))
    study.run(PROTOCOL.run_spec(SE, 5).run_id).fail(Failure(cause="out of memory", traceback=""))
    found = study.records()
    assert [record.run_id for record in found] == sorted(record.run_id for record in ours)
    assert {(record.spec.variant, record.spec.seed, record.status) for record in found} == {
        (PLAIN, 2, "ok"),
        (SE, 0, "ok"),
        (SE, 1, "diverged"),
        (SE, 1000, "ok"),
    }


def test_a_study_renamed_or_with_more_seeds_keeps_its_records(tmp_path: Path) -> None:
    study = Study(tmp_path)
    study.begin(protocol(name="before", description="before", seeds=1), FACTS)
    write_record(study, make_record(SE, 4))
    assert [record.spec.seed for record in study.records()] == [4]


def test_without_a_pin_there_is_nothing_to_hold_records_to_and_so_none(tmp_path: Path) -> None:
    study = Study(tmp_path)
    write_record(study, make_record())
    assert study.records() == []
