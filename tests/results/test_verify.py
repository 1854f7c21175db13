"""What `verify` finds: damaged, foreign and impossible runs, each named, and no sound one among them."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from helpers import CURVE, FACTS, PLAIN, PROTOCOL, SE
from sound import begun, sound_run, write_sound

from senet_ablate.cli.main import main
from senet_ablate.files import write_atomic
from senet_ablate.results.records import CurvePoint, Predictions, RunRecord, curve_csv, digests
from senet_ablate.results.store import RunFolder, Study
from senet_ablate.results.verify import examine, verify
from senet_ablate.spec.protocol import Recipe

NAN_CURVE = [CURVE[0].model_copy(update={"train_loss": math.nan})]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return begun(Study(tmp_path / "results" / "first"))


def call(study: Study, *names: str) -> Result:
    return CliRunner().invoke(main, ["verify", *names, "--results", str(study.root.parent)], env={"COLUMNS": "400"})


def files(study: Study) -> dict[Path, tuple[int, bytes]]:
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in study.root.parent.rglob("*") if path.is_file()
    }


def test_sound_runs_pass_and_unfinished_ones_are_counted(study: Study) -> None:
    for seed in range(3):
        write_sound(study, SE, seed)
    write_sound(study, PLAIN, 0, None, curve=NAN_CURVE)  # ended early, for its loss was no number
    write_sound(study, PLAIN, 1, None)
    write_atomic(study.run(PROTOCOL.run_spec(SE, 7).run_id).checkpoint_file, b"weights")
    before = files(study)
    result = call(study)
    assert result.exit_code == 0
    assert "study first: 5 runs sound, 0 problems, 1 unfinished" in result.stdout
    assert files(study) == before


def test_the_committed_reference_study_is_sound() -> None:
    found = verify(Study(Path(__file__).parents[2] / "results" / "digits-reference"))
    assert (found.problems, found.unfinished) == ([], 0)
    assert found.sound > 0


def put(study: Study, record: RunRecord, contents: dict[str, bytes], **changes: Any) -> RunFolder:
    """Lay a record into its folder that vouches for these files, with changes that a model would refuse."""
    folder = study.run(record.run_id)
    told = json.loads(record.model_dump_json()) | {"sha256": digests(contents)}
    for key, value in changes.items():
        *path, last = key.split("__")
        inner = told
        for part in path:
            inner = inner[part]
        inner[last] = value
    for name, content in contents.items():
        write_atomic(folder.path / name, content)
    write_atomic(folder.record_file, json.dumps(told))
    return folder


IMPOSSIBLE = {
    "error-above-100": ({"metrics__top1_err": 100.5}, "metrics.top1_err"),
    "error-below-0": ({"metrics__top1_err": -0.5}, "metrics.top1_err"),
    "error-no-number": ({"metrics__top1_err": math.nan}, "metrics.top1_err"),
    "error-not-of-the-images": ({"metrics__top1_err": 10.5}, "metrics.top1_err = 10.5, and 10.0 follows"),
    "top5-without-outcomes": ({"metrics__top5_err": 1.0}, "metrics.top5_err = 1.0, and None follows"),
    "loss-not-of-the-images": ({"metrics__cross_entropy": 0.3}, "metrics.cross_entropy = 0.3, and 0.6"),
    "no-images": ({"n_test": 0}, "n_test"),
    "negative-time": ({"provenance__wall_s": -1.0}, "provenance.wall_s"),
    "in-the-future": ({"provenance__started": "2999-01-01T00:00:00+00:00"}, "in the future"),
    "no-time": ({"provenance__started": "yesterday"}, "'yesterday' is no time"),
    "another-network": ({"complexity__macs": 3}, "complexity.macs: the network has"),
    "without-parameters": ({"complexity__params": 0}, "a network has parameters"),
    "resumed-late": ({"provenance__resumed_at_epoch": 3}, "provenance.resumed_at_epoch = 3"),
    "no-devices": ({"provenance__devices": 0}, "provenance.devices"),
    "another-seed": ({"spec__seed": 1}, "run_id"),
    "no-checksum": ({"sha256": {}}, "not what its record says"),
    "short-checksum": ({"sha256": {"curve.csv": "00"}}, "sha256.curve.csv"),
    "other-images": ({"data_fingerprint": "beef"}, "data_fingerprint: the study has f00d, the run beef"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_each_thing_that_cannot_be_is_named(study: Study, case: str) -> None:
    changes, words = IMPOSSIBLE[case]
    folder = put(study, *sound_run(SE, 0), **changes)
    write_sound(study, SE, 1)
    before = files(study)
    result = call(study, "first")
    assert result.exit_code == 1
    lines = [line for line in result.stdout.splitlines() if str(folder.path) in line]
    assert len(lines) == 1, result.stdout
    assert words in lines[0]
    assert any(advice in lines[0] for advice in ("to run it again", "run it again", "a study of its own"))
    assert "1 runs sound, 1 problems" in result.stdout
    assert files(study) == before, "nothing is changed or deleted"


def point(**changes: Any) -> CurvePoint:
    return CURVE[1].model_copy(update=changes)


def with_curve(curve: list[CurvePoint], wrong: int | None = 20) -> Callable[[], tuple[RunRecord, dict[str, bytes]]]:
    return lambda: sound_run(SE, 0, wrong, curve=curve)


def with_images(change: Callable[[Predictions], Predictions]) -> Callable[[], tuple[RunRecord, dict[str, bytes]]]:
    def make() -> tuple[RunRecord, dict[str, bytes]]:
        record, contents = sound_run(SE, 0)
        with np.load(io.BytesIO(contents["predictions.npz"])) as arrays:
            wrong = np.unpackbits(arrays["wrong"], count=FACTS.n_test).astype(bool)
            made = change(Predictions(wrong, arrays["ce"].astype(np.float64), None))
        loss = float(made.cross_entropy.mean())
        metrics = record.metrics.model_copy(update={"cross_entropy": loss})
        return record.model_copy(update={"metrics": metrics}), contents | {"predictions.npz": made.to_bytes()}

    return make


FILES = {
    "too-few-epochs": (with_curve(CURVE[:1]), "1 epochs of 2"),
    "too-many-epochs": (with_curve([*CURVE, point(epoch=3)]), "3 epochs of 2"),
    "no-epoch": (with_curve([], None), "0 epochs of 2"),
    "diverged-early-with-a-finite-loss": (with_curve(CURVE[:1], None), "1 epochs of 2"),
    "epochs-in-disorder": (with_curve(CURVE[::-1]), "epochs are not 1, 2"),
    "validation-error": (with_curve([CURVE[0], point(val_top1_err=101.0)]), "validation error"),
    "fewer-images": (
        with_images(lambda found: Predictions(found.wrong[:190], found.cross_entropy[:190], None)),
        "190 test images, and the record says 200",
    ),
    "wrong-with-a-small-loss": (
        with_images(lambda found: Predictions(found.wrong, np.where(found.wrong, 0.6, found.cross_entropy), None)),
        "losses that no such outcome can have",
    ),
    "right-with-a-large-loss": (
        with_images(lambda found: Predictions(found.wrong, np.where(found.wrong, found.cross_entropy, 2.4), None)),
        "losses that no such outcome can have",
    ),
    "negative-loss": (
        with_images(lambda found: Predictions(found.wrong, found.cross_entropy - 0.9, None)),
        "losses that no such outcome can have",
    ),
    "wrong-among-five-but-right": (
        with_images(lambda found: Predictions(found.wrong, found.cross_entropy, ~found.wrong)),
        "right, and wrong among five",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_cannot_be_are_named(study: Study, case: str) -> None:
    make, words = FILES[case]
    folder = put(study, *make())
    problems = examine(folder, study.pin())
    assert any(words in problem and str(folder.path) in problem for problem in problems), problems


def test_losses_at_the_edge_of_the_possible_pass(study: Study) -> None:
    """A wrong image may have ln 2 (two classes share all), a right one ln 10 (all ten classes equal)."""
    edge = with_images(lambda found: Predictions(found.wrong, np.where(found.wrong, math.log(2), math.log(10)), None))
    assert examine(put(study, *edge()), study.pin()) == []


def test_a_loss_beyond_float16_is_no_fault(study: Study) -> None:
    huge = with_images(lambda found: Predictions(found.wrong, np.where(found.wrong, 1e6, found.cross_entropy), None))
    assert examine(put(study, *huge()), study.pin()) == []


def test_clocks_of_machines_may_differ_a_little(study: Study) -> None:
    now = datetime.now(UTC)
    folder = write_sound(study, SE, 0, started=(now + timedelta(hours=12)).isoformat())
    assert examine(folder, study.pin(), now) == []
    assert len(examine(folder, study.pin(), now - timedelta(days=1))) == 1
    naive = write_sound(study, SE, 1, started="2020-01-01T00:00:00")
    assert examine(naive, study.pin(), now) == []


def test_a_run_of_another_protocol_is_foreign_in_each_field(study: Study) -> None:
    recipe = Recipe(**(PROTOCOL.recipe.model_dump() | {"lr": 0.2, "momentum": 0.8}))
    write_sound(study, SE, 0, protocol=PROTOCOL.model_copy(update={"recipe": recipe}))
    problems = verify(study).problems
    assert len(problems) == 2
    assert "foreign: recipe.lr: the study has 0.1, the run 0.2; move it" in problems[0]
    assert "foreign: recipe.momentum: the study has 0.9, the run 0.8" in problems[1]


def test_another_number_of_images_is_foreign_and_not_that_of_its_outcomes(study: Study) -> None:
    put(study, *sound_run(SE, 0), n_test=201)
    foreign, impossible = verify(study).problems
    assert "n_test: the study has 200, the run 201" in foreign
    assert "predictions.npz: 200 test images, and the record says 201" in impossible


def test_runs_that_came_out_the_same_are_told(study: Study) -> None:
    record, contents = sound_run(SE, 0)
    put(study, record, contents)
    other, _ = sound_run(SE, 1)
    put(study, other.model_copy(update={"metrics": record.metrics}), contents)
    (problem,) = verify(study).problems
    assert "the seed has no effect" in problem


def test_a_copied_folder_and_a_folder_without_a_runs_name_are_named(study: Study) -> None:
    folder = write_sound(study, SE, 0)
    for name in ("copy of it", PROTOCOL.run_spec(SE, 1).run_id):
        (study.root / name).mkdir()
        for path in folder.path.iterdir():
            (study.root / name / path.name).write_bytes(path.read_bytes())
    problems = verify(study).problems
    assert len(problems) == 2
    assert all("in another run's folder" in problem for problem in problems)


def test_a_study_without_its_pin_or_plan_is_told_and_its_runs_are_looked_at(study: Study) -> None:
    write_sound(study, SE, 0)
    (study.root / "study.json").unlink()
    found = verify(study)
    assert "study.json: missing" in found.problems[0]
    assert found.sound == 1
    for name in ("study.json", "plan.json"):
        begun(study)
        (study.root / name).write_text("{")
        found = verify(study)
        assert len(found.problems) == 1
        assert name in found.problems[0]
        assert found.sound == 1
        (study.root / name).unlink()


def test_conflicts_are_counted_and_are_no_problem(study: Study) -> None:
    write_atomic(study.root / "conflicts" / "se-r16-s0-0123456789-0123456789" / "record.json", "{}")
    result = call(study)
    assert result.exit_code == 0
    assert "1 different results in conflicts/" in result.stdout


def test_all_studies_are_checked_or_those_that_are_named(study: Study, tmp_path: Path) -> None:
    second = begun(Study(study.root.parent / "second"))
    write_sound(second, SE, 0).record_file.write_text("{")
    assert call(study, "first").exit_code == 0
    both = call(study)
    assert both.exit_code == 1
    assert "study first: " in both.stdout
    assert "study second: 0 runs sound, 1 problems" in both.stdout
    wrong = call(study, "secnd")
    assert wrong.exit_code == 2
    assert "did you mean 'second'" in wrong.stderr
    assert call(study, "../first").exit_code == 2
    empty = CliRunner().invoke(main, ["verify", "--results", str(tmp_path / "nothing")])
    assert empty.exit_code == 2
    assert "no study in" in empty.stderr


def test_a_curve_reads_back_as_it_was_written(tmp_path: Path) -> None:
    from senet_ablate.results.records import read_curve

    path = tmp_path / "curve.csv"
    path.write_text(curve_csv(CURVE))
    assert read_curve(path) == CURVE
    path.write_text(curve_csv(NAN_CURVE))
    assert math.isnan(read_curve(path)[0].train_loss)
