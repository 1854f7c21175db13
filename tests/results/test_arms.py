"""Finished runs as evidence: grouped by arm and seed, scored by image, and refused where they cannot be evidence."""

from __future__ import annotations

import dataclasses
import io
import math
import time
import zipfile
from typing import Any

import numpy as np
import pytest
from helpers import (
    CURVE,
    FACTS,
    PLAIN,
    PROTOCOL,
    R4,
    R16,
    make_predictions,
    make_record,
    write_record,
)
from studies import fill

from senet_ablate.analysis.evidence import sample_of
from senet_ablate.errors import UserError
from senet_ablate.results.arms import Outcomes, load_outcomes
from senet_ablate.results.records import Predictions, RunRecord, curve_csv, digests
from senet_ablate.results.store import Study
from senet_ablate.spec.ablation import Arm

NULL = Arm(variant=R16, first_seed=1000)


def load(study: Study) -> Outcomes:
    pin = study.pin()
    assert pin is not None
    return load_outcomes(study, pin)


def errors(found: Outcomes, arm: Arm) -> list[float | None]:
    return [record.metrics.top1_err if record.metrics else None for record in found.runs[arm]]


def write(study: Study, record: RunRecord, predictions: Predictions) -> None:
    """Put a run with given outcomes of its images where it belongs."""
    files = {"curve.csv": curve_csv(CURVE).encode(), "predictions.npz": predictions.to_bytes()}
    study.run(record.run_id).finish(record.model_copy(update={"sha256": digests(files)}), files)


# --- grouping ---


def test_runs_are_grouped_by_arm_with_rising_seeds(study: Study) -> None:
    for seed, error in ((10, 12.0), (2, 11.0), (0, 10.0)):
        write_record(study, make_record(R4, seed, error))
    write_record(study, make_record(PLAIN, 1, 15.0))
    found = load(study)
    assert set(found.runs) == {Arm(variant=R4), Arm(variant=PLAIN)}
    assert [record.spec.seed for record in found.runs[Arm(variant=R4)]] == [0, 2, 10]
    assert errors(found, Arm(variant=R4)) == [10.0, 11.0, 12.0]
    assert len(found.records) == 4


def test_a_series_of_seeds_from_1000_is_an_arm_of_its_own(study: Study) -> None:
    fill(study, {R16: (10.0, 11.0)})
    fill(study, {R16: (12.0, 13.0, 14.0)}, first_seed=1000)
    write_record(study, make_record(R16, 999, 20.0))
    found = load(study)
    assert set(found.runs) == {Arm(variant=R16), NULL}
    assert errors(found, Arm(variant=R16)) == [10.0, 11.0, 20.0]
    assert errors(found, NULL) == [12.0, 13.0, 14.0]


@pytest.mark.parametrize(
    "other",
    [
        {"protocol": PROTOCOL.model_copy(update={"recipe": PROTOCOL.recipe.model_copy(update={"epochs": 9})})},
        {"protocol": PROTOCOL.model_copy(update={"precision": "bf16"})},
        {"fingerprint": "beef"},
    ],
    ids=["recipe", "precision", "images"],
)
def test_runs_of_other_conditions_or_images_are_left_out(other: dict[str, Any], full: Study) -> None:
    write_record(full, make_record(R16, 9, 99.0, **other))
    assert errors(load(full), Arm(variant=R16)) == [11.0, 11.5, 13.5]


def test_runs_that_diverged_are_counted_and_not_good(study: Study) -> None:
    fill(study, {R4: (10.0, None, 12.0, None), R16: (None,)})
    found = load(study)
    assert found.diverged(Arm(variant=R4)) == 2
    assert [record.spec.seed for record in found.good(Arm(variant=R4))] == [0, 2]
    assert (found.diverged(Arm(variant=R16)), found.good(Arm(variant=R16))) == (1, [])
    assert (found.diverged(Arm(variant=PLAIN)), found.good(Arm(variant=PLAIN))) == (0, [])


def test_a_look_has_each_arms_first_seeds(study: Study) -> None:
    fill(study, {R4: (10.0, 11.0, 12.0), R16: (13.0, 14.0, 15.0), PLAIN: (16.0, 17.0)})
    fill(study, {R16: (18.0, 19.0)}, first_seed=1000)
    counts = {Arm(variant=R4): 1, Arm(variant=R16): 2, Arm(variant=PLAIN): 9, NULL: 1}
    then = load(study).at_look(counts)
    assert [errors(then, arm) for arm in counts] == [[10.0], [13.0, 14.0], [16.0, 17.0], [18.0]]
    assert list(load(study).at_look({NULL: 2}).runs) == [NULL], "what was not planned was not there"


def test_a_look_counts_seeds_not_runs_so_that_a_missing_one_is_not_replaced(study: Study) -> None:
    for seed in (0, 2, 3):
        write_record(study, make_record(R4, seed, 10.0 + seed))
    then = load(study).at_look({Arm(variant=R4): 3})
    assert errors(then, Arm(variant=R4)) == [10.0, 12.0]


# --- scores ---


def test_a_sample_has_errors_in_percent_and_what_images_share(study: Study) -> None:
    fill(study, {R4: (10.0, 12.5), PLAIN: (30.0,)})
    sample = sample_of(load(study), [Arm(variant=PLAIN), Arm(variant=R16), Arm(variant=R4)], "top1_err")
    assert sample.seeds == ((0,), (), (0, 1))
    assert sample.images == FACTS.n_test
    np.testing.assert_allclose(sample.means, [30.0, 10.0, 12.5])
    wrong = [make_predictions(make_record(R4, seed, err)).wrong for seed, err in ((0, 10.0), (1, 12.5))]
    # 100 x 100 on each image that both miss.
    assert sample.products[1, 2] == pytest.approx(1e4 * (wrong[0] & wrong[1]).mean())
    assert sample.products[2, 2] == pytest.approx(1e4 * 0.125)


def test_a_sample_may_be_of_cross_entropy_in_nats(study: Study) -> None:
    fill(study, {R4: (10.0, 12.5)})
    sample = sample_of(load(study), [Arm(variant=R4)], "cross_entropy")
    losses = [make_predictions(make_record(R4, seed, err)).cross_entropy for seed, err in ((0, 10.0), (1, 12.5))]
    np.testing.assert_allclose(sample.means, np.mean(losses, axis=1), atol=2e-4)  # kept as float16
    assert sample.products[0, 1] == pytest.approx(np.mean(losses[0] * losses[1]), abs=2e-4)


def test_top5_is_there_only_where_it_was_recorded(study: Study) -> None:
    both = [Arm(variant=R4), Arm(variant=R16)]
    fill(study, {R16: (11.0, 12.0)})
    assert sample_of(load(study), both, "top5_err").seeds == ((), ())
    write_record(study, make_record(R4, 0, 10.0, top5_err=2.5))
    sample = sample_of(load(study), both, "top5_err")
    assert sample.seeds == ((0,), ())
    np.testing.assert_allclose(sample.means, [2.5])


def test_runs_that_diverged_are_in_no_sample(study: Study) -> None:
    fill(study, {R4: (10.0, None, 12.0), R16: (None, None)})
    sample = sample_of(load(study), [Arm(variant=R4), Arm(variant=R16)], "top1_err")
    assert sample.seeds == ((0, 2), ())
    assert sample.arm_means[0] == pytest.approx(11.0)
    assert sample_of(load(study), [Arm(variant=R16)], "top1_err").seeds == ((),)


def test_a_run_of_another_number_of_images_is_refused_by_name(study: Study) -> None:
    fill(study, {R4: (10.0,)})
    short = make_record(R4, 1, 10.0).model_copy(update={"n_test": 100})
    write_record(study, short)
    with pytest.raises(UserError, match=r"100 test images, but the study has 200") as caught:
        sample_of(load(study), [Arm(variant=R4)], "top1_err")
    assert short.run_id in str(caught.value)


# --- twins ---


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        ((R4, 0), (R4, 7), "the seed has no effect"),
        ((R16, 0), (R16, 1000), "the seed has no effect"),
        ((R4, 0), (R16, 0), "what tells the networks apart has no effect"),
    ],
    ids=["two seeds", "two series of seeds", "two networks"],
)
def test_runs_that_came_out_the_same_are_refused(study: Study, one: Any, other: Any, why: str) -> None:
    records = [make_record(*each, 10.0) for each in (one, other)]
    for record in records:
        write(study, record, make_predictions(records[0]))
    with pytest.raises(UserError, match=why) as caught:
        load(study)
    assert all(record.run_id in str(caught.value) for record in records)


def test_equal_errors_on_other_images_or_with_other_losses_are_no_twins(study: Study) -> None:
    one = make_predictions(make_record(R4, 0, 10.0))
    write(study, make_record(R4, 0, 10.0), one)
    write(study, make_record(R4, 1, 10.0), dataclasses.replace(one, wrong=np.roll(one.wrong, 1)))
    losses = one.cross_entropy.copy()
    losses[-1] += 0.5
    write(study, make_record(R4, 2, 10.0), dataclasses.replace(one, cross_entropy=losses))
    assert errors(load(study), Arm(variant=R4)) == [10.0, 10.0, 10.0]


def test_runs_that_diverged_alike_are_no_twins(study: Study) -> None:
    fill(study, {R4: (None, None), R16: (None,)})
    assert load(study).diverged(Arm(variant=R4)) == 2


@pytest.mark.parametrize("top5", [None, 2.0])
def test_equal_predictions_are_equal_bytes_whenever_they_are_written(
    top5: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = make_record(R4, 0, 10.0, top5_err=top5)
    before = make_predictions(record).to_bytes()
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    assert make_predictions(record).to_bytes() == before
    with zipfile.ZipFile(io.BytesIO(before)) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}, "no clock in the file"
    other = make_predictions(record)
    other.wrong[0] = not other.wrong[0]
    assert other.to_bytes() != before


def test_a_run_that_learnt_next_to_nothing_collapsed_by_its_training_loss(study: Study) -> None:
    chance = math.log(FACTS.classes)
    for seed, loss in enumerate((0.91 * chance, 0.89 * chance, 0.1)):
        record = make_record(R16, seed, 10.0)
        last = CURVE[-1].model_copy(update={"train_loss": loss})
        files = {
            "curve.csv": curve_csv([*CURVE[:-1], last]).encode(),
            "predictions.npz": make_predictions(record).to_bytes(),
        }
        study.run(record.run_id).finish(record.model_copy(update={"sha256": digests(files)}), files)
    write_record(study, make_record(R16, 3, None))
    found = load(study)
    arm = Arm(variant=R16)
    assert (found.collapsed(arm), found.diverged(arm), len(found.good(arm))) == (1, 1, 3)
    assert found.collapsed(Arm(variant=PLAIN)) == 0
