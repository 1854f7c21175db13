"""What runs leave behind: predictions, curves and records that come back as they were, or are refused."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import SE, make_record, write_record
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from senet_ablate.errors import UserError
from senet_ablate.results.records import CurvePoint, Predictions, RunRecord, curve_csv, digests
from senet_ablate.results.store import Study

outcomes = st.lists(st.tuples(st.booleans(), st.floats(0, 6e4, width=16), st.booleans()), min_size=1, max_size=70)


@given(rows=outcomes, top5=st.booleans())
def test_predictions_come_back_bit_for_bit(
    rows: list[tuple[bool, float, bool]], top5: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    wrong, losses, wrong5 = (np.array(column) for column in zip(*rows, strict=True))
    path = tmp_path_factory.getbasetemp() / "predictions.npz"
    path.write_bytes(Predictions(wrong, losses, wrong5 if top5 else None).to_bytes())
    back = Predictions.from_file(path)
    assert back.wrong.dtype == bool
    assert np.array_equal(back.wrong, wrong)
    assert back.cross_entropy.dtype == np.float16
    assert np.array_equal(back.cross_entropy, losses)
    assert (back.wrong_top5 is not None) == top5
    if back.wrong_top5 is not None:
        assert np.array_equal(back.wrong_top5, wrong5)


def test_a_huge_cross_entropy_is_stored_without_warning_and_stays_finite(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    path.write_bytes(Predictions(np.array([True]), np.array([1e6]), None).to_bytes())
    assert np.isfinite(Predictions.from_file(path).cross_entropy).all()


def test_ten_thousand_predictions_take_about_20_kb() -> None:
    many = Predictions(np.zeros(10_000, bool), np.zeros(10_000), None)
    assert 20_000 + 1_250 < len(many.to_bytes()) < 23_000


def test_predictions_refuse_pickled_objects(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable, tuple]:
            return Path.touch, (tmp_path / "sprung",)

    path = tmp_path / "predictions.npz"
    np.savez(path, n=np.array(1), wrong=np.array([Trap()], dtype=object), ce=np.zeros(1, np.float16))
    with pytest.raises(UserError, match=r"predictions\.npz: damaged predictions: it holds Python objects"):
        Predictions.from_file(path)
    assert not (tmp_path / "sprung").exists()


# --- curves ---


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(rows=st.lists(st.tuples(finite, finite, finite, finite), min_size=1, max_size=5))
def test_curves_come_back_in_full_precision(rows: list[tuple[float, float, float, float]]) -> None:
    curve = [
        CurvePoint(epoch=number, lr=lr, train_loss=train, val_loss=val, val_top1_err=err)
        for number, (lr, train, val, err) in enumerate(rows, 1)
    ]
    read = list(csv.DictReader(io.StringIO(curve_csv(curve))))
    epochs = [int(row.pop("epoch")) for row in read]
    numbers = [{name: float(text) for name, text in row.items()} for row in read]
    assert [CurvePoint(epoch=epoch, **row) for epoch, row in zip(epochs, numbers, strict=True)] == curve


def test_a_curve_that_diverged_can_be_written() -> None:
    point = CurvePoint(epoch=1, lr=0.1, train_loss=math.nan, val_loss=math.inf, val_top1_err=90.0)
    (row,) = csv.DictReader(io.StringIO(curve_csv([point])))
    assert math.isnan(float(row["train_loss"]))
    assert math.isinf(float(row["val_loss"]))


# --- records ---


def tampered(record: RunRecord, change: Callable[[dict[str, Any]], None]) -> str:
    content = json.loads(record.model_dump_json())
    change(content)
    return json.dumps(content)


def test_a_record_reads_back_as_it_was() -> None:
    record = make_record(SE, 2, 12.5, top5_err=3.25)
    assert RunRecord.model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize("value", [math.inf, math.nan], ids=str)
def test_a_loss_that_is_no_finite_number_does_not_damage_the_record(value: float, tmp_path: Path) -> None:
    record, study = make_record(), Study(tmp_path)
    metrics = record.metrics.model_copy(update={"cross_entropy": value})  # training went well, the test set did not
    write_record(study, record.model_copy(update={"metrics": metrics}))
    back = study.run(record.run_id).record()
    assert back.metrics.top1_err == record.metrics.top1_err
    assert back.metrics.cross_entropy == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["spec"].update(seed=1),
        lambda content: content["spec"]["recipe"].update(lr=0.2),
        lambda content: content["spec"]["variant"]["se"].update(reduction=8),
        lambda content: content["spec"]["data"].update(validation=0.2),
        lambda content: content.update(run_id="plain-s0-0000000000"),
        lambda content: content.update(status="diverged"),
        lambda content: content.update(metrics=None),
        lambda content: content.update(extra=1),
        lambda content: content.update(schema_version=2),
    ],
    ids=["seed", "lr", "reduction", "validation", "run_id", "diverged", "no-metrics", "unknown", "schema"],
)
def test_a_tampered_record_is_refused(change: Callable[[dict[str, Any]], None]) -> None:
    text = tampered(make_record(), change)
    with pytest.raises(ValidationError):
        RunRecord.model_validate_json(text)


def test_digests_are_sha256() -> None:
    assert digests({"a": b"one", "b": b""}) == {
        "a": hashlib.sha256(b"one").hexdigest(),
        "b": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",  # of nothing, as FIPS 180 has it
    }
